"""A dashboard as Grafana has it, made of the fields of ours with Grafana's own SDK. Pure; for `dashboard`.

In it are the fields that it was made of (`fields_of`): a hidden constant among its variables, which Grafana
keeps as it is. So whoever reads it back knows what was wanted, and whether it still is that.

Where its data comes from is chosen in Grafana: `source` is a variable of the dashboard, which begins with the
default Prometheus there.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from gamma_orch.core.canonical import Json
from gamma_orch.kinds.monitoring.dashboard_spec import COLUMNS
from gamma_orch.kinds.monitoring.parts import within

TAG = "gamma"
KEPT = "gamma"  # the constant
SOURCE = "${source}"
UNITS = {
    "seconds": "s",
    "bytes": "bytes",
    "ratio": "percentunit",
    "perSecond": "cps",
    "bytesPerSecond": "Bps",
    "number": "short",
}
COLORS = {"fine": "green", "warning": "orange", "critical": "red"}
LONGEST = 40  # characters of a uid
MOVED_ON = "schemaVersion"  # Grafana raises it by itself


def uid(environment: str, name: str) -> str:
    """The same dashboard has the same one wherever it is put: gamma-dev-api."""
    plain = f"{TAG}-{environment}-{re.sub('[^a-zA-Z0-9_-]', '-', name)}"
    if len(plain) <= LONGEST and plain.endswith(name):
        return plain
    digest = hashlib.sha256(f"{environment}/{name}".encode()).hexdigest()[:10]
    return f"{plain[: LONGEST - 11]}-{digest}"


def tag(environment: str) -> str:
    """All of one environment have it."""
    return f"{TAG}:{environment}"


def model(environment: str, name: str, fields: Json) -> Json:
    """As its API takes it, without what the server adds."""
    from grafana_foundation_sdk.builders import dashboard as build
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import dashboard as models

    board = (
        build.Dashboard(fields["title"])
        .uid(uid(environment, name))
        .description(fields["description"])
        .tags([TAG, tag(environment)])
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .refresh(f"{fields['refresh']:g}s")
        .time(f"now-{fields['span']:g}s", "now")
        .readonly()
        .with_variable(build.DatasourceVariable("source").type("prometheus").label("Data source"))
        .with_variable(_kept(fields))
    )
    for variable in fields["variables"]:
        board.with_variable(_variable(variable))
    number, top = 0, 0
    for row in fields["rows"]:
        if row["title"]:
            number += 1
            place = models.GridPos(h=1, w=COLUMNS, x=0, y=top)
            board.with_row(build.Row(row["title"]).id(number).grid_pos(place))
            top += 1
        for panel, (x, y) in zip(row["panels"], placed(row["panels"]), strict=True):
            number += 1
            place = models.GridPos(h=panel["height"], w=panel["width"], x=x, y=top + y)
            board.with_panel(_panel(panel).id(number).grid_pos(place))
        top += depth(row["panels"])
    made: Json = _said(json.loads(JSONEncoder(sort_keys=True).encode(board.build())))
    return made


def is_still(wanted: Json, found: Json) -> bool:
    """Whether what is there is what was put: the server fills in more."""
    return within({key: value for key, value in wanted.items() if key != MOVED_ON}, found)


def fields_of(found: Json) -> Json | None:
    """Those that a dashboard was made of; None for one that is not of ours."""
    variables = (found.get("templating") or {}).get("list") or []
    for one in variables:
        if one.get("type") == "constant" and one.get("name") == KEPT:
            try:
                kept = json.loads(one.get("query") or "")
            except ValueError:
                return None
            return kept if isinstance(kept, dict) and {"name", "fields"} <= kept.keys() else None
    return None


def placed(panels: Json) -> Iterator[tuple[int, int]]:
    """From left to right while there is room, then below the highest of those before."""
    x = y = highest = 0
    for panel in panels:
        if x + panel["width"] > COLUMNS:
            x, y, highest = 0, y + highest, 0
        yield x, y
        x, highest = x + panel["width"], max(highest, panel["height"])


def depth(panels: Json) -> int:
    """How many lines they take."""
    return max(y + int(panel["height"]) for panel, (_, y) in zip(panels, placed(panels), strict=True))


def _said(tree: Json) -> Json:
    """Without what is null, which an option is not: but for the lowest threshold, which has no value."""
    if isinstance(tree, dict):
        kept = {key: value for key, value in tree.items() if value is not None or key == "value"}
        return {key: _said(value) for key, value in kept.items()}
    return list(map(_said, tree)) if isinstance(tree, list) else tree


def _kept(fields: Json) -> Any:
    from grafana_foundation_sdk.builders import dashboard as build

    text = json.dumps({"name": fields["name"], "fields": fields}, sort_keys=True)
    return build.ConstantVariable(KEPT).value(text)


def _variable(said: Json) -> Any:
    from grafana_foundation_sdk.builders import dashboard as build
    from grafana_foundation_sdk.models import dashboard as models

    everything = models.VariableOption(text="All", value="$__all", selected=True)
    return (
        build.QueryVariable(said["name"])
        .label(said["title"])
        .query(f"label_values({said['metric']}, {said['label']})")
        .datasource(_source())
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(everything)
    )


def _source() -> Any:
    from grafana_foundation_sdk.models import dashboard as models

    return models.DataSourceRef(type_val="prometheus", uid=SOURCE)


def _panel(said: Json) -> Any:
    from grafana_foundation_sdk.builders import gauge, heatmap, prometheus, stat, table, timeseries
    from grafana_foundation_sdk.models import dashboard as models
    from grafana_foundation_sdk.models import prometheus as queries

    kinds = {"timeseries": timeseries, "stat": stat, "gauge": gauge, "table": table, "heatmap": heatmap}
    panel: Any = kinds[said["type"]].Panel()
    panel.title(said["title"]).description(said["description"]).datasource(_source())
    panel.height(said["height"]).span(said["width"])
    formats = {"table": queries.PromQueryFormat.TABLE, "heatmap": queries.PromQueryFormat.HEATMAP}
    for number, one in enumerate(said["queries"]):
        query = prometheus.Dataquery().expr(one["expr"]).ref_id(chr(ord("A") + number))
        query.legend_format(one["legend"] or "__auto")
        query.format(formats.get(said["type"], queries.PromQueryFormat.TIME_SERIES))
        panel.with_target(query.instant() if said["type"] in ("table", "gauge") else query.range())
    if said["type"] == "heatmap":
        return panel.y_axis(_axis(UNITS[said["unit"]]))
    panel.unit(UNITS[said["unit"]])
    if said["min"] is not None:
        panel.min(said["min"])
    if said["max"] is not None:
        panel.max(said["max"])
    steps = [models.Threshold(color=COLORS[level], value=at) for level, at in _steps(said["thresholds"])]
    panel.thresholds(_thresholds(steps))
    if said["type"] == "timeseries":
        panel.fill_opacity(60 if said["stack"] else 8)
        if said["stack"]:
            panel.stacking(_stacked())
        if said["thresholds"]:
            panel.thresholds_style(_drawn())
    return panel


def _steps(thresholds: Json) -> list[tuple[str, float | None]]:
    """From below upward, the first without a bound. Where the critical one is the smaller, less is worse."""
    warning, critical = thresholds.get("warning"), thresholds.get("critical")
    if warning is not None and critical is not None and critical < warning:
        return [("critical", None), ("warning", critical), ("fine", warning)]
    return [
        ("fine", None),
        *((name, thresholds[name]) for name in ("warning", "critical") if name in thresholds),
    ]


def _thresholds(steps: Any) -> Any:
    from grafana_foundation_sdk.builders import dashboard as build
    from grafana_foundation_sdk.models import dashboard as models

    return build.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _axis(unit: str) -> Any:
    from grafana_foundation_sdk.builders import heatmap

    return heatmap.YAxisConfig().unit(unit)


def _stacked() -> Any:
    from grafana_foundation_sdk.builders import common
    from grafana_foundation_sdk.models import common as models

    return common.StackingConfig().mode(models.StackingMode.NORMAL)


def _drawn() -> Any:
    from grafana_foundation_sdk.builders import common
    from grafana_foundation_sdk.models import common as models

    return common.GraphThresholdsStyleConfig().mode(models.GraphTresholdsStyleMode.DASHED)
