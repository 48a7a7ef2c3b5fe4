"""SLOs that are written in OpenSLO (openslo/v1): each becomes one of ours. Called through `Kind.reads`.

What both can say is taken over: a ratio of counters in Prometheus, one objective, a rolling window, and
occurrences. What ours cannot is refused at its place; what has no effect here (a DataSource, alerts of other
tools) is warned of. A Service is only a name in OpenSLO, and an SLI is used where an SLO names it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import promql_parser as parser
from pydantic import Field

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Path, did_you_mean, written
from gamma_orch.spec.codes import Code
from gamma_orch.spec.complaints import Fault, checked, found
from gamma_orch.spec.envelope import API_VERSION
from gamma_orch.spec.foreign import Read
from gamma_orch.spec.model import Spec
from gamma_orch.spec.positions import Part
from gamma_orch.spec.words import quoted

VERSION = "openslo/v1"
CANNOT = "GAM941"  # what an SLO of ours cannot say
WITHOUT_EFFECT = "GAM942"  # what is there for other tools

# What a document of theirs is, and why it has no effect; "" where it never has one by itself.
KINDS: Mapping[str, str] = {
    "SLO": "",
    "SLI": "",
    "Service": "",
    "DataSource": "where a Prometheus is, the Environment says in its `targets`",
    "AlertPolicy": "an SLO alerts by itself here, and an EscalationPolicy says who is told",
    "AlertCondition": "an SLO alerts by itself here, by how fast its error budget burns",
    "AlertNotificationTarget": "who is told, a NotificationChannel says",
}
_WINDOW = re.compile(r"([1-9][0-9]{0,5})([mhdwMQY])")
_TEMPLATE = re.compile(r"\{\{ *\.[Ww]indow *\}\}")  # for the tool to fill in
_COUNTED = ("rate", "increase")


class _Metadata(Spec):
    name: str
    display_name: str = Field(default="", alias="displayName")
    labels: dict[str, str | list[str]] = Field(default_factory=dict)
    annotations: dict[str, Any] = Field(default_factory=dict)


class _Source(Spec):
    ref: str | None = Field(default=None, alias="metricSourceRef")
    type: str | None = None
    spec: dict[str, Any]


class _Metric(Spec):
    source: _Source = Field(alias="metricSource")


class _Ratio(Spec):
    counter: bool = True
    good: _Metric | None = None
    bad: _Metric | None = None
    total: _Metric | None = None
    raw: Any = None
    raw_type: Any = Field(default=None, alias="rawType")


class _SLI(Spec):
    description: str = ""
    ratio: _Ratio | None = Field(default=None, alias="ratioMetric")
    threshold: Any = Field(default=None, alias="thresholdMetric")


class _Indicator(Spec):
    """An SLI inside an SLO, which may have a head of its own."""

    version: Any = Field(default=None, alias="apiVersion")
    kind: Literal["SLI"] | None = None
    metadata: Any = None
    spec: _SLI


class _Window(Spec):
    duration: str
    rolling: bool | None = Field(default=None, alias="isRolling")
    calendar: Any = None


class _Objective(Spec):
    display_name: str = Field(default="", alias="displayName")
    target: float | None = None
    percent: float | None = Field(default=None, alias="targetPercent")
    # Of a threshold, and of slices of time: without effect on a ratio of occurrences.
    op: Any = None
    value: Any = None
    slice_target: Any = Field(default=None, alias="timeSliceTarget")
    slice_window: Any = Field(default=None, alias="timeSliceWindow")


class _SLO(Spec):
    description: str = ""
    service: str
    indicator: _Indicator | None = None
    ref: str | None = Field(default=None, alias="indicatorRef")
    windows: list[_Window] = Field(default_factory=list, alias="timeWindow")
    method: str = Field(alias="budgetingMethod")
    objectives: list[_Objective] = Field(min_length=1)
    policies: list[Any] = Field(default_factory=list, alias="alertPolicies")


def read(documents: Sequence[dict[str, Json]]) -> list[Read]:
    return [_Reading(number, data, documents).result() for number, data in enumerate(documents)]


class _Reading:
    """Of one document: what is wrong with it so far."""

    def __init__(self, number: int, data: dict[str, Json], documents: Sequence[dict[str, Json]]) -> None:
        self.number, self.data, self.documents = number, data, documents
        self.faults: list[Fault] = []
        self.ignored: list[Fault] = []
        self.places: dict[Path, tuple[int, Path]] = {
            (one,): (number, (one,)) for one in ("apiVersion", "kind", "metadata", "spec")
        }

    def result(self) -> Read:
        kind, version = self.data.get("kind"), self.data["apiVersion"]
        if version != VERSION:
            says = f"Of OpenSLO {VERSION} is read, and not {version}."
            self._wrong(Code.API_VERSION, says, "apiVersion", hint=f"write it as {VERSION} has it")
        elif not isinstance(kind, str):
            self._wrong(Code.KIND, f"The kind must be a name; it is {found(kind)}.", "kind")
        elif kind not in KINDS:
            hint = did_you_mean(kind, KINDS)
            self._wrong(Code.KIND, f"OpenSLO has no kind {quoted(kind)}.", "kind", hint=hint)
        elif kind == "SLO":
            if (data := self._slo()) is not None and not self.faults:
                return Read(data, self.places, ignored=self.ignored)
        elif why := KINDS[kind]:
            hint = "take the document away, or leave it for other tools"
            self._aside(f"This {kind} has no effect: {why}.", "kind", hint=hint)
        return Read(faults=self.faults, ignored=self.ignored)

    def _slo(self) -> dict[str, Json] | None:
        for key in sorted(self.data.keys() - {"apiVersion", "kind", "metadata", "spec"}):
            says = f"A document of OpenSLO has no field {quoted(key)}."
            self.faults.append(Fault(Code.UNKNOWN_FIELD, says, (key,), part=Part.KEY))
        for key in ("metadata", "spec"):
            if key not in self.data:
                self._wrong(Code.MISSING, f"The document has no {key}.", key)
        if self.faults:
            return None
        metadata, wrong = checked(_Metadata, self.data.get("metadata"), ("metadata",))
        slo, also = checked(_SLO, self.data.get("spec"), ("spec",))
        self.faults += [*wrong, *also]
        if metadata is None or slo is None:
            return None
        about = {
            "name": metadata.name,
            "description": slo.description or metadata.display_name,
            "labels": {
                name: value if isinstance(value, str) else ",".join(value)
                for name, value in metadata.labels.items()
            },
        }
        self.places[("metadata", "name")] = self.number, ("metadata", "name")
        spec = {"objective": self._objective(slo), "indicator": self._indicator(slo), **self._window(slo)}
        if slo.method != "Occurrences":
            says = (
                f"budgetingMethod is {found(slo.method)}: an SLO counts events here, and no slices of time."
            )
            self._cannot(says, "spec", "budgetingMethod", hint="write Occurrences")
        if slo.policies:
            says = f"alertPolicies have no effect: {KINDS['AlertPolicy']}."
            self._aside(says, "spec", "alertPolicies", hint="take them away, or leave them for other tools")
        said = {name: value for name, value in about.items() if value}
        return {"apiVersion": API_VERSION, "kind": "SLO", "metadata": said, "spec": spec}

    def _objective(self, slo: _SLO) -> Json:
        at: Path = ("spec", "objectives", 0)
        one = slo.objectives[0]
        if len(slo.objectives) > 1:
            says = f"An SLO has one objective here; this has {len(slo.objectives)}."
            self._cannot(says, "spec", "objectives", 1, hint="write an SLO for each, with a name of its own")
        if (one.target is None) == (one.percent is None):
            says = "An objective has a target or a targetPercent, and not both."
            self._cannot(says, *at, hint="write target: 0.995")
            return None
        name = "target" if one.target is not None else "targetPercent"
        self.places[("spec", "objective")] = self.number, (*at, name)
        return one.target if one.target is not None else f"{one.percent:.6f}".rstrip("0").rstrip(".") + "%"

    def _window(self, slo: _SLO) -> dict[str, Json]:
        if not slo.windows:
            return {}
        at: Path = ("spec", "timeWindow", 0)
        one = slo.windows[0]
        if len(slo.windows) > 1:
            says = f"An SLO has one window; this has {len(slo.windows)}."
            self._cannot(says, "spec", "timeWindow", 1, hint="write an SLO for each, with a name of its own")
        if one.calendar is not None or one.rolling is False:
            name = "calendar" if one.calendar is not None else "isRolling"
            says = "The window is one of the calendar; here each moment looks back over the same time."
            self._cannot(says, *at, name, hint="write isRolling: true, and no calendar")
            return {}
        self.places[("spec", "window")] = self.number, (*at, "duration")
        parts = _WINDOW.fullmatch(one.duration)
        if parts is None or parts[2] in "MQY":
            days = {"M": 30, "Q": 90, "Y": 365}
            what = f"{int(parts[1]) * days[parts[2]]}d" if parts else "30d or 4w"
            says = f"{quoted(one.duration)} is no length of a window: months differ in theirs."
            if parts is None:
                says = f"{quoted(one.duration)} is no length of a window."
            self._cannot(says, *at, "duration", hint=f"write {what}")
            return {}
        return {"window": f"{int(parts[1]) * 7}d" if parts[2] == "w" else one.duration}

    # --- what is counted ----------------------------------------------------------------------------------

    def _indicator(self, slo: _SLO) -> Json:
        if (slo.indicator is None) == (slo.ref is None):
            hint = "write the one or the other"
            self._cannot("An SLO has an `indicator`, or an `indicatorRef`.", "spec", hint=hint)
            return None
        if slo.indicator is not None:
            return self._counted(slo.indicator.spec, self.number, ("spec", "indicator", "spec"))
        return self._referred(str(slo.ref))

    def _referred(self, name: str) -> Json:
        path: Path = ("spec", "indicatorRef")
        names = list(self._named("SLI"))
        for number, one in enumerate(self.documents):
            if one.get("kind") == "SLI" and _name(one) == name:
                sli, wrong = checked(_SLI, one.get("spec"), ("spec",))
                if sli is not None:
                    return self._counted(sli, number, ("spec",))
                says = f"The SLI {quoted(name)} has faults: {wrong[0].message}"
                self._wrong(CANNOT, says, *path)
                return None
        hint = did_you_mean(name, names)
        self._wrong(Code.REFERENCE, f"There is no SLI named {quoted(name)}.", *path, hint=hint)
        return None

    def _counted(self, sli: _SLI, number: int, at: Path) -> Json:
        if sli.threshold is not None or sli.ratio is None:
            says = "A thresholdMetric is looked at from time to time, and an SLO here counts events."
            if sli.threshold is None:
                says = "An indicator has a ratioMetric."
            hint = (
                "count events with a ratioMetric; of a latency `good` is the bucket of a histogram, "
                'seconds_bucket{le="0.25"}, and `total` its count'
            )
            self._of(
                number, says, *at, *(("thresholdMetric",) if sli.threshold is not None else ()), hint=hint
            )
            return None
        ratio, at = sli.ratio, (*at, "ratioMetric")
        if ratio.raw is not None:
            says = "A raw ratio does not say of how many events it is, and of few no alert is made."
            self._of(number, says, *at, "raw", hint="write the counters: `good` or `bad`, and `total`")
            return None
        if not ratio.counter:
            hint = "count with a counter, and write counter: true"
            self._of(number, "What goes up and down cannot be counted.", *at, "counter", hint=hint)
        if ratio.total is None or (ratio.good is None) == (ratio.bad is None):
            self._of(number, "A ratio has a `total`, and what of it is `good` or `bad`.", *at)
            return None
        name, part = ("good", ratio.good) if ratio.good is not None else ("bad", ratio.bad)
        assert part is not None
        self.places[("spec", "indicator")] = number, at
        return {
            which: self._counter(metric.source, which, number, (*at, which, "metricSource"))
            for which, metric in (("total", ratio.total), (name, part))
        }

    def _counter(self, source: _Source, which: str, number: int, at: Path) -> Json:
        kind = source.type or self._named("DataSource").get(str(source.ref), "Prometheus")
        if kind.lower() != "prometheus":
            where = ("type",) if source.type else ("metricSourceRef",)
            self._of(
                number, f"The source is of type {quoted(kind)}; SLOs are of Prometheus here.", *at, *where
            )
            return None
        query = source.spec.get("query")
        path = (*at, "spec", *(("query",) if "query" in source.spec else ()))
        if not isinstance(query, str):
            hint = 'write query: requests_total{status=~"5.."}'
            self._of(number, "A source in Prometheus has a `query`, which is a text.", *path, hint=hint)
            return None
        self.places[("spec", "indicator", which)] = number, path
        counter = query if "${" in query else counter_of(query)
        if counter is None:
            hint = 'write the counter with its matchers: requests_total{status=~"5.."}'
            says = (
                "This is more than a counter, and its sum or its rate: it cannot be counted over other times."
            )
            self._of(number, says, *path, hint=hint)
        return counter

    def _named(self, kind: str) -> dict[str, str]:
        """The type of each document of that kind, by its name."""
        named = {}
        for one in self.documents:
            spec = one.get("spec")
            if one.get("kind") == kind and isinstance(name := _name(one), str):
                named[name] = str(spec.get("type", "")) if isinstance(spec, dict) else ""
        return named

    # --- what is wrong ------------------------------------------------------------------------------------

    def _wrong(self, code: str, says: str, *path: str | int, hint: str = "") -> None:
        self.faults.append(Fault(code, says, path, hint))

    def _cannot(self, says: str, *path: str | int, hint: str = "") -> None:
        self._wrong(CANNOT, says, *path, hint=hint)

    def _of(self, number: int, says: str, *path: str | int, hint: str = "") -> None:
        """What is wrong in another document is said where this one names it."""
        if number != self.number:
            says, path = f"The SLI has a fault at {written(path)}: {says}", ("spec", "indicatorRef")
        self._cannot(says, *path, hint=hint)

    def _aside(self, says: str, *path: str | int, hint: str = "") -> None:
        self.ignored.append(Fault(WITHOUT_EFFECT, says, path, hint))


def counter_of(query: str) -> str | None:
    """The counter of a query that is one, or its rate or increase, or the sum of these; None for any other.
    Over which time does not matter: a share of rates is a share of counts, over whatever time."""
    try:
        whole = parser.parse(_TEMPLATE.sub("5m", query))
    except ValueError:
        return query  # the check of the SLO says what is wrong with it
    for tree in _inside(whole):
        if isinstance(tree, parser.VectorSelector):
            return None if tree.offset or tree.at else str(tree.prettify())
    return None


def _inside(tree: Any) -> Iterator[Any]:
    while True:
        yield tree
        match tree:
            case parser.ParenExpr():
                tree = tree.expr
            case parser.AggregateExpr() if str(tree.op) == "sum":
                tree = tree.expr
            case parser.Call() if tree.func.name in _COUNTED:
                tree = tree.args[0]
            case parser.MatrixSelector():
                tree = tree.vector_selector
            case _:
                return


def _name(document: Mapping[str, Json]) -> Json:
    metadata = document.get("metadata")
    return metadata.get("name") if isinstance(metadata, dict) else None
