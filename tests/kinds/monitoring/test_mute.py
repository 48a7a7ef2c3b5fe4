"""When nobody is told: what a policy may say, what becomes of it, and a real Alertmanager that goes by it."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from gamma_orch.core.canonical import Json
from gamma_orch.core.leaves import Secret
from gamma_orch.kinds.monitoring import escalation_policy, muting
from gamma_orch.kinds.monitoring.parts import differences
from gamma_orch.spec.references import plain
from gamma_orch.targets.alertmanager import assembled
from gamma_orch.targets.distribution import Distribution, Program
from gamma_orch.targets.embedded_alertmanager import EmbeddedAlertmanager
from tests.cli.gamma import write
from tests.kinds.models.project import gamma
from tests.kinds.monitoring.promtool import ROOT
from tests.kinds.monitoring.test_delivery import Sinks, until
from tests.kinds.monitoring.test_prometheus import tools

pytestmark = pytest.mark.timeout(300)
WORKDAYS = ["monday", "tuesday", "wednesday", "thursday", "friday"]


def mute(**said: Any) -> Json:
    return plain(muting.Mute.model_validate(said, by_alias=True))


def policy(**said: Any) -> Json:
    given = {"steps": [{"channels": ["hook"]}], **said}
    return plain(escalation_policy.EscalationPolicySpec.model_validate(given, by_alias=True))


@pytest.mark.parametrize(
    ("said", "intervals"),
    [
        ({"days": ["saturday", "sunday"]}, [{"weekdays": ["saturday", "sunday"], "location": "UTC"}]),
        ({"days": ["saturday-sunday"]}, [{"weekdays": ["saturday", "sunday"], "location": "UTC"}]),
        ({"days": ["sunday-monday"]}, [{"weekdays": ["monday", "sunday"], "location": "UTC"}]),
        (
            {"hours": "09:00-17:30", "zone": "Europe/Berlin"},
            [{"times": [{"start_time": "09:00", "end_time": "17:30"}], "location": "Europe/Berlin"}],
        ),
        (
            {"hours": "22:00-06:00"},
            [
                {"times": [{"start_time": "22:00", "end_time": "24:00"}], "location": "UTC"},
                {"times": [{"start_time": "00:00", "end_time": "06:00"}], "location": "UTC"},
            ],
        ),
        (  # of a night it is the day on which it begins
            {"days": ["friday", "sunday"], "hours": "22:00-06:00"},
            [
                {
                    "times": [{"start_time": "22:00", "end_time": "24:00"}],
                    "weekdays": ["friday", "sunday"],
                    "location": "UTC",
                },
                {
                    "times": [{"start_time": "00:00", "end_time": "06:00"}],
                    "weekdays": ["monday", "saturday"],
                    "location": "UTC",
                },
            ],
        ),
        (
            {"days": ["monday-friday"], "hours": "18:00-00:00"},
            [
                {
                    "times": [{"start_time": "18:00", "end_time": "24:00"}],
                    "weekdays": WORKDAYS,
                    "location": "UTC",
                }
            ],
        ),
    ],
)
def test_as_an_alertmanager_takes_it(said: Json, intervals: Json) -> None:
    assert muting.intervals([mute(**said)]) == intervals


def test_another_spelling_is_no_change() -> None:
    assert mute(days=["monday-friday"]) == mute(days=list(reversed(WORKDAYS)))
    assert mute(days=["monday"], hours="18:00-00:00") == mute(days=["monday"], hours="18:00-24:00")


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({}, "nobody would ever be told: say `days`, or `hours`"),
        ({"days": ["monday-sunday"]}, "nobody would ever be told"),
        ({"days": []}, "at least 1 item"),
        ({"days": ["saturnday"]}, "'saturnday' is no day: .*monday-friday; did you mean 'saturday'"),
        ({"days": ["monday-freitag"]}, "'freitag' is no day"),
        ({"days": ["monday-"]}, "'' is no day"),
        ({"hours": "22-6"}, "from and until, such as 22:00-06:00, and not '22-6'"),
        ({"hours": "22:00-24:30"}, "two times of a day"),
        ({"hours": "24:00-06:00"}, "two times of a day"),
        ({"hours": "8:00-9:00"}, "two times of a day"),
        ({"hours": "08:00-08:00"}, "no time; for the whole day leave `hours` out"),
        ({"hours": "08:00-09:00", "zone": "Europe/Berln"}, "no time zone: .*did you mean 'Europe/Berlin'"),
        ({"days": Secret("x", "1")}, "must be written out"),
        ({"hours": Secret("x", "1")}, "must be written out"),
        ({"hours": "08:00-09:00", "zone": "Europe"}, "no time zone"),
        ({"hours": "08:00-09:00", "zone": "../etc/passwd"}, "no time zone"),
    ],
)
def test_a_time_that_is_none(said: Json, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        mute(**said)


NIGHTS = {"hours": "22:00-06:00", "zone": "Europe/Berlin"}
WEEKEND = {"days": ["saturday", "sunday"]}
TWO = policy(
    match={"severity": "warning"},
    mute=[NIGHTS, WEEKEND],
    steps=[{"channels": ["a"]}, {"channels": ["b", "c"], "after": "15m", "mute": [WEEKEND]}],
)


def part(name: str, fields: Json) -> Json:
    fields = {"outages": [], **fields}
    return {
        "receivers": [{"name": f"gamma:dev:{one}"} for one in ("a", "b", "c", "hook")]
        if name == "two"
        else [],
        "routes": escalation_policy.routes("dev", f"gamma:dev:{name}", fields),
        "time_intervals": escalation_policy.time_intervals(f"gamma:dev:{name}", fields),
    }


def test_which_routes_are_silent_when() -> None:
    found = part("two", TWO)
    assert [(one["receiver"], one["mute_time_intervals"]) for one in found["routes"]] == [
        ("gamma:dev:a", ["gamma:dev:two"]),
        ("gamma:dev:b", ["gamma:dev:two", "gamma:dev:two:2"]),
        ("gamma:dev:c", ["gamma:dev:two", "gamma:dev:two:2"]),
    ]
    assert found["time_intervals"] == [
        {"name": "gamma:dev:two", "time_intervals": muting.intervals(TWO["mute"])},
        {"name": "gamma:dev:two:2", "time_intervals": muting.intervals(TWO["steps"][1]["mute"])},
    ]
    assert len(found["time_intervals"][0]["time_intervals"]) == 3
    never = part("never", policy())
    assert not never["time_intervals"]
    assert all("mute_time_intervals" not in one for one in never["routes"])


def test_amtool_takes_what_is_put_together(tmp_path: Path) -> None:
    amtool = Distribution(ROOT / ".gamma" / "tools").bring(Program("amtool", "prometheus-alertmanager"))
    whole = assembled({"1": part("two", TWO), "2": part("never", policy())})
    file = tmp_path / "alertmanager.yml"
    file.write_text(yaml.safe_dump(whole))
    done = subprocess.run([amtool, "check-config", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    whole["time_intervals"] = whole["time_intervals"][:1]
    file.write_text(yaml.safe_dump(whole))
    done = subprocess.run([amtool, "check-config", file], capture_output=True, text=True, check=False)
    assert "gamma:dev:two:2" in done.stdout + done.stderr  # or else it would not have looked


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda one: one["time_intervals"].pop(), "the times of gamma:dev:two:2"),
        (lambda one: one["time_intervals"][0]["time_intervals"].pop(), "the times of gamma:dev:two,"),
        (lambda one: one["route"]["routes"][0].pop("mute_time_intervals"), "routes were changed"),
        (lambda one: one["route"]["routes"][0]["mute_time_intervals"].append("x"), "routes were changed"),
        (lambda one: one["route"]["routes"][0].update(active_time_intervals=["x"]), "routes were changed"),
    ],
)
def test_what_somebody_else_has_changed_is_seen(change: Any, says: str) -> None:
    running = json.loads(json.dumps(assembled({"1": part("two", TWO)})))
    assert list(differences(part("two", TWO), running)) == []
    change(running)
    assert says in "".join(differences(part("two", TWO), running))


# --- a real Alertmanager ------------------------------------------------------------------------------

ENVIRONMENT = """apiVersion: gamma/v1
kind: Environment
metadata: {name: dev}
spec:
  targets: {pager: {type: alertmanager, embedded: true}}
