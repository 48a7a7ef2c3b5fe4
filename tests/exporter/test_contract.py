"""The file of a collector: what it may say, and what it never tells."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from gamma_orch.exporter.contract import Collector, Server, is_open, names

SECRET = "hunter2hunter2"
URL = f"postgresql://bob:{SECRET}@db.example.com:5432/shop?sslmode=require"
QUERY = {"name": "shop", "query": "select 1 as orders", "gauges": ["orders"]}
SQL = {"postgres": {"url": URL}, "queries": [QUERY]}


def collector(**what: Any) -> Collector:
    return Collector.model_validate({"name": "shop", **what})


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ({}, "exactly one of"),
        ({"host": {}, "sql": SQL}, "exactly one of"),
        ({"host": {"disk": ["/"]}}, "host.disk"),
        ({"host": {}, "timeout": 0}, "timeout"),
        ({"host": {}, "labels": {"a-b": "c"}}, "labels.a-b"),
        ({"host": {}, "labels": {"__name__": "c"}}, "labels.__name__"),
        ({"host": {}, "labels": {"mode": "c"}}, "the label mode"),
        ({"host": {}, "labels": {"collector": "c"}}, "the label collector"),
        ({"sql": {**SQL, "queries": [{**QUERY, "labels": ["shop"]}]}, "labels": {"shop": "c"}}, "label shop"),
        ({"http": {"url": "http://x/"}, "labels": {"url": "c"}}, "the label url"),
        ({"valkey": {"server": {"home": "/x"}}, "labels": {"db": "c"}}, "the label db"),
        ({"sql": {**SQL, "postgres": {}}}, "either a url or a home"),
        ({"sql": {**SQL, "postgres": {"url": URL, "home": "/x"}}}, "either a url or a home"),
        ({"sql": {**SQL, "postgres": {"url": f"mysql://bob:{SECRET}@x"}}}, "postgresql://"),
        ({"sql": {**SQL, "postgres": {"url": f"postgresql://bob:{SECRET}@x:{SECRET}"}}}, "postgresql://"),
        ({"sql": {**SQL, "queries": []}}, "sql.queries"),
        ({"sql": {**SQL, "queries": [{**QUERY, "gauges": []}]}}, "at least one column"),
        ({"sql": {**SQL, "queries": [{**QUERY, "labels": ["orders"]}]}}, "orders is named twice"),
        ({"sql": {**SQL, "queries": [QUERY, QUERY]}}, "two queries show shop_orders"),
        ({"sql": {**SQL, "queries": [{**QUERY, "gauges": ["x_total"], "counters": ["x"]}]}}, "shop_x_total"),
        ({"sql": {**SQL, "queries": [{**QUERY, "name": "a b"}]}}, "queries.0.name"),
        ({"sql": {**SQL, "queries": [{**QUERY, "name": "gamma_collector"}]}}, "queries.0.name"),
        ({"http": {"url": f"file:///{SECRET}"}}, "http://"),
        ({"http": {"url": "http:///path"}}, "names no host"),
        ({"http": {"url": "http://x", "status": [42]}}, "http.status.0"),
        ({"http": {"url": "http://x", "name": "gamma_collector"}}, "http.name"),
        ({"http": {"url": "http://x", "headers": {"X": {"a": SECRET}}}}, "http.headers.X"),
        ({"valkey": {"server": {"url": f"http://:{SECRET}@x"}}}, "redis://"),
        ({"python": {"function": "os.system"}}, "python.function"),
    ],
)
def test_what_is_wrong_is_refused_without_telling_a_secret(what: dict[str, Any], says: str):
    with pytest.raises(ValidationError) as refused:
        collector(**what)
    assert says in str(refused.value)
    assert SECRET not in str(refused.value)


def test_no_secret_is_in_a_representation_and_all_are_in_the_file():
    whole = [
        collector(sql=SQL),
        collector(http={"url": f"https://x/?key={SECRET}", "headers": {"X-Key": SECRET}}),
        collector(valkey={"server": {"url": f"redis://:{SECRET}@x"}}),
        collector(python={"function": "a:b", "arguments": {"key": SECRET}}),
    ]
    for one in whole:
        assert SECRET not in repr(one) + str(one)
        assert Collector.model_validate_json(one.encoded()) == one
        assert SECRET in one.encoded()


def test_a_server_says_where_it_is_without_who_asks():
    assert Server.model_validate({"url": URL}).where == "postgresql://db.example.com:5432/shop"
    assert Server(home="/srv/x").where == "/srv/x"


def test_names_are_those_of_the_series():
    common = {"gamma_collector_up", "gamma_collector_seconds"}
    query = {**QUERY, "gauges": ["orders", "age"], "counters": ["sold", "calls_total"], "labels": ["kind"]}
    shop = {"shop_orders", "shop_age", "shop_sold_total", "shop_calls_total"}
    assert names(collector(sql={**SQL, "queries": [query]})) == common | shop
    assert names(collector(http={"url": "http://x", "name": "front"})) == common | {
        *("front_success", "front_seconds", "front_status", "front_bytes"),
        "front_certificate_expiry_seconds",
    }
    opened = collector(python={"function": "a:b"})
    assert names(opened) == common
    assert is_open(opened)
    assert not is_open(collector(host={}))


def test_what_is_not_said_is_not_written():
    assert json.loads(collector(host={}).encoded()) == {"name": "shop", "host": {}}
