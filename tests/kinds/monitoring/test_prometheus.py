"""Rules on a real Prometheus: drift that is made by hand, kills, and what others have."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.targets.embedded_postgres import State
from gamma_orch.targets.embedded_prometheus import EmbeddedPrometheus
from tests.cli.gamma import write
from tests.kinds.models.project import gamma
from tests.kinds.monitoring.promtool import ROOT, promtool

pytestmark = pytest.mark.timeout(300)
ENVIRONMENT = """apiVersion: gamma/v1
kind: Environment
metadata: {name: dev}
spec: {targets: {prometheus: {type: prometheus, embedded: true}}}
"""
RULES = """apiVersion: gamma/v1
kind: AlertRule
metadata: {name: down}
spec:
  expr: up == 0
  for: 10m
  severity: critical
  summary: "{{ $labels.job }} is down"
  tests: [{series: {'up{job="a"}': "0x20"}, at: 15m, fires: [{job: a}]}]
---
apiVersion: gamma/v1
kind: AlertRule
metadata: {name: watched}
spec:
  expr: prometheus_build_info == 1
  severity: info
  labels: {team: ml}
  summary: Somebody looks.
  tests: [{series: {prometheus_build_info: "1x9"}, at: 1m, fires: [{}]}]
"""


def tools(state: Path) -> None:
    """The programs, which are brought once for all tests."""
    promtool()
    state.mkdir(parents=True, exist_ok=True)
    (state / "tools").symlink_to(ROOT / ".gamma" / "tools")


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = EmbeddedPrometheus(
            folder / ".gamma" / "dev" / "prometheus-prometheus", folder / ".gamma" / "tools"
        )

    def apply(self) -> Any:
        return gamma(self.folder, "apply", "-e", "dev", "--yes")

    def plan(self) -> Any:
        return gamma(self.folder, "plan", "-e", "dev")

    def ask(self, path: str, method: str = "GET") -> Any:
        asked = urllib.request.Request(  # noqa: S310 - of our own making
            self.server.url + path, headers={"Authorization": self.server.authorization()}, method=method
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 - as above
            said = answer.read()
        return json.loads(said) if said.startswith(b"{") else said

    def rules(self) -> dict[str, Any]:
        groups = self.ask("/api/v1/rules")["data"]["groups"]
        return {group["name"]: group["rules"][0] for group in groups}

    def edit(self, old: str, new: str) -> None:
        path = self.folder / "specs" / "rules.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    tools(tmp_path / ".gamma")
    files = {"specs/rules.yaml": RULES, "environments/dev/environment.yaml": ENVIRONMENT}
    write(tmp_path, files)
    found = Place(tmp_path)
    try:
        done = found.apply()
        assert done.code == 0, done.err
        yield found
    finally:
        found.server.destroy()


def test_rules_are_run_and_the_next_plan_is_empty(place: Place) -> None:
    assert place.plan().out == "No changes. 2 resources of dev as declared.\n"
    down = place.rules()["gamma:dev:down"]
    assert (down["query"], down["duration"]) == ("up == 0", 600)
    assert down["labels"] == {"severity": "critical"}
    assert down["annotations"] == {"summary": "{{ $labels.job }} is down"}
    end = time.monotonic() + 30
    while not (alerts := place.ask("/api/v1/alerts")["data"]["alerts"]):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert alerts[0]["labels"]["alertname"] == "watched"
    assert alerts[0]["labels"]["team"] == "ml"
    up = gamma(place.folder, "up", "-e", "dev")
    assert f"Prometheus 'prometheus' of dev runs on {place.server.url}" in up.out + up.err


def test_what_is_changed_by_hand_is_seen_and_healed(place: Place) -> None:
    [file] = place.server.rules.glob("*down.yml")
    file.write_text(file.read_text().replace("up == 0", "up == 1"))
    place.ask("/-/reload", "POST")
    (place.server.rules / "theirs.yml").write_text(
        "groups: [{name: theirs, rules: [{alert: x, expr: up > 9}]}]"
    )
    place.ask("/-/reload", "POST")
    plan = place.plan()
    assert plan.code == 2
    assert "AlertRule/down" in plan.out
    assert "up == 1" in plan.out
    assert "watched" not in plan.out
    assert place.apply().code == 0
    assert place.rules()["gamma:dev:down"]["query"] == "up == 0"
    assert "theirs" in place.rules()
    assert place.plan().code == 0


def test_a_wrong_rule_is_refused_before_anything_happens(place: Place) -> None:
    place.edit("up == 0", "rate(up) == 0")
    done = place.apply()
    assert done.code == 1
    assert "specs/rules.yaml:5:9: error GAM901" in done.out + done.err
    assert place.rules()["gamma:dev:down"]["query"] == "up == 0"


def test_what_prometheus_refuses_leaves_the_rules_of_before(place: Place) -> None:
    """A text that the checks do not look into: a template that does not end."""
    place.edit("Somebody looks.", '"{{ $labels.team"')
    place.edit("for: 10m", "for: 12m")
    done = place.apply()
    assert done.code == 1
    said = done.out + done.err
    assert "Prometheus 'prometheus' refuses its configuration, and goes on with that of before" in said
    assert "unclosed action" in said
    rules = place.rules()
    assert rules["gamma:dev:watched"]["annotations"] == {"summary": "Somebody looks."}
    place.edit('"{{ $labels.team"', "Somebody looks.")
    assert place.apply().code == 0
    assert place.rules()["gamma:dev:down"]["duration"] == 720
    assert place.plan().code == 0


def test_a_killed_server_comes_back_with_its_rules(place: Place) -> None:
    before = int((place.server.home / "pid").read_text())
    os.kill(before, signal.SIGKILL)
    assert place.plan().code == 0
    assert int((place.server.home / "pid").read_text()) != before
    assert set(place.rules()) == {"gamma:dev:down", "gamma:dev:watched"}
    assert gamma(place.folder, "down", "-e", "dev").code == 0
    assert place.server.state() is State.STOPPED


def test_a_rule_that_is_gone_from_the_specs_goes(place: Place) -> None:
    path = place.folder / "specs" / "rules.yaml"
    path.write_text(path.read_text().partition("---")[0])
    done = place.apply()
    assert done.code == 0, done.err
    assert set(place.rules()) == {"gamma:dev:down"}


def test_nobody_else_may_ask_it(place: Place) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(place.server.url + "/api/v1/rules", timeout=5)  # noqa: S310 - as above
    listening = subprocess.run(["ss", "-ltnp"], capture_output=True, text=True, check=False).stdout
    mine = [
        line
        for line in listening.splitlines()
        if f"pid={(place.server.home / 'pid').read_text().strip()}," in line
    ]
    assert all("127.0.0.1:" in line for line in mine)


def test_a_plan_says_how_often_a_rule_would_have_fired(place: Place) -> None:
    end = time.monotonic() + 30
    while not place.ask("/api/v1/query?query=prometheus_build_info")["data"]["result"]:
        assert time.monotonic() < end
        time.sleep(0.2)
    place.edit("for: 10m", "for: 11m")
    place.edit("prometheus_build_info == 1", "prometheus_build_info >= 1")
    place.edit("up == 0", "absent_metric == 0")
    place.edit("'up{job", "'absent_metric{job")
    plan = place.plan()
    assert plan.code == 2, plan.err
    lines = plan.out.splitlines()
    watched, down = (next(line for line in lines if name in line) for name in ("/watched", "/down"))
    assert "in the last minute it would have fired once, for " in watched
    assert "no data of absent_metric in the last minute" in down
