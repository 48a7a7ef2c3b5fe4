"""From wanted, recorded and observed to a plan. The one place where changes become steps.

It walks the resources parents first, so that what a parent will be is known when its children are
compared: an output that this plan changes is `Unknown` in them, and a parent that cannot proceed
makes them wait. Then it adds what is recorded and no longer wanted, and lays out the steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json, digest
from gamma_orch.core.change import Action, Change, Reason
from gamma_orch.core.compare import compare, field_changes, left_alone
from gamma_orch.core.fingerprint import Fingerprint, fingerprint, in_order
from gamma_orch.core.kind import Fields, Traits
from gamma_orch.core.leaves import Ref, Secret, Unknown, encode, replace_leaves
from gamma_orch.core.ledger import NOTHING, Entry, Ledger
from gamma_orch.core.observation import ABSENT, Absent, Observation, Seen, Unreadable, observed_digest
from gamma_orch.core.plan import Plan, Step, dependents, identified
from gamma_orch.core.provider import Opcode
from gamma_orch.core.record import Record
from gamma_orch.core.resource import Replace, Resource

_BLOCKED = frozenset({Action.REFUSE, Action.WAIT})


@dataclass(slots=True)
class _Draft:
    """What has been decided so far. Local to one call of `plan`."""

    environment: str
    desired: Mapping[Address, Resource]
    ledger: Ledger
    observations: Mapping[Address, Observation]
    traits: Mapping[str, Traits]
    prints: Mapping[Address, Fingerprint]
    order: Sequence[Address]  # of the desired, parents first
    first: Mapping[Address, Fields]  # wanted fields with references still open
    moves: Mapping[Address, Address]  # new address -> the recorded old one
    resolved: set[Address] = field(default_factory=set)  # whose fields had to be made anew
    changes: dict[Address, Change] = field(default_factory=dict)
    wanted: dict[Address, Fields] = field(default_factory=dict)
    rebuilt: set[Address] = field(default_factory=set)  # deleted first, then created


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
    a missing one counts as unreadable. `traits` is by kind; `wanted` is what `wanted_fields` gave,
    where the caller has it already."""
    order = in_order(desired)
    prints = fingerprint(desired, order, {name for name, kind in traits.items() if kind.derives})
    first = wanted if wanted is not None else wanted_fields(desired, traits, order)
    moves = _moves(desired, ledger)
    draft = _Draft(environment, desired, ledger, observations, traits, prints, order, first, moves)
    for address in order:
        _decide(draft, address)
    for address in sorted(ledger.entries.keys() - desired.keys() - set(moves.values())):
        _decide_unwanted(draft, address)
    _settle_rebuilds(draft)
    if any(change.action in _BLOCKED for change in draft.changes.values()):
        _hold_back(draft)
    steps = _steps(draft)
    while knot := _knot(draft, steps):
        _refuse_knot(draft, knot)
        steps = _steps(draft)
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


def _decide(draft: _Draft, address: Address) -> None:
    resource = draft.desired[address]
    moved_from = draft.moves.get(address)
    record = _record_now(draft, address)
    traits = draft.traits[address.kind]
    observation = draft.observations.get(address, Unreadable("it was not observed"))
    wanted = _resolved(draft, resource)
    if record and resource.lifecycle.ignore and isinstance(observation, Seen):
        wanted = left_alone(wanted, observation.fields, resource.lifecycle)
    draft.wanted[address] = wanted
    doubtful = next((a for a in (address, moved_from) if a and _is_begun(draft, a)), None)
    if doubtful:
        change = _in_doubt(address, doubtful, draft.ledger.entries[doubtful], observation)
    else:
        change = compare(
            address, wanted, draft.prints[address], resource.lifecycle, record, observation, traits
        )
        if moved_from and change.action is Action.KEEP:
            change = Change(address, Action.ADOPT, Reason.MOVED, f"from {moved_from}")
        if moved_from:
            change = replace(change, moved_from=moved_from)
        if change.action is Action.REPLACE:
            change = _replacement(draft, change, resource, traits)
    draft.changes[address] = change


