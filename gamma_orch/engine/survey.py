"""Observe and plan: what is there, what is wanted, what would be done. Reads only.

`gamma plan`, `gamma status` and the first half of every apply are this one function.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gamma_orch.core.address import Address
from gamma_orch.core.event import Event
from gamma_orch.core.fingerprint import in_order
from gamma_orch.core.kind import Fields, Traits
from gamma_orch.core.ledger import NOTHING, Begun, Ledger, fold
from gamma_orch.core.observation import Observation
from gamma_orch.core.plan import Plan
from gamma_orch.core.planner import asked_record, plan, wanted_fields
from gamma_orch.core.provider import Asked
from gamma_orch.core.resource import Resource
from gamma_orch.core.settle import settle
from gamma_orch.engine.world import World


# Without a repr: when asyncio.run gives SIGINT back, Python 3.11 formats the finished task with its
# result, and 10,000 resources take 0.3 s to spell.
@dataclass(frozen=True, slots=True, repr=False)
class Survey:
    desired: Mapping[Address, Resource]
    wanted: Mapping[Address, Fields]  # normalised, references still open
    traits: Mapping[str, Traits]
    ledger: Ledger  # with the settled events already folded in
    settled: Sequence[Event]  # what became of steps that an earlier run left open; to be appended
    observations: Mapping[Address, Observation]
    plan: Plan


async def survey(
    environment: str,
    desired: Mapping[Address, Resource],
    commit: str,
    ledger: Ledger,
    seq: int,
    world: World,
    abandoned: Callable[[Address, Begun], bool] = lambda _address, _begun: True,
) -> Survey:
    """Read the world once, settle what an earlier run left open, and plan.

    `seq` is where the log stands: settled events would be numbered from there. `abandoned`: see `settle`.
    """
    kinds = {address.kind for address in desired} | {address.kind for address in ledger.entries}
    traits = world.traits(sorted(kinds))
    wanted = wanted_fields(desired, traits, in_order(desired))
    asked = [ask(address, desired.get(address), wanted, ledger) for address in _to_ask(desired, ledger)]
    observations = await world.observe(asked)
    settled = settle(ledger, observations, traits, abandoned)
    if settled:
        ledger = fold(ledger, [replace(event, seq=seq + n) for n, event in enumerate(settled, start=1)])
    made = plan(environment, desired, ledger, observations, traits, commit, wanted)
    return Survey(desired, wanted, traits, ledger, settled, observations, made)


def ask(
    address: Address, resource: Resource | None, wanted: Mapping[Address, Fields], ledger: Ledger
) -> Asked:
    """What to look for: by the record, by the spec, and by a step that was cut off."""
    record = asked_record(resource, ledger, address)
    recorded = record.fields if record else None
    if recorded is None:
        begun = ledger.entries.get(address, NOTHING).begun
        recorded = begun.planned or begun.before if begun else None
    return Asked(address, wanted.get(address), recorded)


def _to_ask(desired: Mapping[Address, Resource], ledger: Ledger) -> list[Address]:
    moved = {r.moved_from for a, r in desired.items() if r.moved_from and not ledger.record(a)}
    live = {a for a, e in ledger.entries.items() if e.begun or (e.record and a not in moved)}
    return sorted(desired.keys() | live)
