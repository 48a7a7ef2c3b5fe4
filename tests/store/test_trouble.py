"""What is wrong around the ledger is said in a sentence that names it: never a traceback, never a
password, and never half of what was to be written."""

import os
import secrets
import socket
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.event import Event, Type
from gamma_orch.store import lease as leases
from gamma_orch.store.database import Database
from gamma_orch.store.errors import LeaseHeld, LeaseLost, StoreError, WrongSchema
from gamma_orch.store.ledger import Log, events, present, verify
from tests.store.conftest import make_database

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
A = Address("Thing", "a")


@pytest.mark.parametrize("url", ["", "ledger.db", "mysql://u:hidden@h/x", "sqlite+aiosqlite:///x.db"])
def test_what_is_no_url_of_a_ledger(url: str) -> None:
    """Told at once, and without repeating it."""
    with pytest.raises(StoreError, match="GAMMA_LEDGER") as refused:
        Database(url)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("url", ["postgresql://u:hidden@h:no-port/x", "postgresql+nodriver://u:hidden@h/x"])
def test_what_cannot_be_understood(url: str) -> None:
    """Told at first use, without repeating it."""
    with pytest.raises(StoreError, match="cannot be understood") as refused:
        present(Database(url), "dev")
    assert "hidden" not in str(refused.value)


def test_a_folder_is_no_ledger(tmp_path: Path) -> None:
    """To look at, and to write into."""
    database = Database(f"sqlite:///{tmp_path}")
    with pytest.raises(StoreError, match="cannot be read: unable to open database file"):
        present(database, "dev")
    with pytest.raises(StoreError, match="cannot be opened: unable to open database file"):
        leases.acquire(database, "dev", "test")


def test_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "state").touch()
    with pytest.raises(StoreError, match=r"state/ledger\.db cannot be opened: .*exists"):
        leases.acquire(Database(f"sqlite:///{tmp_path}/state/ledger.db"), "dev", "test")


def test_a_file_cut_off_in_the_middle_is_damaged(tmp_path: Path) -> None:
    """What a full disk or a bad copy leaves: said by the reader and by the writer, with what to do."""
    file = tmp_path / "ledger.db"
    database = Database(f"sqlite:///{file}")
    log = Log(database, leases.acquire(database, "dev", "test"), "me")
    log.append([Event(Type.APPROVED, A, data={"consent": "x" * 50_000})], NOW)
    database.close()
    file.write_bytes(file.read_bytes()[: 4096 * 5])
    again = Database(f"sqlite:///{file}")
    with pytest.raises(StoreError, match=r"is damaged: .*restore it from a backup"):
        events(again, "dev")
    with (
        pytest.raises(StoreError, match=r"is damaged: .*restore it from a backup"),
        again.transaction() as writing,
    ):
        writing.rows("SELECT data FROM events")
    again.close()


def test_a_statement_that_fails_is_an_error_of_the_store(database: Database) -> None:
    """To read or to write, and the transaction around it is taken back."""
    leases.acquire(database, "dev", "test", lambda: NOW)
    with pytest.raises(StoreError, match="cannot be read"):
        database.read("SELECT no_such_column FROM environments")

    def broken() -> None:
        with database.transaction() as writing:
            writing.change("UPDATE environments SET seq = 77")
            writing.change("UPDATE environments SET no_such_column = 1")

    with pytest.raises(StoreError, match="cannot be written"):
        broken()
    assert database.read("SELECT seq FROM environments") == [(0,)]


def test_a_newer_schema_is_not_even_read(database: Database) -> None:
    """A plan that was made from half understood tables would be worse than none."""
    with database.transaction() as writing:
        writing.change("UPDATE gamma_schema SET version_num = '9999'")
    again = Database(database.url)
    with pytest.raises(WrongSchema, match="has schema 9999, and this Gamma knows up to"):
        present(again, "dev")
    again.close()


def test_the_schema_is_looked_at_once(tmp_path: Path) -> None:
    """Not before every statement: a command reads the ledger some ten times."""
    database = Database(f"sqlite:///{tmp_path}/ledger.db")
    leases.acquire(database, "dev", "test")
    present(database, "dev")
    with sqlite3.connect(tmp_path / "ledger.db") as plain:
        plain.execute("DROP TABLE gamma_schema")
    plain.close()
    assert present(database, "dev")[1] == 0
    database.close()


@pytest.mark.postgres
def test_somebody_who_may_not_make_tables(postgres: str) -> None:
    """As on most servers: PostgreSQL's own words, and not the password."""
    import psycopg2

    name, password = f"guest_{os.getpid()}", secrets.token_hex(8)
    make_database(postgres, name)
    with psycopg2.connect(f"{postgres}/{name}") as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
    connection.close()
    at = postgres.partition("@")[2]
    database = Database(f"postgresql://{name}:{password}@{at}/{name}")
    for use in (lambda: present(database, "dev"), lambda: leases.acquire(database, "dev", "test")):
        with pytest.raises(
            StoreError, match="cannot be opened: permission denied for schema public"
        ) as refused:
            use()
        assert password not in str(refused.value)
    database.close()


