"""What collectors show, before anything runs: rules are held to it, and what cannot be run is refused."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import written
from gamma_orch.core.leaves import Ref, Template
from gamma_orch.core.resource import Resource
from gamma_orch.kinds.monitoring.collecting import collectors
from gamma_orch.kinds.monitoring.collector_spec import MetricCollectorSpec
from gamma_orch.kinds.monitoring.rule_spec import AlertRuleSpec
from gamma_orch.kinds.monitoring.rules import alert_rules
from gamma_orch.spec.references import plain
from gamma_orch.store.figures import NAMES, figures

API = Template((Ref(Address("Service", "api"), "url"), "/metrics"))


def query(name: str, gauge: str) -> Json:
    return {"name": name, "query": "select 1", "gauges": [gauge]}


QUERY = {"name": "shop", "query": "select 1", "gauges": ["orders"], "counters": ["revenue"]}


def collector(name: str, **said: Any) -> Resource:
    spec = plain(MetricCollectorSpec.model_validate(said, by_alias=True))
    return Resource(Address("MetricCollector", name), spec)


def said(expr: str, *there: Resource, prometheus: str = "prometheus") -> list[str]:
    given = {"expr": f"{expr} > 1", "summary": "x", "prometheus": prometheus}
    rule = Resource(Address("AlertRule", "r"), plain(AlertRuleSpec.model_validate(given, by_alias=True)))
    found = alert_rules([rule], {one.address: one for one in (rule, *there)})
    return [f"{one.message}; {one.hint}" for one in found if one.code == "GAM902"]


KNOWN = [
    ("sql", {"sql": {"queries": [QUERY]}}, ["shop_orders", "shop_revenue_total"], "shop_revenue"),
    ("host", {"host": {}}, ["host_memory_bytes", "up", "gamma_collector_up"], "host_memory"),
    ("http", {"http": {"url": "http://x"}}, ["probe_success"], "probe_sucess"),
    ("valkey", {"valkey": {}}, ["valkey_up"], "valkey_upp"),
    ("service", {"scrape": {"urls": [API]}}, ["gamma_requests_total"], "gamma_requests"),
    ("reconciler", {"reconciler": {}}, ["gamma_ledger_resources"], "gamma_ledger_resource"),
    ("scrape", {"scrape": {"urls": ["http://x"], "metrics": ["a_total"]}}, ["a_total"], "b_total"),
    ("python", {"python": {"function": "a:b", "metrics": ["c"]}}, ["c", "gamma_collector_seconds"], "d"),
]


@pytest.mark.parametrize(("name", "spec", "has", "lacks"), KNOWN, ids=[one[0] for one in KNOWN])
def test_rules_are_held_to_what_is_collected(name: str, spec: Any, has: list[str], lacks: str) -> None:
    there = collector(name, **spec)
    for metric in [*has, "ALERTS", "prometheus_build_info", "slo:error_ratio:rate5m"]:
        assert said(metric, there) == []
    [wrong] = said(lacks, there)
    assert wrong.startswith(f"nobody collects the metric {lacks}; ")


def test_the_nearest_name_is_proposed() -> None:
    [wrong] = said("host_memory_byte", collector("a", host={}))
    assert "host_memory_bytes" in wrong


@pytest.mark.parametrize(
    "spec",
    [
        {"scrape": {"urls": ["http://x"]}},
        {"scrape": {"urls": [API, "http://x"]}},
        {"python": {"function": "a:b"}},
    ],
)
def test_where_one_is_not_known_nobody_can_say(spec: Any) -> None:
    there = (collector("a", host={}), collector("b", **spec))
    assert said("whatever", *there) == []
    assert said("gamma_requests", *there) != [], "Gamma's own are known anyhow"
    assert said("gamma_requests_total", *there) == []
    assert said("gamma_collector_up", *there) == []


def test_without_collectors_and_on_another_prometheus_nothing_is_known() -> None:
    assert said("whatever") == []
    assert said("whatever", collector("a", host={}), prometheus="other") == []


@pytest.mark.parametrize(
    ("spec", "at", "says"),
    [
        ({"sql": {"queries": [query("a", "b_c"), query("a_b", "c")]}}, "spec.sql", "two queries show a_b_c"),
        ({"host": {}, "labels": {"mode": "x"}}, "spec", "the label mode is one that its series have already"),
        ({"sql": {"queries": [query("gamma_collector", "x")]}}, "spec.sql.queries[0].name", "pattern"),
    ],
)  # fmt: skip
def test_a_collector_that_cannot_be_run(spec: Any, at: str, says: str) -> None:
    there = collector("a", **spec)
    found, *_ = collectors([there], {there.address: there})
    assert (found.code, written(found.path)) == ("GAM921", at)
    assert says in found.message


@pytest.mark.parametrize("spec", [one[1] for one in KNOWN], ids=[one[0] for one in KNOWN])
def test_one_that_can(spec: Any) -> None:
    there = collector("a", **spec)
    assert list(collectors([there], {there.address: there})) == []


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "and here is none"),
        ({"host": {}, "valkey": {}}, "here is `host` and `valkey`"),
        ({"host": {}, "timeout": "1m"}, "not longer than `every`"),
        ({"scrape": {"urls": ["ftp://x"]}}, "begins with http:// or https://"),
        ({"sql": {"queries": [{"name": "a", "query": "select 1"}]}}, "at least one column"),
        ({"sql": {"queries": [{**QUERY, "labels": ["orders"]}]}}, "the column orders is named twice"),
        ({"host": {}, "labels": {"job": "x"}}, "job is set by the collector itself"),
        ({"sql": {"queries": [QUERY, QUERY]}}, "two queries are named shop"),
        ({"python": {"function": "no colon"}}, "pattern"),
        ({"valkey": {"url": "redis://u:password@x"}}, "a password is not written into a spec"),
    ],
)  # fmt: skip
def test_a_spec_that_is_wrong(spec: Json, says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        MetricCollectorSpec.model_validate(spec, by_alias=True)
    assert says in str(refused.value)


def test_a_ledger_that_is_not_there_has_figures_too(tmp_path: Path) -> None:
    found = {
        sample.name for family in figures(f"sqlite:///{tmp_path}/none.db", "dev") for sample in family.samples
    }
    assert found == {"gamma_ledger_events_total"}
    assert found < NAMES
    assert not list(tmp_path.iterdir()), "and none is made"
