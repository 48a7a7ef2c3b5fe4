"""State is a fold of history."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.core.address import Address
from gamma_orch.core.event import Event, Type
from gamma_orch.core.fingerprint import Fingerprint
from gamma_orch.core.ledger import NOTHING, Entry, Ledger, fold, step
from gamma_orch.core.record import Record
from gamma_orch.core.resource import Replace
from tests.core.values import addresses, trees

prints = st.builds(Fingerprint, *[st.sampled_from(["x", "y"])] * 3)
fields = st.dictionaries(st.sampled_from("ab"), trees(), max_size=2)
records = st.builds(
    Record,
    fields,
    fields,
    prints,
    st.lists(addresses, max_size=2, unique=True).map(lambda found: tuple(sorted(found))),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, *Replace]),
)
maybe_moved = st.one_of(st.none(), addresses.map(str))
bodies = {
    Type.APPROVED: st.builds(lambda by: {"consent": by}, st.sampled_from(["ada", "bob"])),
    Type.BEGUN: st.builds(
        lambda planned, before, record, moved: {
            "opcode": "update",
            "planned": planned,
            "before": before,
            "record": record and record.encoded(),
            "movedFrom": moved,
        },
        st.none() | fields,
        st.none() | fields,
        st.none() | records,
        maybe_moved,
    ),
    Type.DONE: st.builds(
        lambda record, moved: {"record": record and record.encoded(), "movedFrom": moved},
        st.none() | records,
        maybe_moved,
    ),
    Type.FAILED: st.builds(
        lambda error, settled: {"error": error, **({"settled": True} if settled else {})},
        st.text(min_size=1, max_size=5),
        st.booleans(),
    ),
}
events = st.one_of(
    *(
        st.builds(Event, st.just(kind), addresses, st.just("p"), st.sampled_from(["k", "l"]), body)
        for kind, body in bodies.items()
    ),
    st.builds(Event, st.sampled_from([Type.PLANNED, Type.RELEASED]), plan=st.just("p")),
    st.builds(Event, st.sampled_from([Type.DRIFTED, Type.EVIDENCE, Type.REVOKED, Type.REJECTED]), addresses),
)
streams = st.lists(events, max_size=12).map(
    lambda found: [replace(e, seq=n, at=f"2026-01-01T00:00:{n:02}Z") for n, e in enumerate(found, start=1)]
)
A, B = Address("Thing", "a"), Address("Thing", "b")
EMPTY = Ledger("dev")


@given(streams, st.integers(0, 12))
def test_the_past_and_the_rest_make_the_present(history, cut: int) -> None:
    """Folding on from any moment gives what folding all gives: time travel and resume are one."""
    assert fold(fold(EMPTY, history[:cut]), history[cut:]) == fold(EMPTY, history)


@given(streams)
def test_event_by_event(history) -> None:
    """The store writes just the rows that `step` names; together they are the fold."""
    entries: dict[Address, Entry] = {}
    state = 0
    for event in history:
        touched = step(entries, event)
        entries.update(touched)
        state = event.seq if touched else state
    assert fold(EMPTY, history) == Ledger("dev", state, entries)


@given(streams, events)
def test_the_past_stays_as_it_was(history, event) -> None:
    """A fold changes no ledger that somebody else holds."""
    before = fold(EMPTY, history)
    copy = dict(before.entries)
    fold(before, [replace(event, seq=99)])
    assert before.entries == copy


@given(streams, addresses)
def test_addresses_do_not_mix(history, address: Address) -> None:
    """An entry is the fold of the events that name its address, as their own or as the old one."""
    own = [e for e in history if address in (e.address, _moved(e))]
    assert fold(EMPTY, own).entries.get(address) == fold(EMPTY, history).entries.get(address)


def _moved(event: Event) -> Address | None:
    text = event.data.get("movedFrom") if event.type is Type.DONE else None
    return Address.parse(text) if text else None


@given(streams)
def test_what_a_plan_does_not_rest_on_leaves_the_state(history) -> None:
    """Planning, releasing and evidence do not outdate plans."""
    acting = [e for e in history if e.type in bodies]
    assert fold(EMPTY, history).state == (acting[-1].seq if acting else 0)


@given(records)
def test_records_are_read_as_they_are_written(record: Record) -> None:
    """Nothing is lost for being the default."""
    assert Record.decoded(record.encoded()) == record


def done(record: Record | None, seq: int, **data) -> Event:
    return Event(Type.DONE, A, data={"record": record and record.encoded(), **data}, seq=seq, at=f"t{seq}")


RECORD = Record({"size": 1}, {"id": "1"}, Fingerprint("c", "m", "p"), protect=True)
BEGUN = {"opcode": "update", "planned": {"size": 2}, "before": {"size": 1}, "record": None}


def begun(seq: int, **data) -> Event:
    return Event(Type.BEGUN, A, "plan", "key", {**BEGUN, **data}, seq=seq, at=f"t{seq}")


def failed(seq: int, **data) -> Event:
    return Event(Type.FAILED, A, data={"error": "no room", **data}, seq=seq, at=f"t{seq}")


def consent(seq: int) -> Event:
    return Event(Type.APPROVED, A, data={"consent": "ada"}, seq=seq, at=f"t{seq}")


def test_done_writes_the_record_and_ends_everything_else() -> None:
    """The open step, the error, the consent."""
    ledger = fold(EMPTY, [consent(1), failed(2), consent(3), begun(4), done(RECORD, 5)])
    entry = ledger.entries[A]
    assert ledger.record(A) == RECORD
    assert (entry.done, entry.begun, entry.error, entry.consent, entry.since) == (5, None, "", "", "t5")


def test_begun_opens_and_keeps_the_rest() -> None:
    """What resume needs is all there; what was known still is."""
    entry = fold(EMPTY, [done(RECORD, 1), consent(2), begun(3, movedFrom="Thing/b")]).entries[A]
    assert entry.record == RECORD
    assert entry.consent == "ada"
    assert entry.begun is not None
    assert (entry.begun.key, entry.begun.plan, entry.begun.opcode, entry.begun.seq) == (
        "key",
        "plan",
        "update",
        3,
    )
    assert (entry.begun.planned, entry.begun.before, entry.begun.moved_from) == ({"size": 2}, {"size": 1}, B)


def test_failed_closes_and_says_why() -> None:
    """The record stays, the consent is spent, and a new attempt is a new effect."""
    entry = fold(EMPTY, [done(RECORD, 1), consent(2), begun(3), failed(4)]).entries[A]
    assert entry.record == RECORD
    assert (entry.begun, entry.error, entry.consent, entry.done, entry.since) == (
        None,
        "no room",
        "",
        4,
        "t4",
    )


def test_settled_as_failed_the_effect_is_the_same() -> None:
    """A step that was cut off may still be under way: its next attempt has the same key."""
    entry = fold(EMPTY, [done(RECORD, 1), begun(2), failed(3, settled=True)]).entries[A]
    assert (entry.begun, entry.done) == (None, 1)


def test_moving_leaves_a_tombstone() -> None:
    """The old name is known to have been there, and has nothing any more."""
    old = replace(done(RECORD, 1), address=B)
    ledger = fold(EMPTY, [old, done(RECORD, 2, movedFrom="Thing/b")])
    assert ledger.record(A) == RECORD
    assert ledger.record(B) is None
    assert ledger.entries[B].done == 2


def test_an_unknown_address_has_no_record() -> None:
    """And is not there."""
    assert EMPTY.record(A) is None
    assert NOTHING.record is None
