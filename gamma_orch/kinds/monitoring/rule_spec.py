"""What a spec of an AlertRule says, and the expression that comes of it. Pure."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from gamma_orch.core.canonical import Json
from gamma_orch.kinds.monitoring import promql
from gamma_orch.spec.durations import Duration, duration, written_duration
from gamma_orch.spec.model import Names
from gamma_orch.spec.quantities import seconds_of, share_of, size_of
from gamma_orch.spec.written_out import WrittenOut

LabelName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]
Severity = Literal["critical", "warning", "info"]
BOUNDS = ("above", "below", "unusual")
# Labels that are made here, or in `correlation`.
OWN = ("alertname", "severity", promql.NAME, "resource", "outage", "needs")
# By the end of a metric's name: the unit of its values, and who reads a threshold in it.
UNITS: Mapping[str, tuple[str, Any]] = {
    "_seconds": ("a time, such as 200ms", seconds_of),
    "_bytes": ("a size, such as 1.5GB", size_of),
    "_ratio": ("a share, such as 95%", share_of),
}
_HISTOGRAM = re.compile(r"_(sum|total)$")


class Unusual(WrittenOut):
    """A threshold that follows from what the series was before. The time under test is no part of that."""

    by: Literal["deviation", "quantile", "season"]
    """What was usual: the mean and the standard deviation of a time before, a quantile of it, or the mean of
    the same hours of the weeks before."""
    over: Duration = timedelta(hours=1)
    """How long a time before."""
    gap: Duration = timedelta(minutes=5)
    """How much of the latest time is left out, so that an anomaly is no part of what is usual."""
    factor: float = Field(default=3.0, gt=0)
    """deviation: so many standard deviations from the mean; else: so many times as much."""
    quantile: float = Field(default=0.95, ge=0, le=1)
    """Of `quantile`: which."""
    weeks: int = Field(default=2, ge=1, le=8)
    """Of `season`: how many weeks before."""
    least: int = Field(default=30, ge=2)
    """How many samples there must have been; before that it is silent."""

    @field_validator("gap", "over")
    @classmethod
    def _some_time(cls, value: timedelta) -> timedelta:
        if not value:
            raise ValueError("this is longer than no time: what is now is no part of what is usual")
        return value


class RuleTest(WrittenOut):
    """Series in, alerts out."""

    series: dict[str, str] = Field(min_length=1)
    """Samples by the series, as in promtool: up{job="api"}: 1x5 0x10."""
    every: Duration = timedelta(minutes=1)
    """The time between two samples, and between two evaluations."""
    at: Duration
    """When it is looked at, from the first sample on."""
    fires: list[dict[LabelName, str]] = Field(default_factory=list)
    """The alerts that fire then, by the labels of their series. None: it is silent."""


class AlertRuleSpec(WrittenOut):
    prometheus: str = "prometheus"
    """The target: the name of a Prometheus in environment.yaml."""
    expr: str | None = None
    """What fires, in PromQL: each series of its result is an alert."""
    metric: str | None = None
    """In the place of `expr`: what is compared, a metric or an expression without a comparison."""
    above: float | str | None = None
    """It fires above this: a number, or in the metric's unit 200ms, 1.5GB, 95%."""
    below: float | str | None = None
    """It fires below this."""
    unusual: Unusual | None = None
    """It fires where the metric is not as usual."""
    wait: Duration = Field(default=timedelta(0), alias="for")
    """How long it must be so before it fires."""
    keep: Duration = Field(default=timedelta(0), alias="keepFiring")
    """How long it fires on after it is no longer so."""
    about: Annotated[str, Names()] | None = None
    """The resource whose trouble it tells of: Service/api. While an outage of what that needs is told of, it
    is held back."""
    outage: bool = False
    """Whether what it is about does not work then. It holds back all other alerts about that, and about what
    needs it."""
    severity: Severity = "warning"
    """critical: somebody is called. warning: somebody looks at it in the day. info: it is written down."""
    labels: dict[LabelName, str] = Field(default_factory=dict)
    """More labels of each alert."""
    summary: str = Field(min_length=1)
    """What is wrong, in one sentence. {{ $labels.name }} and {{ $value }} are filled in."""
    description: str = ""
    """More of it."""
    runbook: str | None = Field(default=None, pattern=r"^https?://")
    """Where it says what to do."""
    tests: list[RuleTest] = Field(default_factory=list)
    """Series in, alerts out; run in each plan."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.expr is None) == (self.metric is None):
            raise ValueError("say what fires: an `expr`, or a `metric` with `above`, `below` or `unusual`")
        if self.metric is not None:
            self.one_of("a metric has", BOUNDS)
        elif bounds := [name for name in BOUNDS if getattr(self, name) is not None]:
            raise ValueError(f"`{bounds[0]}` goes with a `metric`; an `expr` has its comparison in it")
        return self

    @field_validator("labels")
    @classmethod
    def _not_ours(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        if taken := sorted(set(value) & set(OWN)):
            raise ValueError(f"{', '.join(taken)} is set by the rule itself")
        return value

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if self.outage and self.about is None:
            raise ValueError("an outage is one of a resource: say which in `about`")
        return self

    @model_validator(mode="after")
    def _in_its_unit(self) -> Self:
        if self.metric is not None:
            for name in ("above", "below"):
                if (value := getattr(self, name)) is not None:
                    threshold(self.metric, value)
        return self


def expression(spec: Json) -> str:
    """In PromQL. Raises ValueError for a threshold in another unit than its metric."""
    if spec["expr"] is not None:
        return str(spec["expr"]).strip()
    metric = str(spec["metric"]).strip()
    if spec["unusual"] is not None:
        return _unusual(metric, spec["unusual"])
    op, value = (">", spec["above"]) if spec["above"] is not None else ("<", spec["below"])
    return f"{_operand(metric)} {op} {_number(threshold(metric, value))}"


def threshold(metric: str, value: float | str) -> float:
    """In the unit of the metric's values. Raises ValueError."""
    if not isinstance(value, str):
        return float(value)
    name = _measured(metric)
    unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), None)
    if unit is None:
        raise ValueError(f"{value!r} has a unit, and {name or metric!r} says none; write a number")
    said, read = unit
    try:
        return float(read(value))
    except ValueError:
        wrong = f"{value!r} is not what {name} is measured in: write {said}, or a number"
        raise ValueError(wrong) from None


