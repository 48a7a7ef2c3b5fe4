"""From a condition to those who are told of it: a real Prometheus, a real Alertmanager, and receivers that
look like Slack, Discord, PagerDuty, a webhook and a mail server."""

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
from aiosmtpd.controller import Controller

from gamma_orch.targets.embedded_alertmanager import EmbeddedAlertmanager
from gamma_orch.targets.embedded_postgres import State
from gamma_orch.targets.embedded_prometheus import EmbeddedPrometheus
from tests.app.running import free_port
from tests.cli.gamma import write
from tests.kinds.models.project import gamma
from tests.kinds.monitoring.promtool import promtool
from tests.kinds.monitoring.test_prometheus import Place as WithPrometheus
from tests.kinds.monitoring.test_prometheus import tools

pytestmark = pytest.mark.timeout(300)
ENVIRONMENT = """apiVersion: gamma/v1
kind: Environment
metadata: {name: dev}
spec:
  secrets: {hook: {env: HOOK}, mail: {generate: {length: 20}}}
  targets:
    prometheus: {type: prometheus, embedded: true, alertmanager: pager, interval: 1s}
    pager: {type: alertmanager, embedded: true}
"""
# Somebody asks Prometheus what it cannot answer: a condition that a test can make and end.
RULES = """apiVersion: gamma/v1
kind: AlertRule
metadata: {name: broken}
spec:
  expr: sum(increase(prometheus_http_requests_total{code='400'}[5s])) > 0
  for: 2s
  severity: critical
  summary: Somebody asks nonsense.
  tests: [{series: {"prometheus_http_requests_total{code='400'}": 0+1x99}, every: 1s, at: 1m, fires: [{}]}]
---
apiVersion: gamma/v1
kind: AlertRule
metadata: {name: quiet}
spec:
  expr: sum(increase(prometheus_http_requests_total{code='400'}[5s])) > 0
  severity: info
  summary: Nobody is told of this.
  tests: [{series: {"prometheus_http_requests_total{code='400'}": 0+1x99}, every: 1s, at: 1m, fires: [{}]}]
"""
CHANNELS = """apiVersion: gamma/v1
kind: NotificationChannel
metadata: {{name: slack}}
spec:
  alertmanager: pager
  slack: {{url: "http://127.0.0.1:{port}/slack/${{secret.hook}}", channel: "#ops"}}
---
apiVersion: gamma/v1
kind: NotificationChannel
metadata: {{name: discord}}
spec: {{alertmanager: pager, discord: {{url: "http://127.0.0.1:{port}/discord"}}}}
---
apiVersion: gamma/v1
kind: NotificationChannel
metadata: {{name: hook}}
spec: {{alertmanager: pager, webhook: {{url: "http://127.0.0.1:{port}/hook"}}}}
---
apiVersion: gamma/v1
kind: NotificationChannel
metadata: {{name: mail}}
spec:
  alertmanager: pager
  email: {{to: [a@x.org, b@x.org], from: gamma@x.org, server: "127.0.0.1:{mail}", tls: false}}
---
apiVersion: gamma/v1
kind: NotificationChannel
metadata: {{name: boss}}
spec:
  alertmanager: pager
  resolved: false
  pagerduty: {{key: "${{secret.mail}}", url: "http://127.0.0.1:{port}/boss"}}
---
apiVersion: gamma/v1
kind: EscalationPolicy
metadata: {{name: critical}}
spec:
  alertmanager: pager
  match: {{severity: critical}}
  wait: 0s
  interval: 1s
  repeat: 1h
  steps:
    - {{channels: [slack, discord, hook, mail]}}
    - {{after: 6s, channels: [boss]}}
"""


class Sinks:
    """What came, by the first part of the path: when, and what."""

    def __init__(self) -> None:
        self.came: list[tuple[str, float, Any]] = []
        sinks = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                sinks.came.append((self.path, time.monotonic(), body))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        class Mail:
            async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
                sinks.came.append(
                    ("/mail", time.monotonic(), (envelope.rcpt_tos, message_from_bytes(envelope.content)))
                )
                return "250 OK"

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        self.mail = free_port()
        self._smtp = Controller(Mail(), hostname="127.0.0.1", port=self.mail)

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self._smtp.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._smtp.stop()

    def of(self, name: str) -> list[tuple[float, Any]]:
        return [(at, said) for path, at, said in self.came if path.split("/")[1] == name]


