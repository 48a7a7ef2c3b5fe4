"""`gamma report` on a real Prometheus with two days of history, with known answers, and on a real ledger.

The history ends now; what Prometheus scrapes of itself after that is a minute or so, and so are the
tolerances.
"""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.targets.embedded_prometheus import EmbeddedPrometheus
from gamma_orch.targets.prometheus import Prometheus
from gamma_orch.testing.thing import FAULTS
from tests.cli.gamma import Done, cold, write
from tests.kinds.monitoring.promtool import ROOT, promtool
from tests.report.example import HOSTILE

pytestmark = pytest.mark.timeout(300)
TICK = 30  # seconds between two samples
LONG = 2 * 86400
GAP = (86400, 86400 + 17280)  # a tenth of the time, from its beginning on: no Prometheus
DOWN = (3600, 3600 + 1800)  # the API does not answer
RESET = 50_010  # its counters begin anew
FIRED = ((20_010, 20_610), (150_000, 150_600))  # two firings of ten minutes
ACROSS = (GAP[0] - 600, GAP[1] + 900)
ENVIRONMENT = """apiVersion: gamma/v1
kind: Environment
metadata: {name: dev}
spec: {targets: {prometheus: {type: prometheus, embedded: true, interval: 30s}}}
"""
SPECS = """apiVersion: gamma/v1
kind: MetricCollector
metadata: {name: elsewhere}
spec: {every: 30s, scrape: {urls: ["http://127.0.0.1:9/metrics"]}}
---
apiVersion: gamma/v1
kind: SLO
metadata: {name: strict}
spec:
  objective: 99.9%
  window: 7d
  indicator: {total: 'gamma_requests_total{route="predict"}', bad: 'gamma_requests_total{status=~"5.."}'}
---
apiVersion: gamma/v1
kind: SLO
metadata: {name: easy}
spec:
  objective: 99%
  window: 7d
  indicator:
    total: gamma_requests_total{route="predict"}
    good: gamma_requests_total{route="predict", status!~"5.."}
---
apiVersion: gamma/v1
kind: SLO
metadata: {name: fast}
spec:
  objective: 95%
  window: 7d
  indicator: {latency: {metric: gamma_request_seconds, below: 250ms}}
---
apiVersion: gamma/v1
kind: SLO
metadata: {name: nobody-asks}
spec:
  objective: 95%
  window: 7d
  indicator: {total: asked_total, bad: asked_failed_total}
---
apiVersion: gamma/v1
kind: AlertRule
metadata: {name: api-errors}
spec:
  expr: absent_by_then > 1
  severity: critical
  summary: It fails.
  tests: [{series: {absent_by_then: "2x9"}, at: 1m, fires: [{}]}]
---
apiVersion: gamma/v1
kind: AlertRule
metadata: {name: quiet}
spec:
  expr: absent_by_then > 2
  severity: info
  summary: It is quiet.
  tests: [{series: {absent_by_then: "3x9"}, at: 1m, fires: [{}]}]
---
apiVersion: gamma/v1
kind: Thing
metadata: {name: a}
spec: {value: one}
---
apiVersion: gamma/v1
kind: Thing
metadata: {name: b}
spec: {value: two}
"""
# Of each 200 requests: how many within each bound.
BUCKETS = {"0.05": 100, "0.1": 190, "0.25": 194, "1.0": 200, "+Inf": 200}
Value = Callable[[int], float | None]


def counter(each: float) -> Value:
    def value(at: int) -> float | None:
        if DOWN[0] <= at < DOWN[1]:
            return None
        return each * (at - (RESET if at >= RESET else 0)) / TICK

    return value


def between(*times: tuple[int, int]) -> Value:
    return lambda at: 1.0 if any(begin <= at < end for begin, end in times) else None


