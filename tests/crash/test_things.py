"""The world of things, killed at every call: 40 steps, more than 300 points."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.gamma import Warm, folder
from tests.conftest import PROFILE
from tests.crash.suite import Expected, Scenario, check, expect
from tests.crash.things import FirstTime, LedgerOnPostgres, Things

pytestmark = pytest.mark.crash
NIGHTLY = PROFILE == "nightly"
SHARES = 4 if NIGHTLY else 1  # of the points, so that workers can take a share each
# Where a death has most to tell; the nightly run dies everywhere.
CHOSEN = (
    "before delete Thing/root",
    "after delete Thing/root",
    "after create Thing/root",
    "after replace Thing/swapped",
    "before update Thing/rotated",
    "after update Thing/rotated",
    "before create Thing/hidden",
    "after create Thing/hidden",
)
on_postgres = pytest.mark.postgres


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with folder() as path:
        yield path


@pytest.fixture(scope="module")
def things(gamma: Warm, place: Path) -> tuple[Scenario, Expected]:
    scenario = Things(gamma, place / "things")
    return scenario, expect(scenario)


def everywhere(scenario: Scenario, expected: Expected, first: int, step: int) -> None:
    """Die at each `step`th point. The order of what runs side by side differs from run to run, and so
    does the number of points: it goes on until a run ends by itself."""
    at = first
    while check(scenario, expected, [at]):
        at += step
    assert at > len(expected.points) * 0.8, f"{at} points, and not {len(expected.points)}"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("share", range(SHARES))
def test_a_death_at_every_call(things: tuple[Scenario, Expected], share: int) -> None:
    everywhere(*things, first=1 + share, step=SHARES if NIGHTLY else 19)


@pytest.mark.parametrize("point", CHOSEN)
def test_a_death_where_it_tells_most(things: tuple[Scenario, Expected], point: str) -> None:
    assert check(*things, [point])


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(40 if NIGHTLY else 2))
def test_death_after_death(things: tuple[Scenario, Expected], seed: int) -> None:
    """The resume is killed too, and its resume: in the end somebody gets through."""
    chance = random.Random(seed)
    check(*things, [chance.randint(5, 90) for _ in range(12)])


@pytest.mark.timeout(600)
def test_a_death_in_the_first_apply(gamma: Warm, place: Path) -> None:
    """The making of the ledger's tables is cut off, too."""
    scenario = FirstTime(gamma, place / "first")
    expected = expect(scenario)
    assert any("makes the tables" in point for point in expected.points)
    everywhere(scenario, expected, first=1, step=1 if NIGHTLY else 4)


@on_postgres
@pytest.mark.timeout(1800)
def test_a_death_with_the_ledger_on_postgres(gamma: Warm, place: Path, server: str) -> None:
    scenario = LedgerOnPostgres(gamma, place / "server", server)
    everywhere(scenario, expect(scenario), first=3, step=1 if NIGHTLY else 60)
