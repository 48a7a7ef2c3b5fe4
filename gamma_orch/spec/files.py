"""The door to a project's files: `specs/**` and `environments/<env>/**` as bytes, by relative path.

Called by the engine and the CLI before `spec.load`. It never leaves the project's folder: a link
that leads out is reported and not followed. Files are read in sorted order, and never more of one
than `load` would accept anyway.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gamma_orch.core.address import NAME
from gamma_orch.core.diagnostic import Diagnostic, Span
from gamma_orch.spec.codes import Code
from gamma_orch.spec.load import MAX_BYTES
from gamma_orch.spec.words import printable

SPECS = "specs"
ENVIRONMENTS = "environments"
RELEASE = "release.yaml"
MAX_TREE = 256 << 20

_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Tree:
    texts: dict[str, bytes]  # by path relative to the root, with "/" on every system
    environments: tuple[str, ...]  # the names there are
    diagnostics: tuple[Diagnostic, ...]


def read(root: Path | str, environment: str | None) -> Tree:
    """The files that matter for one environment; for None those of `specs/` alone."""
    base = os.path.realpath(root)
    folders = [SPECS]
    if environment is not None and NAME.fullmatch(environment):
        folders.append(f"{ENVIRONMENTS}/{environment}")
    texts: dict[str, bytes] = {}
    diagnostics: list[Diagnostic] = []
    total = 0
    for folder in folders:
        for found in _walk(base, folder):
            if isinstance(found, Diagnostic):
                diagnostics.append(found)
                continue
            if environment is not None and found == f"{ENVIRONMENTS}/{environment}/{RELEASE}":
                continue
            content = _content(base, found)
            if isinstance(content, Diagnostic):
                diagnostics.append(content)
                continue
            total += len(content)
            if total > MAX_TREE:
                message = f"The files before and with this one are together larger than {MAX_TREE >> 20} MiB."
                hint = "the rest was not read; keep bulk data out of specs/ and environments/"
                diagnostics.append(Diagnostic(Code.TREE_TOO_LARGE, message, Span(found), hint=hint))
                return Tree(texts, environments(base), tuple(diagnostics))
            texts[found] = content
    return Tree(texts, environments(base), tuple(diagnostics))


def environments(root: Path | str) -> tuple[str, ...]:
    """The names of the environments a project has: the folders below `environments/`."""
    try:
        with os.scandir(f"{root}{os.sep}{ENVIRONMENTS}") as entries:
            return tuple(sorted(e.name for e in entries if NAME.fullmatch(e.name) and e.is_dir()))
    except OSError:
        return ()


def _walk(base: str, folder: str) -> Iterator[str | Diagnostic]:
    """The YAML files below a folder, sorted; hidden ones and hidden folders are passed over."""
    # Each pending folder comes with the real paths above it, against links that lead in circles.
    pending: list[tuple[str, frozenset[str]]] = [(folder, frozenset())]
    while pending:
        here, above = pending.pop()
        full = f"{base}{os.sep}{here}"
        real = os.path.realpath(full)
        if not _inside(base, real):
            yield _outside(here)
            continue
        try:
            entries = sorted(os.scandir(full), key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            yield _unreadable(here, error)
            continue
        if real in above:
            continue
        below: list[tuple[str, frozenset[str]]] = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = f"{here}/{entry.name}"
            if entry.is_symlink() and not _inside(base, os.path.realpath(entry.path)):
                if _is_folder(entry) or entry.name.endswith(_ENDINGS):
                    yield _outside(name)
            elif _is_folder(entry):
                below.append((name, above | {real}))
            elif entry.name.endswith(_ENDINGS):
                yield name if name.isprintable() else _odd_name(name)
        pending += reversed(below)


def _content(base: str, name: str) -> bytes | Diagnostic:
    try:
        # Without O_NONBLOCK a named pipe that somebody left there would stop everything.
        descriptor = os.open(f"{base}{os.sep}{name}", os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return Diagnostic(
                    Code.UNREADABLE, "This is not a regular file.", Span(name), hint="remove it"
                )
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        return _unreadable(name, error)


def _outside(name: str) -> Diagnostic:
    message = "This link leads out of the project; it is not followed."
    return Diagnostic(
        Code.OUTSIDE, message, Span(printable(name, 400)), hint="copy the file into the project"
    )


def _unreadable(name: str, error: OSError) -> Diagnostic:
    message = f"It cannot be read: {error.strerror or error}."
    return Diagnostic(Code.UNREADABLE, message, Span(printable(name, 400)), hint="check its permissions")


def _odd_name(name: str) -> Diagnostic:
    message = "The name of this file has characters that cannot be shown."
    return Diagnostic(Code.UNREADABLE, message, Span(printable(name, 400)), hint="rename it")


def _inside(base: str, path: str) -> bool:
    return path == base or path.startswith(base.rstrip(os.sep) + os.sep)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
