"""The kind SLO: how much of what is asked for must go well, and alerts when it would not last.

It becomes a group of rules on a Prometheus: the share of errors over several times, what is left of the error
budget, and two alerts by the burn rate, over a long and a short time each, so that they come early and end
soon (Google, The Site Reliability Workbook, chapter 5, table 5-8). The budget is the share that may fail; at
a burn rate of 1 it lasts exactly as long as the window.
"""

from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Of, Traits
from gamma_orch.kinds.monitoring import correlation, objectives, openslo, promql
from gamma_orch.kinds.monitoring.groups import GroupProvider, target, written
from gamma_orch.kinds.monitoring.rule_spec import OWN, LabelName
from gamma_orch.spec.durations import Duration, duration, written_duration
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.model import Names
from gamma_orch.spec.quantities import Latency, Share, seconds_of, share_of
from gamma_orch.spec.written_out import WrittenOut

RECORD = "slo:error_ratio:rate"  # and the time
BUDGET = "slo:error_budget:left"
TIMES = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
# Burn rate, the long time, the short one: what uses up 2 %, 5 % and 10 % of a budget of 30 days.
PAGE = ((14.4, "1h", "5m"), (6.0, "6h", "30m"))
TICKET = ((3.0, "1d", "2h"), (1.0, "3d", "6h"))


class LatencyOf(WrittenOut):
    metric: str = Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")
    """A histogram, by its name without _bucket: gamma_request_seconds."""
    below: Latency
    """What is good: 250ms. It must be the bound of a bucket."""
    where: dict[LabelName, str] = Field(default_factory=dict)
    """Of which series, by their labels."""


