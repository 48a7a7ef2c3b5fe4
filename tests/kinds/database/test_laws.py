"""The laws of every provider, held by each of the five kinds on the real server.

Each kind has two samples on two targets, which are one server: so one of them can be made
unreadable while the other is looked at.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.core.leaves import Secret
from gamma_orch.core.provider import Provider
from gamma_orch.spec.references import plain
from gamma_orch.targets import Targets
from gamma_orch.testing.laws import LAWS, Law, Sample, Subject, check
from tests.kinds.database.bench import ACCOUNTS, KINDS, Bench

DEAD = {"type": "postgres", "url": "postgresql://127.0.0.1:1/postgres"}


@dataclass(frozen=True)
class Given:
    """The samples of one kind: the same spec on both targets, changed and replaced."""

    kind: str
    spec: Callable[[str], Json]  # of a target
    changed: dict[str, Any] | None
    replaced: dict[str, Any] | None = None
    names: Sequence[str] = ("main", "other")


GIVEN = [
    Given(
        "Database",
        lambda target: {
            "server": target,
            "extensions": ["pg_trgm"],
            "settings": {"deadlock_timeout": "2s"} if target == "main" else {},
        },
        {"extensions": ["hstore"]},
    ),
    Given("Schema", lambda target: {"database": f"{target}-db"}, None),
    Given(
        "Table",
        lambda target: {
            **ACCOUNTS,
            "database": f"{target}-db",
            "checks": {"known": "plan in ('free', 'pro')"},
        },
        {
            "columns": {**ACCOUNTS["columns"], "score": {"type": "numeric(5,1)", "nullable": True}},
            "checks": {"known": "plan <> ''"},
            "unique": [["email"]],
        },
    ),
    Given(
        "Role",
        lambda target: {
            "server": target,
            "password": Secret("db", "d1"),
            "grants": [{"on": "table", "tables": [f"{target}-table"], "privileges": ["select", "insert"]}],
        },
        {
            "password": Secret("db", "d2"),
            "connectionLimit": 4,
            "attributes": ["createdb"],
            "grants": [],
        },
    ),
    Given(
        "Index",
        lambda target: {
            "table": f"{target}-table",
            "columns": [{"expression": "lower(email)"}],
            "where": "plan = 'pro'",
        },
        None,
        {"columns": ["email", {"column": "plan", "order": "desc"}], "where": None, "unique": True},
    ),
]


@pytest.fixture(scope="module")
def parents(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Mapping[Address, Fields]:
    """A database and a table on each target, for all tests of this module."""
    declared = {name: {"type": "postgres", "url": server_url} for name in ("main", "other")}
    bench = Bench(declared, tmp_path_factory.mktemp("state"), f"laws{os.getpid()}", f"laws{os.getpid()}")

    async def prepare() -> None:
        try:
            for target in declared:
                name = f"{bench.name}_{target}"
                await bench.apply(f"Database/{target}-db", {"server": target, "name": name})
                table = {**ACCOUNTS, "database": f"{target}-db", "name": "parent"}
                await bench.apply(f"Table/{target}-table", table)
        finally:
            await bench.aclose()

    asyncio.run(prepare())
    return bench.wanted


@pytest.fixture
def subject_of(
    bench: Bench, parents: Mapping[Address, Fields], server_url: str, tmp_path: Path
) -> Callable[[Given], Subject]:
    declared = {name: {"type": "postgres", "url": server_url} for name in ("main", "other")}
    secrets = {"db": "a-long-secret-of-the-laws"}

    def spec(given: Given, target: str, changed: dict[str, Any] | None) -> Json:
        model = KINDS[given.kind].spec.model_validate(
            {**given.spec(target), **(changed or {}), "name": f"{bench.name}_{target}_sample"}
        )
        return plain(model)

    def make(given: Given) -> Subject:
        hidden: set[str] = set()
        samples = [
            Sample(
                Address(given.kind, f"sample-{target}"),
                spec(given, target, None),
                spec(given, target, given.changed) if given.changed else None,
                spec(given, target, given.replaced) if given.replaced else None,
            )
            for target in given.names
        ]

        @asynccontextmanager
        async def opened() -> AsyncIterator[Provider]:
            seen = {name: DEAD if name in hidden else target for name, target in declared.items()}
            targets = Targets(bench.targets.environment, tmp_path, seen, lambda tree: tree)
            try:
                yield KINDS[given.kind].provider(targets)
            finally:
                await targets.aclose()

        @contextmanager
        def unreadable(address: Address) -> Iterator[frozenset[Address]]:
            hidden.add(address.name.removeprefix("sample-"))
            try:
                yield frozenset({address})
            finally:
                hidden.clear()

        return Subject(
            traits=KINDS[given.kind].traits,
            open=opened,
            samples=samples,
            unreadable=unreadable,
            secrets=secrets if given.kind == "Role" else {},
            parents=parents,
            spec_shaped=False,
        )

    return make


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("given", GIVEN, ids=lambda given: given.kind)
def test_a_kind_keeps_the_law(given: Given, law: Law, subject_of: Callable[[Given], Subject]):
    check(law, subject_of(given))
