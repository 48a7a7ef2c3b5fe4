"""Durations, freeze windows and rhythms: what holds at which moment, and what is refused in words."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gamma_orch.spec.durations import duration, written_duration
from gamma_orch.spec.environment import ExecutorSpec
from gamma_orch.spec.reconcile import Freeze, ReconcileSpec


@given(st.integers(0, 10**8))
def test_a_duration_reads_back(seconds: int) -> None:
    value = timedelta(seconds=seconds)
    assert duration(written_duration(value)) == value


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("2h", 7200), ("7d", 604800), ("0s", 0)]
)
def test_durations(text: str, seconds: int) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["5", "5 m", "m", "1.5h", "-5m", "5M", "PT5M", "", 5, None, "5m "])
def test_what_is_no_duration(text: Any) -> None:
    with pytest.raises(ValueError, match="a whole number and a unit"):
        duration(text)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def freeze(**given: Any) -> Freeze:
    return Freeze.model_validate({"reason": "test", **given})


@pytest.mark.parametrize(
    ("now", "held"),
    [
        ("2026-12-23T16:59:59", False),
        ("2026-12-23T17:00:00", True),  # 18:00 in Berlin
        ("2027-01-04T06:59:59", True),
        ("2027-01-04T07:00:00", False),  # the end is the first moment after it
    ],
)
def test_a_window_from_one_moment_to_another(now: str, held: bool) -> None:
    window = freeze(**{"from": "2026-12-23T18:00:00+01:00", "until": "2027-01-04T08:00:00+01:00"})
    assert (window.holds(moment(now)) is not None) is held


@pytest.mark.parametrize(
    ("now", "held"),
    [
        ("2026-11-20T14:59:59", False),  # a Friday; 16:00 in Berlin is 15:00 UTC
        ("2026-11-20T15:00:00", True),
        ("2026-11-20T15:00:30", True),  # within the minute in which it begins
        ("2026-11-23T06:59:59", True),
        ("2026-11-23T07:00:00", False),
        ("2026-07-17T13:59:59", False),  # in summer an hour earlier
        ("2026-07-17T14:00:00", True),
    ],
)
def test_a_window_again_and_again(now: str, held: bool) -> None:
    window = freeze(cron="0 16 * * FRI", zone="Europe/Berlin", **{"for": "64h"})
    assert (window.holds(moment(now)) is not None) is held


def test_the_window_that_ends_last_is_named() -> None:
    short = {"reason": "short", "from": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}
    long = {"reason": "long", "from": "2026-01-01T00:00:00Z", "until": "2026-01-03T00:00:00Z"}
    settings = ReconcileSpec.model_validate({"freeze": [short, long, short]})
    found = settings.frozen(moment("2026-01-01T12:00:00"))
    assert found is not None
    assert (found[0].reason, found[1]) == ("long", moment("2026-01-03T00:00:00"))
    assert settings.frozen(moment("2026-01-03T00:00:00")) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "either from and until, or cron and for"),
        ({"from": "2026-01-01T00:00:00Z"}, "either from and until, or cron and for"),
        ({"cron": "* * * * *"}, "either from and until, or cron and for"),
        (
            {
                "from": "2026-01-01T00:00:00Z",
                "until": "2026-01-02T00:00:00Z",
                "cron": "* * * * *",
                "for": "1h",
            },
            "either from and until, or cron and for",
        ),
        ({"from": "2026-01-01", "until": "2026-01-02T00:00:00Z"}, "a moment is written with its zone"),
        ({"cron": "0 16 * *", "for": "1h"}, "a cron expression has five fields"),
        ({"cron": "0 25 * * *", "for": "1h"}, "a cron expression has five fields"),
        ({"cron": "0 16 * * *", "for": "1h", "zone": "Mars/Base"}, "this time zone is not known"),
    ],
)
def test_windows_that_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        freeze(**given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"every": "5m", "cron": "* * * * *"}, "either every or cron"),
        ({"remote": "origin"}, "A remote needs the branch"),
        ({"every": "1s"}, "shorter than 5s"),
        ({"observe": "0s"}, "shorter than 5s"),
        ({"drift": "heel"}, "heal"),
    ],
)
def test_rhythms_that_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ReconcileSpec.model_validate(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"type": "celery"}, "needs broker and backend"),
        ({"type": "celery", "broker": "redis://x"}, "needs backend"),
        ({"type": "k8s"}, "needs image"),
    ],
)
def test_executors_that_lack_something(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ExecutorSpec.model_validate(given)
