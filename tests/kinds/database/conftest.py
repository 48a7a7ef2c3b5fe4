"""One real server for the whole session, and a database of its own for each test.

`GAMMA_TEST_POSTGRES` may name another server by URL, of a superuser: that is how an older version is
tried. What restarts the server is skipped then.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gamma_orch.targets.embedded_postgres import EmbeddedPostgres
from tests.kinds.database.bench import Bench
from tests.targets.coroutines import pytest_pyfunc_call
from tests.targets.folders import open_folder

__all__ = ["pytest_pyfunc_call"]

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.postgres)


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    url = os.environ.get("GAMMA_TEST_POSTGRES")
    if url:
        yield url
        return
    with open_folder() as path:
        server = EmbeddedPostgres(path / "tests" / "postgres-main")
        server.start()
        # A crash of the machine may cost this server its data; tests need not wait for the disk.
        with (server.data / "postgresql.conf").open("a") as settings:
            settings.write("fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n")
        server.restart()
        at = server.server()
        yield f"postgresql://{at.user}:{at.password}@{at.host}:{at.port}/postgres"
        server.destroy()


@pytest.fixture
def bench(server_url: str, tmp_path: Path) -> Bench:
    """Declares Database/main, a name that no other test has; `await bench.ready()` makes it."""
    declared = {name: {"type": "postgres", "url": server_url} for name in ("main", "other")}
    # Marks tell environments apart, so each test is an environment of its own.
    name = f"t{os.getpid()}_{next(_numbers)}"
    return Bench(declared, tmp_path, name, f"dev_{name}")


@pytest.fixture
def own_server() -> Iterator[EmbeddedPostgres]:
    """A server of its own, for tests that change its settings."""
    with open_folder() as path:
        server = EmbeddedPostgres(path / "dev" / "postgres-main")
        server.start()
        yield server
        server.destroy()


@pytest.fixture
def own_bench(own_server: EmbeddedPostgres) -> Bench:
    declared = {"main": {"type": "postgres", "embedded": True}}
    return Bench(declared, own_server.home.parent.parent, f"t{next(_numbers)}", "dev")
