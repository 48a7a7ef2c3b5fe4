"""The pure part: what fired and how long, quantiles, budgets, runs; and that what is not known is said."""

import math
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.core.address import Address
from gamma_orch.core.event import Event, Type
from gamma_orch.report import alerts, changes, objectives, words
from gamma_orch.report.answers import Answer, Series, by
from gamma_orch.report.contents import Report, Tone, report
from gamma_orch.report.gathering import seconds, written
from gamma_orch.report.presence import presence
from gamma_orch.report.services import quantile
from gamma_orch.report.span import MOST, Span
from tests.report.example import DAY, END, HOSTILE, SPAN, aim, traffic, week

SMALL = Span(0.0, 600.0, 60, 10)  # sixty pieces of ten seconds
ALL = frozenset(range(60))


def fact(found: Report, name: str) -> Any:
    return next(one for one in found.summary if one.name == name)


# --- the span -----------------------------------------------------------------------------------------


@given(length=st.integers(60, 400 * 86400), interval=st.floats(0, 3600))
def test_a_span_is_whole_steps_and_never_too_many_points(length: int, interval: float) -> None:
    span = Span.of(1e9 - length, 1e9, interval)
    assert span.end == 1e9
    assert 0 <= (1e9 - length) - span.start < span.step
    assert span.seconds == span.count * span.step
    assert span.step % span.fine == 0
    assert span.seconds / span.fine <= MOST + 1
    assert span.count <= 240
    assert span.step >= 4 * min(interval, 300)
    assert span.fine >= min(interval, 300)
    assert span.times[-1] == span.end


def test_a_week_is_asked_by_the_hour_and_by_the_minute() -> None:
    assert (SPAN.step, SPAN.fine, SPAN.count) == (3600, 60, 168)


@pytest.mark.parametrize(
    ("text", "is_"), [("5s", 5), ("1m30s", 90), ("250ms", 0.25), ("1h", 3600), ("0s", 0)]
)
def test_durations_of_prometheus(text: str, is_: float) -> None:
    assert seconds(text) == is_


def test_durations_for_people() -> None:
    assert [written(one) for one in (60, 90, 3600, 86400, 120)] == ["1m", "90s", "1h", "1d", "2m"]


# --- what fired ---------------------------------------------------------------------------------------


def pieces(*counts: float) -> Series:
    """Samples in each piece of the fine grid; 0 is a piece without the series."""
    return Series({}, tuple((10.0 * (n + 1), count) for n, count in enumerate(counts) if count))


@pytest.mark.parametrize(
    ("counts", "known", "is_"),
    [
        ((2, 2, 2, 2), ALL, [40.0]),
        ((1, 2, 2, 1), ALL, [30.0]),  # half of the first piece, and half of the last
        ((2, 2, 0, 2), ALL, [20.0, 10.0]),  # it was over in between
        ((2, 2, 0, 2), ALL - {2}, [30.0]),  # who knows: one, and the gap is not counted
        ((2, 2, 0, 0, 2), ALL - {2}, [20.0, 10.0]),  # of a part of the gap it is known
        ((0, 0, 1), ALL, [5.0]),
        ((0, 2, 0, 2, 0), ALL, [10.0, 10.0]),
        ((2, 2, 2, 1, 1, 1), ALL, [60.0]),  # the interval has changed, and is twice as long
    ],
)
def test_firings_and_how_long(counts: tuple[float, ...], known: frozenset[int], is_: list[float]) -> None:
    found = alerts.firings(SMALL, pieces(*counts), 2.0, known)
    assert [one.seconds for one in found] == pytest.approx(is_)