def _resolved(draft: _Draft, resource: Resource) -> Fields:
    """The wanted fields, with what is known at this point of the values that others give."""
    address = resource.address
    if not resource.has_leaves and not any(need in draft.resolved for need in resource.needs):
        return draft.first[address]
    draft.resolved.add(address)
    spec = replace_leaves(resource.spec, lambda leaf: _settle_leaf(draft, leaf))
    normalise = draft.traits[address.kind].normalise
    return encode(normalise(address, spec, draft.wanted.__getitem__))  # type: ignore[no-any-return]


def _record_now(draft: _Draft, address: Address) -> Record | None:
    """What the ledger knows of the object that has, or will have, this address."""
    return draft.ledger.record(draft.moves.get(address, address))


def _is_begun(draft: _Draft, address: Address) -> bool:
    entry = draft.ledger.entries.get(address)
    return entry is not None and entry.begun is not None


def _settle_leaf(draft: _Draft, leaf: Ref | Secret | Unknown) -> Json:
    """A reference becomes the value, where this plan leaves it as it is, else Unknown."""
    if not isinstance(leaf, Ref):
        return leaf
    parent = draft.changes[leaf.address]
    traits = draft.traits[leaf.address.kind]
    foreseen = traits.foresee(draft.wanted[leaf.address])
    if leaf.output in foreseen:
        return foreseen[leaf.output]
    in_place = parent.action in (Action.UPDATE, Action.ADOPT) and leaf.output in traits.stable
    observation = draft.observations.get(leaf.address)
    stands = parent.action is Action.KEEP or _records_only(parent) or in_place
    if stands and isinstance(observation, Seen) and leaf.output in observation.outputs:
        return observation.outputs[leaf.output]
    return Unknown(f"known after {leaf.address} is applied")


def _in_doubt(address: Address, doubtful: Address, entry: Entry, observation: Observation) -> Change:
    if isinstance(observation, Unreadable):
        return Change(address, Action.REFUSE, Reason.UNREADABLE, observation.error)
    opcode = entry.begun.opcode if entry.begun else ""
    return Change(
        address,
        Action.REFUSE,
        Reason.IN_DOUBT,
        f"an earlier {opcode} was cut off, and what is there now is neither what it found "
        "nor what it was to make; look at it, then let Gamma go on from what is there: "
        f"gamma apply --consent {doubtful}",
    )


def _replacement(draft: _Draft, change: Change, resource: Resource, traits: Traits) -> Change:
    order = resource.lifecycle.replace or traits.replace
    if order is Replace.CREATE_FIRST:
        return change
    if _held(draft, change.address):
        return replace(
            change, action=Action.REFUSE, reason=Reason.PROTECTED, detail=_consent(change.address, "replaced")
        )
    draft.rebuilt.add(change.address)
    return change


def _consent(address: Address, what: str) -> str:
    return (
        f"it is protected and would be {what}; take `protect` out of its lifecycle and apply that first, "
        f"or consent to this once: gamma apply --consent {address}"
    )


def _decide_unwanted(draft: _Draft, address: Address) -> None:
    entry = draft.ledger.entries[address]
    record = entry.record
    observation = draft.observations.get(address, Unreadable("it was not observed"))
    if entry.begun is not None:
        change = _in_doubt(address, address, entry, observation)
    elif record is None:
        return  # only a failed attempt is known of it, and nobody wants it any more
    elif record.retain:
        change = Change(address, Action.FORGET, Reason.RETAINED)
    elif isinstance(observation, Unreadable):
        change = Change(address, Action.REFUSE, Reason.UNREADABLE, observation.error)
    elif isinstance(observation, Absent):
        change = Change(address, Action.FORGET, Reason.GONE)
    elif _held(draft, address):
        change = Change(address, Action.REFUSE, Reason.PROTECTED, _consent(address, "deleted"))
    else:
        change = Change(address, Action.DELETE, Reason.REMOVED)
    draft.changes[address] = change


