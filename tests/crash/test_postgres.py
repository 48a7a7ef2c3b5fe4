"""PostgreSQL itself, killed at every call and around every statement: 30 steps on a real server.

Each death has a server of its own: a copy of one whose data lies as it was before. It is an embedded
server, so that stopping and starting it is among the calls.
"""

import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from gamma_orch.targets.embedded_postgres import EmbeddedPostgres
from tests.cli.gamma import Warm, folder
from tests.conftest import PROFILE
from tests.crash.suite import Expected, check, expect

pytestmark = [pytest.mark.crash, pytest.mark.postgres]
NIGHTLY = PROFILE == "nightly"
SHARES = 4

# Where a death has most to tell; the nightly run dies everywhere.
CHOSEN = (
    "after sql: ALTER SYSTEM SET",
    "server: stopped",
    "after create Table/items",
    "during sql: CREATE UNIQUE INDEX CONCURRENTLY",
    'before sql: ALTER INDEX "app"."accounts_name"',
    "before sql: DROP INDEX CONCURRENTLY",
    "after update Role/api",
)
# What must not happen twice. Comments and grants may: they say the same again. So may the building of
# an index: what a cut-off build left is built anew.
ONCE = ("ALTER INDEX", "ALTER TABLE", "CREATE EXTENSION", "CREATE SCHEMA", "CREATE TABLE")
CANARY = "canary-of-databases"
OLD, NEW = ({"API_PASSWORD": f"{CANARY}-{version}"} for version in ("old", "new"))
APP = Path(__file__).parent / "app"
HOME = Path(".gamma") / "dev" / "postgres-main"


class Databases:
    steps = 30
    canary = CANARY
    unseen = frozenset({"Role/api", "Role/reporting"})  # with a new password

    def __init__(self, gamma: Warm, place: Path) -> None:
        self.gamma = gamma
        self._place = place
        project = self._before = place / "before"
        shutil.copytree(APP / "before", project)
        done = gamma(project, "apply", "--yes", **OLD, GAMMA_PLUGINS="")
        assert done.code == 0, done.err
        query(project, *sql("meanwhile").split(";\n")[:-1], sql("witness"))
        shutil.copytree(APP / "after", project, dirs_exist_ok=True)
        server = EmbeddedPostgres(project / HOME)
        with (server.data / "postgresql.conf").open("a") as settings:
            settings.write("fsync = off\nfull_page_writes = off\n")
        server.stop()

    def fresh(self) -> Path:
        project = self._place / "run"
        subprocess.run(["cp", "-a", self._before, project], check=True)
        return project

    def variables(self, project: Path) -> Mapping[str, str]:
        return NEW

    def ledger(self, project: Path) -> str:
        return f"sqlite:///{project}/.gamma/ledger.db"

    def world(self, project: Path) -> Any:
        ((found,),) = query(project, sql("world"))
        found["rows"] = query(project, sql("rows"))
        server = EmbeddedPostgres(project / HOME).server()
        for role in ("api", "reporting"):
            # A password cannot be read, but tried.
            with psycopg2.connect(
                host=server.host, port=server.port, dbname="app", user=role, password=NEW["API_PASSWORD"]
            ) as connection:
                found[role] = connection.info.user
            connection.close()
        return found

    def effects(self, project: Path) -> Sequence[tuple[str, str]]:
        log = query(project, "SELECT tag, what FROM witness.log")
        return [("", f"{tag} {what}") for tag, what in log if tag in ONCE]

    def papers(self, project: Path) -> Iterable[Path]:
        found = [file for file in (project / ".gamma").iterdir() if file.is_file()]
        return [*found, project / HOME / "server.log"]

    def done(self, project: Path) -> None:
        EmbeddedPostgres(project / HOME).destroy()
        shutil.rmtree(project)


def sql(name: str) -> str:
    return (APP / f"{name}.sql").read_text(encoding="utf-8")


def query(project: Path, *statements: str) -> Any:
    server = EmbeddedPostgres(project / HOME).start()
    connection = psycopg2.connect(
        host=server.host, port=server.port, user=server.user, password=server.password, dbname="app"
    )
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


@pytest.fixture(scope="module")
def scenario(gamma: Warm) -> Iterator[Databases]:
    with folder() as place:
        yield Databases(gamma, place)
        if (place / "run").exists():  # a check that failed keeps nothing running
            EmbeddedPostgres(place / "run" / HOME).destroy()


@pytest.fixture(scope="module")
def expected(scenario: Databases) -> Expected:
    return expect(scenario)


@pytest.mark.timeout(600)
def test_a_death_where_it_tells_most(scenario: Databases, expected: Expected) -> None:
    for point in CHOSEN:
        assert any(name.startswith(point) for name in expected.points), point
        assert check(scenario, expected, [point]), point


@pytest.mark.nightly
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("share", range(SHARES))
def test_a_death_at_every_call(scenario: Databases, expected: Expected, share: int) -> None:
    at = 1 + share
    while check(scenario, expected, [at]):
        at += SHARES
    assert at > len(expected.points) * 0.8, "it ended too early"