"""
CHANNEL = """apiVersion: gamma/v1
kind: NotificationChannel
metadata: {{name: hook}}
spec: {{alertmanager: pager, resolved: false, webhook: {{url: "http://127.0.0.1:{port}/hook"}}}}
"""
POLICY = """---
apiVersion: gamma/v1
kind: EscalationPolicy
metadata: {{name: {name}}}
spec:
  alertmanager: pager
  match: {{who: {name}}}
  wait: 0s
  interval: 1s
  steps: [{{channels: [hook]}}]
"""


def noon() -> tuple[str, datetime]:
    """A zone in which it is between 12 and 13 o'clock, and what its clocks show: no hour before or after
    this one is on another day."""
    now = datetime.now(UTC)
    ahead = 12 - now.hour
    return f"Etc/GMT{-ahead:+d}" if ahead else "UTC", now + timedelta(hours=ahead)


class Pager:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = EmbeddedAlertmanager(
            folder / ".gamma" / "dev" / "alertmanager-pager", folder / ".gamma" / "tools"
        )

    def apply(self, port: int, policies: dict[str, list[Json]]) -> None:
        texts = [CHANNEL.format(port=port)]
        for name, mutes in policies.items():
            texts.append(POLICY.format(name=name) + (f"  mute: {json.dumps(mutes)}\n" if mutes else ""))
        write(self.folder, {"specs/a.yaml": "".join(texts), "environments/dev/environment.yaml": ENVIRONMENT})
        done = gamma(self.folder, "apply", "-e", "dev", "--yes")
        assert done.code == 0, done.err
        assert gamma(self.folder, "plan", "-e", "dev").code == 0

    def ask(self, path: str, body: Any = None) -> None:
        asked = urllib.request.Request(  # noqa: S310 - of our own making
            self.server.url + path,
            headers={"Authorization": self.server.authorization(), "Content-Type": "application/json"},
            data=json.dumps(body).encode(),
        )
        urllib.request.urlopen(asked, timeout=10).close()  # noqa: S310 - as above

    def fire(self, *names: str) -> None:
        self.ask("/api/v2/alerts", [{"labels": {"alertname": name, "who": name}} for name in names])


@pytest.fixture
def sinks() -> Iterator[Sinks]:
    with Sinks() as found:
        yield found


@pytest.fixture
def pager(tmp_path: Path) -> Iterator[Pager]:
    tools(tmp_path / ".gamma")
    found = Pager(tmp_path)
    try:
        yield found
    finally:
        found.server.destroy()


def told(sinks: Sinks) -> set[str]:
    return {alert["labels"]["alertname"] for _, said in sinks.of("hook") for alert in said["alerts"]}


def test_who_is_muted_now_is_not_told_and_others_are(pager: Pager, sinks: Sinks) -> None:
    zone, clock = noon()
    today, before = muting.DAYS[clock.weekday()], muting.DAYS[clock.weekday() - 1]
    pager.apply(
        sinks.port,
        {
            "always": [],
            "by-day": [{"days": [today], "zone": zone}],
            "by-another-day": [{"days": [before], "zone": zone}],
            "by-hour": [{"hours": "11:00-14:00", "zone": zone}],
            "by-another-hour": [{"hours": "14:00-11:00", "zone": zone}],
            "since-yesterday": [{"days": [before], "hours": "15:00-14:00", "zone": zone}],
            "until-tomorrow": [{"days": [today], "hours": "15:00-14:00", "zone": zone}],
            "elsewhere": [{"hours": "11:00-14:00", "zone": "Etc/GMT+6" if zone != "Etc/GMT+6" else "UTC"}],
            "by-either": [{"hours": "02:00-03:00", "zone": zone}, {"days": [today], "zone": zone}],
        },
    )
    pager.fire(
        "always", "by-day", "by-another-day", "by-hour", "by-another-hour", "since-yesterday",
        "until-tomorrow", "elsewhere", "by-either",
    )  # fmt: skip
    right = {"always", "by-another-day", "by-another-hour", "until-tomorrow", "elsewhere"}
    until(lambda: told(sinks) >= right, 20)
    time.sleep(2)  # two intervals more
    assert told(sinks) == right


def test_times_that_somebody_else_has_changed_are_healed(pager: Pager, sinks: Sinks) -> None:
    pager.apply(sinks.port, {"nights": [NIGHTS], "always": []})
    file = pager.server.home / "alertmanager.yml"
    right = file.read_text()
    assert right.count("Europe/Berlin") == 2
    loaded = yaml.safe_load(right)
    [silent] = [one for one in loaded["route"]["routes"] if "always" in one["matchers"][0]]
    silent["mute_time_intervals"] = ["gamma:dev:nights"]
    for text, name, says in (
        (right.replace("Europe/Berlin", "Asia/Tokyo"), "nights", "the times of gamma:dev:nights, at which"),
        (yaml.safe_dump(loaded), "always", "its routes were changed in Alertmanager"),
    ):
        file.write_text(text)
        pager.ask("/-/reload")
        plan = gamma(pager.folder, "plan", "-e", "dev")
        assert plan.code == 2
        assert f"EscalationPolicy/{name}" in plan.out
        assert says in plan.out
        assert gamma(pager.folder, "apply", "-e", "dev", "--yes").code == 0
        assert yaml.safe_load(file.read_text()) == yaml.safe_load(right)
        assert gamma(pager.folder, "plan", "-e", "dev").code == 0


@pytest.mark.nightly
def test_what_fires_still_is_told_when_it_is_over(pager: Pager, sinks: Sinks) -> None:
    """Which is at the end of a minute, or of the next."""
    now = datetime.now(UTC)
    ends = now + timedelta(minutes=1 if now.second < 30 else 2)
    hours = f"{now - timedelta(hours=1):%H:%M}-{ends:%H:%M}"
    pager.apply(sinks.port, {"soon": [{"hours": hours}]})
    pager.fire("soon")
    left = (ends.replace(second=0, microsecond=0) - datetime.now(UTC)).total_seconds()
    time.sleep(left - 3)
    assert not told(sinks)
    until(lambda: told(sinks) == {"soon"}, 20)


def test_a_wrong_day_is_an_error_at_its_place(tmp_path: Path) -> None:
    wrong = POLICY.format(name="nights") + "  mute:\n    - days: [monday-friday, sunnday]\n"
    write(
        tmp_path,
        {
            "specs/a.yaml": CHANNEL.format(port=1) + wrong,
            "environments/dev/environment.yaml": ENVIRONMENT,
        },
    )
    done = gamma(tmp_path, "validate")
    assert done.code == 1
    assert "specs/a.yaml:16:29: error GAM407: " in done.out + done.err
    assert "'sunnday' is no day: write monday, or several as monday-friday" in done.out + done.err