def _settle_rebuilds(draft: _Draft) -> None:
    """Rebuild what must be rebuilt with others, and decide anew what is below, until no more follows."""
    spread: set[Address] = set()
    while roots := draft.rebuilt - spread:
        _spread_rebuilds(draft, sorted(roots))
        spread |= roots | draft.rebuilt
        _decide_again(draft)


def _spread_rebuilds(draft: _Draft, roots: Sequence[Address]) -> None:
    """A parent that is deleted first takes with it what rests on it in the world and will again need
    it: that is rebuilt too. (What will no longer need it lets go first, what newly needs it comes after.)

    All or nothing: where a child below must not be touched, the parent is not replaced either.
    """
    needed_by = dependents({a: r.needs for a, r in draft.desired.items()})
    under = dependents(_rests_on(draft))
    for root in roots:
        resting = {a for a in _below(root, needed_by) if _is_unmanaged(draft, a)} | set(_below(root, under))
        below = [a for a in _below(root, needed_by) if a in resting]
        refusal = _unsparing(draft, root, below)
        if refusal is not None:
            draft.rebuilt.discard(root)
            draft.changes[root] = refusal
            continue
        for child in below:
            if child in draft.rebuilt:
                continue
            draft.rebuilt.add(child)
            draft.changes[child] = replace(
                draft.changes[child],
                action=Action.REPLACE,
                reason=Reason.PARENT_REPLACED,
                detail=str(root),
            )


def _unsparing(draft: _Draft, root: Address, below: Sequence[Address]) -> Change | None:
    """Why a parent cannot be deleted first, for the sake of a child; None if it can."""
    change = draft.changes[root]
    for child in below:
        if _held(draft, child):
            detail = _consent(child, f"deleted with {root}")
            return replace(change, action=Action.REFUSE, reason=Reason.PROTECTED, detail=detail)
    for child in below:
        if draft.changes[child].action in _BLOCKED:
            detail = f"{child}, which would be rebuilt with it, cannot be changed now"
            return replace(change, action=Action.WAIT, reason=Reason.NEEDS, detail=detail)
        if _is_unmanaged(draft, child):
            detail = (
                f"{child}, which would be deleted with it, exists and is not managed yet; "
                "apply once without this change, so that it is adopted"
            )
            return replace(change, action=Action.REFUSE, detail=detail)
    return None


def _is_unmanaged(draft: _Draft, address: Address) -> bool:
    """It is there, and not ours; nobody knows what it rests on."""
    return _record_now(draft, address) is None and draft.changes[address].action is not Action.CREATE


def _decide_again(draft: _Draft) -> None:
    """What is rebuilt is made as the spec says, ignored fields too, and gives other outputs than now
    to those below it."""
    again: set[Address] = set()
    for address in draft.order:
        resource, change = draft.desired[address], draft.changes[address]
        if address in draft.rebuilt:
            draft.wanted[address] = wanted = _resolved(draft, resource)
            record, observation = _record_now(draft, address), draft.observations[address]
            live = observation.fields if isinstance(observation, Seen) else {}
            fields = tuple(field_changes(wanted, record.fields if record else {}, live))
            draft.changes[address] = replace(change, fields=fields)
        elif change.action not in _BLOCKED and not again.isdisjoint(resource.needs):
            _decide(draft, address)
        else:
            continue
        again.add(address)


def _below(root: Address, children: Mapping[Address, list[Address]]) -> list[Address]:
    found: dict[Address, None] = {}
    queue = [root]
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in found:
                found[child] = None
                queue.append(child)
    return sorted(found)


def _held(draft: _Draft, address: Address) -> bool:
    """Protected, by the specs or by the ledger, and nobody consented."""
    resource, record = draft.desired.get(address), _record_now(draft, address)
    names = (address, draft.moves.get(address, address))
    if any(draft.ledger.entries.get(name, NOTHING).consent for name in names):
        return False
    return bool((resource and resource.lifecycle.protect) or (record and record.protect))


