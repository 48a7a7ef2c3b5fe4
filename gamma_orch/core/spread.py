"""What one decision does to others: rebuilding a parent rebuilds what rests on it, and what is blocked
holds back what needs it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gamma_orch.core.address import Address
from gamma_orch.core.change import Action, Change, Reason
from gamma_orch.core.compare import field_changes
from gamma_orch.core.decide import decide, resolved
from gamma_orch.core.draft import BLOCKED, Draft, consent_first, held, is_unmanaged, record_now, rests_on
from gamma_orch.core.observation import Seen
from gamma_orch.core.plan import dependents


def settle_rebuilds(draft: Draft) -> None:
    """Rebuild what must be rebuilt with others, and decide anew what is below, until no more follows."""
    spread: set[Address] = set()
    while roots := draft.rebuilt - spread:
        _spread_rebuilds(draft, sorted(roots))
        spread |= roots | draft.rebuilt
        _decide_again(draft)


def _spread_rebuilds(draft: Draft, roots: Sequence[Address]) -> None:
    """A parent that is deleted first takes with it what rests on it in the world and will again need
    it: that is rebuilt too. (What will no longer need it lets go first, what newly needs it comes after.)

    All or nothing: where a child below must not be touched, the parent is not replaced either.
    """
    needed_by = dependents({a: r.needs for a, r in draft.desired.items()})
    under = dependents(rests_on(draft))
    for root in roots:
        resting = {a for a in _below(root, needed_by) if is_unmanaged(draft, a)} | set(_below(root, under))
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


def _unsparing(draft: Draft, root: Address, below: Sequence[Address]) -> Change | None:
    """Why a parent cannot be deleted first, for the sake of a child; None if it can."""
    change = draft.changes[root]
    for child in below:
        if held(draft, child):
            detail = consent_first(child, f"deleted with {root}")
            return replace(change, action=Action.REFUSE, reason=Reason.PROTECTED, detail=detail)
    for child in below:
        if draft.changes[child].action in BLOCKED:
            detail = f"{child}, which would be rebuilt with it, cannot be changed now"
            return replace(change, action=Action.WAIT, reason=Reason.NEEDS, detail=detail)
        if is_unmanaged(draft, child):
            detail = (
                f"{child}, which would be deleted with it, exists and is not managed yet; "
                "apply once without this change, so that it is adopted"
            )
            return replace(change, action=Action.REFUSE, detail=detail)
    return None


def _decide_again(draft: Draft) -> None:
    """What is rebuilt is made as the spec says, ignored fields too, and gives other outputs than now
    to those below it."""
    again: set[Address] = set()
    for address in draft.order:
        resource, change = draft.desired[address], draft.changes[address]
        if address in draft.rebuilt:
            draft.wanted[address] = wanted = resolved(draft, resource)
            record, observation = record_now(draft, address), draft.observations[address]
            live = observation.fields if isinstance(observation, Seen) else {}
            fields = tuple(field_changes(wanted, record.fields if record else {}, live))
            draft.changes[address] = replace(change, fields=fields)
        elif change.action not in BLOCKED and not again.isdisjoint(resource.needs):
            decide(draft, address)
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


def hold_back(draft: Draft) -> None:
    """What needs a resource that is blocked waits with it, and nothing is deleted from under an
    object that stays because it is blocked."""
    resting = rests_on(draft)
    needed_by = dependents({a: r.needs for a, r in draft.desired.items()})
    waiting: set[Address] = set()
    queue = [a for a, c in draft.changes.items() if c.action in BLOCKED]
    while queue:
        blocked = queue.pop()
        for parent in resting.get(blocked, ()):
            change = draft.changes.get(parent)
            if change is not None and (change.action is Action.DELETE or parent in draft.rebuilt):
                _wait(draft, parent, f"{blocked}, which rests on it, cannot be changed now")
                queue.append(parent)
        for child in needed_by.get(blocked, ()):
            if draft.changes[child].action not in (Action.KEEP, *BLOCKED):
                _wait(draft, child, "")
                waiting.add(child)
                queue.append(child)
    for address in waiting:
        needs = [need for need in draft.desired[address].needs if draft.changes[need].action in BLOCKED]
        _wait(draft, address, ", ".join(map(str, needs)))


def _wait(draft: Draft, address: Address, detail: str) -> None:
    draft.rebuilt.discard(address)
    draft.changes[address] = Change(address, Action.WAIT, Reason.NEEDS, detail)