def _measured(metric: str) -> str:
    """The metric whose unit a result has: that of an expression that asks for one, and divides nothing."""
    try:
        parsed = promql.parsed(metric)
    except promql.BadExpression:
        return ""
    names = {_HISTOGRAM.sub("", name.removesuffix("_bucket")) for name in parsed.metrics}
    return names.pop() if len(names) == 1 and not parsed.divides else ""


def _operand(metric: str) -> str:
    """In brackets, where it is more than a selector."""
    return metric if re.fullmatch(r"[a-zA-Z_:][\w:]*(\{[^{}]*\})?", metric) else f"({metric})"


def _number(value: float) -> str:
    return repr(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _range(metric: str, over: str, offset: str) -> str:
    plain = re.fullmatch(r"[a-zA-Z_:][\w:]*(\{[^{}]*\})?", metric)
    return f"{metric}[{over}] offset {offset}" if plain else f"({metric})[{over}:] offset {offset}"


def _unusual(metric: str, said: Json) -> str:
    over, gap = written_duration(_time(said["over"])), written_duration(_time(said["gap"]))
    factor, least, now = _number(said["factor"]), said["least"], _operand(metric)
    before = _range(metric, over, gap)
    enough = f"count_over_time({before}) >= {least}"
    match said["by"]:
        case "deviation":
            spread = f"stddev_over_time({before})"
            apart = f"abs({now} - avg_over_time({before})) > {factor} * {spread}"
            return f"{apart} and {spread} > 0 and {enough}"
        case "quantile":
            return f"{now} > {factor} * quantile_over_time({said['quantile']}, {before}) and {enough}"
    weeks = [_range(metric, over, f"{week}w") for week in range(1, said["weeks"] + 1)]
    mean = " + ".join(f"avg_over_time({one})" for one in weeks)
    there = " and ".join(f"count_over_time({one}) >= {least}" for one in weeks)
    return f"{now} > {factor} * ({mean}) / {len(weeks)} and {there}"


def _time(value: Any) -> timedelta:
    found = duration(value)
    assert isinstance(found, timedelta)
    return found
