"""Objectives: what their rules say, by promtool, and mistakes that are said before."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import written as place
from gamma_orch.core.resource import Resource
from gamma_orch.kinds.monitoring import slo
from gamma_orch.kinds.monitoring.groups import written
from gamma_orch.kinds.monitoring.objectives import slos
from gamma_orch.spec.references import plain
from tests.kinds.monitoring import promtool

ERRORS = {"total": "x_total", "bad": "x_total{code='500'}"}
GOOD, BAD = "x_total{code='200'}", "x_total{code='500'}"
LATE = {"metric": "gamma_requests_seconds", "below": "1s"}
COUNTS = {'s_count{r="p"}': "0+60x60", 's_count{r="q"}': "0+9x60"}
FAST, SLOWLY = "api-burns-fast", "api-burns-slowly"


def spec(**said: Any) -> Json:
    given = {"objective": "99%", "indicator": ERRORS, **said}
    return plain(slo.SLOSpec.model_validate(given, by_alias=True))


def fires(folder: Path, wanted: Json, series: dict[str, str], at: str, every: str = "1m") -> dict[str, bool]:
    """Which of its two alerts fire at a time, by promtool."""
    rules = [{**written(rule), "annotations": {}} for rule in slo.rules("api", wanted)]
    for rule in rules:
        if "record" in rule:
            del rule["annotations"]
    found = {}
    for name, severity in ((FAST, "critical"), (SLOWLY, "warning")):
        alert = [{"exp_labels": {"slo": "api", "severity": severity, "alertname": name}}]
        test = {
            "interval": every,
            "input_series": [{"series": one, "values": values} for one, values in series.items()],
            "alert_rule_test": [{"eval_time": at, "alertname": name, "exp_alerts": alert}],
        }
        passed, said = promtool.run(folder, [{"name": "g", "rules": rules}], [test], every)
        test["alert_rule_test"][0]["exp_alerts"] = []  # type: ignore[index]
        silent, also = promtool.run(folder, [{"name": "g", "rules": rules}], [test], every)
        assert passed != silent, said + also
        found[name] = passed
    return found


@pytest.mark.parametrize(
    ("series", "at", "fast", "slowly"),
    [
        ({GOOD: "0x60", BAD: "0+60x60"}, "20m", True, True),  # all fail
        ({GOOD: "0+60x60", BAD: "0x60"}, "50m", False, False),  # none
        ({GOOD: "0+60x60"}, "50m", False, False),  # none, and there is no series of failures
        ({GOOD: "0+995x500", BAD: "0+5x500"}, "8h", False, False),  # half of what may
        ({GOOD: "0+965x990", BAD: "0+35x990"}, "80h", False, True),  # three and a half times what may
        ({GOOD: "0+80x90", BAD: "0+20x90"}, "80m", True, True),  # twenty times
        ({GOOD: "0x60", BAD: "0+1x40"}, "20m", False, False),  # all, of twenty
        ({GOOD: "0x20 0+100x70", BAD: "0+100x20 2000x70"}, "50m", False, True),  # all, and it is over
    ],
)
def test_alerts_by_the_burn_rate(
    tmp_path: Path, series: dict[str, str], at: str, fast: bool, slowly: bool
) -> None:
    every = "5m" if at == "80h" else "1m"
    assert fires(tmp_path, spec(), series, at, every) == {FAST: fast, SLOWLY: slowly}


def test_the_same_by_what_goes_well_and_by_latency(tmp_path: Path) -> None:
    good = spec(indicator={"total": "x_total", "good": GOOD})
    assert fires(tmp_path, good, {GOOD: "0x60", BAD: "0+60x60"}, "20m")[FAST]
    assert not fires(tmp_path, good, {GOOD: "0+60x60", BAD: "0x60"}, "20m")[FAST]
    late = spec(indicator={"latency": {"metric": "s", "below": "1s", "where": {"r": "p"}}})
    for bound in ("1.0", "1"):
        slow = {
            f's_bucket{{le="{bound}",r="p"}}': "0+1x60",
            's_count{r="p"}': "0+60x60",
            's_count{r="q"}': "0+9x60",
        }
        assert fires(tmp_path, late, slow, "20m")[FAST]
        quick = {**slow, f's_bucket{{le="{bound}",r="p"}}': "0+60x60"}
        assert not fires(tmp_path, late, quick, "20m")[FAST]


BUSY = {GOOD: "0+995x600", BAD: "0+5x600"}
IDLE = {GOOD: "0+995x200 199000x200 199000+995x200", BAD: "0+5x200 1000x200 1000+5x200"}


@pytest.mark.parametrize("indicator", [ERRORS, {"total": "x_total", "good": GOOD}], ids=["bad", "good"])
@pytest.mark.parametrize("series", [BUSY, IDLE], ids=["busy", "idle for a time"])
def test_what_is_left_of_the_budget(tmp_path: Path, series: dict[str, str], indicator: Json) -> None:
    rules = [
        written(rule) for rule in slo.rules("api", spec(indicator=indicator)) if rule["type"] == "record"
    ]
    test = {
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "promql_expr_test": [
            {
                "expr": "round(slo:error_budget:left, 0.001)",
                "eval_time": "9h",
                "exp_samples": [{"labels": '{slo="api"}', "value": 0.5}],
            }
        ],
    }
    passed, said = promtool.run(tmp_path, [{"name": "g", "rules": rules}], [test])
    assert passed, said


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"objective": "100%"}, "no budget to burn"),
        ({"objective": 0}, "between 0% and 100%"),
        ({"window": "1d"}, "three days or more"),
        ({"labels": {"slo": "x"}}, "set by the objective itself"),
        ({"indicator": {"total": "x_total"}}, "`bad` or `good`"),
        ({"indicator": {**ERRORS, "good": "y"}}, "`bad` or `good`"),
        ({"indicator": {"total": "x", "latency": {"metric": "s", "below": "1s"}}}, "stands alone"),
    ],
)
def test_a_spec_that_is_none(said: Json, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        spec(**said)


@pytest.mark.parametrize(
    ("indicator", "code", "at"),
    [
        ({"total": "rate(x[5m])", "bad": "x"}, "GAM901", "spec.indicator.total"),
        ({"total": "x", "good": "x{"}, "GAM901", "spec.indicator.good"),
        ({"total": "gamma_requests_totl", "bad": "x"}, "GAM902", "spec.indicator.total"),
        (
            {"latency": {"metric": "gamma_requests_seconds", "below": "1s"}},
            "GAM902",
            "spec.indicator.latency.metric",
        ),
    ],
)
def test_an_indicator_that_is_wrong(indicator: Json, code: str, at: str) -> None:
    address = Address("SLO", "api")
    resource = Resource(address, spec(indicator=indicator))
    [found] = slos([resource], {address: resource})
    assert (found.code, place(found.path)) == (code, at)
