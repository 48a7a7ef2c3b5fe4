"""Runs outside this process: by Dagster's own command line, on the instance that `gamma dev` would write."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from gamma_orch.core.event import Event, Type
from gamma_orch.orchestration.instance import write_instance
from gamma_orch.store.ledger import events, verify
from tests.orchestration.projects import key, ledger, pending, world

ROOT = Path(__file__).parents[2]


def environ(home: Path, **given: str) -> dict[str, str]:
    """The environment variables of a Dagster process."""
    return {**os.environ, "DAGSTER_HOME": str(home), "PYTHONPATH": str(ROOT), **given}


@contextmanager
def process(log: Path, where: Path, *command: str, **variables: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Something that runs beside the test, in a process group of its own; none of it outlives the block."""
    with log.open("wb") as out:
        started = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=where,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        kill(started)


def kill(started: "subprocess.Popen[bytes]") -> None:
    """What a power cut leaves: nothing of the group ends in order."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()


@contextmanager
def started(root: Path, *names: str, **variables: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A run of the job `reconcile`, of these Things or of all; what it says is in `run.log`."""
    home = write_instance(root)
    command: tuple[str, ...] = ("tests.orchestration.elsewhere", *names)
    if not names:
        command = (
            "dagster",
            "job",
            "execute",
            "-f",
            "pipelines/definitions.py",
            "-a",
            "dev",
            "-j",
            "reconcile",
        )
    with process(root / "run.log", root, *command, **environ(home, **variables)) as one:
        yield one


def selected(*names: str) -> None:
    """In a process of its own, in the project's folder: a run of some, as Dagster's daemon starts it."""
    from dagster._core.definitions.reconstruct import ReconstructableRepository

    where = ReconstructableRepository.for_file("pipelines/definitions.py", "dev", str(Path.cwd()))
    job = where.get_reconstructable_job("reconcile")
    with dg.DagsterInstance.get() as found:
        dg.execute_job(job, found, asset_selection=[key(name) for name in names])


def reconcile(root: Path, *names: str, **variables: str) -> dg.DagsterRunStatus:
    with started(root, *names, **variables) as one:
        one.wait(timeout=150)
    return status(root)


@contextmanager
def instance(root: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(write_instance(root))) as found:
        yield found


def status(root: Path) -> dg.DagsterRunStatus:
    """Of the newest run."""
    with instance(root) as found:
        return found.get_runs(limit=1)[0].status


def steps(root: Path) -> dict[str, str]:
    """How each step of the newest run ended, by its name."""
    with instance(root) as found:
        run = found.get_runs(limit=1)[0]
        return {
            one.step_key: str(one.status and one.status.value) for one in found.get_run_step_stats(run.run_id)
        }


def log(root: Path, *types: Type) -> list[Event]:
    """The ledger's events of these types, in order; of all types where none is named."""
    with ledger(root) as database:
        return [event for event in events(database, "dev") if not types or event.type in types]


def until(told: Callable[[], Any], what: str, seconds: float = 60) -> None:
    """Wait for something to be so."""
    end = time.monotonic() + seconds
    while not told():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def check_converged(root: Path, names: Sequence[str]) -> None:
    """All is there, made once, and nothing is left to do or to settle."""
    things = world(root)
    assert {name: thing["id"] for name, thing in things.things.items()} == {
        name: f"{name}#1" for name in names
    }
    assert things.effects == len(names)
    assert pending(root) == {}
    with ledger(root) as database:
        assert verify(database, "dev") == []


if __name__ == "__main__":
    selected(*sys.argv[1:])
