"""When a threshold that follows from what was before fires: the checks of a plan, `promtool test rules`, a
Prometheus that is asked about its past, and the rules of one that scrapes all say the same, on random series.

What a spec means is said here once more, in a few lines and without PromQL, so that a wrong window in the
expression, which all four would follow, is found as well. The series are of one seed; nightly they are of
another each time, which a failure tells.
"""

import json
import random
import statistics
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import pytest
import yaml

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.kinds.monitoring import promql
from gamma_orch.kinds.monitoring.alert_rule import KIND, rule
from gamma_orch.kinds.monitoring.alerting import Alerts, Rule
from gamma_orch.kinds.monitoring.evaluate import Store
from gamma_orch.kinds.monitoring.rule_spec import AlertRuleSpec, expression
from gamma_orch.kinds.monitoring.series import LOOKBACK, Series
from gamma_orch.spec.durations import duration
from gamma_orch.spec.references import plain
from gamma_orch.targets.embedded_prometheus import EmbeddedPrometheus
from tests.conftest import PROFILE
from tests.kinds.monitoring.promtool import ROOT, promtool, run

pytestmark = pytest.mark.timeout(300)
NIGHTLY = PROFILE == "nightly"
SEED = random.SystemRandom().randrange(2**32) if NIGHTLY else 1
EXAMPLES = 60 if NIGHTLY else 15  # of each kind, on the past
LIVE = 20 if NIGHTLY else 8  # of each kind, of rules that are run
LASTS = 60 if NIGHTLY else 12  # seconds for which they are
KINDS = ("deviation", "quantile", "season")
HOUR, WEEK = 3_600_000, 7 * 24 * 3_600_000  # ms, as all times here
TICK = 250  # from one scrape to the next, and from one evaluation to the next
LEAD = 1000  # a sample is for so much later, so that it is there before an evaluation asks for it

Samples = list[tuple[int, float]]
Fired = set[tuple[int, str]]  # the moments, and the label `i` of the series


@dataclass(frozen=True)
class Example:
    name: str  # of the metric, and of the rule
    spec: Json
    step: int
    start: int  # when its first sample is
    moments: Sequence[int]  # when it is looked at, from `start` on
    series: Mapping[str, Samples] = field(repr=False)  # by `i`, from `start` on
    rows: Mapping[str, list[float | None]] = field(repr=False, default_factory=dict)  # that are scraped

    @property
    def wait(self) -> int:
        return ms(self.spec["for"])

    def rule(self) -> Json:
        fields = KIND.traits.normalise(Address("AlertRule", self.name), self.spec, lambda address: {})
        return rule({**fields, "annotations": {}})


def ms(text: Any) -> int:
    return int(duration(text).total_seconds() * 1000)


# --- what a spec means --------------------------------------------------------------------------------


def is_unusual(said: Json, samples: Samples, at: int) -> bool:
    over, least, factor = ms(said["over"]), said["least"], said["factor"]
    latest = [(then, value) for then, value in samples if at - LOOKBACK <= then <= at]
    if not latest:
        return False
    now = latest[-1][1]

    def before(ago: int) -> list[float]:
        return [value for then, value in samples if at - ago - over <= then <= at - ago]

    if said["by"] == "season":
        weeks = [before(number * WEEK) for number in range(1, said["weeks"] + 1)]
        if any(len(one) < least for one in weeks):
            return False
        return bool(now > factor * sum(map(statistics.mean, weeks)) / len(weeks))
    usual = before(ms(said["gap"]))
    if len(usual) < least:
        return False
    if said["by"] == "quantile":
        return bool(now > factor * _quantile(said["quantile"], usual))
    spread = statistics.pstdev(usual)
    return spread > 0 and abs(now - statistics.mean(usual)) > factor * spread