def _rests_on(draft: _Draft) -> dict[Address, tuple[Address, ...]]:
    """What each recorded object that is there needs in the world as it is, by the names of today."""
    now = {old: new for new, old in draft.moves.items()}
    return {
        now.get(a, a): tuple(now.get(need, need) for need in entry.record.needs)
        for a, entry in draft.ledger.entries.items()
        if entry.record and not isinstance(draft.observations.get(now.get(a, a)), Absent)
    }


def _hold_back(draft: _Draft) -> None:
    """What needs a resource that is blocked waits with it, and nothing is deleted from under an
    object that stays because it is blocked."""
    rests_on = _rests_on(draft)
    needed_by = dependents({a: r.needs for a, r in draft.desired.items()})
    waiting: set[Address] = set()
    queue = [a for a, c in draft.changes.items() if c.action in _BLOCKED]
    while queue:
        blocked = queue.pop()
        for parent in rests_on.get(blocked, ()):
            change = draft.changes.get(parent)
            if change is not None and (change.action is Action.DELETE or parent in draft.rebuilt):
                _wait(draft, parent, f"{blocked}, which rests on it, cannot be changed now")
                queue.append(parent)
        for child in needed_by.get(blocked, ()):
            if draft.changes[child].action not in (Action.KEEP, *_BLOCKED):
                _wait(draft, child, "")
                waiting.add(child)
                queue.append(child)
    for address in waiting:
        needs = [need for need in draft.desired[address].needs if draft.changes[need].action in _BLOCKED]
        _wait(draft, address, ", ".join(map(str, needs)))


def _wait(draft: _Draft, address: Address, detail: str) -> None:
    draft.rebuilt.discard(address)
    draft.changes[address] = Change(address, Action.WAIT, Reason.NEEDS, detail)


def _records_only(change: Change) -> bool:
    """An adoption that finds everything as wanted: the ledger learns, the world stays."""
    changes = change.reason is Reason.UNHEALTHY or (change.reason is Reason.EXISTS and change.fields)
    return change.action is Action.ADOPT and not changes


_OPCODES = {
    Action.CREATE: Opcode.CREATE,
    Action.UPDATE: Opcode.UPDATE,
    Action.REPLACE: Opcode.REPLACE,
    Action.DELETE: Opcode.DELETE,
    Action.FORGET: Opcode.FORGET,
}


def _steps(draft: _Draft) -> list[Step]:
    """Deletions of children, then of parents; creations of parents, then of children."""
    steps: list[Step] = []
    makes: dict[Address, int] = {}  # the step after which the object is as wanted
    unmakes: dict[Address, int] = {}  # the step after which the object is gone
    _lay_out_deletions(draft, steps, unmakes)
    for address in draft.order:
        change = draft.changes[address]
        if change.action in (Action.KEEP, *_BLOCKED):
            continue
        resource = draft.desired[address]
        needs = {makes[need] for need in resource.needs if need in makes}
        if address in unmakes:
            needs.add(unmakes[address])
        if address in draft.rebuilt:
            opcode = Opcode.CREATE
        elif change.action is Action.ADOPT:
            opcode = Opcode.RECORD if _records_only(change) else Opcode.UPDATE
        else:
            opcode = _OPCODES[change.action]
        makes[address] = len(steps)
        observation = ABSENT if address in unmakes else draft.observations[address]
        expects, record = observed_digest(observation), _record(draft, resource)
        steps.append(
            Step(
                index=len(steps),
                key=_key(draft, address, opcode, expects, record),
                opcode=opcode,
                address=address,
                needs=tuple(sorted(needs)),
                expects=expects,
                planned=draft.wanted[address],
                before=dict(observation.fields) if isinstance(observation, Seen) else None,
                record=record,
                moved_from=change.moved_from,
            )
        )
    return _deletions_wait(draft, steps, makes, unmakes)


