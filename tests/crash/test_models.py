"""A build that is killed, again and again, and two that want the same: real passes, real SIGKILL."""

import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from gamma_orch.store.artifacts import Artifacts
from tests.kinds.models.project import gamma, project, start

KILLS = 20 if os.environ.get("GAMMA_PROFILE") == "nightly" else 5
MEASURES = ("benchmark", "report")  # times are never the same twice
STARTED = re.compile(r"(Dataset|Model)/\S+  ([a-z-]+): started")


def store(folder: Path) -> Artifacts:
    return Artifacts(str(folder / ".gamma" / "artifacts"), folder / ".gamma" / "builds")


def digests(folder: Path) -> dict[str, str]:
    return {one.key: one.digest for one in store(folder).all() if one.recipe["op"] not in MEASURES}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """What a build makes that nobody kills, and how long it takes."""
    folder = project(tmp_path_factory.mktemp("undisturbed") / "p")
    started = time.monotonic()
    done = gamma(folder, "apply", "-e", "dev", "--yes")
    assert done.code == 0, done.err
    return digests(folder), time.monotonic() - started


@pytest.mark.timeout(900)
def test_killed_at_any_moment_it_ends_as_if_nobody_had(
    undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    wanted, seconds = undisturbed
    folder, draw = project(tmp_path / "p"), random.Random(7)
    for _ in range(KILLS):
        process = start(folder, "apply", "-e", "dev", "--yes")
        time.sleep(draw.uniform(0.2, 0.8) * min(seconds, 20))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for artifact in store(folder).all():
            assert store(folder).fault(artifact) == "", artifact.recipe["op"]
        found = store(folder).pointer("dev", "Model/sentiment")
        assert found is None or store(folder).find(found["key"]) is not None
    done = gamma(folder, "apply", "-e", "dev", "--yes")
    assert done.code == 0, done.err
    assert digests(folder) == wanted
    assert gamma(folder, "plan", "-e", "dev").code == 0
    shutil.rmtree(folder)


@pytest.mark.timeout(300)
def test_two_that_want_the_same_build_it_once(
    undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    folder = project(tmp_path / "p", ("dev", "prod"))
    both = [start(folder, "apply", "-e", name, "--yes") for name in ("dev", "prod")]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    started = Counter(op for text in said for _, op in STARTED.findall(text))
    del started["evaluate"]  # of several right after each other, the first is told
    assert set(started.values()) == {1}, started
    assert digests(folder) == undisturbed[0]
    dev, prod = (store(folder).pointer(name, "Model/sentiment") for name in ("dev", "prod"))
    assert dev is not None
    assert prod is not None
    assert dev["digest"] == prod["digest"]