class Indicator(WrittenOut):
    total: str | None = None
    """What is asked for: a counter, with matchers."""
    bad: str | None = None
    """What of it fails: a counter."""
    good: str | None = None
    """In the place of `bad`: what of it goes well."""
    latency: LatencyOf | None = None
    """In their place: how long it takes."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.latency is not None:
            if self.total or self.bad or self.good:
                raise ValueError("`latency` stands alone: its histogram counts all")
        elif self.total is None or (self.bad is None) == (self.good is None):
            raise ValueError("say the `total`, and what of it is `bad` or `good`; or a `latency`")
        return self


class SLOSpec(WrittenOut):
    prometheus: str = "prometheus"
    """The target: the name of a Prometheus in environment.yaml."""
    objective: Share
    """How much must go well: 99.5%."""
    window: Duration = timedelta(days=30)
    """Over how long a time. Alerts are laid out for about a month."""
    indicator: Indicator
    """What is counted."""
    least: int = Field(default=50, ge=0)
    """Events in the long time of an alert without which it is silent: of few, one is many per cent."""
    about: Annotated[str, Names()] | None = None
    """The resource whose trouble it tells of: Service/api. While an outage of what that needs is told of, it
    is held back."""
    labels: dict[LabelName, str] = Field(default_factory=dict)
    """More labels of its alerts."""
    runbook: str | None = Field(default=None, pattern=r"^https?://")
    """Where it says what to do."""

    @field_validator("objective")
    @classmethod
    def _between(cls, value: str | float) -> str | float:
        if not 0 < share_of(value) < 1:
            raise ValueError("an objective lies between 0% and 100%: at 100% there is no budget to burn")
        return value

    @field_validator("window")
    @classmethod
    def _long(cls, value: timedelta) -> timedelta:
        if value < timedelta(days=3):
            raise ValueError("a window has three days or more: its slowest alert looks at three")
        return value

    @field_validator("labels")
    @classmethod
    def _not_ours(cls, value: dict[str, str]) -> dict[str, str]:
        if taken := sorted(set(value) & {*OWN, "slo"}):
            raise ValueError(f"{', '.join(taken)} is set by the objective itself")
        return value


def counters(indicator: Json) -> tuple[str, str, bool]:
    """What is counted of what, and whether it is the bad part."""
    if (latency := indicator["latency"]) is not None:
        bound = f"{seconds_of(latency['below']):g}"
        where = [f'{name}="{value}"' for name, value in sorted(latency["where"].items())]
        # 1 is written 1.0 by some clients, and 1 by others.
        good = ", ".join([*where, f'le="{bound}"' if "." in bound else f'le=~"{bound}([.]0)?"'])
        total = f"{latency['metric']}_count" + (f"{{{', '.join(where)}}}" if where else "")
        return f"{latency['metric']}_bucket{{{good}}}", total, False
    part = indicator["bad"] if indicator["bad"] is not None else indicator["good"]
    return part, indicator["total"], indicator["bad"] is not None


def ratio(indicator: Json, time: str) -> str:
    """The share of errors over a time, in PromQL. Of a time without events there is none: a NaN would be the
    mean of whatever it comes into."""
    part, total, is_bad = counters(indicator)
    events = f"sum(rate({total}[{time}]))"
    share = f"sum(rate({part}[{time}])) / {events}"
    # Where nothing failed yet there may be no series of failures, and no failure is not nothing known.
    known = f"({share}) or (0 * {events})" if is_bad else f"1 - ({share})"
    return f"({known}) and {events} > 0"


def rules(name: str, spec: Json) -> list[Json]:
    budget = round(1 - share_of(spec["objective"]), 12)
    labels = {"slo": name}
    found = [_record(f"{RECORD}{time}", ratio(spec["indicator"], time), labels) for time in TIMES]
    window = written_duration(duration(spec["window"]))
    spent = f'avg_over_time({RECORD}5m{{slo="{name}"}}[{window}])'
    found.append(_record(BUDGET, f"1 - {spent} / {budget:g}", labels))
    for severity, speeds, says in (
        ("critical", PAGE, "fast: the budget would be gone in days"),
        ("warning", TICKET, "faster than it lasts"),
    ):
        burns = [_burns(name, spec, budget, *speed) for speed in speeds]
        annotations = {"summary": f"{name} burns its error budget {says}"}
        if spec["runbook"]:
            annotations["runbook_url"] = spec["runbook"]
        found.append(
            {
                "type": "alert",
                "name": f"{name}-burns-{'fast' if severity == 'critical' else 'slowly'}",
                "expr": promql.parsed(" or ".join(burns)).pretty,
                "labels": {**spec["labels"], **labels, "severity": severity},
                "for": 0.0,
                "keepFiringFor": 0.0,
                "annotations": annotations,
            }
        )
    return found


def _record(name: str, expr: str, labels: Json) -> Json:
    return {"type": "record", "name": name, "expr": promql.parsed(expr).pretty, "labels": labels}


def _burns(name: str, spec: Json, budget: float, rate: float, long: str, short: str) -> str:
    _, total, _ = counters(spec["indicator"])
    of = f'{{slo="{name}"}}'
    bound = f"{rate * budget:.6g}"
    enough = f"on () sum(increase({total}[{long}])) >= {spec['least']}"
    return f"({RECORD}{long}{of} > {bound} and {RECORD}{short}{of} > {bound} and {enough})"


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    by = {f"{one['type']} {one['name']}": _bare(one) for one in rules(address.name, spec)}
    return {"prometheus": spec["prometheus"], "rules": by}


def _bare(rule: Json) -> Json:
    return {key: value for key, value in rule.items() if key not in ("type", "name")}


class SLOProvider(GroupProvider):
    KIND = "SLO"
    PREFIX = "gamma-slo"

    def rules(self, fields: Fields) -> list[Json]:
        found = []
        for key, rule in fields["rules"].items():
            kind, _, name = key.partition(" ")
            found.append(written({"type": kind, "name": name, **rule}))
        return found

    def read(self, rules: list[Json]) -> Fields:
        return {"rules": {f"{one['type']} {one['name']}": _bare(one) for one in rules}}


KIND = Kind(
    name="SLO",
    family="monitoring",
    summary="How much must go well over a time, and alerts when the error budget burns too fast.",
    spec=SLOSpec,
    provider=SLOProvider,
    traits=Traits(normalise=normalise, convergent=True, target=target),
    check=objectives.slos,
    complete=correlation.rules,
    reads={"openslo": openslo.read},
)
