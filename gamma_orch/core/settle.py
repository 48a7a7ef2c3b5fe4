"""Resume: what became of a step that had begun and has no end, after a fresh read.

| live equals                              | then                                              |
|------------------------------------------|---------------------------------------------------|
| the planned known values                 | done; no effect (`happened`: if that can be seen) |
| what the step found before               | it did not happen: plan again, same key           |
| a mixture of both, and the kind converges| it half happened: plan again, same key            |
| anything else                            | in doubt: the branch stops, a person looks        |
| unreadable                               | nothing yet: the branch waits, siblings go on     |

Together with `ready` this is all that resume is. Called by the engine before it plans.
"""

from collections.abc import Callable, Iterable, Mapping

from gamma_orch.core.address import Address
from gamma_orch.core.change import MISSING
from gamma_orch.core.compare import paths, same
from gamma_orch.core.diagnostic import Path
from gamma_orch.core.event import Event, Type
from gamma_orch.core.kind import Fields, Traits
from gamma_orch.core.leaves import is_leaf, is_secret
from gamma_orch.core.ledger import Begun, Ledger
from gamma_orch.core.observation import Absent, Observation, Seen, Unreadable


def settle(
    ledger: Ledger,
    observations: Mapping[Address, Observation],
    traits: Mapping[str, Traits],
    abandoned: Callable[[Address, Begun], bool] = lambda _address, _begun: True,
) -> list[Event]:
    """The Done and Failed events that close the open steps of which the truth can be told.

    `abandoned` says whether nobody is at work on an open step any more; only such a step is settled.
    """
    events: list[Event] = []
    for address, entry in sorted(ledger.entries.items()):
        if entry.begun is None or not abandoned(address, entry.begun):
            continue
        observation = observations.get(address, Unreadable("it was not observed"))
        kind = traits.get(address.kind, Traits())
        if entry.consent and not isinstance(observation, Unreadable):
            events.append(_failed(address, entry.begun, "given up by consent"))
        else:
            was = _was(ledger, address, entry.begun)
            if happened(entry.begun, observation, was, kind.convergent):
                events.append(_done(address, entry.begun, observation))
            elif undone(entry.begun, observation, was, kind.convergent):
                events.append(_failed(address, entry.begun, "cut off before it was done"))
    return events


def _was(ledger: Ledger, address: Address, begun: Begun) -> Fields:
    record = ledger.record(address) or (ledger.record(begun.moved_from) if begun.moved_from else None)
    return record.fields if record else {}


def happened(begun: Begun, observation: Observation, was: Fields, convergent: bool) -> bool:
    """Whether the world shows what the step was to make."""
    match observation:
        case Absent():
            return begun.planned is None
        case Seen(fields, _, healthy):
            if begun.planned is None or not healthy or differences(begun.planned, fields, was):
                return False
            if begun.before is not None and _as_before(begun, fields):
                return False  # what it was to do cannot be seen (a parent's change): it is done again
            # A secret cannot be read back. That a new one is set is sure only where the object came
            # to be in one effect; otherwise it is set again.
            return not _sets_secret(begun.planned, was) or (begun.before is None and not convergent)
        case _:
            return False


def undone(begun: Begun, observation: Observation, was: Fields, convergent: bool) -> bool:
    """Whether the world shows what the step found, or, in a kind that converges, a mixture."""
    match observation:
        case Absent():
            # A replacement or a deletion cut off in the middle leaves nothing behind.
            return begun.before is None or convergent
        case Seen(fields):
            if begun.before is not None and _as_before(begun, fields):
                return True
            planned = begun.planned or {}
            if _sets_secret(planned, was) and not differences(planned, fields, was):
                return True
            return convergent and _mixture(begun, fields)
        case _:
            return False


def _sets_secret(planned: Fields, was: Fields) -> bool:
    applied = dict(paths(was))
    return any(
        is_secret(value) and not same(value, applied.get(path, MISSING)) for path, value in paths(planned)
    )


def differences(planned: Fields, live: Fields, was: Fields) -> list[Path]:
    """The paths on which live is not as planned.

    Secrets, which are never read back, count as equal. A path that was applied before (`was`) and
    is no longer planned must be gone, unless somebody else holds it by now.
    """
    wanted, found = dict(paths(planned)), dict(paths(live))
    wrong = [
        path
        for path, value in wanted.items()
        if not (is_leaf(value) and path not in found) and not same(value, found.get(path, MISSING))
    ]
    kept = [
        path
        for path, value in paths(was)
        if path not in wanted and path in found and same(value, found[path])
    ]
    return wrong + kept


def _as_before(begun: Begun, live: Fields) -> bool:
    before = begun.before or {}
    return dict(paths(before)) == dict(paths(live))


def _mixture(begun: Begun, live: Fields) -> bool:
    before, planned = dict(paths(begun.before or {})), dict(paths(begun.planned or {}))
    found = dict(paths(live))
    return all(
        same(found.get(path, MISSING), planned.get(path, MISSING))
        or same(found.get(path, MISSING), before.get(path, MISSING))
        or begun.before is None
        for path in {*before, *planned}
        if not is_leaf(planned.get(path))
    )


def _done(address: Address, begun: Begun, observation: Observation) -> Event:
    record = None
    if begun.record is not None and isinstance(observation, Seen):
        record = {**begun.record, "outputs": dict(observation.outputs)}
    moved = str(begun.moved_from) if begun.moved_from else None
    return Event(
        Type.DONE, address, begun.plan, begun.key, {"record": record, "movedFrom": moved, "settled": True}
    )


def _failed(address: Address, begun: Begun, why: str) -> Event:
    return Event(Type.FAILED, address, begun.plan, begun.key, {"error": why, "settled": True})


def open_steps(ledger: Ledger) -> Iterable[tuple[Address, Begun]]:
    """What a fresh read must cover before anything else is decided."""
    return [(address, entry.begun) for address, entry in ledger.entries.items() if entry.begun]
