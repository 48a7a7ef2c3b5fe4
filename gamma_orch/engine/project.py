"""A project on disk, opened for one environment: files -> resources, and the doors to work on them.

`read` never raises for what is wrong in the specs: it returns the diagnostics. `opened` gives the
ledger and the targets of a project without errors to work on.
"""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gamma_orch import __version__
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic, Severity, did_you_mean
from gamma_orch.core.provider import GammaError
from gamma_orch.engine.commit import commit_of
from gamma_orch.engine.converge import Site
from gamma_orch.engine.secrets import Secrets
from gamma_orch.engine.world import World
from gamma_orch.spec import cache, files
from gamma_orch.spec.load import load
from gamma_orch.spec.registry import Registry, registry
from gamma_orch.spec.resolve import Desired, resolve
from gamma_orch.store.database import Database
from gamma_orch.targets import Targets

T = TypeVar("T")

STATE = ".gamma"  # beside the specs: ledger, caches, embedded servers; never in git


class NoProject(GammaError):
    """There is no Gamma project where one was looked for."""


class SpecsBroken(GammaError):
    """The specs have errors; `diagnostics` says which."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        super().__init__("The specs have errors.")
        self.diagnostics = diagnostics


@dataclass(frozen=True, slots=True)
class Project:
    """`desired` is None exactly when a diagnostic is an error."""

    root: Path
    environment: str
    desired: Desired | None
    diagnostics: tuple[Diagnostic, ...]
    kinds: Registry
    secrets: Secrets


def read(root: Path, environment: str) -> Project:
    """Everything that the files say about one environment, with every problem. Raises nothing."""
    kinds = registry()
    secrets = Secrets(root / STATE, environment, root)
    tree = files.read(root, environment)
    known = cache.read(root / STATE / "cache", __version__)
    loaded = load(tree.texts, known)
    cache.write(root / STATE / "cache", __version__, known, loaded.parsed)
    resolution = resolve(loaded.documents, environment, kinds, secrets.digest, tree.environments)
    diagnostics = (*tree.diagnostics, *loaded.diagnostics, *resolution.diagnostics)
    broken = any(d.severity is Severity.ERROR for d in diagnostics)
    return Project(root, environment, None if broken else resolution.desired, diagnostics, kinds, secrets)


def environments(root: Path) -> tuple[str, ...]:
    """The names of the project's environments, sorted."""
    return files.environments(root)


def faultless(root: Path, environment: str) -> tuple[Project, Desired]:
    """A project without errors. Raises SpecsBroken with all of them."""
    project = read(root, environment)
    if project.desired is None:
        raise SpecsBroken(project.diagnostics)
    return project, project.desired


@contextmanager
def opened(start: Path, environment: str) -> Iterator[Site]:
    """The engine's doors for one environment, closed at the end.

    Raises NoProject, SpecsBroken, and what the ledger raises when it is used.
    """
    root = find_root(start.resolve())
    project, desired = faultless(root, environment)
    targets = Targets(environment, root / STATE, _declared(desired), project.secrets.reveal)
    database = Database(ledger_url(root))
    try:
        yield Site(
            environment=environment,
            desired=desired.resources,
            commit=commit_of(root),
            database=database,
            world=World(project.kinds.get, targets),
            secrets=project.secrets,
        )
    finally:
        database.close()


@contextmanager
def ledger(start: Path, environment: str) -> Iterator[Database]:
    """The ledger alone, for looking back: works where the specs of today are broken."""
    root = find_root(start.resolve())
    names = environments(root)
    if environment not in names:
        hint = did_you_mean(environment, names)
        raise GammaError(
            f"There is no environment {environment!r} in {root / 'environments'}. {hint}".rstrip()
        )
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
            "maxParallel": target.max_parallel,
        }
        for name, target in desired.environment.targets.items()
    }


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


def find_root(start: Path) -> Path:
    """The nearest folder upwards with `specs/` or `environments/`. Raises NoProject."""
    for folder in (start, *start.parents):
        if (folder / "environments").is_dir() or (folder / "specs").is_dir():
            return folder
    raise NoProject(
        f"There is no Gamma project in {start} or above it: no folder has specs/ or environments/. "
        "Make one with: gamma init DIR"
    )
