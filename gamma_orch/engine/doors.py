"""The doors of a project: its ledger and its targets, opened for one environment and closed again.

`opened` gives all of them, of a project without errors; `ledger` the ledger alone; `run` is the one
place where an event loop is started.
"""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from gamma_orch.core.canonical import Json
from gamma_orch.engine.converge import Site
from gamma_orch.engine.project import STATE, Project, faultless, find_root, require_environment
from gamma_orch.engine.world import World
from gamma_orch.spec.durations import written_duration
from gamma_orch.spec.resolve import Desired
from gamma_orch.store.database import Database
from gamma_orch.targets import Builds, Targets

T = TypeVar("T")


@contextmanager
def opened(start: Path, environment: str) -> Iterator[Site]:
    """The engine's doors for one environment, closed at the end.

    Raises NoProject, SpecsBroken, and what the ledger raises when it is used.
    """
    with working(*faultless(find_root(start.resolve()), environment)) as site:
        yield site


@contextmanager
def working(project: Project, desired: Desired) -> Iterator[Site]:
    """The same for a project that is read already."""
    root, environment = project.root, project.environment
    targets = Targets(
        environment,
        root / STATE,
        _declared(desired),
        project.secrets.reveal,
        _builds(root, desired),
        ledger_url(root),
    )
    database = Database(ledger_url(root))
    try:
        yield Site(
            environment=environment,
            desired=desired.resources,
            commit=project.commit,
            database=database,
            world=World(project.kinds.get, targets),
            secrets=project.secrets,
            reconcile=desired.environment.reconcile,
        )
    finally:
        database.close()


@contextmanager
def ledger(start: Path, environment: str) -> Iterator[Database]:
    """The ledger alone, for looking back: works where the specs of today are broken."""
    root = find_root(start.resolve())
    require_environment(root, environment)
    database = Database(ledger_url(root))
    try:
        yield database
    finally:
        database.close()


def _declared(desired: Desired) -> dict[str, dict[str, Json]]:
    """The targets as data. Read field by field: a dump would open the secrets among them."""
    return {
        name: {
            "type": target.type,
            "embedded": target.embedded,
            "url": target.url,
            "rules": target.rules,
            "scrapes": target.scrapes,
            "alertmanager": target.alertmanager,
            "token": target.token,
            "folder": target.folder,
            "interval": written_duration(target.interval),
            "maxParallel": target.parallel,
        }
        for name, target in desired.environment.targets.items()
    }


def _builds(root: Path, desired: Desired) -> Builds:
    said = desired.environment.builds
    store = said.store or str(root / STATE / "artifacts")
    if "://" not in store:
        store = str((root / store).resolve())
    return Builds(store, said.threads, said.max_parallel)


def run(site: Site, work: Coroutine[Any, Any, T]) -> T:
    """Run one of the engine's verbs to its end, in an event loop of its own, and close what it opened.

    Connections belong to the loop they were made in: the next call opens its own.
    """

    async def closing() -> T:
        try:
            return await work
        finally:
            await site.world.aclose()

    return asyncio.run(closing())


def ledger_url(root: Path) -> str:
    """GAMMA_LEDGER, for a ledger that machines share, else a SQLite file under `.gamma`."""
    return os.environ.get("GAMMA_LEDGER") or f"sqlite:///{root / STATE / 'ledger.db'}"