def history(begin: int) -> Iterator[str]:
    """In the form of OpenMetrics: each metric's samples together."""
    api = {"job": "api", "instance": "a", "model": "m"}
    rows: list[tuple[str, dict[str, str], Value]] = [
        ("up", {"job": "prometheus"}, lambda at: 1.0),
        ("up", {"job": "api"}, lambda at: 0.0 if DOWN[0] <= at < DOWN[1] else 1.0),
        ("gamma_requests_total", {**api, "route": "predict", "status": "200"}, counter(199)),
        ("gamma_requests_total", {**api, "route": "predict", "status": "500"}, counter(1)),
        ("gamma_requests_total", {**api, "job": "idle", "route": "predict", "status": "200"}, lambda at: 7.0),
        # What monitors ask is no request: these would make it 99.7 %.
        ("gamma_requests_total", {**api, "route": "health", "status": "200"}, counter(200)),
        ("gamma_request_seconds_bucket", {**api, "route": "health", "le": "0.05"}, counter(200)),
        *(
            ("gamma_request_seconds_bucket", {**api, "route": "predict", "le": le}, counter(count))
            for le, count in BUCKETS.items()
        ),
        ("gamma_request_seconds_count", {**api, "route": "predict"}, counter(200)),
        ("gamma_answers_total", {**api, "cache": "made"}, counter(140)),
        ("gamma_answers_total", {**api, "cache": "l1"}, counter(60)),
        (
            "ALERTS",
            {
                "alertname": "api-errors",
                "alertstate": "firing",
                "severity": "critical",
                "resource": "Service/api",
            },
            between(*FIRED),
        ),
        ("ALERTS", {"alertname": "api-errors", "alertstate": "pending"}, between((0, LONG))),
        ("ALERTS", {"alertname": HOSTILE, "alertstate": "firing"}, between(ACROSS)),
    ]
    for name, labels, value in rows:
        said = ",".join(f"{key}={json.dumps(text, ensure_ascii=False)}" for key, text in labels.items())
        for at in range(0, LONG, TICK):
            if not GAP[0] <= at < GAP[1] and (found := value(at)) is not None:
                yield f"{name}{{{said}}} {found:.17g} {begin + at}"
    yield "# EOF"


@dataclass
class Place:
    folder: Path
    begin: int
    server: EmbeddedPrometheus

    def report(self, *arguments: str) -> Done:
        return cold(self.folder, "report", "--since", "2d", *arguments)

    @property
    def figures(self) -> Any:
        done = self.report("-o", "json")
        assert (done.code, done.err) == (0, ""), done.err
        return done.json


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("report")
    promtool()
    state = folder / ".gamma"
    state.mkdir()
    (state / "tools").symlink_to(ROOT / ".gamma" / "tools")
    write(folder, {"environments/dev/environment.yaml": ENVIRONMENT, "specs/all.yaml": SPECS})
    home = state / "dev" / "prometheus-prometheus"
    (home / "data").mkdir(parents=True)
    begin = int(time.time()) - LONG
    (folder / "history.txt").write_text("\n".join(history(begin)) + "\n", encoding="utf-8")
    subprocess.run(
        [
            promtool(),
            "tsdb",
            "create-blocks-from",
            "openmetrics",
            "-q",
            folder / "history.txt",
            home / "data",
        ],
        check=True,
    )
    found = Place(folder, begin, EmbeddedPrometheus(home, state / "tools"))
    try:
        failed = cold(folder, "apply", "--yes", **{FAULTS: json.dumps({"permanent": ["b"]})})
        assert failed.code == 1, failed.err
        # Somebody else's hand, which the next apply takes back.
        [rule] = found.server.rules.glob("*quiet.yml")
        rule.write_text(rule.read_text().replace("> 2", "> 3"))
        asyncio.run(Prometheus("p", found.server).reload())
        healed = cold(folder, "apply", "--yes")
        assert healed.code == 0, healed.err
        yield found
    finally:
        found.server.destroy()


def test_known_figures(place: Place) -> None:
    found = place.figures
    assert found["source"]["known"] == pytest.approx(0.9, abs=0.002)
    gap = max(found["source"]["gaps"], key=lambda one: one[1] - one[0])
    assert gap == pytest.approx([place.begin + GAP[0], place.begin + GAP[1]], abs=60)
    services = {one["name"]: one for one in found["services"]}
    assert services.keys() == {"api", "idle"}
    api, idle = services["api"], services["idle"]
    assert api["availability"] == pytest.approx(0.995, abs=1e-6)
    # 200 each tick, but for the gap and when it was down; at their edges a part of a step is estimated.
    ticks = (LONG - (GAP[1] - GAP[0]) - (DOWN[1] - DOWN[0])) / TICK
    assert api["requests"] == pytest.approx(200 * ticks, rel=0.01)
    assert (api["p50"], api["p95"], api["p99"]) == pytest.approx((0.05, 0.1, 0.75))
    assert (api["bound"], api["cached"]) == pytest.approx((1.0, 0.3))
    assert api["silent"] == pytest.approx(1800, abs=30)
    assert api["seen"] == pytest.approx(0.9 - 1800 / LONG, abs=0.002)
    assert 0.88 < api["known"] < 0.9
    assert (idle["requests"], idle["availability"], idle["p50"]) == (0, None, None)


