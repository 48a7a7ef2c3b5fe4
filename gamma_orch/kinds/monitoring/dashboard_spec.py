"""What a spec of a Dashboard says: rows of panels, each of which asks a Prometheus. Pure."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from gamma_orch.core.canonical import Json
from gamma_orch.kinds.monitoring import promql
from gamma_orch.kinds.monitoring.rule_spec import LabelName
from gamma_orch.spec.durations import Duration
from gamma_orch.spec.quantities import seconds_of, share_of, size_of
from gamma_orch.spec.written_out import WrittenOut

Unit = Literal["seconds", "bytes", "ratio", "perSecond", "bytesPerSecond", "number"]
Level = Literal["warning", "critical"]
VariableName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
OURS = ("gamma", "source")  # variables that each dashboard has in Grafana
COLUMNS = 24  # of Grafana's grid

# Who reads a threshold in a unit, and how it is written.
READERS: Mapping[str, tuple[str, Any]] = {
    "seconds": ("a time, such as 200ms", seconds_of),
    "bytes": ("a size, such as 1.5GB", size_of),
    "bytesPerSecond": ("a size, such as 1.5GB", size_of),
    "ratio": ("a share, such as 95%", share_of),
}
ENDS: Mapping[str, Unit] = {"_seconds": "seconds", "_bytes": "bytes", "_ratio": "ratio"}
_HISTOGRAM = re.compile(r"_(sum|total|bucket)$")


class Query(WrittenOut):
    expr: str = Field(min_length=1)
    """In PromQL. A variable stands in a matcher: {model=~"$model"}."""
    legend: str = ""
    """What a series is called; {{ model }} is its label. Default: its labels."""


class Panel(WrittenOut):
    title: str = Field(min_length=1)
    description: str = ""
    """More about it, for who points at it."""
    type: Literal["timeseries", "stat", "gauge", "table", "heatmap"] = "timeseries"
    """timeseries: lines over time. stat: the latest number, large. gauge: the same between `min` and `max`.
    table: the latest number of each series. heatmap: how often which size, of a histogram's buckets
    (sum by (le) (rate(..._bucket[5m])))."""
    expr: str | None = Field(default=None, min_length=1)
    """In the place of `queries`, where there is one."""
    legend: str = ""
    """Of `expr`: what a series is called."""
    queries: list[Query] = Field(default_factory=list, max_length=20)
    """What is asked."""
    unit: Unit | None = None
    """Of the values. Default: as the metric's name ends; perSecond for rates."""
    min: float | None = None
    """Where the axis begins. Default: as the values are."""
    max: float | None = None
    """Where it ends."""
    thresholds: dict[Level, float | str] = Field(default_factory=dict)
    """From where on a value is worth a warning, or critical: a number, or in its unit 200ms, 1.5GB, 95%.
    Where the critical one is the smaller, less is worse."""
    stack: bool = False
    """timeseries: one upon the other."""
    width: int = Field(default=12, ge=1, le=COLUMNS)
    """In columns; a row has 24."""
    height: int = Field(default=8, ge=3, le=40)
    """In lines of 30 pixels."""

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if (self.expr is None) == (not self.queries):
            raise ValueError("a panel asks something: an `expr`, or `queries`, and not both")
        if self.legend and self.expr is None:
            raise ValueError("`legend` goes with `expr`; each of the `queries` has its own")
        if self.stack and self.type != "timeseries":
            raise ValueError("`stack` is for panels of the type timeseries")
        if self.type == "heatmap" and len(self.queries) > 1:
            raise ValueError("a heatmap asks for the buckets of one histogram")
        if self.type == "gauge" and (self.max is None or self.max <= (self.min or 0)):
            raise ValueError("a gauge goes from `min` (0) to `max`: say a `max` above it")
        return self

    @model_validator(mode="after")
    def _in_its_unit(self) -> Self:
        found = unit(self.unit, [one.expr for one in self.queries] or [self.expr or ""])
        values = [in_unit(found, value) for value in self.thresholds.values()]
        if len(set(values)) < len(values):
            raise ValueError("warning and critical are at the same value: leave one of them out")
        return self


class Row(WrittenOut):
    title: str = ""
    panels: list[Panel] = Field(min_length=1)
    """From left to right, as many as there is room for, then below."""


class Variable(WrittenOut):
    """Something to choose by: the values that a label has."""

    name: VariableName
    """In queries it is $name, in a matcher by =~. Nothing chosen is all."""
    title: str = ""
    """What it is called. Default: the name."""
    metric: str = Field(min_length=1)
    """Whose label it is: a metric, or a selector."""
    label: LabelName

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if value in OURS:
            raise ValueError(f"each dashboard has a variable {value} of its own; choose another name")
        return value


class DashboardSpec(WrittenOut):
    prometheus: str = "prometheus"
    """The target that is asked: the name of a Prometheus in environment.yaml."""
    grafana: str | None = None
    """The target that it is put on: the name of a Grafana in environment.yaml. Default: a file under .gamma/
    that a Grafana can read. `gamma dashboards` shows it in both cases."""
    title: str = Field(min_length=1)
    description: str = ""
    refresh: Duration = timedelta(seconds=10)
    """How often it is asked anew."""
    span: Duration = timedelta(hours=1)
    """How much time it shows at first."""
    variables: list[Variable] = Field(default_factory=list)
    rows: list[Row] = Field(min_length=1)

    @field_validator("refresh", "span")
    @classmethod
    def _some_time(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=1):
            raise ValueError("this is a second or longer")
        return value

    @field_validator("variables")
    @classmethod
    def _once(cls, value: list[Variable]) -> list[Variable]:
        names = [one.name for one in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} is there twice")
        return value


def queries(panel: Json) -> list[Json]:
    """Those of a panel's spec, in one form."""
    return list(panel["queries"]) or [{"expr": panel["expr"], "legend": panel["legend"]}]


def unit(said: str | None, exprs: list[str]) -> str:
    """Of the values of a panel: as it says, else as its expressions tell, where they tell one."""
    return said or next(iter(found)) if said or len(found := set(map(_told, exprs))) == 1 else "number"


def in_unit(unit: str, value: float | str) -> float:
    """A threshold as a number in the unit of its panel. Raises ValueError."""
    if not isinstance(value, str):
        return float(value)
    if unit not in READERS:
        raise ValueError(
            f"{value!r} has a unit, and the panel's is {unit}; write a number, or say its `unit`"
        )
    said, read = READERS[unit]
    try:
        return float(read(value))
    except ValueError:
        raise ValueError(f"{value!r} is not in the panel's unit, {unit}: write {said}, or a number") from None


def _told(expr: str) -> str:
    """That of an expression: what its metrics' names end with, where they are of one unit."""
    try:
        parsed = promql.parsed(expr)
    except promql.BadExpression:
        return "number"
    names = {_HISTOGRAM.sub("", name) for name in parsed.metrics}
    units = {next((unit for end, unit in ENDS.items() if name.endswith(end)), "number") for name in names}
    if len(units) != 1 or parsed.divides:
        return "number"
    unit = units.pop()
    # What is told of buckets is told of their bounds, and not of how often they are filled.
    if not parsed.rate or any(name.endswith("_bucket") for name in parsed.metrics):
        return unit
    return {"bytes": "bytesPerSecond", "number": "perSecond"}.get(unit, "number")
