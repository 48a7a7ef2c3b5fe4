"""Kills in the middle of a storm of 500 alerts: of Prometheus, of Alertmanager, and of who is told.

What holds after each: whoever is told knows of every alert that fires, and of none that is over; and was told
in messages whose number follows from groups and time, and not from alerts. `pytest -s` shows the figures.
"""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.targets.local_server import LocalServer
from tests.app.running import free_port
from tests.cli.gamma import write
from tests.kinds.monitoring.promtool import promtool
from tests.kinds.monitoring.storm import ALERTS, ALL, ZONES, Endpoint, Storm, zone
from tests.kinds.monitoring.test_delivery import Place as WithPager
from tests.kinds.monitoring.test_delivery import until
from tests.kinds.monitoring.test_prometheus import tools

pytestmark = pytest.mark.timeout(300)
INTERVAL = 2.0  # seconds between two messages of a group, in the policies below
RESEND = 10.0  # after which Prometheus tells Alertmanager again: `--rules.alert.resend-delay`
LAPSE = 40.0  # after which Alertmanager takes an alert of a silent Prometheus to be over: four times that
SAVED = 1.0  # how often Alertmanager writes down what it has told: `--data.maintenance-interval`
SLACK = 8.0  # of a machine that does other things too
GROUPS = {"slack": 1, "mail": 1, "hook": 1, "zones": ZONES}  # of each channel
ENVIRONMENT = """apiVersion: gamma/v1
kind: Environment
metadata: {name: dev}
spec:
  targets:
    prometheus: {type: prometheus, embedded: true, alertmanager: pager, interval: 1s}
    pager: {type: alertmanager, embedded: true}
"""
SPECS = """apiVersion: gamma/v1
kind: MetricCollector
metadata: {{name: weather}}
spec:
  every: 1s
  timeout: 1s
  scrape: {{urls: ["http://127.0.0.1:{storm}/metrics"], metrics: [storm]}}
---
apiVersion: gamma/v1
kind: AlertRule
metadata: {{name: storm}}
spec:
  expr: storm == 1
  for: 2s
  severity: critical
  summary: "{{{{ $labels.n }}}} storms"
  tests: [{{series: {{'storm{{n="1"}}': 1x9}}, at: 1m, fires: [{{n: "1"}}]}}]
---
apiVersion: gamma/v1
kind: NotificationChannel
metadata: {{name: slack}}
spec: {{alertmanager: pager, slack: {{url: "http://127.0.0.1:{http}/slack", channel: "#ops"}}}}
---
apiVersion: gamma/v1
kind: NotificationChannel
metadata: {{name: hook}}
spec: {{alertmanager: pager, webhook: {{url: "http://127.0.0.1:{http}/hook"}}}}
---
apiVersion: gamma/v1
kind: NotificationChannel
metadata: {{name: zones}}
spec: {{alertmanager: pager, webhook: {{url: "http://127.0.0.1:{http}/zones"}}}}
---
apiVersion: gamma/v1
kind: NotificationChannel
metadata: {{name: mail}}
spec:
  alertmanager: pager
  email: {{to: [a@x.org], from: gamma@x.org, server: "127.0.0.1:{mail}", tls: false}}
---
apiVersion: gamma/v1
kind: EscalationPolicy
metadata: {{name: by-name}}
spec:
  alertmanager: pager
  match: {{severity: critical}}
  wait: 1s
  interval: 2s
  repeat: 1h
  steps: [{{channels: [slack, hook, mail]}}]
---
apiVersion: gamma/v1
kind: EscalationPolicy
metadata: {{name: by-zone}}
spec:
  alertmanager: pager
  match: {{severity: critical}}
  group: [zone]
  wait: 1s
  interval: 2s
  repeat: 1h
  steps: [{{channels: [zones]}}]
"""


