"""The same tests on both databases: a SQLite file, and a schema of its own on a real PostgreSQL."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gamma_orch.store.database import Database
from gamma_orch.targets.embedded_postgres import EmbeddedPostgres
from tests.targets.folders import open_folder

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with open_folder() as path:
        server = EmbeddedPostgres(path / "tests" / "postgres-ledger")
        at = server.start()
        yield f"postgresql://{at.user}:{at.password}@{at.host}:{at.port}"
        server.destroy()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a ledger that does not exist yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/ledger.db"
    server = request.getfixturevalue("postgres")
    name = f"ledger_{os.getpid()}_{next(_numbers)}"
    make_database(server, name)
    return f"{server}/{name}"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database(url)
    yield opened
    opened.close()


def make_database(server: str, name: str) -> None:
    import psycopg2

    connection = psycopg2.connect(f"{server}/postgres")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}"')
    connection.close()
