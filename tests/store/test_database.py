"""The connection: tables are made once, reading makes nothing, and damage is told in words."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from gamma_orch.core.event import Event, Type
from gamma_orch.store import lease as leases
from gamma_orch.store.database import HEAD, VERSIONS, Database
from gamma_orch.store.errors import StoreError, WrongSchema
from gamma_orch.store.ledger import Log, events, present

MIGRATIONS = Path(leases.__file__).parent / "migrations" / "versions"


def test_the_known_versions_are_those_in_the_folder() -> None:
    files = sorted(file.name.partition("_")[0] for file in MIGRATIONS.glob("*.py"))
    assert list(VERSIONS) == files
    assert files[-1] == HEAD


def test_looking_at_a_ledger_that_is_not_there_makes_none(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/state/ledger.db")
    assert present(database, "dev")[1] == 0
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_an_empty_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    assert present(Database(f"sqlite:///{tmp_path}/ledger.db"), "dev")[1] == 0


def test_the_tables_are_made_once(url: str) -> None:
    for _ in range(2):
        database = Database(url)
        leases.release(database, leases.acquire(database, "dev", "test"))
        assert database.read("SELECT version_num FROM gamma_schema") == [(HEAD,)]
        database.close()


def _migrate(url: str) -> None:
    database = Database(url)
    with database.transaction():
        pass
    database.close()


def test_two_processes_make_the_tables_at_once(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_migrate, args=(url,)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]


def test_a_newer_schema_is_refused(database: Database) -> None:
    with database.transaction() as writing:
        writing.change("UPDATE gamma_schema SET version_num = '9999'")
    again = Database(database.url)
    with pytest.raises(WrongSchema, match="newer Gamma"), again.transaction():
        pass
    again.close()


@pytest.mark.parametrize("content", [b"this is no database, " * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_told_in_words(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "ledger.db"
    file.write_bytes(content)
    with pytest.raises(StoreError, match=r"ledger\.db"):
        present(Database(f"sqlite:///{file}"), "dev")
    with pytest.raises(StoreError, match=r"ledger\.db"):
        leases.acquire(Database(f"sqlite:///{file}"), "dev", "test")
    assert file.read_bytes() == content


@pytest.mark.postgres
def test_a_server_that_is_away_is_told_without_the_password() -> None:
    database = Database("postgresql://gamma:canary-password@127.0.0.1:1/ledger")
    with pytest.raises(StoreError) as refused:
        present(database, "dev")
    assert "canary-password" not in str(refused.value)
    assert "127.0.0.1" in str(refused.value)


def test_an_error_inside_takes_everything_back(database: Database) -> None:
    leases.acquire(database, "dev", "test")

    def broken() -> None:
        with database.transaction() as writing:
            writing.change("UPDATE environments SET seq = 77")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert database.read("SELECT seq FROM environments") == [(0,)]


def _die_inside(url: str) -> None:
    database = Database(url)
    with database.transaction() as writing:
        writing.change("UPDATE environments SET seq = 77")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_transaction_leaves_nothing(database: Database) -> None:
    lease = leases.acquire(database, "dev", "test")
    child = multiprocessing.get_context("spawn").Process(target=_die_inside, args=(database.url,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert database.read("SELECT seq FROM environments") == [(0,)]
    Log(database, lease, "me").append([Event(Type.PLANNED, plan="p", data={})], leases.utc_now())
    assert len(events(database, "dev")) == 1


def test_a_commit_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    """The settings of SQLite that law 1 rests on."""
    database = Database(f"sqlite:///{tmp_path}/ledger.db")
    with database.transaction() as writing:
        assert writing.rows("PRAGMA synchronous") == [(2,)]  # FULL
        assert writing.rows("PRAGMA journal_mode") == [("wal",)]
    database.close()


def test_reading_never_blocks_on_a_writer(tmp_path: Path) -> None:
    """`gamma plan` looks while `gamma apply` writes."""
    database = Database(f"sqlite:///{tmp_path}/ledger.db")
    leases.acquire(database, "dev", "test")
    with database.transaction() as writing:
        writing.change("UPDATE environments SET seq = 77")
        assert database.read("SELECT seq FROM environments") == [(0,)]
    assert database.read("SELECT seq FROM environments") == [(77,)]
    database.close()


def test_the_place_is_for_people() -> None:
    assert Database("sqlite:////a/b.db").place == "/a/b.db"
    place = Database("postgresql://me:hidden@host/ledger").place
    assert "hidden" not in place
    assert "host" in place
