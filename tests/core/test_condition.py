"""Status: what a plan made a moment ago says of each resource."""

import pytest

from gamma_orch.core.change import Action, Change, Reason
from gamma_orch.core.condition import Condition, Health, Truth, conditions, overall
from gamma_orch.core.ledger import Entry, Ledger
from gamma_orch.core.observation import Seen
from gamma_orch.core.plan import Plan
from tests.core.reading import place

A = place("a")


def condition(action: Action, reason: Reason, error: str = "", detail: str = "") -> Condition:
    plan = Plan("dev", 0, "", "", (Change(A, action, reason, detail),), ())
    ledger = Ledger("dev", 0, {A: Entry(error=error, since="2026-01-01T00:00:00.000Z")})
    return conditions(plan, ledger, {A: Seen({})})[0]


@pytest.mark.parametrize(
    ("action", "reason", "health"),
    [
        (Action.KEEP, Reason.IN_SYNC, Health.READY),
        (Action.CREATE, Reason.NEW, Health.MISSING),
        (Action.CREATE, Reason.DELETED_OUTSIDE, Health.MISSING),
        (Action.UPDATE, Reason.DRIFTED, Health.DRIFTED),
        (Action.UPDATE, Reason.CONFLICT, Health.DRIFTED),
        (Action.UPDATE, Reason.SPEC_CHANGED, Health.PROGRESSING),
        (Action.ADOPT, Reason.METADATA, Health.PROGRESSING),
        (Action.UPDATE, Reason.UNHEALTHY, Health.FAILED),
        (Action.REFUSE, Reason.UNREADABLE, Health.UNKNOWN),
        (Action.REFUSE, Reason.IN_DOUBT, Health.UNKNOWN),
        (Action.WAIT, Reason.NEEDS, Health.WAITING),
    ],
)
def test_health_follows_from_the_reason(action: Action, reason: Reason, health: Health) -> None:
    """Ready is kept and nothing else; what nobody knows is unknown, not false."""
    found = condition(action, reason)
    assert found.health is health
    truths = {Health.READY: Truth.TRUE, Health.UNKNOWN: Truth.UNKNOWN}
    assert found.ready is truths.get(health, Truth.FALSE)
    assert (found.since, found.message) == ("2026-01-01T00:00:00.000Z", "")


def test_a_failed_attempt_shows() -> None:
    """Beside the reason; and it makes nothing look better than it is."""
    found = condition(Action.CREATE, Reason.NEW, error="no room", detail="on this disk")
    assert (found.health, found.message) == (Health.FAILED, "on this disk; last attempt: no room")
    assert condition(Action.REFUSE, Reason.UNREADABLE, error="no room").health is Health.UNKNOWN


def test_an_old_failure_of_what_is_in_sync_is_over() -> None:
    """Live is as wanted: whatever failed before does not matter."""
    assert condition(Action.KEEP, Reason.IN_SYNC, error="no room").health is Health.READY


def test_without_a_healthy_look_nothing_is_ready() -> None:
    """Status is what was seen a moment ago, whatever the plan says."""
    plan = Plan("dev", 0, "", "", (Change(A, Action.KEEP, Reason.IN_SYNC),), ())
    for seen in ({}, {A: Seen({}, healthy=False)}):
        assert conditions(plan, Ledger("dev"), seen)[0].ready is Truth.FALSE


def test_a_whole_is_as_healthy_as_its_worst_part() -> None:
    """The order of `Health`; nothing at all is ready."""
    parts = [
        Condition(A, Truth.FALSE, health, "") for health in (Health.WAITING, Health.UNKNOWN, Health.READY)
    ]
    assert overall(parts) is Health.UNKNOWN
    assert overall(parts[:1]) is Health.WAITING
    assert overall([]) is Health.READY
    order = ["READY", "PROGRESSING", "WAITING", "DRIFTED", "MISSING", "FAILED", "UNKNOWN"]
    assert [health.name for health in sorted(Health)] == order
