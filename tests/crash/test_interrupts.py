"""Stopped, not killed: Ctrl-C and SIGTERM let the running steps end, and leave nothing in doubt."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from gamma_orch.core.event import Type
from gamma_orch.store.database import Database
from gamma_orch.store.ledger import events, present
from gamma_orch.testing.crash import LOG
from gamma_orch.testing.thing import FAULTS
from tests.cli.gamma import Warm, start, write
from tests.crash.suite import WATCHED
from tests.crash.things import FILES, effects, thing

pytestmark = pytest.mark.crash
ENVIRONMENT = "apiVersion: gamma/v1\nkind: Environment\nmetadata: {name: dev}\n"
THINGS = thing("quick") + thing("slow", after="quick") + thing("below", after="slow")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write(tmp_path, {FILES[0]: ENVIRONMENT, FILES[1]: THINGS})


def begin(project: Path, seconds: float) -> "subprocess.Popen[str]":
    """An apply that has come to its slow step."""
    log = project / "points"
    faults = json.dumps({"slow": {"slow": seconds}})
    process = start(project, "apply", "--yes", GAMMA_PLUGINS=WATCHED, **{LOG: str(log), FAULTS: faults})
    deadline = time.monotonic() + 30
    while not (log.exists() and "before create Thing/slow" in log.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def done(project: Path) -> list[str]:
    return [json.loads(what)["address"] for _, what in effects(project)]


def left_open(project: Path) -> list[str]:
    database = Database(f"sqlite:///{project}/.gamma/ledger.db")
    return [str(address) for address, entry in present(database, "dev")[0].entries.items() if entry.begun]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_running_steps_end(gamma: Warm, project: Path, number: signal.Signals) -> None:
    process = begin(project, seconds=0.7)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Stopping" in err
    assert "Traceback" not in err
    assert out == "dev: 2 done, 1 stopped.\n"
    assert done(project) == ["Thing/quick", "Thing/slow"]
    assert left_open(project) == []
    log = events(Database(f"sqlite:///{project}/.gamma/ledger.db"), "dev")
    assert Type.RELEASED not in {event.type for event in log}
    resumed = gamma(project, "apply", "--yes")
    assert (resumed.code, resumed.out) == (0, "dev: 1 done.\n")
    assert done(project) == ["Thing/quick", "Thing/slow", "Thing/below"]


def test_the_second_time_it_ends_at_once(gamma: Warm, project: Path) -> None:
    process = begin(project, seconds=25)
    before = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - before < 10, "it waited for the step"
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert left_open(project) == ["Thing/slow"]
    resumed = gamma(project, "apply", "--yes")
    assert resumed.code == 0, resumed.err
    assert done(project) == ["Thing/quick", "Thing/slow", "Thing/below"]
    assert left_open(project) == []