def test_objectives(place: Place) -> None:
    found = {one["name"]: one for one in place.figures["objectives"]}
    strict, easy, fast, nobody = (found[name] for name in ("strict", "easy", "fast", "nobody-asks"))
    assert (strict["attained"], strict["left"]) == pytest.approx((0.995, -4.0), abs=1e-4)
    assert (easy["attained"], easy["left"]) == pytest.approx((0.995, 0.5), abs=1e-4)
    assert (fast["attained"], fast["left"]) == pytest.approx((0.97, 0.4), abs=1e-4)
    assert strict["window_known"] == pytest.approx(0.9 * 2 / 7, abs=0.03)
    known = [value for value in easy["burn"] if value is not None]
    assert known[0] > 0.95
    assert known[-1] == easy["left"]
    assert (nobody["attained"], nobody["left"], nobody["known"]) == (None, None, 0)
    assert nobody["why"]


def test_alerts(place: Place) -> None:
    found = place.figures["alerts"]
    rules = {one["name"]: one for one in found["rules"]}
    # What burns the budget fires by now, if Prometheus has had the time to see it.
    assert {"api-errors", HOSTILE} <= set(rules) <= {"api-errors", HOSTILE, "strict-burns-slowly"}
    assert next(iter(rules)) == "api-errors", "it fired most often"
    errors, across = rules["api-errors"], rules[HOSTILE]
    assert (errors["firings"], errors["seconds"], errors["longest"]) == pytest.approx((2, 1200, 600), abs=0.1)
    assert [place.begin + one[0] for one in FIRED] == pytest.approx(
        [one[0] for one in errors["times"]], abs=TICK
    )
    # It fired before and after the gap: once, for as long as is known.
    assert (across["firings"], across["seconds"]) == pytest.approx((1, 1500), abs=TICK)
    causes = {(one["about"], one["severity"]): one["firings"] for one in found["causes"]}
    assert (causes["Service/api", "critical"], causes["", ""]) == (2, 1)
    assert "quiet" in found["quiet"]
    assert "strict-burns-fast" in found["quiet"]
    assert "api-errors" not in found["quiet"]


def test_changes(place: Place) -> None:
    found = place.figures["changes"]
    assert (found["runs"], found["whole"], found["by_dagster"]) == (2, 1, 0)
    assert [(one["resource"], one["times"], one["mended"]) for one in found["failures"]] == [
        ("Thing/b", 1, True)
    ]
    assert [(one["resource"], one["found"], one["healed"]) for one in found["drifts"]] == [
        ("AlertRule/quiet", 1, 1)
    ]
    assert found["steps"] == 10  # nine resources once, and one of them again
    assert found["days"][0]["done"] is None
    assert 0 < found["median"] <= found["p95"] < 60


def test_latency_is_what_prometheus_itself_makes_of_it(place: Place) -> None:
    found = place.figures
    api = next(one for one in found["services"] if one["name"] == "api")
    at, step = place.begin + 150_000, found["span"]["step"]
    server = Prometheus("p", place.server)
    for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")):
        counted = f'increase(gamma_request_seconds_bucket{{route="predict"}}[{step}s])'
        expr = f"histogram_quantile({q}, sum by (le) ({counted}))"
        [one] = asyncio.run(server.query(expr, at))
        assert float(one["value"][1]) == pytest.approx(api[name])