@given(
    there=st.sets(st.integers(0, 239)),
    phase=st.floats(0.01, 2.49),
)
def test_samples_each_two_and_a_half_seconds_come_to_the_times_they_cover(
    there: set[int], phase: float
) -> None:
    """Held to the samples themselves: runs of neighbours, where a gap has at least a whole piece."""
    counts = [0] * 60
    for n in there:
        counts[int((phase + 2.5 * n) // 10)] += 1
    runs: list[list[int]] = []
    for n in sorted(there):
        piece = int((phase + 2.5 * n) // 10)
        if runs and piece - int((phase + 2.5 * runs[-1][-1]) // 10) <= 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    found = alerts.firings(SMALL, pieces(*counts), 4.0, ALL)
    assert len(found) == len(runs)
    for one, run in zip(found, runs, strict=True):
        if len(run) == run[-1] - run[0] + 1:  # without holes that are smaller than a piece
            assert one.seconds == pytest.approx(2.5 * len(run))
        assert one.seconds <= 10.0 * 60


def test_alerts_of_one_rule_at_once_count_each_and_their_time_once() -> None:
    series = (
        Series({"alertname": "a", "instance": "1"}, pieces(2, 2, 2).points),
        Series({"alertname": "a", "instance": "2"}, pieces(0, 2, 2, 2).points),
        Series({"alertname": "b", "severity": "critical", "resource": "Service/api"}, pieces(2).points),
    )
    there = presence(SMALL, Answer("up", (pieces(*[1] * 60),)), Answer(""))
    running = [alerts.Running("a"), alerts.Running("never")]
    found = alerts.alerts(SMALL, Answer("q", series), running, there)
    assert [(one.name, one.firings, one.seconds) for one in found.rules] == [("a", 2, 40.0), ("b", 1, 10.0)]
    assert (found.firings, found.seconds) == (3, 40.0)
    assert [(one.about, one.severity, one.firings) for one in found.causes] == [
        ("", "", 2),
        ("Service/api", "critical", 1),
    ]
    assert found.quiet == ("never",)


def test_presence_is_of_any_job_and_answers_of_each() -> None:
    up = Answer(
        "up", (Series({"job": "a"}, ((10.0, 1.0), (20.0, 0.0))), Series({"job": "b"}, ((60.0, 1.0),)))
    )
    there = presence(SMALL, up, Answer("", (Series({}, ((100.0, 1.0),)),)))
    assert there.known == {0, 1, 5, 9}
    assert there.answered("a") == (1 / 60, 10.0)
    assert there.answered("of another") == (None, 0.0)
    assert there.gaps() == [(20.0, 50.0), (60.0, 90.0), (100.0, 600.0)]
    assert there.share == pytest.approx(4 / 60)


# --- objectives and services --------------------------------------------------------------------------


def test_the_budget_is_the_events_that_may_fail() -> None:
    assert objectives.burnt((100.0, None, 100.0), (1.0, None, 0.0), 0.01) == pytest.approx((0.5, None, 0.5))
    assert objectives.burnt((0.0, None), (0.0, None), 0.01) == (None, None)
    assert objectives.burnt((100.0,), (3.0,), 0.01) == pytest.approx((-2.0,))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(50, 100)) | st.none(), min_size=1, max_size=20))
def test_a_budget_only_goes_down_and_ends_at_what_was_attained(steps: list[tuple[int, int] | None]) -> None:
    bad = tuple(None if one is None else float(one[0]) for one in steps)
    events = tuple(None if one is None else float(one[1]) for one in steps)
    found = [one for one in objectives.burnt(events, bad, 0.05) if one is not None]
    assert found == sorted(found, reverse=True)
    if found:
        attained = 1 - sum(one or 0 for one in bad) / sum(one or 0 for one in events)
        assert found[-1] == pytest.approx(1 - (1 - attained) / 0.05)


def test_no_failures_are_no_series_of_failures() -> None:
    source = aim("a", 0.99, lambda at: None)
    assert objectives.objective(source).attained == 1
    as_good = replace(source, now=replace(source.now, is_bad=False))
    assert objectives.objective(as_good).attained is None  # what went well has to be told


def test_of_no_events_nothing_is_attained() -> None:
    found = objectives.objective(aim("a", 0.99, lambda at: 0.0, lambda at: 0.0))
    assert (found.attained, found.left, found.met) == (None, None, None)
    assert "no events" in found.why


def test_an_error_of_one_question_is_said_and_is_no_success() -> None:
    source = aim("a", 0.99, lambda at: 0.0)
    broken = replace(source, now=replace(source.now, part=Answer("q", error="It says no.")))
    found = objectives.objective(broken)
    assert (found.attained, found.known, found.why) == (None, 0.0, "It says no.")


@pytest.mark.parametrize(
    ("q", "buckets", "is_"),
    [
        (0.5, {0.1: 10, 0.2: 20, math.inf: 20}, 0.1),
        (0.75, {0.1: 10, 0.2: 20, math.inf: 20}, 0.15),
        (0.25, {0.1: 10, math.inf: 20}, 0.05),
        (0.99, {0.1: 10, 0.2: 10, math.inf: 20}, 0.2),  # beyond the greatest bound
        (0.5, {0.1: 0, math.inf: 0}, None),
        (0.5, {0.1: 4}, None),  # without +Inf it is no histogram
        (0.5, {}, None),
    ],
)
def test_quantiles(q: float, buckets: dict[float, float], is_: float | None) -> None:
    assert quantile(q, buckets) == pytest.approx(is_)


def test_lines_add_what_is_known() -> None:
    span = Span(0.0, 180.0, 60, 60)
    one = Series({"job": "a", "x": "1"}, ((60.0, 1.0), (120.0, 2.0)))
    other = Series({"job": "a", "x": "2"}, ((120.0, 5.0),))
    assert by(span, Answer("", (one, other)), "job") == {("a",): (1.0, 7.0, None)}


# --- changes ------------------------------------------------------------------------------------------


def events(*said: tuple[Type, float, int, str, dict[str, Any]]) -> list[Event]:
    found = []
    for seq, (kind, at, token, address, data) in enumerate(said, start=1):
        text = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        named = Address.parse(address) if address else None
        found.append(Event(kind, named, "p", "", data, seq, token, text, "me"))
    return found


def test_runs_failures_and_drift() -> None:
    at = END - DAY
    log = events(
        (Type.PLANNED, at - 30 * DAY, 1, "", {"purpose": "apply"}),
        (Type.DONE, at - 30 * DAY, 1, "Thing/a", {}),
        (Type.PLANNED, at, 2, "", {"purpose": "apply"}),
        (Type.DRIFTED, at, 2, "Thing/a", {"reason": "drifted"}),
        (Type.DRIFTED, at, 2, "Thing/b", {"reason": "drifted"}),
        (Type.DONE, at + 4, 2, "Thing/a", {}),
        (Type.FAILED, at + 10, 2, "Thing/b", {"error": "first"}),
        (Type.PLANNED, at + 20, 3, "", {"purpose": "Dagster run 1"}),
        (Type.FAILED, at + 22, 3, "Thing/b", {"error": "second"}),
        (Type.FAILED, at + 22, 3, "Thing/c", {"error": "other"}),
        (Type.PLANNED, at + 40, 4, "", {"purpose": "apply"}),
        (Type.DONE, at + 44, 4, "Thing/c", {}),
        (Type.RELEASED, at + 45, 4, "", {}),
        (Type.DONE, END + 1, 5, "Thing/b", {}),  # after the report's end
    )
    found = changes.changes(SPAN, log)
    assert (found.runs, found.by_dagster, found.whole) == (3, 1, 1)
    assert (found.steps, found.resources, found.failed) == (2, 2, 3)
    assert [(one.resource, one.times, one.error, one.mended) for one in found.failures] == [
        ("Thing/b", 2, "second", False),
        ("Thing/c", 1, "other", True),
    ]
    assert (found.found, found.healed) == (2, 1)
    assert (found.median, found.p95) == (4.0, 10.0)
    assert found.begins is None, "it began before"
    assert [day.done for day in found.days] == [0, 0, 0, 0, 0, 0, 2]


def test_before_the_ledger_begins_nothing_is_zero() -> None:
    found = changes.changes(SPAN, events((Type.PLANNED, END - 1.5 * DAY, 1, "", {"purpose": "apply"})))
    assert [day.done for day in found.days] == [None, None, None, None, None, 0, 0]
    assert found.begins == END - 1.5 * DAY
    assert found.median is None
    assert all(day.done is None for day in changes.changes(SPAN, []).days)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_one_of_them_and_enough_are_not_above(values: list[float], q: float) -> None:
    found = changes.quantile(sorted(values), q)
    assert found in values
    assert sum(one <= found for one in values) >= q * len(values) - 1e-6


# --- words and the whole ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "says"),
    [
        (1.0, "100 %"),
        (0.99999, "99.99 %"),  # something failed
        (0.995, "99.5 %"),
        (0.99499, "99.49 %"),  # not what an objective of 99.5 % asks
        (0.29, "29 %"),
        (0.00001, "less than 0.01 %"),
        (0.0, "0 %"),
        (-4.0, "-400 %"),
        (None, "no data"),
    ],
)
def test_percent(share: float | None, says: str) -> None:
    assert words.percent(share) == says


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1))
def test_percent_never_rounds_up(share: float, other: float) -> None:
    said = words.percent(share)
    if not said.startswith("less"):
        assert float(said.removesuffix(" %")) <= share * 100 + 2e-6


