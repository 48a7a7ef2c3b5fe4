"""An outage holds back what follows from it: what rules and policies are told, and what a real Alertmanager
does with that."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.resource import Resource
from gamma_orch.engine.embedded import forget, stop
from gamma_orch.kinds.monitoring import correlation
from tests.cli.gamma import write
from tests.kinds.monitoring.promtool import promtool
from tests.kinds.monitoring.test_delivery import ENVIRONMENT, Place, Sinks, sinks, until
from tests.kinds.monitoring.test_prometheus import tools

pytestmark = [pytest.mark.timeout(300), pytest.mark.postgres]
__all__ = ["sinks"]

DATABASE, ROLE, API = (
    Address("Database", "app.v2"),
    Address("Role", "reader"),
    Address("Service", "api"),
)


def alert(name: str, about: str | None, outage: bool = False, kind: str = "AlertRule") -> Resource:
    spec: dict[str, object] = {"about": about, "labels": {"team": "a"}, "description": "It is late."}
    if kind == "AlertRule":
        spec["outage"] = outage
    return Resource(Address(kind, name), spec, (Address.parse(about),) if about else ())


def everything(*alerts: Resource) -> dict[Address, Resource]:
    """A service that needs a role that needs a database."""
    parts = [Resource(DATABASE, {}), Resource(ROLE, {}, (DATABASE,)), Resource(API, {}, (ROLE,))]
    return {one.address: one for one in (*parts, *alerts)}


def test_who_is_held_back_by_what() -> None:
    alerts = [
        alert("down", "Database/app.v2", outage=True),
        alert("full", "Database/app.v2"),
        alert("late", "Service/api"),
        alert("api-down", "Service/api", outage=True),
        alert("good", "Service/api", kind="SLO"),
        alert("else", None),
    ]
    there = everything(*alerts)
    completed = correlation.rules(alerts, there)
    said: dict[str, Any] = {one.address.name: completed.get(one.address, one.spec) for one in alerts}
    labels = {name: {k: v for k, v in spec["labels"].items() if k != "team"} for name, spec in said.items()}
    behind = {"resource": "Service/api", "needs": ",Database/app.v2,"}
    assert labels == {
        "down": {"resource": "Database/app.v2", "outage": "Database/app.v2"},
        "full": {"resource": "Database/app.v2"},
        "late": behind,
        "api-down": {**behind, "outage": "Service/api"},
        "good": behind,
        "else": {},
    }
    held = "It is late. While it fires, these are held back: api-down, full, good, late."
    assert said["down"]["description"] == held
    assert said["api-down"]["description"] == "It is late. While it fires, these are held back: good, late."
    assert said["late"]["description"] == "It is late."
    policy = Resource(Address("EscalationPolicy", "p"), {})
    assert correlation.policies([policy], there) == {
        policy.address: {"outages": ["Database/app.v2", "Service/api"]}
    }


def test_without_an_outage_nothing_is_held_back() -> None:
    late = alert("late", "Service/api")
    [spec] = correlation.rules([late], everything(late)).values()
    assert spec["labels"] == {"team": "a", "resource": "Service/api"}


FAILS = "sum(increase(prometheus_http_requests_total{code='400'}[5s])) > 0"
TESTS = """  tests:
    - {series: {"prometheus_http_requests_total{code='400'}": 0+1x99}, every: 1s, at: 1m, fires: [{}]}
"""
SPECS = f"""apiVersion: gamma/v1
kind: Database
metadata: {{name: app}}
spec: {{}}
---
apiVersion: gamma/v1
kind: Role
metadata: {{name: readers}}
spec:
  login: false
  grants: [{{on: database, database: app, privileges: [connect]}}]
