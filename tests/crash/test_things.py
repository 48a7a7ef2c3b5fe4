"""The world of things, killed at every call: 40 steps, more than 300 points."""

import random
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.testing.world import World
from tests.cli.gamma import Warm, folder, write
from tests.conftest import PROFILE
from tests.crash import things
from tests.crash.suite import Expected, check, expect

pytestmark = pytest.mark.crash
NIGHTLY = PROFILE == "nightly"
SHARES = 4  # of the points, so that workers can take a share each
SPREAD = 24  # how many points are enough where it has to be quick


class Things:
    steps = 30
    canary = things.CANARY
    unseen = frozenset({"Thing/rotated"})

    def __init__(self, gamma: Warm, place: Path) -> None:
        self.gamma = gamma
        self._place = place
        self._before = place / "before"
        project = write(place / "before", things.before())
        done = gamma(project, "apply", "--yes", **things.password(1))
        assert done.code == 0, done.err
        things.meanwhile(World(things.file_of(project)))
        write(project, things.after())
        self._prior = len(things.file_of(project).read_bytes())

    def fresh(self) -> Path:
        project = self._place / "run"
        shutil.copytree(self._before, project)
        return project

    def variables(self, project: Path) -> Mapping[str, str]:
        return things.password(2)

    def ledger(self, project: Path) -> str:
        return f"sqlite:///{project}/.gamma/ledger.db"

    def world(self, project: Path) -> Any:
        return dict(World(things.file_of(project)).things)

    def effects(self, project: Path) -> Sequence[tuple[str, str]]:
        return things.effects(project, self._prior)

    def papers(self, project: Path) -> Iterable[Path]:
        return [file for file in project.rglob("*") if file.is_file()]

    def done(self, project: Path) -> None:
        shutil.rmtree(project)


@pytest.fixture(scope="module")
def scenario(gamma: Warm) -> Iterator[Things]:
    with folder() as place:
        yield Things(gamma, place)


@pytest.fixture(scope="module")
def expected(scenario: Things) -> Expected:
    return expect(scenario)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("share", range(SHARES))
def test_a_death_at_every_call(scenario: Things, expected: Expected, share: int) -> None:
    step = SHARES if NIGHTLY else max(SHARES, SHARES * len(expected.points) // SPREAD)
    at = 1 + share * step // SHARES
    # The order of what runs side by side differs from run to run, and so does the number of points.
    while check(scenario, expected, [at]):
        at += step
    assert at > len(expected.points) * 0.8, "it ended too early"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(40 if NIGHTLY else 2))
def test_death_after_death(scenario: Things, expected: Expected, seed: int) -> None:
    """The resume is killed too, and its resume: in the end somebody gets through."""
    chance = random.Random(seed)
    check(scenario, expected, [chance.randint(5, 90) for _ in range(12)])