def _quantile(share: float, values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


def meant(example: Example) -> Fired:
    said, series, moments = example.spec["unusual"], example.series, example.moments
    so = {(at, i) for i, samples in series.items() for at in moments if is_unusual(said, samples, at)}
    return held(so, moments, example.wait)


def held(so: Fired, moments: Sequence[int], wait: int) -> Fired:
    """What was so at each moment of the time before."""
    found: Fired = set()
    for i in {i for _, i in so}:
        since: int | None = None
        for at in moments:
            since = None if (at, i) not in so else at if since is None else since
            if since is not None and at - since >= wait:
                found.add((at, i))
    return found


# --- random rules and series --------------------------------------------------------------------------


def wander(rng: random.Random, length: int) -> list[float | None]:
    """A level with noise, in which there are jumps, levels without noise, and gaps."""
    found: list[float | None] = []
    while len(found) < length:
        level, count = rng.uniform(-5, 20), rng.randint(3, 30)
        match rng.choice(("noise", "noise", "level", "gap", "jump")):
            case "noise":
                found += [rng.gauss(level, 1) for _ in range(count)]
            case "level":
                found += [level] * count
            case "gap":
                found += [None] * min(count, 12)
            case "jump":
                found += [level * rng.uniform(2, 4) for _ in range(count // 4 + 1)]
    return found[:length]


def spec(
    rng: random.Random, name: str, by: str, overs: Sequence[str], gaps: Sequence[str], waits: Sequence[str]
) -> Json:
    unusual = {
        "by": by,
        "over": rng.choice(overs),
        "gap": rng.choice(gaps),
        # Not 2 or 3: of one value among five that are alike its deviation is exactly 2.
        "factor": rng.choice((1.1, 1.7, 2.3, 3.1)),
        "quantile": rng.choice((0.5, 0.9, 0.95)),
        "weeks": rng.choice((1, 2)),
        "least": rng.randint(2, 12),
    }
    said = {"metric": name, "unusual": unusual, "for": rng.choice(waits), "summary": "It is not as usual."}
    return plain(AlertRuleSpec.model_validate(said, by_alias=True))


def by_weeks(rng: random.Random, length: int, step: int, weeks: int) -> Samples:
    """The same hours of some weeks."""
    return [
        (week * WEEK + number * step, value)
        for week in range(weeks)
        for number, value in enumerate(wander(rng, length))
        if value is not None
    ]


def of_the_past(rng: random.Random, now: int) -> Iterator[Example]:
    for number in range(EXAMPLES):
        for by in ("deviation", "quantile"):
            name, step, start = f"past_{by}_{number}", 30_000, (now // HOUR - 48) * HOUR
            said = spec(rng, name, by, ("2m", "5m", "10m"), ("30s", "1m", "3m"), ("0s", "30s", "90s", "2m"))
            series = {
                i: [(place * step, one) for place, one in enumerate(wander(rng, 90)) if one is not None]
                for i in "ab"
            }
            yield Example(name, said, step, start, range(0, 90 * step, step), series)
        name, step, start = f"past_season_{number}", 360_000, (now // HOUR - 24) * HOUR - 2 * WEEK
        said = spec(rng, name, "season", ("30m", "1h", "2h"), ("1m",), ("0s", "6m", "18m", "12m"))
        series = {i: by_weeks(rng, 60, step, 3) for i in "ab"}
        yield Example(name, said, step, start, range(2 * WEEK, 2 * WEEK + 60 * step, step), series)


def of_now(rng: random.Random, now: int) -> Iterator[Example]:
    length, start = 1000 * LASTS // TICK, now // TICK * TICK - 2 * WEEK
    for number in range(LIVE):
        for by in KINDS:
            name = f"live_{by}_{number}"
            said = spec(rng, name, by, ("1s", "2s", "3s"), ("1s", "2s"), ("0s", "0s", "1s", "2s"))
            row = {i: wander(rng, length) for i in "ab"}
            before = {i: by_weeks(rng, length + 120, TICK, 2) for i in "ab"} if by == "season" else {}
            yield Example(name, said, TICK, start, range(0), before, row)


def notation(samples: Samples, step: int) -> str:
    """As promtool, and the tests of rules, have them."""
    words, place = [], 0
    for at, value in samples:
        if gap := at // step - place:
            words.append(f"_x{gap}")
        words.append(repr(value))
        place = at // step + 1
    return " ".join(words)


def rows(example: Example) -> Iterator[str]:
    """In the format of OpenMetrics."""
    yield f"# TYPE {example.name} gauge"
    for i, samples in example.series.items():
        for at, value in samples:
            yield f'{example.name}{{i="{i}"}} {value!r} {(example.start + at) / 1000:.3f}'


# --- the judges ---------------------------------------------------------------------------------------


def by_the_checks(example: Example) -> Fired:
    kept = {}
    for i, samples in example.series.items():
        tags = frozenset({(promql.NAME, example.name), ("i", i)})
        kept[tags] = Series([then for then, _ in samples], [value for _, value in samples])
    store, found = Store(kept, example.step), set()
    alerts = Alerts(Rule(promql.parsed(expression(example.spec)).tree, example.wait))
    for at in example.moments:
        alerts.evaluate(store, at)
        found |= {(at, dict(tags)["i"]) for tags in alerts.firing}
    return found


def by_promtool(folder: Path, examples: Sequence[Example], fired: Mapping[str, Fired]) -> str:
    """What it says where it does not say the same; of examples with the same step."""
    step = f"{examples[0].step // 1000}s"
    test = {
        "interval": step,
        "input_series": [
            {"series": f'{one.name}{{i="{i}"}}', "values": notation(samples, one.step)}
            for one in examples
            for i, samples in one.series.items()
        ],
        "alert_rule_test": [
            {
                "eval_time": f"{at // 1000}s",
                "alertname": one.name,
                "exp_alerts": [
                    {"exp_labels": {"i": i, "severity": "warning"}}
                    for time, i in sorted(fired[one.name])
                    if time == at
                ],
            }
            for one in examples
            for at in one.moments
        ],
    }
    passed, said = run(folder, [{"name": "g", "rules": [one.rule() for one in examples]}], [test], step)
    return "" if passed else said


class Server:
    """A Prometheus with the past of some series, that scrapes others, and runs their rules."""

    def __init__(self, folder: Path) -> None:
        rng, now = random.Random(SEED), round(time.time() * 1000)
        self.past = list(of_the_past(rng, now))
        self.live = list(of_now(rng, now))
        self._prometheus = EmbeddedPrometheus(folder / "server", ROOT / ".gamma" / "tools", interval="30s")
        self._exporter = exporter(self)
        self._begun = 0  # when the first sample of what is scraped is

    def __enter__(self) -> Self:
        threading.Thread(target=self._exporter.serve_forever, daemon=True).start()
        home = self._prometheus.home
        for name in ("data", "rules.d", "scrapes.d"):
            (home / name).mkdir(parents=True)
        history = home / "history.txt"
        lines = [row for one in (*self.past, *self.live) for row in rows(one)]
        history.write_text("\n".join([*lines, "# EOF\n"]))
        subprocess.run(
            [promtool(), "tsdb", "create-blocks-from", "openmetrics", "-q", history, home / "data"],
            check=True,
        )
        tick = {"record": "tick", "expr": "vector(1)"}  # in its samples are the moments of evaluation
        group = {"name": "live", "interval": f"{TICK}ms", "rules": [tick, *(one.rule() for one in self.live)]}
        (home / "rules.d" / "live.yml").write_text(yaml.safe_dump({"groups": [group]}))
        job = {
            "job_name": "live",
            "scrape_interval": f"{TICK}ms",
            "scrape_timeout": f"{TICK}ms",
            "static_configs": [{"targets": [f"127.0.0.1:{self._exporter.server_address[1]}"]}],
            # Or else they would be other series than those of the weeks before.
            "metric_relabel_configs": [{"action": "labeldrop", "regex": "instance|job"}],
        }
        (home / "scrapes.d" / "live.yml").write_text(yaml.safe_dump({"scrape_configs": [job]}))
        self._prometheus.ensure()
        end = time.monotonic() + 30
        while not self.range("tick[1m]"):
            assert time.monotonic() < end
            time.sleep(0.1)
        self._begun = (round(time.time() * 1000) + LEAD) // TICK * TICK + TICK
        return self

    def __exit__(self, *_: object) -> None:
        self._exporter.shutdown()
        self._exporter.server_close()
        self._prometheus.destroy()

    def ask(self, what: str, **said: object) -> Any:
        asked = urllib.request.Request(  # noqa: S310 - of our own making
            f"{self._prometheus.url}/api/v1/{what}?{urlencode(said)}",
            headers={"Authorization": self._prometheus.authorization()},
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310 - as above
            return json.loads(answer.read())["data"]["result"]

    def range(self, selector: str) -> list[tuple[dict[str, str], Samples]]:
        """The samples of each series, as they are stored."""
        found = self.ask("query", query=selector, time=time.time() + LEAD / 1000)
        return [(one["metric"], [(round(at * 1000), float(x)) for at, x in one["values"]]) for one in found]

    def page(self) -> str:
        """What is there by now, of the live series."""
        at = (round(time.time() * 1000) + LEAD) // TICK * TICK
        if not self._begun or at < self._begun:
            return ""
        place = (at - self._begun) // TICK
        values = ((one.name, i, there) for one in self.live for i, there in one.rows.items())
        return "".join(
            f'{name}{{i="{i}"}} {there[place]!r} {at}\n'
            for name, i, there in values
            if place < len(there) and there[place] is not None
        )

    def wait(self) -> None:
        time.sleep(max(0.0, (self._begun + 1000 * LASTS) / 1000 - time.time()))


def exporter(server: Server) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(server.page().encode())

        def log_message(self, *_: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    promtool()
    with Server(tmp_path_factory.mktemp("agreement")) as found:
        yield found


def by_its_past(server: Server, one: Example) -> Fired:
    """What the expression is at each moment, and so when it would have fired."""
    first, last = one.moments[0], one.moments[-1]
    found = server.ask(
        "query_range",
        query=one.rule()["expr"],
        start=(one.start + first) / 1000,
        end=(one.start + last) / 1000,
        step=one.step / 1000,
    )
    so = {(round(at * 1000) - one.start, each["metric"]["i"]) for each in found for at, _ in each["values"]}
    return held(so, one.moments, one.wait)


def test_on_the_past_all_say_the_same(server: Server, tmp_path: Path) -> None:
    print("seed", SEED)
    right = {one.name: meant(one) for one in server.past}
    for one in server.past:
        assert by_the_checks(one) == right[one.name], one
        assert by_its_past(server, one) == right[one.name], one
    for step in {one.step for one in server.past}:
        assert not by_promtool(tmp_path, [one for one in server.past if one.step == step], right)


def test_rules_that_are_run_fire_when_the_checks_say(server: Server) -> None:
    print("seed", SEED)
    server.wait()
    [(_, ticks)] = server.range("tick[1h]")
    moments = [at for at, _ in ticks]
    assert len(moments) > LASTS  # there are four each second, where nothing else is done
    stored: dict[str, dict[str, Samples]] = {one.name: {} for one in server.live}
    for tags, samples in server.range('{__name__=~"live_.+"}[1h]'):
        stored[tags[promql.NAME]][tags["i"]] = samples
    fired: dict[str, Fired] = {one.name: set() for one in server.live}
    for tags, samples in server.range('ALERTS{alertstate="firing"}[1h]'):
        fired[tags["alertname"]] |= {(at, tags["i"]) for at, _ in samples}
    for one in server.live:
        series = {
            i: [*((one.start + at, value) for at, value in one.series.get(i, ())), *samples]
            for i, samples in stored[one.name].items()
        }
        seen = replace(one, start=0, moments=moments, series=series)
        assert fired[one.name] == meant(seen), seen
        assert fired[one.name] == by_the_checks(seen), seen


PARTS = {by: ("over", "weeks" if by == "season" else "gap", "least", "factor", "for") for by in KINDS}


@pytest.mark.parametrize(("by", "part"), [(by, part) for by, parts in PARTS.items() for part in parts])
def test_in_these_series_each_part_of_a_rule_matters(by: str, part: str) -> None:
    """Or else the others would pass whatever became of it."""

    def other(one: Example) -> Example:
        said = one.spec["unusual"]
        more = {name: f"{(ms(said[name]) + one.step) // 1000}s" for name in ("over", "gap")}
        more |= {"least": said["least"] + 1, "factor": said["factor"] * 1.1, "weeks": 3 - said["weeks"]}
        changed = {"for": "0s"} if part == "for" else {"unusual": {**said, part: more[part]}}
        return replace(one, spec={**one.spec, **changed})

    past = [one for one in of_the_past(random.Random(SEED), 100 * WEEK) if one.spec["unusual"]["by"] == by]
    differ = [one for one in past if meant(one) != meant(other(one))]
    assert len(differ) >= 2