def _lay_out_deletions(draft: _Draft, steps: list[Step], unmakes: dict[Address, int]) -> None:
    going = {
        a for a, c in draft.changes.items() if c.action in (Action.DELETE, Action.FORGET)
    } | draft.rebuilt
    if not going:
        return
    rests_on = _rests_on(draft)
    below = dependents({a: rests_on.get(a, ()) for a in going})
    done: list[Address] = []
    seen: set[Address] = set()
    for root in sorted(going):  # children first: a walk down the arrows, with a stack of its own
        stack = [root]
        while stack:
            top = stack[-1]
            waiting = [child for child in below.get(top, ()) if child not in seen]
            if top in seen:
                stack.pop()
            elif waiting:
                stack.extend(waiting)
            else:
                seen.add(top)
                done.append(top)
                stack.pop()
    for address in done:
        opcode = Opcode.FORGET if draft.changes[address].action is Action.FORGET else Opcode.DELETE
        observation = draft.observations.get(address, ABSENT)
        expects = observed_digest(observation)
        unmakes[address] = len(steps)
        steps.append(
            Step(
                index=len(steps),
                key=_key(draft, address, opcode, expects, None),
                opcode=opcode,
                address=address,
                needs=tuple(sorted(unmakes[child] for child in below.get(address, ()) if child in unmakes)),
                expects=expects,
                planned=None,
                before=dict(observation.fields) if isinstance(observation, Seen) else None,
                record=None,
                moved_from=draft.changes[address].moved_from,
            )
        )


def _deletions_wait(
    draft: _Draft, steps: list[Step], makes: Mapping[Address, int], unmakes: Mapping[Address, int]
) -> list[Step]:
    """A deletion also waits for the children that stay and let go of it in this plan.

    Not for those rebuilt with it: they go first and come back after.
    """
    if not unmakes:
        return steps
    former = dependents(_rests_on(draft))
    for address, index in unmakes.items():
        lets_go = {makes[c] for c in former.get(address, ()) if c in makes and c not in draft.rebuilt}
        if lets_go:
            step = steps[index]
            steps[index] = replace(step, needs=tuple(sorted({*step.needs, *lets_go})))
    return steps


def _knot(draft: _Draft, steps: Sequence[Step]) -> list[Address]:
    """Objects to be rebuilt whose steps wait for each other: children change sides between them."""
    if not draft.rebuilt:
        return []
    unmet = [len(step.needs) for step in steps]
    after: dict[int, list[int]] = {}
    for step in steps:
        for need in step.needs:
            after.setdefault(need, []).append(step.index)
    free = [step.index for step in steps if not step.needs]
    while free:
        for index in after.get(free.pop(), ()):
            unmet[index] -= 1
            if unmet[index] == 0:
                free.append(index)
    stuck = {step.address for step in steps if unmet[step.index]}
    return sorted(stuck & draft.rebuilt)


def _refuse_knot(draft: _Draft, knot: Sequence[Address]) -> None:
    address = knot[0]
    detail = f"{', '.join(map(str, knot))} would wait for each other; make this change in two parts"
    draft.rebuilt.discard(address)
    draft.changes[address] = replace(draft.changes[address], action=Action.REFUSE, detail=detail)
    _hold_back(draft)


def _key(draft: _Draft, address: Address, opcode: Opcode, expects: str, record: Json) -> str:
    """The idempotency key: equal for every attempt at the same effect on the same world.

    It leaves the plan out, so that a plan made again after a crash runs the same effect under the
    same key, and takes in the event that last settled this address, so that a value that returns
    later is a new effect.
    """
    settled = draft.ledger.entries.get(address, NOTHING).done
    return digest([draft.environment, str(address), opcode.value, expects, record, settled])[:32]


def _record(draft: _Draft, resource: Resource) -> Json:
    """The record to be, but for its outputs, which the read after the step gives."""
    lifecycle = resource.lifecycle
    return {
        "fields": draft.wanted[resource.address],
        "fingerprint": draft.prints[resource.address].encoded(),
        "needs": [str(need) for need in resource.needs],
        "protect": lifecycle.protect,
        "retain": lifecycle.retain,
        "replace": lifecycle.replace,
    }