@pytest.mark.postgres
def test_a_lost_connection_is_made_again(postgres: str) -> None:
    """The server was restarted between two statements of one command."""
    import psycopg2

    name = f"restarted_{os.getpid()}"
    make_database(postgres, name)
    database = Database(f"{postgres}/{name}")
    log = Log(database, leases.acquire(database, "dev", "test", lambda: NOW), "me")
    connection = psycopg2.connect(f"{postgres}/postgres")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
    connection.close()
    log.append([Event(Type.PLANNED, plan="p")], NOW)
    assert len(events(database, "dev")) == 1
    database.close()


def test_an_event_that_cannot_be_written_down_leaves_nothing(database: Database) -> None:
    """Neither it nor those beside it; and the log can be used on."""
    log = Log(database, leases.acquire(database, "dev", "test", lambda: NOW), "me")
    good, bad = Event(Type.PLANNED, plan="good"), Event(Type.PLANNED, plan="bad", data={"x": {1, 2}})
    with pytest.raises(TypeError, match="set has no JSON form"):
        log.append([good, bad], NOW)
    assert events(database, "dev") == []
    log.append([good], NOW)
    assert [(e.seq, e.plan) for e in events(database, "dev")] == [(1, "good")]
    assert verify(database, "dev") == []


def test_an_empty_append_is_checked_too(database: Database) -> None:
    """It writes nothing, and still says when the lease is gone."""
    log = Log(database, leases.acquire(database, "dev", "test", lambda: NOW), "me")
    assert log.append([], NOW) == []
    leases.acquire(database, "dev", "test", lambda: NOW + timedelta(seconds=leases.SECONDS + 1))
    with pytest.raises(LeaseLost):
        log.append([], NOW)


def test_verify_looks_at_the_state_too(database: Database) -> None:
    """A plan is bound to it."""
    log = Log(database, leases.acquire(database, "dev", "test", lambda: NOW), "me")
    log.append([Event(Type.APPROVED, A, data={"consent": "ada"})], NOW)
    with database.transaction() as writing:
        writing.change("UPDATE environments SET state = 7")
    assert verify(database, "dev") == ["the state stands at 7, and the log says 1"]


@pytest.mark.postgres
def test_a_lease_taken_between_the_look_and_the_grip(postgres: str) -> None:
    """Both saw it free; the token decides."""
    name = f"race_{os.getpid()}"
    make_database(postgres, name)
    one, other = Database(f"{postgres}/{name}"), Database(f"{postgres}/{name}")
    leases.release(one, leases.acquire(one, "dev", "make the tables", lambda: NOW))

    def meanwhile() -> datetime:
        leases.acquire(other, "dev", "faster", lambda: NOW)
        return NOW

    with pytest.raises(LeaseHeld, match="at this very moment"):
        leases.acquire(one, "dev", "slower", meanwhile)
    assert one.read("SELECT token, holder FROM environments")[0][0] == 2
    assert '"faster"' in one.read("SELECT holder FROM environments")[0][0]
    one.close()
    other.close()


@pytest.mark.parametrize(
    ("other", "taken"),
    [
        ({}, False),
        ({"host": "another-machine", "pid": 999_999_999}, False),
        ({"boot": "0", "pid": 999_999_999}, False),
        ({"pid": 999_999_999}, True),
        ({"started": "1.0"}, True),
    ],
)
def test_who_counts_as_dead(
    database: Database, monkeypatch: pytest.MonkeyPatch, other: dict[str, object], taken: bool
) -> None:
    """A process of this machine and this boot that is gone, or whose number is another's by now.
    Of another machine, or another boot of it, nobody here can tell."""
    mine = leases._me

    def pretending(purpose: str, since: str, sharing: leases.Sharing | None) -> dict[str, object]:
        return {**mine(purpose, since, sharing), **other}

    monkeypatch.setattr(leases, "_me", pretending)
    leases.acquire(database, "dev", "test", lambda: NOW)
    if taken:
        assert leases.acquire(database, "dev", "test", lambda: NOW).token == 2
    else:
        with pytest.raises(LeaseHeld):
            leases.acquire(database, "dev", "test", lambda: NOW)


def test_the_loser_is_told_who_has_it(database: Database) -> None:
    """Who, and where; and if it is free by now, that it was somebody."""
    first = leases.acquire(database, "dev", "test", lambda: NOW)
    later = NOW + timedelta(seconds=leases.SECONDS)
    second = leases.acquire(
        database, "dev", "test", lambda: later
    )  # at the very moment of its end it is free
    with pytest.raises(LeaseLost, match=f"went to {leases.user()} on {socket.gethostname()} while"):
        leases.renew(database, first, lambda: later)
    leases.release(database, second)
    with pytest.raises(LeaseLost, match="went to another process while"):
        leases.renew(database, first, lambda: later)


@pytest.mark.parametrize("error", [KeyError("uid not found"), OSError("no username")])
def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A container that runs as 1234, of whom its /etc/passwd knows nothing."""
    import getpass

    def nobody() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert leases.user() == str(os.getuid())
