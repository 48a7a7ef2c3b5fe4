"""`gamma` as a test calls it: a command in a project, what it printed, how it ended.

`Warm` runs commands in forked processes (see `nursery`), `cold` in one that starts as a user's does.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from gamma_orch.targets.embedded_postgres import EmbeddedPostgres

ROOT = Path(__file__).parents[2]
THING = "gamma_orch.testing.thing"


def scratch() -> str | None:
    """Where test projects lie: in memory, if there is room. What a SIGKILL leaves is the same there, and
    a commit does not wait for a disk."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 30
    return str(memory) if roomy else None


@contextmanager
def folder() -> Iterator[Path]:
    """A folder there that a server may enter, which runs under another account than root's."""
    path = Path(tempfile.mkdtemp(prefix="gamma-test-", dir=scratch()))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Done:
    code: int  # negative: the signal that killed it
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environ(**given: str) -> dict[str, str]:
    """This process's environment without anything that speaks to Gamma, and what is given."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GAMMA_", "PG", "NO_COLOR", "COLUMNS"))}
    return {**kept, "PYTHONPATH": str(ROOT), "GAMMA_PLUGINS": THING, "GAMMA_ACTOR": "tester", **given}


class Warm:
    """Forked processes. One command at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.nursery"],
            cwd=ROOT,
            env=environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._folder = Path(tempfile.mkdtemp(prefix="gamma-output-", dir=scratch()))

    def __call__(self, project: Path, *arguments: str, **variables: str) -> Done:
        order: Mapping[str, Any] = {
            "arguments": arguments,
            "cwd": str(project),
            "env": environ(**variables),
            "out": str(self._folder / "out"),
            "err": str(self._folder / "err"),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the nursery died"
        out, err = (self._folder / name for name in ("out", "err"))
        return Done(int(answer), out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        for file in self._folder.iterdir():
            file.unlink()
        self._folder.rmdir()


@pytest.fixture(scope="session")
def gamma() -> Iterator[Warm]:
    """For a conftest to import."""
    with Warm() as warm:
        yield warm


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL server, to which the name of a database is to be appended."""
    with folder() as place:
        embedded = EmbeddedPostgres(place / "tests" / "postgres-main")
        at = embedded.start()
        yield f"postgresql://{at.user}:{at.password}@{at.host}:{at.port}/"
        embedded.destroy()


def start(project: Path, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
    """A cold process that runs beside the test."""
    return subprocess.Popen(
        [sys.executable, "-m", "gamma_orch.cli", *arguments],
        cwd=project,
        env=environ(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def cold(project: Path, *arguments: str, **variables: str) -> Done:
    process = start(project, *arguments, **variables)
    out, err = process.communicate(timeout=60)
    return Done(process.returncode, out, err)


def write(project: Path, files: Mapping[str, str]) -> Path:
    """Write a project's files; an empty text deletes one."""
    for name, text in files.items():
        path = project / name
        if text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        else:
            path.unlink()
    return project