@pytest.mark.parametrize(
    ("time", "says"),
    [
        (0.25, "250 ms"),
        (40, "40 s"),
        (600, "10 min"),
        (3599.7, "1 h"),
        (7500, "2 h 5 min"),
        (273600, "3 d 4 h"),
    ],
)
def test_lasting(time: float, says: str) -> None:
    assert words.lasting(time) == says


def test_the_summary_of_a_week() -> None:
    found = report(week())
    assert [one.name for one in found.summary] == [
        "Availability",
        "Worst objective",
        "Alerts",
        "Changes",
        "Failures",
        "Data",
    ]
    # Twelve hours of seven days are not known.
    assert found.source.known == pytest.approx(1 - 0.5 / 7)
    assert fact(found, "Data").value == "92.85 %"
    assert "There is data for 92.85 % of the time" in fact(found, "Availability").says
    assert fact(found, "Worst objective").value == "api-strict"
    assert "Not applied since: Service/api." in fact(found, "Failures").says
    api = found.services[0]
    requests = sum(traffic(at) + 304 for at in SPAN.times if not END - 5 * DAY < at <= END - 4.5 * DAY)
    assert api.requests == pytest.approx(requests)
    assert [one.name for one in api.models] == ["sentiment", "vectors"]
    assert api.cached == pytest.approx(0.3)


