"""A project on disk, read for one environment: files -> resources. The doors to work on them: engine.doors.

`read` never raises for what is wrong in the specs: it returns the diagnostics.
"""

from dataclasses import dataclass
from pathlib import Path

from gamma_orch import __version__
from gamma_orch.core.diagnostic import Diagnostic, Severity, did_you_mean
from gamma_orch.core.provider import GammaError
from gamma_orch.engine.commit import commit_of
from gamma_orch.engine.secrets import Secrets
from gamma_orch.spec import cache, files
from gamma_orch.spec.load import load
from gamma_orch.spec.registry import Registry, registry
from gamma_orch.spec.resolve import Desired, resolve

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
    commit: str  # that the files are of; "" outside git


def read(root: Path, environment: str) -> Project:
    """Everything that the files say about one environment, with every problem. Raises nothing."""
    kinds = registry()
    secrets = Secrets(root / STATE, environment, root)
    commit = commit_of(root)
    tree = files.read(root, environment)
    known = cache.read(root / STATE / "cache", __version__)
    loaded = load(tree.texts, known)
    cache.write(root / STATE / "cache", __version__, known, loaded.parsed)
    resolution = resolve(loaded.documents, environment, kinds, secrets.digest, tree.environments)
    diagnostics = (*tree.diagnostics, *loaded.diagnostics, *resolution.diagnostics)
    broken = any(d.severity is Severity.ERROR for d in diagnostics)
    desired = None if broken else resolution.desired
    return Project(root, environment, desired, diagnostics, kinds, secrets, commit)


def environments(root: Path) -> tuple[str, ...]:
    """The names of the project's environments, sorted."""
    return files.environments(root)


def require_environment(root: Path, environment: str) -> None:
    """Raises GammaError, with the nearest name, where the project has no such environment."""
    names = environments(root)
    if environment not in names:
        hint = did_you_mean(environment, names)
        raise GammaError(
            f"There is no environment {environment!r} in {root / 'environments'}. {hint}".rstrip()
        )


def faultless(root: Path, environment: str) -> tuple[Project, Desired]:
    """A project without errors. Raises SpecsBroken with all of them."""
    project = read(root, environment)
    if project.desired is None:
        raise SpecsBroken(project.diagnostics)
    return project, project.desired


def find_root(start: Path) -> Path:
    """The nearest folder upwards with `specs/` or `environments/`. Raises NoProject."""
    for folder in (start, *start.parents):
        if (folder / "environments").is_dir() or (folder / "specs").is_dir():
            return folder
    raise NoProject(
        f"There is no Gamma project in {start} or above it: no folder has specs/ or environments/. "
        "Make one with: gamma init DIR"
    )
