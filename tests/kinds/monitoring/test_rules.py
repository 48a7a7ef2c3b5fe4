"""What is said of a rule before anything runs: rules that are wrong, and the tests that rules bring."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from gamma_orch.app import exposed
from gamma_orch.app.metrics import Recorder
from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import written
from gamma_orch.core.resource import Resource
from gamma_orch.kinds.monitoring import promql
from gamma_orch.kinds.monitoring.alert_rule import KIND
from gamma_orch.kinds.monitoring.alert_rule import rule as written_rule
from gamma_orch.kinds.monitoring.rule_spec import AlertRuleSpec, expression
from gamma_orch.kinds.monitoring.rules import alert_rules
from gamma_orch.spec.durations import duration
from gamma_orch.spec.references import plain
from tests.kinds.monitoring import promtool

CASES = yaml.safe_load(Path(__file__).with_name("rules.yaml").read_text())
DOWN = {'up{job="api"}': "1x4 0x10"}
FIRES = {"series": DOWN, "at": "10m", "fires": [{"job": "api"}]}

BRIEF = {'up{job="api"}': "0 1x9"}
KEPT = [{"series": BRIEF, "at": "3m", "fires": [{"job": "api"}]}, {"series": BRIEF, "at": "4m"}]


def spec(**said: Any) -> Json:
    given = {"summary": "It is down.", **said}
    return plain(AlertRuleSpec.model_validate(given, by_alias=True))


def said(rule: Json) -> list[tuple[str, str, str]]:
    address = Address("AlertRule", "r")
    resource = Resource(address, spec(**rule))
    found = alert_rules([resource], {address: resource})
    return [(one.code, written(one.path), f"{one.message} {one.hint}") for one in found]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["said"]["code"])
def test_a_rule_that_is_wrong(case: Json) -> None:
    found, wanted = said(case["rule"]), case["said"]
    assert [one for one in found if one[:2] == (wanted["code"], wanted["at"]) and wanted["says"] in one[2]], (
        found
    )


def test_each_code_has_a_case() -> None:
    assert {case["said"]["code"] for case in CASES} == {f"GAM90{number}" for number in range(1, 9)}


@pytest.mark.parametrize(
    "rule",
    [
        {"expr": "up == 0", "for": "5m", "tests": [FIRES, {"series": DOWN, "at": "9m"}]},
        {"metric": "up", "below": 1, "summary": "{{ $labels.job }}", "tests": [FIRES]},
        {"expr": "up == 0", "keepFiring": "3m", "tests": KEPT},
        {"expr": "sum by (job) (up) == 0", "labels": {"team": "ml"}, "summary": "{{ $labels.team }}",
         "tests": [FIRES]},
    ],
)  # fmt: skip
def test_a_rule_that_is_right(rule: Json) -> None:
    assert said(rule) == []


@pytest.mark.parametrize("case", [case for case in CASES if case["said"]["code"] == "GAM905"])
def test_promtool_refuses_the_same_tests(case: Json, tmp_path: Path) -> None:
    assert not _promtool(spec(**case["rule"]), tmp_path)[0]


@pytest.mark.parametrize(
    "rule",
    [
        {"expr": "up == 0", "for": "5m", "tests": [FIRES, {"series": DOWN, "at": "9m"}]},
        {"expr": "up == 0", "keepFiring": "3m", "tests": KEPT},
    ],
)
def test_promtool_takes_the_same_tests(rule: Json, tmp_path: Path) -> None:
    passed, says = _promtool(spec(**rule), tmp_path)
    assert passed, says


def _promtool(wanted: Json, folder: Path) -> tuple[bool, str]:
    fields = KIND.traits.normalise(Address("AlertRule", "r"), wanted, lambda address: {})
    rules = {"name": "g", "rules": [written_rule({**fields, "annotations": {}})]}
    tests = [
        {
            "interval": f"{int(duration(test['every']).total_seconds())}s",
            "input_series": [{"series": name, "values": values} for name, values in test["series"].items()],
            "alert_rule_test": [
                {
                    "eval_time": test["at"],
                    "alertname": "r",
                    "exp_alerts": [
                        {"exp_labels": {**labels, **fields["labels"]}} for labels in test["fires"]
                    ],
                }
            ],
        }
        for test in wanted["tests"]
    ]
    return promtool.run(folder, [rules], tests)


@pytest.mark.parametrize(
    ("rule", "expr"),
    [
        ({"metric": "x", "above": 5}, "x > 5"),
        ({"metric": "x_seconds", "below": "200ms"}, "x_seconds < 0.2"),
        ({"metric": "x_bytes", "above": "1.5GB"}, "x_bytes > 1500000000"),
        ({"metric": "x_ratio{a='b'}", "above": "95%"}, "x_ratio{a='b'} > 0.95"),
        ({"metric": "rate(x_seconds_sum[5m])", "above": "1s"}, "(rate(x_seconds_sum[5m])) > 1"),
        ({"metric": "a + b", "above": 5}, "(a + b) > 5"),
        (
            {"metric": "x", "unusual": {"by": "deviation"}},
            (
                "abs(x - avg_over_time(x[1h] offset 5m)) > 3 * stddev_over_time(x[1h] offset 5m) and "
                "stddev_over_time(x[1h] offset 5m) > 0 and count_over_time(x[1h] offset 5m) >= 30"
            ),
        ),
        (
            {"metric": "rate(x[5m])", "unusual": {"by": "quantile", "factor": 1.5, "quantile": 0.9}},
            (
                "(rate(x[5m])) > 1.5 * quantile_over_time(0.9, (rate(x[5m]))[1h:] offset 5m) and "
                "count_over_time((rate(x[5m]))[1h:] offset 5m) >= 30"
            ),
        ),
        (
            {"metric": "x", "unusual": {"by": "season", "factor": 2}},
            (
                "x > 2 * (avg_over_time(x[1h] offset 1w) + avg_over_time(x[1h] offset 2w)) / 2 and "
                "count_over_time(x[1h] offset 1w) >= 30 and count_over_time(x[1h] offset 2w) >= 30"
            ),
        ),
    ],
)
def test_the_short_forms(rule: Json, expr: str) -> None:
    assert expression(spec(**rule)) == expr
    assert promql.parsed(expr).compares


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({}, "say what fires"),
        ({"expr": "up == 0", "metric": "up", "above": 1}, "say what fires"),
        ({"expr": "up == 0", "above": 1}, "has its comparison in it"),
        ({"metric": "up"}, "here is none"),
        ({"metric": "up", "above": 1, "below": 2}, "`above` and `below`"),
        ({"metric": "x_seconds", "above": "5GB"}, "write a time, such as 200ms"),
        ({"metric": "x_total", "above": "5ms"}, "says none; write a number"),
        ({"metric": "a_seconds / b_seconds", "above": "5ms"}, "says none; write a number"),
        ({"metric": f"{'a' * 90}_seconds / {'b' * 90}_seconds", "above": "5ms"}, "says none; write a number"),
        ({"metric": "x", "unusual": {"by": "deviation", "gap": "0s"}}, "longer than no time"),
        ({"expr": "up == 0", "labels": {"severity": "page"}}, "set by the rule itself"),
        ({"expr": "up == 0", "runbook": "ftp://x"}, "pattern"),
    ],
)
def test_a_spec_that_is_none(rule: Json, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        spec(**rule)


def test_every_series_of_a_worker_is_known() -> None:
    recorder = Recorder()
    recorder.valkey(up=True)
    recorder.bundle("d", ["m"])
    recorder.request("predict", "m", 200, 0.1, "l1")
    recorder.batch("m", 1, [0.1])
    recorder.lag(0.1)
    names = {
        line.split("{")[0].split(" ")[0]
        for line in recorder.exposition().decode().splitlines()
        if line[:1] != "#"
    }
    assert names <= exposed.SERIES
    declared = {
        line.split(" ")[2]
        for line in recorder.exposition().decode().splitlines()
        if line.startswith("# TYPE")
    }
    ends = ("", "_bucket", "_sum", "_count")
    assert {
        name for name in exposed.SERIES if not any(name == one + end for one in declared for end in ends)
    } == set()