def test_a_week_without_anything_known_claims_nothing() -> None:
    raw = week()
    nothing = replace(
        raw,
        error="The environment declares no Prometheus.",
        prometheus="",
        up=Answer("up", error="The environment declares no Prometheus."),
        firing=Answer("ALERTS", error="The environment declares no Prometheus."),
        services=type(raw.services)(*(Answer("q", error="none") for _ in range(3))),
        objectives=[],
        running=[],
        events=[],
    )
    found = report(nothing)
    assert {one.tone for one in found.summary} == {Tone.UNKNOWN}
    assert {one.value for one in found.summary} == {"no data", "none"}
    assert fact(found, "Worst objective").says == "The environment has no SLO."
    assert (found.alerts.firings, found.services, found.source.known) == (None, (), 0.0)


def test_requests_that_were_never_made_are_no_availability() -> None:
    raw = week()
    idle = Answer("q", tuple(one for one in raw.services.requests.series if one.labels["job"] == "batch"))
    found = report(replace(raw, services=replace(raw.services, requests=idle)))
    assert (found.services[0].requests, found.services[0].availability) == (0.0, None)
    assert fact(found, "Availability").value == "no data"


def test_as_data_it_has_all_of_it_and_no_number_that_json_has_not() -> None:
    import json

    body = json.loads(json.dumps(report(week()).encoded(), allow_nan=False))
    assert body["span"] == {
        "start": "2026-11-24T00:00:00Z",
        "end": "2026-12-01T00:00:00Z",
        "step": 3600,
        "fine": 60,
    }
    assert body["summary"][0]["tone"] == "plain"
    assert HOSTILE in [one["name"] for one in body["alerts"]["rules"]]
    assert None in body["services"][0]["rate"]


# --- from when to when --------------------------------------------------------------------------------


def test_a_week_before_a_moment() -> None:
    from gamma_orch.cli.analytics import span

    moment = "2026-11-01T00:00:00+00:00"
    start, end = span("7d", moment)
    assert (end, end - start) == (datetime(2026, 11, 1, tzinfo=UTC).timestamp(), 7 * DAY)
    start, end = span("2026-10-01T00:00:00+00:00", moment)
    assert end - start == 31 * DAY
    now = time.time()
    start, end = span("1h", "2100-01-01")
    assert end - start == 3600
    assert now <= end <= now + 3, "what has just happened is in it, and the future is not"
