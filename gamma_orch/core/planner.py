"""From wanted, recorded and observed to a plan. The one place where changes become steps.

It walks the resources parents first, so that what a parent will be is known when its children are
compared: an output that this plan changes is `Unknown` in them, and a parent that cannot proceed
makes them wait. Then it adds what is recorded and no longer wanted, and lays out the steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import digest
from gamma_orch.core.change import Action
from gamma_orch.core.decide import decide, decide_unwanted
from gamma_orch.core.draft import BLOCKED, Draft
from gamma_orch.core.fingerprint import fingerprint, in_order
from gamma_orch.core.kind import Fields, Traits
from gamma_orch.core.layout import knot, lay_out
from gamma_orch.core.ledger import Ledger
from gamma_orch.core.observation import Observation, Seen
from gamma_orch.core.plan import Plan, identified
from gamma_orch.core.record import Record
from gamma_orch.core.resource import Resource
from gamma_orch.core.spread import hold_back, settle_rebuilds


def plan(
    environment: str,
    desired: Mapping[Address, Resource],
    ledger: Ledger,
    observations: Mapping[Address, Observation],
    traits: Mapping[str, Traits],
    commit: str = "",
    wanted: Mapping[Address, Fields] | None = None,
) -> Plan:
    """Decide everything. `observations` has an answer for each wanted and each recorded address;
    a missing one counts as unreadable. `traits` is by kind; `wanted` is what `wanted_fields` gave
    for `in_order(desired)`, where the caller has it already."""
    order = in_order(desired) if wanted is None else list(wanted)
    prints = fingerprint(desired, order, {name for name, kind in traits.items() if kind.derives})
    first = wanted if wanted is not None else wanted_fields(desired, traits, order)
    moves = _moves(desired, ledger)
    draft = Draft(environment, desired, ledger, observations, traits, prints, order, first, moves)
    for address in order:
        decide(draft, address)
    for address in sorted(ledger.entries.keys() - desired.keys() - set(moves.values())):
        decide_unwanted(draft, address)
    settle_rebuilds(draft)
    if any(change.action in BLOCKED for change in draft.changes.values()):
        hold_back(draft)
    steps = lay_out(draft)
    while tangled := knot(draft, steps):
        _refuse_knot(draft, tangled)
        steps = lay_out(draft)
    known = set(desired) | {a for a, e in ledger.entries.items() if e.record or e.begun}
    return identified(
        Plan(
            environment=environment,
            parent=ledger.state,
            commit=commit,
            desired=digest(sorted((str(a), p.encoded()) for a, p in prints.items())),
            changes=tuple(draft.changes[address] for address in sorted(draft.changes)),
            steps=tuple(steps),
            extras=tuple(
                sorted(a for a, o in observations.items() if a not in known and isinstance(o, Seen))
            ),
        )
    )


def wanted_fields(
    desired: Mapping[Address, Resource], traits: Mapping[str, Traits], order: Sequence[Address]
) -> dict[Address, Fields]:
    """The normalised fields of everything wanted, references still open: what observing asks for."""
    found: dict[Address, Fields] = {}
    for address in order:
        found[address] = traits[address.kind].normalise(address, desired[address].spec, found.__getitem__)
    return found


def _moves(desired: Mapping[Address, Resource], ledger: Ledger) -> dict[Address, Address]:
    """Renames that still have to happen: new address -> the recorded old one."""
    return {
        address: resource.moved_from
        for address, resource in desired.items()
        if resource.moved_from and ledger.record(resource.moved_from) and not ledger.record(address)
    }


def asked_record(resource: Resource | None, ledger: Ledger, address: Address) -> Record | None:
    """The record that speaks for an address: its own, or the one it was moved from."""
    record = ledger.record(address)
    if record is None and resource is not None and resource.moved_from:
        return ledger.record(resource.moved_from)
    return record


def _refuse_knot(draft: Draft, tangled: Sequence[Address]) -> None:
    address = tangled[0]
    detail = f"{', '.join(map(str, tangled))} would wait for each other; make this change in two parts"
    draft.rebuilt.discard(address)
    draft.changes[address] = replace(draft.changes[address], action=Action.REFUSE, detail=detail)
    hold_back(draft)