def test_long_expressions_and_broken_ones(place: Place) -> None:
    from gamma_orch.core.provider import Permanent

    server = Prometheus("p", place.server)
    long = " or ".join(f"absent(x{n})" for n in range(2000))  # longer than a URL may be
    assert len(asyncio.run(server.query(long, time.time()))) == 1
    found = asyncio.run(server.query_range("vector(1)", 1000, 1060, 30))
    assert [value[0] for value in found[0]["values"]] == [1000, 1030, 1060]
    with pytest.raises(Permanent, match="parse error"):
        asyncio.run(server.query("sum(", time.time()))


def test_a_page_a_pdf_and_words(place: Place) -> None:
    done = place.report()
    assert done.code == 0, done.err
    assert done.err.splitlines()[-1] == "The report is in report-dev.html."
    assert done.out.startswith("Availability     99.49 %") or done.out.startswith("Availability     99.5 %")
    text = (place.folder / "report-dev.html").read_text(encoding="utf-8")
    assert "<svg" in text
    assert "<script" not in text
    done = place.report("--out", "of two days.pdf", "-o", "markdown")
    assert done.code == 0, done.err
    assert "| Alerts |" in done.out
    assert (place.folder / "of two days.pdf").read_bytes().startswith(b"%PDF-")
    assert not (place.folder / "of two days.html").exists()


def test_of_a_week_before_the_history_nothing_is_known(place: Place) -> None:
    done = cold(place.folder, "report", "--since", "1d", "--until", "20d", "-o", "json")
    assert done.code == 0, done.err
    found = done.json
    assert found["source"]["known"] == 0
    assert found["services"] == []
    assert found["alerts"]["firings"] is None
    assert {one["attained"] for one in found["objectives"]} == {None}
    assert found["changes"]["days"][0]["done"] is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--since", "soon"], "'soon' is no moment"),
        (["--since", "2030-01-01"], "would end before it begins"),
        (["--out", "report.docx"], "--out report.html or --out report.pdf"),
        (["--out", "nowhere/report.html"], "No such file"),
        (["--prometheus", "promtheus"], "prometheus"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else "",
)
def test_mistakes_exit_with_1_and_say_what_to_write(place: Place, arguments: list[str], says: str) -> None:
    done = cold(place.folder, "report", *arguments)
    assert (done.code, done.out) == (1, "")
    assert says in done.err
    assert "Traceback" not in done.err


def test_without_a_prometheus_the_ledger_is_still_told(tmp_path: Path) -> None:
    environment = "apiVersion: gamma/v1\nkind: Environment\nmetadata: {name: dev}\nspec: {}\n"
    thing = "apiVersion: gamma/v1\nkind: Thing\nmetadata: {name: a}\nspec: {value: one}\n"
    write(tmp_path, {"environments/dev/environment.yaml": environment, "specs/a.yaml": thing})
    before = cold(tmp_path, "report")
    assert before.code == 0, before.err
    assert "The environment declares no Prometheus." in before.out
    assert "Nothing was ever applied." in before.out
    assert not list(tmp_path.glob(".gamma/ledger*")), "a report makes no ledger"
    assert cold(tmp_path, "apply", "--yes").code == 0
    assert "1  Steps in 1 run, of 1 resource." in cold(tmp_path, "report").out


def test_a_prometheus_that_was_never_started_is_not_started_for_a_report(tmp_path: Path) -> None:
    write(tmp_path, {"environments/dev/environment.yaml": ENVIRONMENT})
    done = cold(tmp_path, "report", PATH=os.environ["PATH"])
    assert done.code == 0, done.err
    assert "was never started" in done.out
    assert not (tmp_path / ".gamma" / "dev").exists()


def test_a_prometheus_that_cannot_be_asked_hides_nothing_else(tmp_path: Path) -> None:
    target = '{type: prometheus, url: "http://u:hush-9@127.0.0.1:9", rules: rules.d}'
    environment = ENVIRONMENT.replace("{type: prometheus, embedded: true, interval: 30s}", target)
    write(tmp_path, {"environments/dev/environment.yaml": environment, "rules.d/keep": " "})
    done = cold(tmp_path, "report")
    assert done.code == 0, done.err
    assert "cannot be asked" in done.out
    page = (tmp_path / "report-dev.html").read_text(encoding="utf-8")
    assert page.count("cannot be asked") >= 2
    assert "hush-9" not in page + done.out + done.err
