"""What is asked of Prometheus for a dashboard, and what the page is told of its answers."""

import asyncio
import re
from typing import Any

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.core.provider import Temporary
from gamma_orch.dashboards.asking import Board, Choice, answers, filled, step_of


def test_a_variable_is_what_was_chosen() -> None:
    expr = 'sum(a{model=~"$model", x="${other}"}) + b{c="$model_b"}'
    chosen = {"model": ["a", "b.c"], "other": ["d"]}
    assert filled(expr, chosen) == 'sum(a{model=~"a|b\\\\.c", x="d"}) + b{c=".*"}'
    assert filled(expr, {}) == 'sum(a{model=~".*", x=".*"}) + b{c=".*"}'


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=3))
def test_what_was_chosen_is_taken_by_its_letters_and_never_as_promql(values: list[str]) -> None:
    """The string ends where it ended, and the expression in it matches those values and no others."""
    parsed: Any = promql_parser.parse(filled('a{b=~"$v"}', {"v": values}))
    [matcher] = parsed.matchers.matchers
    assert matcher.name == "b"
    for value in values:
        assert re.fullmatch(matcher.value, value)
        assert re.fullmatch(matcher.value, value + "x") or value + "x" not in values
    assert re.fullmatch(matcher.value, "x".join(values) + "y") is None or "x".join(values) + "y" in values


@given(st.floats(60, 90 * 86400))
def test_a_span_has_so_many_points_that_it_can_be_drawn(span: float) -> None:
    assert 25 <= span / step_of(span) <= 400


PANELS: list[Any] = [
    {"type": "timeseries", "queries": [{"expr": 'up{job=~"$job"}'}, {"expr": "broken"}]},
    {"type": "table", "queries": [{"expr": "now"}]},
]
BOARD = Board(
    "a",
    "main",
    {"variables": [{"name": "job", "label": "job", "metric": "up"}], "rows": [{"panels": PANELS}]},
)


class Fake:
    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def query(self, expr: str, at: float) -> list[Any]:
        self.asked.append((expr, at))
        if expr.startswith("group"):
            return [{"metric": {"job": name}, "value": [at, "1"]} for name in ("b", "a", "")]
        return [{"metric": {"x": "y"}, "value": [at, "NaN"]}]

    async def query_range(self, expr: str, start: float, end: float, step: float) -> list[Any]:
        self.asked.append((expr, start, end, step))
        if expr == "broken":
            raise Temporary("It is away.")
        return [{"metric": {"job": "a"}, "values": [[start, "1"], [end, "2"]]}]


def said(choice: Choice, now: float) -> tuple[list[Any], Fake]:
    fake = Fake()

    async def all_of_them() -> list[Any]:
        return [one async for one in answers(BOARD, choice, now, fake)]

    return asyncio.run(all_of_them()), fake


def test_each_panel_is_answered_and_one_that_cannot_be_had_says_why() -> None:
    found, fake = said(Choice("a", 3600.0, {"job": ["a"]}), 10_007.5)
    step, end = 15, 10_005.0
    assert sorted(fake.asked, key=str) == sorted(
        [
            ("group by (job) (last_over_time(up[3600s]))", 10_007.5),
            ('up{job=~"a"}', end - 3600, end, step),
            ("broken", end - 3600, end, step),
            ("now", 10_007.5),
        ],
        key=str,
    )
    told = {one.get("variable", one.get("panel")): one for one in found}
    assert told["job"] == {"variable": "job", "values": ["a", "b"], "error": ""}
    assert told[0] == {
        "panel": 0,
        "start": end - 3600,
        "end": end,
        "step": step,
        "series": [{"query": 0, "labels": {"job": "a"}, "points": [[end - 3600, "1"], [end, "2"]]}],
        "error": "It is away.",
    }
    assert told[1]["series"] == [{"query": 0, "labels": {"x": "y"}, "points": [[10_007.5, "NaN"]]}]


@pytest.mark.parametrize("later", [0.0, 3.0, 14.9])
def test_points_stay_where_they_are_as_time_goes_on(later: float) -> None:
    found, _ = said(Choice("a", 3600.0), 9_990.0 + later)
    assert {one["end"] for one in found if "end" in one} == {9_990.0}
