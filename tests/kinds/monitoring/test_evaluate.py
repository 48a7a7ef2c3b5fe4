"""What is evaluated without a Prometheus, beside what Prometheus makes of the same."""

import math
from pathlib import Path

import promql_parser as parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamma_orch.kinds.monitoring import series
from gamma_orch.kinds.monitoring.evaluate import NotEvaluated, Store, Vector
from tests.kinds.monitoring.promtool import evaluated

EVERY = 30  # seconds
MOMENTS = (0, 95, 300, 610, 1200, 1500)
EXPRESSIONS = [
    line for line in Path(__file__).with_name("expressions.txt").read_text().splitlines() if line[:1] != "#"
]
SERIES = {
    'req{job="api",code="500",inst="a"}': "0+3x20 5+7x20",
    'req{job="api",code="200",inst="a"}': "0+30x40",
    'req{job="api",code="500",inst="b"}': "2 _ 9 _x3 12+1x30",
    'req{job="web",code="200",inst="c"}': "1 stale _x5 4+2x30",
    'temp{room="1"}': "20-1x20 0.5+0.25x20",
    'b{le="0.1",r="x"}': "0+1x40",
    'b{le="1",r="x"}': "0+5x40",
    'b{le="+Inf",r="x"}': "0+6x40",
    'info{inst="a",version="1"}': "1x40",
    'info{inst="b",version="2"}': "1x40",
}


def alike(ours: Vector, theirs: Vector | str) -> bool:
    def near(one: float, other: float) -> bool:
        return (
            one == other or (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=1e-5)
        )

    return (
        isinstance(theirs, dict)
        and ours.keys() == theirs.keys()
        and all(near(value, theirs[tags]) for tags, value in ours.items())
    )


def test_each_expression_is_what_prometheus_says(tmp_path: Path) -> None:
    store = Store(series.load(SERIES, EVERY * 1000), EVERY * 1000)
    asked = [(expression, at) for expression in EXPRESSIONS for at in MOMENTS]
    theirs = evaluated(tmp_path, SERIES, asked, EVERY)
    wrong = []
    for (expression, at), right in zip(asked, theirs, strict=True):
        ours = store.vector(parser.parse(expression), at * 1000)
        if not alike(ours, right):
            wrong.append((expression, at, ours, right))
    assert not wrong
    # Or else the comparison would be of nothing with nothing.
    there = {expression for (expression, _), found in zip(asked, theirs, strict=True) if found}
    assert set(EXPRESSIONS) - there == {"absent(req)"}


values = st.one_of(
    st.integers(0, 50).map(str),
    st.floats(-50, 50, allow_nan=False).map(lambda value: f"{value:.3f}"),
    st.just("_"),
    st.just("stale"),
)
thresholds = st.sampled_from(
    [
        (
            "abs(x - avg_over_time(x[10m] offset 1m)) > 3 * stddev_over_time(x[10m] offset 1m) "
            "and stddev_over_time(x[10m] offset 1m) > 0 and count_over_time(x[10m] offset 1m) >= 5"
        ),
        "x > 1.5 * quantile_over_time(0.95, x[10m] offset 2m) and count_over_time(x[10m] offset 2m) >= 3",
        "x > 1.5 * (avg_over_time(x[2m] offset 5m) + avg_over_time(x[2m] offset 10m)) / 2",
        "rate(x[3m]) > 0.2",
        "increase(x[4m] offset 30s)",
        "sum(rate(x[2m])) by (i) / sum(count_over_time(x[2m])) by (i)",
    ]
)


@given(st.lists(st.lists(values, min_size=1, max_size=40), min_size=1, max_size=3), thresholds)
@settings(deadline=None)
def test_any_series_by_any_threshold(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], threshold: str
) -> None:
    given_ = {f'x{{i="{number}"}}': " ".join(row) for number, row in enumerate(rows)}
    store = Store(series.load(given_, EVERY * 1000), EVERY * 1000)
    asked = [(threshold, at) for at in range(0, 1300, 90)]
    theirs = evaluated(tmp_path_factory.mktemp("any"), given_, asked, EVERY)
    for (_, at), right in zip(asked, theirs, strict=True):
        assert alike(store.vector(parser.parse(threshold), at * 1000), right)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 5.3, -7.7, 1e-9, 123456789.123])
def test_what_never_changes_deviates_by_nothing(value: float) -> None:
    """Or else a deviation of which any other value is many times as much."""
    store = Store(series.load({"x": f"{value!r}x20"}, 60_000))
    for at in range(60_000, 1_200_000, 60_000):
        assert store.vector(parser.parse("stddev_over_time(x[9m])"), at) == {frozenset(): 0.0}
        assert store.vector(parser.parse("avg_over_time(x[9m])"), at) == {frozenset(): value}


@pytest.mark.parametrize("expression", ["up @ 5", "days_in_month()", "x + on (i) y", "rate({i=~'.+'}[5m])"])
def test_what_is_not_evaluated_says_so(expression: str) -> None:
    given_ = {'x{i="1",j="1"}': "1x9", 'x{i="1",j="2"}': "1x9", 'y{i="1",j="1"}': "1x9"}
    store = Store(series.load(given_, 60_000))
    with pytest.raises(NotEvaluated):
        store.vector(parser.parse(expression), 300_000)


def test_a_later_prometheus_leaves_out_the_beginning_of_a_range() -> None:
    given_ = series.load({"x": "1 2 3 4"}, 60_000)
    tree = parser.parse("count_over_time(x[2m])")
    assert Store(given_).vector(tree, 120_000) == {frozenset(): 3.0}
    assert Store(given_, left_open=True).vector(tree, 120_000) == {frozenset(): 2.0}


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        ("1 two", "'two' is no sample"),
        ("1x1000000000", "more than"),
        ("_x1000000000 1", "more than"),
    ],
)
def test_a_series_that_cannot_be(samples: str, says: str) -> None:
    with pytest.raises(series.BadSeries, match=says):
        series.load({"x": samples}, 60_000)


@pytest.mark.parametrize("name", ["rate(x[5m])", 'x{a=~"b"}', "x{", "x offset 5m", "x[5m]"])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(series.BadSeries):
        series.load({name: "1"}, 60_000)
