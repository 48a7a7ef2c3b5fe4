"""A project on disk, opened for one environment: files -> resources, and the doors to work on them.

`read` never raises for what is wrong in the specs: it returns the diagnostics. `open_site` opens the
ledger and the targets for a project without errors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic, Severity, did_you_mean
from gamma_orch.core.provider import GammaError
from gamma_orch.engine.converge import Site
from gamma_orch.engine.secrets import Secrets
from gamma_orch.engine.world import World
from gamma_orch.spec.registry import Registry, registry
from gamma_orch.spec.resolve import Desired

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
    root: Path
    environment: str
    desired: Desired
    diagnostics: tuple[Diagnostic, ...]
    commit: str
    kinds: Registry
    secrets: Secrets

    @property
    def state(self) -> Path:
        return self.root / STATE

    @property
    def ok(self) -> bool:
        return not any(d.severity is Severity.ERROR for d in self.diagnostics)


def find_root(start: Path) -> Path:
    """The nearest folder upwards with `specs/` or `environments/`. Raises NoProject."""
    for folder in (start, *start.parents):
        if (folder / "environments").is_dir() or (folder / "specs").is_dir():
            return folder
    raise NoProject(
        f"There is no Gamma project in {start} or above it: no folder has specs/ or environments/. "
        "Make one with: gamma init DIR"
    )
