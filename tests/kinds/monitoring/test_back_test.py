"""How often a rule would have fired: as its alerts would have, and said so that people understand it."""

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.kinds.monitoring.alerting import Alerts, Rule
from gamma_orch.kinds.monitoring.back_test import Fired, fired

STEP = 10


class Presence:
    """The vector of one series that is there at some evaluations."""

    def __init__(self, there: Collection[int]) -> None:
        self._there = there

    def vector(self, tree: Any, time: int) -> dict[Any, float]:
        return {frozenset({("job", "a")}): 1.0} if time // 1000 in self._there else {}


def matrix(there: Collection[int]) -> list[Any]:
    return [{"metric": {}, "values": [[at, "1"] for at in sorted(there)]}] if there else []


@given(
    there=st.sets(st.integers(0, 40)).map(lambda numbers: {STEP * number for number in numbers}),
    wait=st.integers(0, 5),
    keep=st.integers(0, 5),
)
def test_it_counts_what_the_states_of_alerts_come_to(there: set[int], wait: int, keep: int) -> None:
    alerts = Alerts(Rule(None, 1000 * STEP * wait, 1000 * STEP * keep))
    times, before, longest, began = 0, False, 0, 0
    for at in range(0, STEP * 60, STEP):
        alerts.evaluate(Presence(there), 1000 * at)  # type: ignore[arg-type]
        now = bool(alerts.firing)
        if now and not before:
            times, began = times + 1, at
        if before and not now:
            longest = max(longest, at - began)
        before = now
    assert fired(matrix(there), STEP, STEP * wait, STEP * keep) == Fired(times, longest)


@pytest.mark.parametrize(
    ("found", "span", "says"),
    [
        (Fired(0, 0), 7 * 86400, "in the last 7 days it would not have fired"),
        (
            Fired(1, 840),
            86400,
            "in the last 24 hours it would have fired once, for 14 min 00 s at the longest",
        ),
        (Fired(1200, 9), 5400, "in the last 2 hours it would have fired 1,200 times, for 9 s at the longest"),
        (Fired(0, 0), 20, "in the last minute it would not have fired"),
        (Fired(0, 0), 600, "in the last 10 minutes it would not have fired"),
    ],
)
def test_what_is_said(found: Fired, span: float, says: str) -> None:
    assert found.sentence(span) == says
