"""How many workers are recommended: what always holds, and what is said."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.kinds.serving.scaling import (
    FEW,
    LONG,
    ROOM,
    TOLERATED,
    Figures,
    Measure,
    Policy,
    Recommendation,
    recommend,
)

NOW = 1_000_000.0
MEASURES: tuple[Measure, ...] = get_args(Measure)
measures = st.sampled_from(MEASURES)
loads = st.floats(min_value=0, max_value=2) | st.floats(min_value=0, max_value=1000)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    least = draw(st.integers(1, 3))
    targets = {
        measure: draw(st.sampled_from((0.01, 0.7, 4.0))) for measure in draw(st.sets(measures, min_size=1))
    }
    return Policy(least, draw(st.integers(least, 64)), targets, 60.0)


def figures(**more: float) -> Figures:
    """Two workers, watched for as long as they should be. A measure by its name."""
    measured = {measure: more[measure] for measure in MEASURES if measure in more}
    return Figures(int(more.get("workers", 2)), NOW, 60.0, measured, int(more.get("requests", 1000)))


@st.composite
def known(draw: st.DrawFn, policy: Policy) -> Figures:
    """Each figure of the policy is known, and by a common load: else the greatest is nearly always great."""
    load = draw(loads)
    measured = {
        measure: load * draw(st.floats(min_value=0, max_value=1)) * target
        for measure, target in policy.targets.items()
    }
    return replace(figures(workers=draw(st.integers(1, 8) | st.integers(1, 64))), measured=measured)


cases = policies().flatmap(lambda policy: st.tuples(st.just(policy), known(policy)))


def workers(found: Figures, policy: Policy) -> int:
    told = recommend(found, policy, NOW)
    assert told.workers is not None
    return told.workers


# -- laws ----------------------------------------------------------------------------------------


@given(cases)
def test_it_lies_within_the_bounds(case: tuple[Policy, Figures]) -> None:
    policy, found = case
    assert policy.least <= workers(found, policy) <= policy.most


@given(cases, st.data())
def test_more_load_never_gives_fewer(case: tuple[Policy, Figures], data: st.DataObject) -> None:
    policy, found = case
    measure = data.draw(st.sampled_from(sorted(policy.targets)))
    more = found.measured[measure] + data.draw(loads) * policy.targets[measure]
    assert workers(replace(found, measured={**found.measured, measure: more}), policy) >= workers(
        found, policy
    )


@given(cases, st.integers(0, 100), st.integers(0, 100))
def test_more_requests_never_give_fewer(case: tuple[Policy, Figures], some: int, more: int) -> None:
    policy, found = case
    few = workers(replace(found, requests=some), policy)
    assert workers(replace(found, requests=some + more), policy) >= few


@given(cases)
def test_what_is_followed_comes_to_rest_and_is_never_taken_back(case: tuple[Policy, Figures]) -> None:
    """The same work, shared by as many workers as were recommended."""
    policy, found = case
    total = {measure: value * found.workers for measure, value in found.measured.items()}
    path = [min(max(found.workers, policy.least), policy.most)]
    for _ in range(70):
        shared = {measure: value / path[-1] for measure, value in total.items()}
        path.append(workers(replace(found, workers=path[-1], measured=shared), policy))
    steps = [after - before for before, after in pairwise(path)]
    assert not (any(step > 0 for step in steps) and any(step < 0 for step in steps)), path
    assert steps[-1] == 0, path


@given(cases)
def test_out_at_once_and_in_by_one(case: tuple[Policy, Figures]) -> None:
    policy, found = case
    here, load = found.workers, max(found.measured[m] / target for m, target in policy.targets.items())
    wanted = workers(found, policy)
    if load > TOLERATED:
        enough = min(math.ceil(here * load - 1e-9), 2 * here)
        assert wanted >= min(enough, policy.most)
    assert wanted >= min(here - 1, policy.most)
    if wanted < min(here, policy.most):
        assert load * here / (here - 1) <= ROOM


@given(cases, st.data())
def test_a_figure_that_is_not_known_takes_no_worker_away(
    case: tuple[Policy, Figures], data: st.DataObject
) -> None:
    policy, found = case
    missing = data.draw(st.sets(st.sampled_from(sorted(policy.targets)), min_size=1))
    measured = {measure: value for measure, value in found.measured.items() if measure not in missing}
    told = recommend(replace(found, measured=measured), policy, NOW)
    assert [
        one for one in missing if f"{one} is not known, so no worker is taken away." not in told.reasons
    ] == []
    if not measured:
        assert told.workers is None
    else:
        assert told.workers is not None
        assert told.workers >= min(found.workers, policy.most)


@given(cases)
def test_it_says_why_with_every_figure(case: tuple[Policy, Figures]) -> None:
    policy, found = case
    told = recommend(found, policy, NOW)
    for measure in policy.targets:
        assert any(reason.startswith(f"{measure}: ") for reason in told.reasons)
    assert any(f"{found.workers} run at " in reason for reason in told.reasons)


# -- words ---------------------------------------------------------------------------------------

ALL = Policy(1, 8, {"cpu": 0.7, "queue": 4, "p95": 0.05}, 60.0)


@pytest.mark.parametrize(
    ("found", "wanted", "said"),
    [
        (
            figures(cpu=0.91, queue=0.5, p95=0.0412),
            3,
            (
                "cpu: 91% of a core each, of 70%.",
                "queue: 0.5 texts wait for each worker, of 4.",
                "p95: 41.2 ms, of 50 ms.",
                "2 run at 1.30 of the target: 3 are needed.",
            ),
        ),
        (
            figures(cpu=0.7, queue=40, p95=0.04),
            4,
            (
                "cpu: 70% of a core each, of 70%.",
                "queue: 40.0 texts wait for each worker, of 4.",
                "p95: 40.0 ms, of 50 ms.",
                "2 run at 10.00 of the target: 20 are needed, and it goes to 4 at once.",
            ),
        ),
        (
            figures(workers=6, cpu=0.9, queue=0, p95=0.01),
            8,
            (
                "cpu: 90% of a core each, of 70%.",
                "queue: 0.0 texts wait for each worker, of 4.",
                "p95: 10.0 ms, of 50 ms.",
                "6 run at 1.29 of the target: 8 are needed.",
            ),
        ),
        (
            figures(workers=8, cpu=0.9, queue=0, p95=0.01),
            8,
            (
                "cpu: 90% of a core each, of 70%.",
                "queue: 0.0 texts wait for each worker, of 4.",
                "p95: 10.0 ms, of 50 ms.",
                "8 run at 1.29 of the target: 11 are needed.",
                "The policy allows 1 to 8.",
            ),
        ),
        (
            figures(cpu=0.1, queue=0, p95=0.9, requests=3),
            1,
            (
                "cpu: 10% of a core each, of 70%.",
                "queue: 0.0 texts wait for each worker, of 4.",
                "p95: 3 requests, too few to ask for more workers.",
                "2 run at 0.14 of the target: 1 would have room left.",
            ),
        ),
        (
            figures(cpu=0.5, queue=4, p95=0.04),
            2,
            (
                "cpu: 50% of a core each, of 70%.",
                "queue: 4.0 texts wait for each worker, of 4.",
                "p95: 40.0 ms, of 50 ms.",
                "2 run at 1.00 of the target: that is as it should be.",
            ),
        ),
        (
            figures(workers=4, cpu=0.14, p95=0.005),
            4,
            (
                "cpu: 14% of a core each, of 70%.",
                "queue is not known, so no worker is taken away.",
                "p95: 5.0 ms, of 50 ms.",
                "4 run at 0.20 of the target, as far as is known: they stay.",
            ),
        ),
        (
            figures(workers=4, cpu=1.4),
            8,
            (
                "cpu: 140% of a core each, of 70%.",
                "queue is not known, so no worker is taken away.",
                "p95 is not known, so no worker is taken away.",
                "4 run at 2.00 of the target: 8 are needed.",
            ),
        ),
    ],
)
def test_what_is_said(found: Figures, wanted: int, said: tuple[str, ...]) -> None:
    assert recommend(found, ALL, NOW) == Recommendation(wanted, said)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Figures(0, NOW, 0.0, unknown="worker 2 is stuck"), "Nothing is known: worker 2 is stuck."),
        (
            replace(figures(cpu=2), seconds=40.0),
            "These workers were watched for 40 s, and the window is 60 s.",
        ),
        (
            replace(figures(cpu=2), seconds=LONG * 60 + 1.0),
            "The look before was 181 s ago, and the window is 60 s.",
        ),
        (
            replace(figures(cpu=2), until=NOW - 61),
            "The figures ended 61 s ago, longer than the window of 60 s.",
        ),
    ],
)
def test_figures_that_tell_nothing_recommend_nothing(found: Figures, said: str) -> None:
    assert recommend(found, ALL, NOW) == Recommendation(None, (said,))


def test_where_no_figure_is_known_nothing_is_recommended() -> None:
    told = recommend(figures(), ALL, NOW)
    assert told.workers is None
    assert told.reasons == tuple(
        f"{m} is not known, so no worker is taken away." for m in ("cpu", "queue", "p95")
    )


@pytest.mark.parametrize(("requests", "wanted"), [(FEW - 1, 2), (FEW, 4)])
def test_a_percentile_of_few_asks_for_nobody(requests: int, wanted: int) -> None:
    policy = Policy(2, 8, {"p95": 0.05}, 60.0)
    assert workers(figures(p95=1, requests=requests), policy) == wanted


@pytest.mark.parametrize(("cpu", "wanted"), [(0.77, 10), (0.78, 12)])
def test_a_little_too_much_is_tolerated(cpu: float, wanted: int) -> None:
    policy = Policy(1, 64, {"cpu": 0.7}, 60.0)
    assert workers(figures(workers=10, cpu=cpu), policy) == wanted


@pytest.mark.parametrize(
    ("here", "cpu", "wanted"), [(2, 0.27, 1), (2, 0.29, 2), (5, 0.44, 4), (5, 0.46, 5), (1, 0.0, 1)]
)
def test_a_worker_goes_where_the_others_would_have_room(here: int, cpu: float, wanted: int) -> None:
    policy = Policy(1, 8, {"cpu": 0.7}, 60.0)
    assert workers(figures(workers=here, cpu=cpu), policy) == wanted
