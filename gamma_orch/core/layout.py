"""From decisions to steps, each with what it waits for: deletions of children before their parents,
creations of parents before their children.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json, digest
from gamma_orch.core.change import Action
from gamma_orch.core.draft import BLOCKED, Draft, records_only, rests_on
from gamma_orch.core.ledger import NOTHING
from gamma_orch.core.observation import ABSENT, Seen, observed_digest
from gamma_orch.core.plan import Step, dependents
from gamma_orch.core.provider import Opcode
from gamma_orch.core.resource import Resource

_OPCODES = {
    Action.CREATE: Opcode.CREATE,
    Action.UPDATE: Opcode.UPDATE,
    Action.REPLACE: Opcode.REPLACE,
    Action.DELETE: Opcode.DELETE,
    Action.FORGET: Opcode.FORGET,
}


def lay_out(draft: Draft) -> list[Step]:
    """Deletions of children, then of parents; creations of parents, then of children."""
    steps: list[Step] = []
    makes: dict[Address, int] = {}  # the step after which the object is as wanted
    unmakes: dict[Address, int] = {}  # the step after which the object is gone
    _lay_out_deletions(draft, steps, unmakes)
    for address in draft.order:
        change = draft.changes[address]
        if change.action in (Action.KEEP, *BLOCKED):
            continue
        resource = draft.desired[address]
        needs = {makes[need] for need in resource.needs if need in makes}
        if address in unmakes:
            needs.add(unmakes[address])
        if address in draft.rebuilt:
            opcode = Opcode.CREATE
        elif change.action is Action.ADOPT:
            opcode = Opcode.RECORD if records_only(change) else Opcode.UPDATE
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


def _lay_out_deletions(draft: Draft, steps: list[Step], unmakes: dict[Address, int]) -> None:
    going = {
        a for a, c in draft.changes.items() if c.action in (Action.DELETE, Action.FORGET)
    } | draft.rebuilt
    if not going:
        return
    resting = rests_on(draft)
    below = dependents({a: resting.get(a, ()) for a in going})
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
    draft: Draft, steps: list[Step], makes: Mapping[Address, int], unmakes: Mapping[Address, int]
) -> list[Step]:
    """A deletion also waits for the children that stay and let go of it in this plan.

    Not for those rebuilt with it: they go first and come back after.
    """
    if not unmakes:
        return steps
    former = dependents(rests_on(draft))
    for address, index in unmakes.items():
        lets_go = {makes[c] for c in former.get(address, ()) if c in makes and c not in draft.rebuilt}
        if lets_go:
            step = steps[index]
            steps[index] = replace(step, needs=tuple(sorted({*step.needs, *lets_go})))
    return steps


def knot(draft: Draft, steps: Sequence[Step]) -> list[Address]:
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


def _key(draft: Draft, address: Address, opcode: Opcode, expects: str, record: Json) -> str:
    """The idempotency key: equal for every attempt at the same effect on the same world.

    It leaves the plan out, so that a plan made again after a crash runs the same effect under the
    same key, and takes in the event that last settled this address, so that a value that returns
    later is a new effect.
    """
    settled = draft.ledger.entries.get(address, NOTHING).done
    return digest([draft.environment, str(address), opcode.value, expects, record, settled])[:32]


def _record(draft: Draft, resource: Resource) -> Json:
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
