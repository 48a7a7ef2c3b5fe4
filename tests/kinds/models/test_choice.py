"""Choosing: beside exhaustive search, and what must hold whatever the candidates are."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gamma_orch.kinds.models.choice import (
    NOISE,
    Budget,
    Candidate,
    Latency,
    Objective,
    Shape,
    choose,
    dominates,
    misses,
    pareto,
)
from gamma_orch.kinds.models.intervals import Interval

SHORT = Shape(1, 32)


def candidate(
    name: str = "one",
    size: int = 23_000_000,
    time: float = 0.25,
    memory: int = 180_000_000,
    p95: float = 10.0,
    low: float = 0.99,
    value: float | None = None,
) -> Candidate:
    share = Interval(low + 0.005 if value is None else value, low, low + 0.01)
    quality = Interval(share.value * 0.85, low * 0.85, share.high * 0.85)
    return Candidate(
        name, f"key-{name}", size, time, memory, {SHORT: Latency(p95 * 0.8, p95)}, 0.2, quality, share
    )


def of(name: str, **figures: float) -> Candidate:
    return candidate(name, **figures)  # type: ignore[arg-type]


# --- each objective, by hand ----------------------------------------------------------------------

SOURCE = of("source", size=91_000_000, time=1.0, memory=220_000_000, p95=40.0, low=1.0, value=1.0)
FLOAT = of("float32", size=91_000_000, time=0.6, memory=240_000_000, p95=25.0, low=0.9995, value=1.0)
INT8 = of("int8", size=23_100_000, time=0.22, memory=180_000_000, p95=9.0, low=0.9922, value=0.9984)
DYNAMIC = of("dynamic", size=23_000_000, time=0.27, memory=143_000_000, p95=10.5, low=0.9954, value=1.0023)
PRUNED = of("pruned", size=17_800_000, time=0.12, memory=120_000_000, p95=5.0, low=0.9631, value=0.9798)
ALL = (SOURCE, FLOAT, INT8, DYNAMIC, PRUNED)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget(), "pruned"),
        (Budget(Objective.SMALLEST), "pruned"),
        (Budget(Objective.MOST_ACCURATE), "source"),
        (Budget(Objective.BALANCED), "pruned"),
        (Budget(relative=0.99), "int8"),
        (Budget(relative=0.995), "dynamic"),
        (Budget(Objective.SMALLEST, relative=0.99), "dynamic"),
        (Budget(Objective.BALANCED, relative=0.99), "int8"),  # 3 % behind dynamic, and before it
        (Budget(Objective.MOST_ACCURATE, size=30_000_000), "dynamic"),
        (Budget(latency=9.5, shape=SHORT, relative=0.98), "int8"),
        (Budget(memory=150_000_000, relative=0.98), "dynamic"),
        (Budget(quality=0.84), "int8"),
        (Budget(quality=0.845), "dynamic"),
    ],
)
def test_by_hand(budget: Budget, expected: str):
    assert choose(ALL, budget).chosen == expected


def test_the_lower_bound_is_tested_and_not_the_estimate():
    found = choose([INT8], Budget(relative=0.995))
    assert found.chosen is None
    assert found.rejected == {
        "int8": ("share of the source's quality is 0.9984, certain from 0.9922 on, 0.28% under 0.9950",)
    }


def test_every_limit_that_is_missed_is_named_with_its_figures():
    budget = Budget(size=30_000_000, memory=200_000_000, latency=20.0, shape=SHORT, quality=0.9)
    assert choose([FLOAT, INT8], budget).rejected["float32"] == (
        "size is 91.00 MB, 203.3% over 30.00",
        "memory is 240.00 MB, 20.0% over 200.00",
        "p95 at batch 1 x length 32 is 25.00 ms, 25.0% over 20.00",
        "quality is 0.8500, certain from 0.8496 on, 5.60% under 0.9000",
    )


def test_an_impossible_budget_has_its_nearest_miss():
    found = choose(ALL, Budget(size=17_000_000, relative=0.96))
    assert found.chosen is None
    assert found.nearest is not None
    assert str(found.nearest) == "nearest is pruned: size is 17.80 MB, 4.7% over 17.00"
    assert found.encoded()["nearest"] == {
        "name": "pruned",
        "misses": ["size is 17.80 MB, 4.7% over 17.00"],
    }


def test_what_was_not_measured_keeps_no_limit():
    bare = Candidate("bare", "k", 1, 0.1, 1)
    budget = Budget(latency=5.0, shape=Shape(4, 64), relative=0.5, quality=0.5)
    assert choose([bare], budget).rejected["bare"] == (
        "p95 at batch 4 x length 64 was not measured, and the budget limits it",
        "quality was not measured, and the budget wants 0.5000",
        "share of the source's quality was not measured, and the budget wants 0.5000",
    )
    assert choose([bare], Budget()).chosen == "bare"


def test_noise_flips_no_choice():
    first = of("first", time=0.25)
    for time in (0.2385, 0.25, 0.262):
        assert choose([first, of("second", time=time)], Budget()).chosen == "first"
    assert choose([first, of("second", time=0.237)], Budget()).chosen == "second"
    assert choose([first, of("second", time=0.25)], Budget()).tied == ("second",)


def test_noise_keeps_nothing_that_is_worse_in_all():
    worse = of("worse", time=0.25, size=23_000_001)
    assert choose([worse, of("better", time=0.25)], Budget()).chosen == "better"


def test_ties_are_told_from_the_best_and_make_no_chain():
    """1.04 and 1.08 each tie with their neighbour, and 1.08 not with the best."""
    chain = [of(str(time), time=time) for time in (1.08, 1.04, 1.0)]
    assert choose(chain, Budget()).chosen == "1.04"


def test_nothing_to_choose_from():
    with pytest.raises(ValueError, match="no candidates"):
        choose([], Budget())


# --- whatever the candidates are ------------------------------------------------------------------

# Few values, near each other: ties and equals come up.
times = st.sampled_from([0.1, 0.102, 0.104, 0.106, 0.11, 0.2, 0.21, 0.5, 1.0])
sizes = st.sampled_from([10, 11, 20, 40])
lows = st.sampled_from([0.9, 0.97, 0.99, 0.995, 1.0])
candidates = st.lists(
    st.builds(candidate, size=sizes, time=times, memory=sizes, p95=times, low=lows), min_size=1, max_size=7
).map(lambda found: [dataclasses.replace(one, name=f"c{i}") for i, one in enumerate(found)])
budgets = st.builds(
    Budget,
    objective=st.sampled_from(list(Objective)),
    size=st.none() | sizes,
    memory=st.none() | sizes,
    latency=st.none() | times,
    shape=st.just(SHORT),
    quality=st.none() | lows.map(lambda low: low * 0.85),
    relative=st.none() | lows,
)


def fits(one: Candidate, budget: Budget) -> bool:
    """The limits, written anew."""
    assert one.quality is not None
    assert one.relative is not None
    return (
        (budget.size is None or one.size <= budget.size)
        and (budget.memory is None or one.memory <= budget.memory)
        and (budget.latency is None or one.latency[SHORT].p95 <= budget.latency)
        and (budget.quality is None or one.quality.low >= budget.quality)
        and (budget.relative is None or one.relative.low >= budget.relative)
    )


def goal(one: Candidate, objective: Objective) -> tuple[float, float]:
    """Less is better: first what must be best, then what may be within the noise."""
    assert one.relative is not None
    return {
        Objective.FASTEST: (0.0, one.time),
        Objective.SMALLEST: (float(one.size), one.time),
        Objective.MOST_ACCURATE: (-one.relative.low, one.time),
        Objective.BALANCED: (0.0, one.time * one.size * one.memory / one.relative.low),
    }[objective]


def exhaustive(found: Sequence[Candidate], budget: Budget) -> str | None:
    """The first in the list that is as good as the best and that nothing beats on all counts."""
    inside = [one for one in found if fits(one, budget)]
    best = min((goal(one, budget.objective) for one in inside), default=None)
    for one in inside:
        assert best is not None
        first, second = goal(one, budget.objective)
        if first == best[0] and second <= best[1] * NOISE and not any(dominates(o, one) for o in inside):
            return one.name
    return None


@given(candidates, budgets)
def test_it_is_what_exhaustive_search_finds(found: list[Candidate], budget: Budget):
    choice = choose(found, budget)
    assert choice.chosen == exhaustive(found, budget)
    assert set(choice.rejected) == {one.name for one in found if not fits(one, budget)}
    assert (choice.nearest is None) == (choice.chosen is not None)


@given(candidates, budgets)
def test_nothing_inside_the_budget_dominates_it(found: list[Candidate], budget: Budget):
    choice = choose(found, budget)
    assume(choice.chosen is not None)
    [chosen] = [one for one in found if one.name == choice.chosen]
    assert not any(dominates(one, chosen) for one in found if one.name not in choice.rejected)


@given(candidates, budgets, budgets)
def test_a_tighter_budget_never_reaches_more(found: list[Candidate], budget: Budget, other: Budget):
    def tighter(ours: Any, theirs: Any, pick: Callable[[list[Any]], Any]) -> Any:
        given = [limit for limit in (ours, theirs) if limit is not None]
        return pick(given) if given else None

    tight = Budget(
        budget.objective,
        tighter(budget.size, other.size, min),
        tighter(budget.memory, other.memory, min),
        tighter(budget.latency, other.latency, min),
        SHORT,
        tighter(budget.quality, other.quality, max),
        tighter(budget.relative, other.relative, max),
    )
    loose_choice, tight_choice = choose(found, budget), choose(found, tight)
    if tight_choice.chosen is None:
        return
    by_name = {one.name: one for one in found}
    assert loose_choice.chosen is not None
    loose_goal = goal(by_name[loose_choice.chosen], budget.objective)
    tight_goal = goal(by_name[tight_choice.chosen], budget.objective)
    # Only within the noise, where the first of the list is taken instead of the best.
    assert tight_goal[0] > loose_goal[0] or (
        tight_goal[0] == loose_goal[0] and tight_goal[1] * NOISE >= loose_goal[1]
    )


@given(candidates, budgets, st.randoms())
def test_order_matters_among_ties_only(found: list[Candidate], budget: Budget, random):
    shuffled = list(found)
    random.shuffle(shuffled)
    one, other = choose(found, budget), choose(shuffled, budget)
    assert {one.chosen, *one.tied} == {other.chosen, *other.tied}
    assert set(one.pareto) == set(other.pareto)
    if not one.tied:
        assert one.chosen == other.chosen


@given(candidates)
def test_the_front_is_what_nothing_dominates(found: list[Candidate]):
    front = pareto(found)
    assert front
    for one in found:
        assert (one in front) != any(dominates(other, one) for other in found)
        # Whatever is not on the front is dominated by something on it.
        assert one in front or any(dominates(other, one) for other in front)


@given(candidates)
def test_domination_is_an_order(found: list[Candidate]):
    for one, other, third in itertools.product(found, repeat=3):
        assert not (dominates(one, other) and dominates(other, one))
        if dominates(one, other) and dominates(other, third):
            assert dominates(one, third)


@given(candidates, budgets)
def test_the_nearest_misses_the_fewest_limits(found: list[Candidate], budget: Budget):
    choice = choose(found, budget)
    assume(choice.nearest is not None)
    assert choice.nearest is not None
    by_name = {one.name: list(misses(one, budget)) for one in found}
    nearest = by_name[choice.nearest.name]
    assert len(nearest) == min(len(missed) for missed in by_name.values())
    peers = [missed for missed in by_name.values() if len(missed) == len(nearest)]
    assert max(m.excess for m in nearest) == min(max(m.excess for m in missed) for missed in peers)
    assert all(m.excess > 0 or math.isinf(m.excess) for m in nearest)
