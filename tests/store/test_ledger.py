"""The log: what may be appended, by whom, and that the projection is its fold."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gamma_orch.core.address import Address
from gamma_orch.core.event import Event, Type
from gamma_orch.core.ledger import Ledger, fold
from gamma_orch.store import lease as leases
from gamma_orch.store.database import Database
from gamma_orch.store.errors import Conflict, LeaseLost
from gamma_orch.store.ledger import Log, events, latest, past, present, released, verify

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
A, B = Address("Thing", "a"), Address("Thing", "b")


def record(value: str = "1") -> dict[str, object]:
    return {
        "fields": {"value": value},
        "fingerprint": ["c", "m", ""],
        "outputs": {"id": "7"},
        "needs": ["Thing/z"],
    }


def begun(address: Address, key: str = "k") -> Event:
    data = {
        "opcode": "create",
        "planned": {"value": "1"},
        "before": None,
        "record": record(),
        "movedFrom": None,
    }
    return Event(Type.BEGUN, address, "p", key, data)


def done(address: Address, key: str = "k", body: object = None, moved: str | None = None) -> Event:
    return Event(Type.DONE, address, "p", key, {"record": body or record(), "movedFrom": moved})


def gone(address: Address) -> Event:
    return Event(Type.DONE, address, "p", "k", {"record": None, "movedFrom": None})


def failed(address: Address, settled: bool = False) -> Event:
    return Event(Type.FAILED, address, "p", "k", {"error": "no", "settled": settled})


def open_log(database: Database, environment: str = "dev") -> Log:
    return Log(database, leases.acquire(database, environment, "test", lambda: NOW), "me")


def test_what_was_appended_is_read_back(database: Database) -> None:
    log = open_log(database)
    stored = log.append([begun(A), done(A)], NOW)
    assert [e.seq for e in stored] == [1, 2]
    assert events(database, "dev") == stored
    assert {(e.by, e.token, e.at) for e in stored} == {("me", 1, "2026-01-01T12:00:00.000Z")}
    ledger, seq = present(database, "dev")
    assert seq == ledger.state == 2
    assert ledger == log.ledger == fold(Ledger("dev"), stored)
    kept = ledger.record(A)
    assert kept is not None
    assert kept.needs == (Address("Thing", "z"),)


def test_an_open_step_survives_a_new_process(database: Database) -> None:
    moving = Event(Type.BEGUN, A, "p", "k", {**begun(A).data, "movedFrom": str(B)})
    open_log(database).append([moving], NOW)
    found = present(database, "dev")[0].entries[A].begun
    assert found is not None
    assert (found.key, found.opcode, found.planned, found.moved_from) == ("k", "create", {"value": "1"}, B)


def test_environments_do_not_see_each_other(database: Database) -> None:
    open_log(database, "dev").append([done(A)], NOW)
    open_log(database, "prod").append([done(B)], NOW)
    assert set(present(database, "dev")[0].entries) == {A}
    assert set(present(database, "prod")[0].entries) == {B}
    assert [e.seq for e in events(database, "prod")] == [1]


def test_an_old_token_appends_nothing(database: Database) -> None:
    first = open_log(database)
    first.append([begun(A)], NOW)
    later = NOW + timedelta(seconds=leases.SECONDS + 1)
    second = Log(database, leases.acquire(database, "dev", "test", lambda: later), "other")
    before = events(database, "dev")
    with pytest.raises(LeaseLost, match="nothing more is recorded"):
        first.append([done(A)], later)
    assert events(database, "dev") == before
    assert present(database, "dev")[0].entries[A].begun is not None
    second.append([done(A)], later)
    assert present(database, "dev")[0].entries[A].begun is None


def test_a_log_that_has_grown_is_a_conflict(database: Database) -> None:
    lease = leases.acquire(database, "dev", "test", lambda: NOW)
    one, two = Log(database, lease, "one"), Log(database, lease, "two")
    one.append([done(A)], NOW)
    with pytest.raises(Conflict):
        two.append([done(B)], NOW)
    assert set(present(database, "dev")[0].entries) == {A}


def test_a_refused_append_leaves_the_log_usable(database: Database) -> None:
    """After the error the in-memory state is still that of the database."""
    lease = leases.acquire(database, "dev", "test", lambda: NOW)
    one, two = Log(database, lease, "one"), Log(database, lease, "two")
    one.append([done(A)], NOW)
    with pytest.raises(Conflict):
        two.append([done(B)], NOW)
    assert (two.seq, dict(two.ledger.entries)) == (0, {})
    one.append([done(B)], NOW)
    assert verify(database, "dev") == []


def test_only_what_changes_an_entry_moves_the_state(database: Database) -> None:
    """A plan is bound to `state`: planning and releasing must not outdate plans."""
    log = open_log(database)
    log.append(
        [Event(Type.PLANNED, plan="p", data={}), done(A), Event(Type.RELEASED, plan="p", data={})], NOW
    )
    assert present(database, "dev")[0].state == 2
    assert present(database, "dev")[1] == 3


def test_the_newest_come_first_without_the_begun_ones(database: Database) -> None:
    log = open_log(database)
    log.append([begun(A), done(A), begun(B), done(B)], NOW)
    assert [(e.type, e.address) for e in latest(database, "dev", 10)] == [(Type.DONE, B), (Type.DONE, A)]
    assert [e.seq for e in latest(database, "dev", 1)] == [4]
    assert [e.type for e in latest(database, "dev", 10, A)] == [Type.DONE, Type.BEGUN]


def test_the_past_is_the_fold_up_to_a_moment(database: Database) -> None:
    log = open_log(database)
    log.append([done(A)], NOW)
    log.append([done(B), gone(A)], NOW + timedelta(seconds=10))
    assert set(past(database, "dev", NOW + timedelta(seconds=5)).entries) == {A}
    assert past(database, "dev", NOW - timedelta(seconds=1)).entries == {}
    now = past(database, "dev", NOW + timedelta(seconds=10))
    assert now == present(database, "dev")[0]
    assert now.record(A) is None
    assert now.record(B) is not None


def test_the_release_is_that_of_the_last_whole_plan(database: Database) -> None:
    assert released(database, "dev") == ""
    log = open_log(database)
    for commit in ("one", "two"):
        log.append([Event(Type.RELEASED, plan="p", data={"commit": commit})], NOW)
    log.append([done(A)], NOW)
    assert released(database, "dev") == "two"


def test_verify_names_what_was_tampered_with(database: Database) -> None:
    log = open_log(database)
    log.append([done(A), done(B)], NOW)
    assert verify(database, "dev") == []
    with database.transaction() as writing:
        writing.change(
            "UPDATE entries SET entry = replace(entry, '\"1\"', '\"2\"') WHERE address = 'Thing/b'"
        )
    assert verify(database, "dev") == ["Thing/b: the projection differs from the log"]
    with database.transaction() as writing:
        writing.change("DELETE FROM events WHERE seq = 1")
    assert any("gaps" in line for line in verify(database, "dev"))


_event = st.one_of(
    st.builds(begun, st.sampled_from([A, B])),
    st.builds(done, st.sampled_from([A, B]), body=st.sampled_from([record("1"), record("2")])),
    st.builds(gone, st.sampled_from([A, B])),
    st.builds(failed, st.sampled_from([A, B]), st.booleans()),
    st.builds(lambda a: Event(Type.APPROVED, a, data={"consent": "me"}), st.sampled_from([A, B])),
    st.just(done(A, moved=str(B))),
    st.just(Event(Type.PLANNED, plan="p", data={})),
)


@given(batches=st.lists(st.lists(_event, max_size=4), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_the_projection_is_the_fold(tmp_path: Path, batches: list[list[Event]]) -> None:
    """Whatever the events and however they are batched."""
    database = Database(f"sqlite:///{tmp_path}/{len(list(tmp_path.iterdir()))}.db")
    log = open_log(database)
    for batch in batches:
        log.append(batch, NOW)
    assert verify(database, "dev") == []
    assert present(database, "dev")[0] == log.ledger == fold(Ledger("dev"), events(database, "dev"))
    database.close()
