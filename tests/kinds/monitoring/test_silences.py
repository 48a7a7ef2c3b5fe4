"""Silences: what is asked of an Alertmanager, and what people see of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.monitoring.silences import lasting, named, row, silence

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def asked(*matchers: str, lasts: str = "2h", why: str = "We move.") -> Any:
    return silence(matchers, lasts, why, "ann", NOW)


def test_what_is_asked_for() -> None:
    body, long = asked("alertname=api-down", "zone!=a=b", "job=~web.*", "team!~x")
    assert long == timedelta(hours=2)
    assert body == {
        "matchers": [
            {"name": "alertname", "value": "api-down", "isEqual": True, "isRegex": False},
            {"name": "zone", "value": "a=b", "isEqual": False, "isRegex": False},
            {"name": "job", "value": "web.*", "isEqual": True, "isRegex": True},
            {"name": "team", "value": "x", "isEqual": False, "isRegex": True},
        ],
        "startsAt": "2026-01-01T12:00:00+00:00",
        "endsAt": "2026-01-01T14:00:00+00:00",
        "createdBy": "ann",
        "comment": "We move.",
    }


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"lasts": "soon"}, "`--for soon` is no time"),
        ({"lasts": "0s"}, "between a second and 30 days"),
        ({"lasts": "31d"}, "change the rule, or the policy"),
        ({"why": " "}, "say it with --why"),
    ],
)
def test_no_silence_without_an_end_and_a_reason(said: Any, says: str) -> None:
    with pytest.raises(Permanent, match=says):
        asked("a=b", **said)


@pytest.mark.parametrize("matcher", ["", "a", "=b", "a=", "1a=b", "a b=c"])
def test_a_matcher_that_says_nothing(matcher: str) -> None:
    with pytest.raises(Permanent, match="says no alerts"):
        asked(matcher)


def found(name: str, ends: str, state: str = "active", **matcher: Any) -> Any:
    one = {"name": "a", "value": "b", "isRegex": False, **matcher}
    said = {"createdBy": "ann", "comment": "We move.", "status": {"state": state}}
    return {"id": name, "endsAt": ends, "matchers": [one], **said}


def test_what_is_over_is_not_listed() -> None:
    some = [
        found("c", "2026-01-03T00:00:00Z"),
        found("b", "2026-01-02T00:00:00Z", "pending"),
        found("a", "2026-01-01T00:00:00Z", "expired"),
    ]
    assert [one["id"] for one in lasting(some)] == ["b", "c"]


@pytest.mark.parametrize(
    ("matcher", "shown"),
    [
        ({}, "a=b"),
        ({"isRegex": True}, "a=~b"),
        ({"isEqual": False}, "a!=b"),
        ({"isEqual": False, "isRegex": True}, "a!~b"),
    ],
)  # fmt: skip
def test_a_row(matcher: Any, shown: str) -> None:
    one = found("0123456789", "2026-01-03T04:05:06.789Z", **matcher)
    assert row(one) == ("01234567", shown, "2026-01-03 04:05 UTC", "ann", "We move.")


def test_one_is_named_by_its_first_letters() -> None:
    some = [found("abc", ""), found("abd", "")]
    assert named(some, "abc") == "abc"
    with pytest.raises(Permanent, match="2 silences begin with 'ab'"):
        named(some, "ab")
    with pytest.raises(Permanent, match="No silence that lasts begins with 'x'"):
        named(some, "x")