---
apiVersion: gamma/v1
kind: AlertRule
metadata: {{name: database-down}}
spec:
  expr: {FAILS}
  about: Database/app
  outage: true
  severity: critical
  summary: The database is down.
{TESTS}---
apiVersion: gamma/v1
kind: AlertRule
metadata: {{name: readers-wait}}
spec:
  expr: {FAILS}
  about: Role/readers
  severity: critical
  summary: Whoever reads waits.
{TESTS}---
apiVersion: gamma/v1
kind: AlertRule
metadata: {{name: readers-are-there}}
spec:
  expr: sum(prometheus_build_info) > 0
  about: Role/readers
  severity: critical
  summary: It fires before the database is down.
  tests: [{{series: {{prometheus_build_info: "1x9"}}, at: 1m, fires: [{{}}]}}]
---
apiVersion: gamma/v1
kind: AlertRule
metadata: {{name: unrelated}}
spec:
  expr: {FAILS}
  severity: critical
  summary: It has nothing to do with it.
{TESTS}---
apiVersion: gamma/v1
kind: AlertRule
metadata: {{name: noise}}
spec:
  expr: {FAILS}
  severity: warning
  labels: {{team: b}}
  summary: It is held back by hand.
{TESTS}---
apiVersion: gamma/v1
kind: NotificationChannel
metadata: {{name: hook}}
spec: {{alertmanager: pager, webhook: {{url: "http://127.0.0.1:PORT/hook"}}}}
---
apiVersion: gamma/v1
kind: EscalationPolicy
metadata: {{name: all}}
spec:
  alertmanager: pager
  wait: 2s  # longer than from one evaluation to the next: who holds back has to be there
  interval: 1s
  steps: [{{channels: [hook]}}]
  inhibit: [{{when: {{alertname: unrelated}}, hide: {{team: b}}}}]
"""


@pytest.fixture
def place(tmp_path: Path, sinks: Sinks, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    promtool()
    monkeypatch.setenv("HOOK", "unused")
    tools(tmp_path / ".gamma")
    environment = ENVIRONMENT + "    main: {type: postgres, embedded: true}\n"
    files = {
        "specs/all.yaml": SPECS.replace("PORT", str(sinks.port)),
        "environments/dev/environment.yaml": environment,
    }
    write(tmp_path, files)
    found = Place(tmp_path)
    try:
        done = found.apply()
        assert done.code == 0, done.err
        yield found
    finally:
        found.mend_it()
        list(stop(tmp_path / ".gamma", "dev"))
        list(forget(tmp_path / ".gamma", "dev"))


def told(sinks: Sinks, status: str = "firing") -> dict[str, str]:
    """The alerts that came, with what they say."""
    return {
        alert["labels"]["alertname"]: alert["annotations"].get("description", "")
        for _, said in sinks.of("hook")
        for alert in said["alerts"]
        if alert["status"] == status
    }


def test_what_follows_from_an_outage_is_told_to_nobody(place: Place, sinks: Sinks) -> None:
    assert place.plan().code == 0
    until(lambda: "readers-are-there" in told(sinks), 20)  # without an outage it is told
    place.break_it()
    until(lambda: {"database-down", "unrelated"} <= set(told(sinks)), 20)
    time.sleep(4)  # what was to come would have come
    assert set(told(sinks)) == {"database-down", "unrelated", "readers-are-there"}
    held = "While it fires, these are held back: readers-are-there, readers-wait."
    assert told(sinks)["database-down"] == held
    place.mend_it()
    until(lambda: "database-down" in told(sinks, "resolved"), 30)
    assert "readers-wait" not in told(sinks, "resolved")


def test_what_holds_back_is_put_right_when_it_was_changed(place: Place) -> None:
    file = place.pager.home / "alertmanager.yml"
    file.write_text(file.read_text().replace("Database/app", "Database/other"))
    place.pager.stop()
    place.pager.ensure()
    plan = place.plan()
    assert plan.code == 2
    assert "what holds alerts back was changed in Alertmanager" in plan.out
    assert place.apply().code == 0
    assert place.plan().code == 0