class Place(WithPager):
    def __init__(self, folder: Path, storm: Storm, told: Endpoint) -> None:
        super().__init__(folder)
        self.storm, self.told = storm, told
        self.begun, self.muted = 0.0, frozenset[int]()

    def begin(self) -> None:
        """And go on until everybody has been told of some of it, and of none of it all."""
        self.begun = time.monotonic()
        self.storm.begin()
        until(lambda: len({m.group for m in self.told.came("zones")}) == ZONES and self._told_something())
        time.sleep(SAVED)
        assert self.storm.fires < ALL, "the machine is too slow: the storm has risen before anybody was told"

    def rise(self) -> None:
        until(lambda: self.storm.begun == ALL)

    @property
    def fires(self) -> AbstractSet[int]:
        """As far as anybody is to be told."""
        return self.storm.fires - self.muted

    def settled(self) -> bool:
        """Whether each channel knows exactly what fires."""
        fires = self.fires
        last = {name: self.told.came(name)[-1:] for name in ("slack", "mail")}
        wanted = f"[FIRING:{len(fires)}]" if fires else "[RESOLVED]"
        return all(self.told.firing(name) == fires for name in ("hook", "zones")) and all(
            message.says.startswith(wanted) for [message] in last.values()
        )

    def settles(self, what: str, seconds: float) -> None:
        """In that time, from now on; and is silent then, for all has been told."""
        since, took = time.monotonic(), 0.0

        def quiet() -> bool:
            nonlocal took
            settled = self.settled()
            took = 0.0 if not settled else took or time.monotonic() - since
            return settled and not self.told.came(since=max(time.monotonic() - 2 * INTERVAL, since))

        try:
            until(quiet, seconds + 2 * INTERVAL)
        except AssertionError:
            wrong = {n: len(self.fires ^ self.told.firing(n)) for n in ("hook", "zones")}
            last = [m.says for n in ("slack", "mail") for m in self.told.came(n)[-1:]]
            raise AssertionError(f"{what}: not after {seconds} s; wrong: {wrong}, {last}") from None
        messages = len(self.told.came(since=since))
        self.say(f"{what}: all is known {took:.1f} s after, by {messages} messages")
        for name in ("hook", "zones"):
            assert self.told.singly(name) >= self.fires
            if singly := self.told.singly(name) - self.fires:
                print(f"  {name}: the end of {len(singly)} alerts is told by that of their groups alone")

    def say(self, what: str) -> None:
        counts = {name: len(self.told.came(name)) for name in GROUPS}
        print(f"{what}; messages: {counts} in {time.monotonic() - self.begun:.0f} s")

    def is_not_flooded(self) -> None:
        elapsed = time.monotonic() - self.begun
        for name, groups in GROUPS.items():
            sent = len(self.told.came(name))
            assert sent <= groups * (elapsed / INTERVAL + 2), (name, sent, elapsed)
            assert sent < ALERTS / 2, name

    def silence(self, number: int) -> str:
        now = time.time()
        iso = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)) for at in (now, now + 3600)]
        matcher = {"name": "n", "value": str(number), "isRegex": False, "isEqual": True}
        wanted = {"matchers": [matcher], "startsAt": iso[0], "endsAt": iso[1]}
        said = self.page("/api/v2/silences", {**wanted, "createdBy": "a test", "comment": "it is known"})
        return str(said["silenceID"])

    def page(self, path: str, body: Any = None) -> Any:
        """Of Alertmanager."""
        asked = urllib.request.Request(  # noqa: S310 - of our own making
            self.pager.url + path,
            json.dumps(body).encode() if body else None,
            {"Authorization": self.pager.authorization(), "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 - as above
            return json.loads(answer.read())

    def _told_something(self) -> bool:
        return all(self.told.came(name) for name in GROUPS)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    promtool()
    tools(tmp_path / ".gamma")
    told = Endpoint(tmp_path, free_port(), free_port())
    with Storm(rise=8.0) as storm:
        files = {
            "specs/all.yaml": SPECS.format(storm=storm.port, http=told.http, mail=told.mail),
            "environments/dev/environment.yaml": ENVIRONMENT,
        }
        write(tmp_path, files)
        found = Place(tmp_path, storm, told)
        try:
            told.start()
            done = found.apply()
            assert done.code == 0, done.err
            until(lambda: found.ask("/api/v1/alertmanagers")["data"]["activeAlertmanagers"])
            yield found
        finally:
            told.kill()
            found.server.destroy()
            found.pager.destroy()


def kill(server: LocalServer) -> None:
    os.kill(int((server.home / "pid").read_text()), signal.SIGKILL)


def comes_back(place: Place) -> None:
    """As it does with Gamma: at the next command that needs it."""
    done = place.apply()
    assert done.code == 0, done.err


def test_a_receiver_is_killed(place: Place) -> None:
    """It is away, then it refuses, then it is back; half of the alerts end while it is away."""
    place.begin()
    place.told.kill()
    place.rise()
    place.storm.ended = frozenset(n for n in ALL if zone(n) % 2)
    place.told.start(refusing=True)
    refusing = time.monotonic()
    time.sleep(3)
    place.told.kill()
    attempts = {name: len(place.told.came(name, refused=True)) for name in GROUPS}
    print(f"attempts in {time.monotonic() - refusing:.1f} s of answers 500: {attempts}")
    assert all(attempts.values())
    assert all(attempts[name] <= 6 * groups for name, groups in GROUPS.items())  # waits grow from 0.5 s on
    place.told.start()
    place.settles("a receiver is back", 3 * INTERVAL + SLACK)
    place.is_not_flooded()


@pytest.mark.nightly
def test_alertmanager_is_killed(place: Place) -> None:
    """Twice: in the middle, and when all is told. Then it tells nothing, for it knows what it has told."""
    place.muted = frozenset({ALERTS - 1})
    silence = place.silence(ALERTS - 1)
    place.begin()
    kill(place.pager)
    place.rise()
    known = place.told.firing("hook")
    assert known < ALL
    comes_back(place)
    place.settles("Alertmanager is back", RESEND + 3 * INTERVAL + SLACK)
    place.is_not_flooded()

    kill(place.pager)
    comes_back(place)
    since = time.monotonic()
    until(lambda: len(place.page("/api/v2/alerts")) == ALERTS, RESEND + SLACK)
    time.sleep(3 * INTERVAL)
    assert not place.told.came(since=since)
    [found] = place.page("/api/v2/silences")
    assert (found["id"], found["status"]["state"]) == (silence, "active")


@pytest.mark.nightly
def test_half_of_it_ends_while_alertmanager_is_dead(place: Place) -> None:
    """Whole groups of the one policy, and half of the group of the other."""
    place.begin()
    kill(place.pager)
    place.rise()
    place.storm.ended = frozenset(n for n in ALL if zone(n) % 2)
    time.sleep(3)
    comes_back(place)
    place.settles("Alertmanager is back, and half is over", 2 * RESEND + 3 * INTERVAL + SLACK)
    place.is_not_flooded()
    place.storm.ended = ALL
    place.settles("all is over", 3 * INTERVAL + SLACK)
    place.is_not_flooded()


@pytest.mark.nightly
def test_prometheus_is_killed(place: Place) -> None:
    """Half of it ends meanwhile: the new one sees that from its first scrape on; what it has not told of
    again is over to Alertmanager after a time. Their series stay: one that goes while Prometheus is dead is
    as it was for five minutes (`--query.lookback-delta`)."""
    place.begin()
    kill(place.server)
    place.rise()
    place.storm.ended = frozenset(n for n in ALL if zone(n) % 2)
    comes_back(place)
    fires = place.storm.fires
    since = time.monotonic()
    until(lambda: fires <= place.told.firing("hook") & place.told.firing("zones"), RESEND + SLACK)
    place.say(f"Prometheus is back: all that fires is told {time.monotonic() - since:.1f} s after")
    place.settles("what is over is told too", LAPSE + 3 * INTERVAL + SLACK)
    place.is_not_flooded()


@pytest.mark.nightly
def test_a_killed_prometheus_tells_of_no_end(place: Place) -> None:
    """Whoever fires has waited already, and goes on."""
    specs = place.folder / "specs" / "all.yaml"
    specs.write_text(specs.read_text().replace("for: 2s", "for: 50s"))
    comes_back(place)
    place.storm.begin()
    place.begun = time.monotonic()
    until(lambda: place.told.firing("hook") == ALL and place.settled(), 50 + 3 * INTERVAL + SLACK + 10)
    kill(place.server)
    comes_back(place)
    since = time.monotonic()
    time.sleep(LAPSE + 3 * INTERVAL)
    for message in place.told.came("hook", since):
        assert all(message.alerts.values()), "they are told to be over, and fire"
    assert not place.told.came(since=since)
