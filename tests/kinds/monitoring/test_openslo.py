"""SLOs of OpenSLO, as files on disk: what becomes of each, and what is said at which place.

A case `openslo/NAME.txt` is a project: its files, each below a line `-- path --`, and below `-- expected --`
the resources or the diagnostics. UPDATE_GOLDEN=1 writes what is expected.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Path as Path_
from gamma_orch.kinds.monitoring import openslo
from gamma_orch.spec.load import load
from gamma_orch.spec.registry import registry
from gamma_orch.spec.resolve import Resolution, resolve
from tests.cli.gamma import write
from tests.kinds.models.project import gamma
from tests.kinds.monitoring.test_prometheus import ENVIRONMENT, Place, tools
from tests.spec.shown import (
    DEV,
    DEV_FILE,
    compare,
    diagnostics_shown,
    resource_shown,
    secret_digest,
    sections,
)

CASES = sorted(Path(__file__).with_name("openslo").glob("*.txt"))
OURS = """apiVersion: gamma/v1
kind: SLO
metadata: {name: orders}
spec:
  objective: 0.995
  window: 28d
  indicator: {total: prometheus_http_requests_total, bad: 'prometheus_http_requests_total{code=~"5.."}'}
"""
THEIRS = """apiVersion: openslo/v1
kind: SLO
metadata: {name: orders}
spec:
  service: shop
  indicator:
    spec:
      ratioMetric:
        bad:
          metricSource:
            type: Prometheus
            spec: {query: 'sum(rate(prometheus_http_requests_total{code=~"5.."}[5m]))'}
        total: {metricSource: {type: Prometheus, spec: {query: sum(prometheus_http_requests_total)}}}
  timeWindow: [{duration: 4w, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.995}]
"""


def resolved(files: dict[str, str]) -> Resolution:
    texts = {name: text.encode() for name, text in files.items()}
    loaded = load({DEV_FILE: DEV, **texts})
    assert not loaded.diagnostics
    return resolve(loaded.documents, "dev", registry(""), secret_digest, ("dev",))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_file_of_openslo(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    files = sections(text)
    wanted = files.pop("expected", "")
    resolution = resolved(files)
    got = diagnostics_shown(resolution.diagnostics)
    if resolution.desired is not None:
        got += "".join(map(resource_shown, resolution.desired.resources.values()))
    compare(path, got, wanted, text.partition("-- expected --\n")[0] + "-- expected --\n" + got)


def test_it_is_the_same_as_one_of_ours() -> None:
    specs = []
    for text in (OURS, THEIRS):
        found = resolved({"specs/a.yaml": text})
        assert found.desired is not None, found.diagnostics
        specs.append(found.desired.resources[Address("SLO", "orders")].spec)
    assert specs[0] == specs[1]


@pytest.mark.parametrize(
    ("query", "counter"),
    [
        ('a_total{b="c"}', 'a_total{b="c"}'),
        ("sum(a_total)", "a_total"),
        ("sum by (x) (rate(a_total[5m]))", "a_total"),
        ("(sum(increase(a_total[{{ .Window }}])))", "a_total"),
        ('{__name__="a_total"}', '{__name__="a_total"}'),
        ("a_total{", "a_total{"),  # the check of an SLO says what is wrong with it
        ("avg(a_total)", None),
        ("a_total - b_total", None),
        ("sum(rate(a_total[5m] offset 1h))", None),
        ("a_total > 5", None),
        ("rate(sum(a_total)[5m:])", None),
        ("5", None),
    ],
)
def test_the_counter_of_a_query(query: str, counter: str | None) -> None:
    assert openslo.counter_of(query) == counter


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def places(tree: Json, path: Path_ = ()) -> Iterator[Path_]:
    if path:
        yield path
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from places(value, (*path, key))


@given(st.data())
def test_whatever_stands_somewhere_it_says_so_or_makes_an_slo(data: st.DataObject) -> None:
    document = yaml.safe_load(THEIRS)
    path = data.draw(st.sampled_from(sorted(set(places(document)) - {("apiVersion",)}, key=str)))
    around = document
    for part in path[:-1]:
        around = around[part]
    if data.draw(st.booleans()):
        around[path[-1]] = data.draw(values)
    else:
        del around[path[-1]]
    [found] = openslo.read([document])
    assert (found.data is None) or not found.faults
    assert found.data or found.faults or document["kind"] != "SLO"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    tools(tmp_path / ".gamma")
    write(tmp_path, {"specs/slos.yaml": OURS, "environments/dev/environment.yaml": ENVIRONMENT})
    found = Place(tmp_path)
    try:
        yield found
    finally:
        found.server.destroy()


@pytest.mark.timeout(300)
def test_it_is_planned_and_applied_as_one_of_ours(place: Place) -> None:
    assert place.apply().code == 0
    path = place.folder / "specs" / "slos.yaml"
    path.write_text(THEIRS)
    assert place.plan().code == 0  # nothing changes
    path.write_text(THEIRS.replace("0.995", "0.99"))
    plan = place.plan()
    assert plan.code == 2
    assert "SLO/orders" in plan.out
    assert place.apply().code == 0
    [burns] = [
        one for one in place.ask("/api/v1/rules")["data"]["groups"] if one["name"] == "gamma-slo:dev:orders"
    ]
    assert any("0.144" in rule["query"] for rule in burns["rules"])  # 14.4 times a budget of 1 %
    path.write_text(THEIRS.replace("Occurrences", "Timeslices"))
    refused = gamma(place.folder, "plan", "-e", "dev")
    assert refused.code == 1
    assert "specs/slos.yaml:15:20: error GAM941: budgetingMethod is" in refused.out + refused.err