class Place(WithPrometheus):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        state = folder / ".gamma"
        self._over = threading.Event()
        self._breaking: threading.Thread | None = None
        self.pager = EmbeddedAlertmanager(state / "dev" / "alertmanager-pager", state / "tools")
        self.server = EmbeddedPrometheus(
            state / "dev" / "prometheus-prometheus", state / "tools", self.pager, "1s"
        )

    def break_it(self) -> float:
        def nonsense() -> None:
            while not self._over.wait(0.3):
                self.nonsense()

        self.nonsense()  # or else the first one would begin a series, and increase nothing
        time.sleep(7)
        self._over.clear()
        self._breaking = threading.Thread(target=nonsense)
        self._breaking.start()
        return time.monotonic()

    def nonsense(self) -> None:
        with pytest.raises(urllib.error.HTTPError, match="400") as refused:
            self.ask("/api/v1/query?query=(")
        refused.value.close()

    def mend_it(self) -> None:
        self._over.set()
        if self._breaking is not None:
            self._breaking.join()
            self._breaking = None


@pytest.fixture
def sinks() -> Iterator[Sinks]:
    with Sinks() as found:
        yield found


@pytest.fixture
def place(tmp_path: Path, sinks: Sinks, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    promtool()
    monkeypatch.setenv("HOOK", "T0/B1/very-secret-hook")
    tools(tmp_path / ".gamma")
    files = {
        "specs/rules.yaml": RULES,
        "specs/channels.yaml": CHANNELS.format(port=sinks.port, mail=sinks.mail),
        "environments/dev/environment.yaml": ENVIRONMENT,
    }
    write(tmp_path, files)
    found = Place(tmp_path)
    try:
        done = found.apply()
        assert done.code == 0, done.err
        until(lambda: found.ask("/api/v1/alertmanagers")["data"]["activeAlertmanagers"])
        yield found
    finally:
        found.mend_it()
        found.server.destroy()
        found.pager.destroy()


def until(true: Callable[[], Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_everybody_is_told_in_time_and_again_when_it_is_over(place: Place, sinks: Sinks) -> None:
    assert place.plan().out == "No changes. 8 resources of dev as declared.\n"
    broken = place.break_it()
    first = ("slack", "discord", "hook", "mail")
    until(lambda: all(sinks.of(name) for name in first))
    delays = {name: round(sinks.of(name)[0][0] - broken, 2) for name in first}
    print("seconds from the condition to the message:", delays)
    assert max(delays.values()) < 30  # on a machine that does nothing else below 5
    assert not sinks.of("boss")  # who is told after six seconds more

    [(_, slack), *_] = sinks.of("slack")
    assert "/slack/T0/B1/very-secret-hook" in {path for path, _, _ in sinks.came}
    assert slack["channel"] == "#ops"
    assert "Somebody asks nonsense." in json.dumps(slack)
    assert sinks.of("discord")[0][1]["embeds"]
    hook = sinks.of("hook")[0][1]
    assert [one["labels"]["alertname"] for one in hook["alerts"]] == ["broken"]  # and not `quiet`
    to, mail = sinks.of("mail")[0][1]
    assert to == ["a@x.org", "b@x.org"]
    assert "broken" in mail["Subject"]

    until(lambda: sinks.of("boss"))
    at, boss = sinks.of("boss")[0]
    assert at - min(sinks.of(name)[0][0] for name in first) > 5
    assert boss["event_action"] == "trigger"
    assert boss["routing_key"] == (place.folder / ".gamma/dev/secrets/mail").read_text().strip()

    place.mend_it()
    until(lambda: all(len(sinks.of(name)) > 1 for name in first))
    assert sinks.of("hook")[-1][1]["status"] == "resolved"
    time.sleep(2)
    assert all(said["event_action"] == "trigger" for _, said in sinks.of("boss"))  # it is not told of ends


@pytest.mark.nightly
def test_what_is_over_before_its_wait_is_not_escalated(place: Place, sinks: Sinks) -> None:
    place.break_it()
    until(lambda: sinks.of("hook"))
    place.mend_it()
    until(lambda: len(sinks.of("hook")) > 1)
    time.sleep(8)
    assert not sinks.of("boss")


def test_what_is_changed_by_hand_is_seen_and_healed(place: Place) -> None:
    file = place.pager.home / "alertmanager.yml"
    file.write_text(file.read_text().replace("#ops", "#other"))
    _reload(place.pager)
    plan = place.plan()
    assert plan.code == 2
    assert "the receiver gamma:dev:slack was changed in Alertmanager" in plan.out
    assert "discord" not in plan.out
    assert place.apply().code == 0
    assert place.plan().code == 0
    assert "#ops" in file.read_text()
    assert "very-secret-hook" not in place.plan().out + gamma(place.folder, "status", "-e", "dev").out


def test_what_alertmanager_refuses_leaves_it_as_it_was(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place.folder / "specs" / "channels.yaml"
    kept = path.read_text()
    path.write_text(kept.replace("a@x.org, b@x.org", "a@x.org"))
    monkeypatch.setenv("HOOK", "T0/%zz/very-secret-hook")
    done = place.apply()
    assert done.code == 1
    said = done.out + done.err
    assert "Alertmanager 'pager' refuses its configuration, and goes on with that of before" in said
    assert "very-secret-hook" not in said
    assert "very-secret-hook" in place.pager.log.read_text()  # which is where the reason is
    assert "b@x.org" not in (place.pager.home / "alertmanager.yml").read_text()  # the other change is there
    path.write_text(kept)
    monkeypatch.setenv("HOOK", "T0/B1/very-secret-hook")
    assert place.apply().code == 0
    assert place.plan().code == 0


def test_a_silence_has_a_reason_and_an_end(place: Place, sinks: Sinks) -> None:
    def silence(*arguments: str) -> Any:
        return gamma(place.folder, "silence", *arguments, "-e", "dev", "--alertmanager", "pager")

    refused = silence("add", "alertname=broken", "--for", "1h", "--why", "")
    assert refused.code == 1
    assert "say it with --why" in refused.err
    made = silence("add", "alertname=broken", "--for", "1h", "--why", "We break it.")
    assert made.code == 0, made.err
    listed = silence("ls").out
    assert "alertname=broken" in listed
    assert "We break it." in listed
    place.break_it()
    end = time.monotonic() + 20
    while not any(one["status"]["state"] == "suppressed" for one in alerts(place)):
        assert time.monotonic() < end, alerts(place)
        time.sleep(0.2)
    time.sleep(2)
    assert sinks.came == []
    [name] = [line.split()[0] for line in listed.splitlines() if "broken" in line]
    assert silence("end", name).code == 0
    assert silence("ls").out == "There are none.\n"
    until(lambda: sinks.of("hook") != [], 20)


def alerts(place: Place) -> Any:
    asked = urllib.request.Request(  # noqa: S310 - of our own making
        place.pager.url + "/api/v2/alerts?silenced=true",
        headers={"Authorization": place.pager.authorization()},
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 - as above
        return json.loads(answer.read())


@pytest.mark.nightly
def test_a_killed_alertmanager_is_started_again_and_tells(place: Place, sinks: Sinks) -> None:
    os.kill(int((place.pager.home / "pid").read_text()), signal.SIGKILL)
    place.break_it()
    time.sleep(3)
    assert not sinks.of("hook")
    assert place.plan().code == 0  # which starts it
    until(lambda: sinks.of("hook"))
    place.mend_it()
    assert gamma(place.folder, "down", "-e", "dev").code == 0
    assert place.pager.state() is State.STOPPED


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("channels: [slack, discord, hook, mail]", "channels: [slack, discord, hook]", "error GAM911"),
        ("match: {severity: critical}", "match: {severity: critcal}", "error GAM913"),
        ("channels: [boss]", "channels: [bos]", "did you mean 'boss'"),
        ("{after: 6s, channels", "{after: 0s, channels", "a longer time than the one before"),
        ("discord: {url:", "telegram: {url:", "specs/channels.yaml:11"),
        ('url: "http://127.0.0.1:1/hook"', "url: hook", "begins with http:// or https://"),
        ("repeat: 1h", "repeat: 0s", "longer than none"),
        (
            "metadata: {name: critical}\nspec:\n  alertmanager: pager",
            "metadata: {name: critical}\nspec:",
            "GAM912",
        ),
    ],
)
def test_routes_that_are_wrong_are_refused_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, says: str
) -> None:
    monkeypatch.setenv("HOOK", "x")
    channels = CHANNELS.format(port=1, mail=2)
    assert old in channels
    files = {
        "specs/rules.yaml": RULES,
        "specs/channels.yaml": channels.replace(old, new),
        "environments/dev/environment.yaml": ENVIRONMENT,
    }
    write(tmp_path, files)
    done = gamma(tmp_path, "validate")
    assert done.code == 1
    assert says in done.out + done.err


def _reload(server: EmbeddedAlertmanager) -> None:
    import urllib.request

    asked = urllib.request.Request(  # noqa: S310 - of our own making
        server.url + "/-/reload", headers={"Authorization": server.authorization()}, method="POST"
    )
    urllib.request.urlopen(asked, timeout=10).close()  # noqa: S310 - as above
