"""State is a fold of history: `fold(ledger, events)` is the present, `fold(events[:n])` the past.

The store keeps the fold of everything as a projection, written in the transaction that appends the
events, so that reading the present costs one row a resource. Here is what the projection means.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.event import Event, Type
from gamma_orch.core.record import Record


@dataclass(frozen=True, slots=True)
class Begun:
    """A step whose effect may have happened. What resume needs to find out is all here."""

    key: str
    plan: str
    opcode: str
    seq: int
    attempt: int
    planned: Mapping[str, Json] | None  # the fields the world should now show; None: absent
    before: Mapping[str, Json] | None  # the fields found just before; None: absent
    record: Json  # the record that Done will write; None for delete and forget
    moved_from: Address | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """All that the ledger knows of one address."""

    record: Record | None = None  # None: never there, or deleted (then `done` is the tombstone)
    # Seq of the last event after which no effect of an earlier step can still be under way: a Done, or
    # a Failed that the process itself wrote. Part of the next step's key.
    done: int = 0
    begun: Begun | None = None  # open: no Done and no Failed yet
    error: str = ""  # why the last step failed; empty after a Done
    # Who allowed, once, what would else be refused: the deletion of a protected object, or going on
    # after a step that is in doubt. Spent by the next Done or Failed.
    consent: str = ""
    since: str = ""  # when the record, the error or the open step came to be


NOTHING = Entry()


@dataclass(frozen=True, slots=True)
class Ledger:
    environment: str
    # Sequence number of the last event that changed what a plan rests on. A plan is bound to it:
    # Planned, Released and evidence leave it alone, so that planning does not outdate plans.
    state: int = 0
    entries: Mapping[Address, Entry] = field(default_factory=dict)

    def record(self, address: Address) -> Record | None:
        entry = self.entries.get(address)
        return entry.record if entry else None


def fold(ledger: Ledger, events: Iterable[Event]) -> Ledger:
    """The ledger after these events. Total: an event that changes nothing is simply passed over."""
    entries = dict(ledger.entries)
    state = ledger.state
    for event in events:
        touched = step(entries, event)
        if touched:
            state = event.seq
        entries.update(touched)
    return Ledger(ledger.environment, state, entries)


def step(entries: Mapping[Address, Entry], event: Event) -> dict[Address, Entry]:
    """The entries that one event changes, as they are after it. The store writes just these rows."""
    if event.address is None:
        return {}
    entry = entries.get(event.address, NOTHING)
    data = event.data
    match event.type:
        case Type.APPROVED:
            return {event.address: replace(entry, consent=data["consent"])}
        case Type.BEGUN:
            moved = Address.parse(data["movedFrom"]) if data.get("movedFrom") else None
            begun = Begun(
                key=event.step,
                plan=event.plan,
                opcode=data["opcode"],
                seq=event.seq,
                attempt=data.get("attempt", 1),
                planned=data["planned"],
                before=data["before"],
                record=data["record"],
                moved_from=moved,
            )
            return {event.address: replace(entry, begun=begun, since=event.at)}
        case Type.DONE:
            body = data["record"]
            record = Record.decoded(body) if body is not None else None
            ended = {event.address: Entry(record, event.seq, since=event.at)}
            if data.get("movedFrom"):
                ended[Address.parse(data["movedFrom"])] = Entry(None, event.seq, since=event.at)
            return ended
        case Type.FAILED:
            done = entry.done if data.get("settled") else event.seq
            failed = replace(entry, done=done, begun=None, consent="", error=data["error"], since=event.at)
            return {event.address: failed}
        case _:
            return {}
