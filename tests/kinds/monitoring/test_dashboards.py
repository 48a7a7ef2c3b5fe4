"""Dashboards: what is refused, what Grafana is given, and what becomes of it there."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gamma_orch.core.address import Address
from gamma_orch.core.resource import Resource
from gamma_orch.kinds.monitoring import dashboard, grafana_model, promql
from gamma_orch.kinds.monitoring.collector_spec import MetricCollectorSpec
from gamma_orch.kinds.monitoring.dashboard_spec import DashboardSpec
from gamma_orch.kinds.monitoring.panels import dashboards
from gamma_orch.spec.references import plain
from gamma_orch.targets import Targets
from gamma_orch.testing.laws import LAWS, Law, Sample, Subject, check, no_secret_is_shown
from tests.cli.gamma import write
from tests.kinds.models.project import gamma
from tests.kinds.monitoring.grafana import TOKEN, Grafana
from tests.spec.shown import compare

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parents[2] / "golden" / "dashboard.json"
PANEL = {"title": "Up", "expr": "up"}


def spec(*panels: Any, **said: Any) -> Any:
    given = {"title": "A", "rows": [{"panels": list(panels) or [PANEL]}], **said}
    return plain(DashboardSpec.model_validate(given, by_alias=True))


def fields(*panels: Any, name: str = "a", **said: Any) -> Any:
    return dashboard.normalise(Address("Dashboard", name), spec(*panels, **said), lambda _: {})


def panels(board: Any) -> list[Any]:
    return [one for one in board["panels"] if one["type"] != "row"]


# --- what is refused ----------------------------------------------------------------------------

REFUSED = [
    ({"title": "A"}, "asks something"),
    ({"title": "A", "expr": "up", "queries": [{"expr": "up"}]}, "and not both"),
    ({"title": "A", "queries": [{"expr": "up"}], "legend": "x"}, "`legend` goes with `expr`"),
    ({**PANEL, "type": "table", "stack": True}, "`stack` is for panels of the type timeseries"),
    ({"title": "A", "type": "heatmap", "queries": [{"expr": "up"}, {"expr": "up"}]}, "of one histogram"),
    ({**PANEL, "type": "gauge"}, "say a `max`"),
    ({**PANEL, "type": "gauge", "min": 2, "max": 1}, "say a `max`"),
    ({**PANEL, "thresholds": {"warning": "200ms"}}, "'200ms' has a unit, and the panel's is number"),
    ({"title": "A", "expr": "x_bytes", "thresholds": {"warning": "2s"}}, "write a size, such as 1.5GB"),
    ({"title": "A", "expr": "x_seconds", "thresholds": {"warning": "1s", "critical": 1}}, "the same value"),
    ({**PANEL, "width": 25}, "less than or equal to 24"),
]


@pytest.mark.parametrize(("panel", "says"), REFUSED, ids=[one[1] for one in REFUSED])
def test_a_panel_that_makes_no_sense(panel: Any, says: str) -> None:
    with pytest.raises(ValidationError) as error:
        spec(panel)
    assert says in str(error.value)


VARIABLES = [
    ([{"name": "gamma", "metric": "up", "label": "job"}], "each dashboard has a variable gamma of its own"),
    ([{"name": "a", "metric": "up", "label": "job"}] * 2, "a is there twice"),
    ([{"name": "A b", "metric": "up", "label": "job"}], "should match pattern"),
]


@pytest.mark.parametrize(("variables", "says"), VARIABLES, ids=[one[1] for one in VARIABLES])
def test_a_variable_that_makes_no_sense(variables: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(says)):
        spec(variables=variables)


def said(made: Any, *collectors: Any) -> list[str]:
    there = {
        Address("MetricCollector", f"c{n}"): Resource(
            Address("MetricCollector", f"c{n}"),
            plain(MetricCollectorSpec.model_validate(one, by_alias=True)),
        )
        for n, one in enumerate(collectors)
    }
    board = Resource(Address("Dashboard", "a"), made)
    found = dashboards([board], {**there, board.address: board})
    return [f"{one.code} {'.'.join(map(str, one.path))}: {one.message}; {one.hint}" for one in found]


JOB = {"name": "job", "metric": "up", "label": "job"}
FAULTS = [
    (
        spec({"title": "A", "expr": "rate(up)"}),
        "GAM931 spec.rows.0.panels.0.expr: this is no expression of a panel: expected type matrix",
    ),
    (
        spec({"title": "A", "expr": "rate(up[$span])"}),
        "unexpected character inside brackets: '$'; a variable stands in a matcher alone: {label=~\"$name\"}",
    ),
    (spec({"title": "A", "expr": "up[5m]"}), "GAM931 spec.rows.0.panels.0.expr: this is no expression"),
    (
        spec({"title": "A", "queries": [{"expr": "up"}, {"expr": "host_memory"}]}),
        "panels.0.queries.1.expr: nobody collects the metric host_memory; did you mean 'host_memory_bytes'?",
    ),
    (
        spec({"title": "A", "expr": 'up{job=~"$jop"}'}, variables=[JOB]),
        "GAM933 spec.rows.0.panels.0.expr: the dashboard has no variable 'jop'; did you mean 'job'?",
    ),
    (
        spec(variables=[JOB]),
        'GAM934 spec.variables.0: no panel asks with $job; write job=~"$job"',
    ),
    (
        spec({"title": "A", "expr": "sum by (job) (up)", "legend": "{{ instance }}"}),
        "GAM935 spec.rows.0.panels.0.legend: its series have no label 'instance': the expression leaves it",
    ),
    (
        spec({"title": "A", "expr": 'up{job=~"${job}"}'}, variables=[{**JOB, "metric": "upp"}]),
        "GAM932 spec.variables.0.metric: nobody collects the metric upp; did you mean 'up'?",
    ),
]


@pytest.mark.parametrize(("made", "says"), FAULTS, ids=[one[1][:60] for one in FAULTS])
def test_what_is_wrong_is_said_at_its_place(made: Any, says: str) -> None:
    [found] = said(made, {"host": {}})
    assert says in found


def test_of_a_prometheus_whose_metrics_nobody_knows_only_gammas_are_held_to_names() -> None:
    board = spec({"title": "A", "queries": [{"expr": "whatever"}, {"expr": "gamma_request_total"}]})
    [found] = said(board)
    assert "nobody exposes the metric gamma_request_total; did you mean 'gamma_requests_total'?" in found


UNITS = [
    ("x_seconds", "seconds"),
    ("sum(x_seconds_sum)", "seconds"),
    ("histogram_quantile(0.9, sum by (le) (rate(x_seconds_bucket[5m])))", "seconds"),
    ("sum by (le) (rate(x_seconds_bucket[5m]))", "seconds"),
    ("rate(x_seconds_total[5m])", "number"),  # seconds of a second: how many are at work
    ("x_bytes - y_bytes", "bytes"),
    ("rate(x_bytes_total[5m])", "bytesPerSecond"),
    ("x_ratio", "ratio"),
    ("rate(x_total[5m])", "perSecond"),
    ("sum(rate(x_total[5m]))\n  / sum(rate(y_total[5m]))", "number"),
    ("x_bytes + y_seconds", "number"),
    ("x_total", "number"),
]


@pytest.mark.parametrize(("expr", "unit"), UNITS)
def test_the_unit_is_that_of_the_metrics(expr: str, unit: str) -> None:
    assert fields({"title": "A", "expr": expr})["rows"][0]["panels"][0]["unit"] == unit


def test_thresholds_are_in_the_unit() -> None:
    [panel] = fields({"title": "A", "expr": "x_seconds", "thresholds": {"warning": "200ms"}})["rows"][0][
        "panels"
    ]
    assert panel["thresholds"] == {"warning": 0.2}


# --- what Grafana is given ----------------------------------------------------------------------


def reference() -> dict[str, Any]:
    documents = yaml.safe_load_all((ROOT / "specs" / "monitoring" / "dashboards.yaml").read_text())
    return {
        one["metadata"]["name"]: dashboard.normalise(
            Address("Dashboard", one["metadata"]["name"]),
            plain(DashboardSpec.model_validate(one["spec"], by_alias=True)),
            lambda _: {},
        )
        for one in documents
    }


def test_golden() -> None:
    made = grafana_model.model("dev", "api", reference()["api"])
    text = json.dumps(made, indent=1, sort_keys=True) + "\n"
    compare(GOLDEN, text, GOLDEN.read_text(encoding="utf-8") if GOLDEN.exists() else "", text)


@pytest.mark.parametrize("name", reference())
def test_it_is_a_dashboard_of_grafanas(name: str) -> None:
    """Read and written again by Grafana's own model it is the same; nothing lies upon another thing."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    wanted = reference()[name]
    made = grafana_model.model("dev", name, wanted)
    again = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(made)))
    assert grafana_model.is_still(made, again)
    assert grafana_model.fields_of(again) == {"name": name, "fields": json.loads(json.dumps(wanted))}
    numbers = [one["id"] for one in made["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for one in made["panels"]:
        at = one["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
    for one in panels(made):
        for query in one["targets"]:
            promql.parsed(query["expr"])
            assert one["datasource"]["uid"] == "${source}"


SIZES = st.fixed_dictionaries({"width": st.integers(1, 24), "height": st.integers(3, 9)})


@given(st.lists(SIZES, min_size=1, max_size=12))
def test_panels_lie_beside_and_below_each_other(sizes: list[dict[str, int]]) -> None:
    taken: set[tuple[int, int]] = set()
    for size, (x, y) in zip(sizes, grafana_model.placed(sizes), strict=True):
        cells = {(x + i, y + j) for i in range(size["width"]) for j in range(size["height"])}
        assert not cells & taken
        assert x + size["width"] <= 24
        taken |= cells
    assert grafana_model.depth(sizes) == 1 + max(y for _, y in taken)


LEVELS = st.dictionaries(st.sampled_from(["warning", "critical"]), st.integers(-5, 5), max_size=2)


@given(LEVELS.filter(lambda one: len(set(one.values())) == len(one)))
def test_thresholds_rise_and_do_not_hang_on_the_order_they_are_written_in(levels: dict[str, int]) -> None:
    def steps(said: dict[str, int]) -> Any:
        made = grafana_model.model("dev", "a", fields({**PANEL, "thresholds": said}))
        return panels(made)[0]["fieldConfig"]["defaults"]["thresholds"]["steps"]

    found = steps(levels)
    assert found == steps(dict(reversed(levels.items())))
    values = [one["value"] for one in found]
    assert values[0] is None
    assert values[1:] == sorted(values[1:])
    less = len(levels) == 2 and levels["critical"] < levels["warning"]
    assert found[0]["color"] == ("red" if less else "green")
    assert found[-1]["color"] == {0: "green", 1: found[-1]["color"]}.get(
        len(levels), "green" if less else "red"
    )


@given(st.text("abcXYZ-_.0", min_size=1, max_size=60), st.sampled_from(["dev", "a-rather-long-environment"]))
def test_a_uid_is_one_that_grafana_takes(name: str, environment: str) -> None:
    found = grafana_model.uid(environment, name)
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", found)
    assert found != grafana_model.uid(environment, name + "x")
    assert found != grafana_model.uid(environment + "x", name)


def test_names_that_look_alike_have_uids_of_their_own() -> None:
    assert grafana_model.uid("dev", "a.b") != grafana_model.uid("dev", "a-b")


# --- what becomes of it -------------------------------------------------------------------------


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    found = Grafana()
    found.start()
    yield found
    found.stop()


MORE = {"description": "x", "refresh": "1m", "variables": [JOB], "span": "6h"}
TABLE = {
    "title": "T",
    "type": "table",
    "expr": 'up{job=~"$job"}',
    "thresholds": {"critical": 1, "warning": 2},
}
ON = {"files": None, "grafana": "board", "folder": "disk"}


@pytest.mark.parametrize(
    "law", [law for law in LAWS if law is not no_secret_is_shown], ids=lambda law: law.__name__
)
@pytest.mark.parametrize("place", ON)
def test_it_keeps(place: str, law: Law, grafana: Grafana, tmp_path: Path) -> None:
    if place != "grafana" and law.__name__ == "unreadable_is_not_absent":
        pytest.skip("a folder is there or not")
    where = {"grafana": ON[place]}
    address, other = Address("Dashboard", "a"), Address("Dashboard", "b.c")
    samples = (
        Sample(address, spec(**where), changed=spec(TABLE, **MORE, **where)),
        Sample(
            other, spec(PANEL, TABLE, **MORE, **where), changed=spec({**PANEL, "title": "Other"}, **where)
        ),
    )
    declared = {
        "board": {"type": "grafana", "url": grafana.url, "token": TOKEN, "folder": "team"},
        "disk": {"type": "grafana", "folder": "boards"},
    }

    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        yield dashboard.KIND.provider(Targets("dev", tmp_path / ".gamma", declared, lambda tree: tree))

    @contextmanager
    def unreadable(address: Address) -> Iterator[frozenset[Address]]:
        grafana.stop()
        yield frozenset(one.address for one in samples) if place == "grafana" else frozenset()
        grafana.start()

    check(law, Subject(dashboard.KIND.traits, opened, samples, unreadable, {}, spec_shaped=False))


ENVIRONMENT = """apiVersion: gamma/v1
kind: Environment
metadata: {{name: dev}}
spec:
  secrets: {{grafana: {{env: GRAFANA_TOKEN}}}}
  targets:
    board: {{type: grafana, url: "{url}", token: "${{secret.grafana}}", folder: team}}
"""
BOARDS = """apiVersion: gamma/v1
kind: Dashboard
metadata: {name: first}
spec:
  grafana: board
  title: First
  rows: [{title: A row, panels: [{title: Up, expr: up}, {title: More, expr: sum(up), type: stat}]}]
---
apiVersion: gamma/v1
kind: Dashboard
metadata: {name: second}
spec: {title: Second, rows: [{panels: [{title: Up, expr: up}]}]}
"""
FIRST = "gamma-dev-first"


class Place:
    def __init__(self, folder: Path, grafana: Grafana) -> None:
        self.folder, self.grafana = folder, grafana
        files = {"environments/dev/environment.yaml": ENVIRONMENT.format(url=grafana.url)}
        write(folder, {**files, "specs/boards.yaml": BOARDS})

    def say(self, *words: str) -> Any:
        return gamma(self.folder, *words, "-e", "dev")

    def edit(self, old: str, new: str) -> None:
        path = self.folder / "specs" / "boards.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    @property
    def files(self) -> dict[str, Any]:
        folder = self.folder / ".gamma" / "dev" / "dashboards"
        return {one.stem: json.loads(one.read_text()) for one in folder.glob("*.json")}


@pytest.fixture
def place(tmp_path: Path, grafana: Grafana, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("GRAFANA_TOKEN", TOKEN)
    found = Place(tmp_path, grafana)
    done = found.say("apply", "--yes")
    assert done.code == 0, done.err
    assert found.say("plan").out == "No changes. 2 resources of dev as declared.\n"
    return found


CHANGES: dict[str, Any] = {
    "a title": lambda board: board["panels"][1].update(title="Mine"),
    "an expression": lambda board: board["panels"][1]["targets"][0].update(expr="up == 1"),
    "a panel more": lambda board: board["panels"].append({"type": "text", "id": 99}),
    "a panel less": lambda board: board["panels"].pop(),
    "the time": lambda board: board["time"].update({"from": "now-5m"}),
    "its own fields": lambda board: board["templating"]["list"][1].update(
        query=board["templating"]["list"][1]["query"].replace("First", "Mine")
    ),
}


SOME = ("a panel more", "its own fields")
EACH = [pytest.param(one, marks=() if one in SOME else pytest.mark.nightly) for one in CHANGES]


@pytest.mark.parametrize("change", EACH)
def test_what_is_changed_by_hand_is_seen_and_put_right(place: Place, change: str) -> None:
    before = json.dumps(place.grafana.boards[FIRST]["panels"], sort_keys=True)
    assert place.grafana.folders[FIRST] == "team"
    CHANGES[change](place.grafana.boards[FIRST])
    plan = place.say("plan")
    assert (plan.code, "Dashboard/first  update" in plan.out) == (2, True), plan.out
    assert "Dashboard/second" not in plan.out
    assert place.say("apply", "--yes").code == 0
    assert json.dumps(place.grafana.boards[FIRST]["panels"], sort_keys=True) == before
    assert place.say("plan").code == 0


def test_what_others_have_is_left_alone(place: Place) -> None:
    """Theirs, and the copy that somebody has made of ours, with our tags and all that is in it."""
    copied = {**place.grafana.boards[FIRST], "uid": "copy", "id": 77, "title": "Copy of First"}
    place.grafana.boards |= {"copy": copied, "theirs": {"uid": "theirs", "title": "T", "tags": ["gamma:dev"]}}
    assert place.say("plan").code == 0
    place.edit("title: First", "title: Changed")
    assert place.say("apply", "--yes").code == 0
    assert place.grafana.boards[FIRST]["title"] == "Changed"
    place.edit("kind: Dashboard\nmetadata: {name: first}", "kind: Dashboard\nmetadata: {name: other}")
    assert place.say("apply", "--yes").code == 0
    assert place.grafana.boards.keys() == {"copy", "theirs", "gamma-dev-other"}


def test_what_is_deleted_is_made_again(place: Place) -> None:
    del place.grafana.boards[FIRST]
    (place.folder / ".gamma/dev/dashboards/gamma-dev-second.json").write_text("{")
    plan = place.say("plan")
    assert "+ Dashboard/first" in plan.out or "Dashboard/first  create" in plan.out
    assert "Dashboard/second" in plan.out
    assert place.say("apply", "--yes").code == 0
    assert FIRST in place.grafana.boards
    assert place.files.keys() == {"gamma-dev-second"}


def test_it_moves_and_goes(place: Place) -> None:
    place.edit("  grafana: board\n", "")
    assert place.say("apply", "--yes").code == 0
    assert place.grafana.boards == {}
    assert place.files.keys() == {FIRST, "gamma-dev-second"}
    path = place.folder / "specs" / "boards.yaml"
    path.write_text(path.read_text().partition("---\n")[0])
    assert place.say("apply", "--yes").code == 0
    assert place.files.keys() == {FIRST}


def test_a_grafana_that_is_away_or_does_not_know_us(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.grafana.stop()
    plan = place.say("plan")
    assert plan.code != 0
    assert "Grafana 'board' at http://127.0.0.1" in plan.out + plan.err
    assert "cannot be asked" in plan.out + plan.err
    place.grafana.start()
    monkeypatch.setenv("GRAFANA_TOKEN", "another-secret-token")
    plan = place.say("plan")
    assert plan.code != 0
    assert "Grafana 'board' answers 401 to GET" in plan.out + plan.err
    assert "another-secret-token" not in plan.out + plan.err
    assert FIRST in place.grafana.boards


TARGETS = [
    ("{type: grafana}", "A Grafana has a url, or a folder"),
    ("{type: grafana, embedded: true}", "Gamma runs no Grafana"),
    ("{type: grafana, folder: x, token: y}", "`token` goes with the url"),
    ("{type: postgres, embedded: true, folder: x}", "`folder` is for a Grafana"),
]


@pytest.mark.parametrize(("target", "says"), TARGETS, ids=[one[1] for one in TARGETS])
def test_a_target_that_makes_no_sense(target: str, says: str, tmp_path: Path) -> None:
    text = (
        ENVIRONMENT.format(url="http://x").partition("  targets:")[0] + f"  targets:\n    board: {target}\n"
    )
    write(tmp_path, {"environments/dev/environment.yaml": text})
    done = gamma(tmp_path, "validate", "-e", "dev")
    assert done.code == 1
    assert says in done.out + done.err


def test_a_grafana_that_is_not_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", TOKEN)
    text = ENVIRONMENT.format(url="http://x")
    boards = BOARDS.replace(": board", ": bord")
    write(tmp_path, {"environments/dev/environment.yaml": text, "specs/b.yaml": boards})
    done = gamma(tmp_path, "plan", "-e", "dev")
    assert "Environment 'dev' has no Grafana target 'bord': did you mean 'board'?" in done.out + done.err
