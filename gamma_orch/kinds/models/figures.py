"""What the passes `evaluate` and `benchmark` have found out, in the terms of choices and gates. Pure.

The one place that knows how their facts are spelled. A latency goes by the clock that the benchmark says to
trust (`basis`): wall time, or processor time where other programs were at work on the machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gamma_orch.core.canonical import Json
from gamma_orch.kinds.models.choice import Candidate, Latency, Shape
from gamma_orch.kinds.models.gates import Measured
from gamma_orch.kinds.models.intervals import Interval
from gamma_orch.store.artifacts import Artifact

WHOLE = Interval(1.0, 1.0, 1.0)
# Perplexity is the one measure of which less is better; `relative` is turned round already.
LESS_IS_BETTER = frozenset({"perplexity"})


@dataclass(frozen=True, slots=True)
class Quality:
    metric: str
    value: Interval | None
    relative: Interval | None  # the share of the reference's, paired; of the reference itself 1
    rows: int
    metrics: Mapping[str, Json]
    agreement: float | None = None

    def encoded(self) -> Json:
        return {
            "metric": self.metric,
            "value": self.value.encoded() if self.value else None,
            "relative": self.relative.encoded() if self.relative else None,
            "rows": self.rows,
            "metrics": dict(self.metrics),
            "agreement": self.agreement,
        }


def quality(facts: Json, is_reference: bool) -> Quality:
    """From the facts of `evaluate`."""
    beside = facts.get("reference") or {}
    return Quality(
        metric=facts["metric"],
        value=_interval(facts["quality"]),
        relative=WHOLE if is_reference else _interval(facts["relative"]),
        rows=facts["rows"],
        metrics=facts["metrics"],
        agreement=1.0 if is_reference else beside.get("agreement"),
    )


def weighed(name: str, artifact: Artifact, runtime: str, speed: Json, found: Quality | None) -> Candidate:
    """A candidate as `choice` weighs it. An embedder's quality is its likeness to the source: its share."""
    value = found.value if found else None
    relative = found.relative if found else None
    if found and relative is None and found.metric == "cosine":
        relative = value
    if found and found.metric in LESS_IS_BETTER:
        value = relative
    return Candidate(
        name=name,
        key=artifact.key,
        size=artifact.size,
        time=1 / (speed.get("speedup") or 1.0),
        memory=speed["model"]["memory"]["peak"],
        latency=latencies(speed),
        load=speed["model"]["load"]["seconds"],
        quality=value,
        relative=relative,
        runtime=runtime,
    )


def latencies(speed: Json) -> dict[Shape, Latency]:
    """Milliseconds a request, by shape."""
    clock = f"{speed['basis']}Ms"
    return {
        Shape(one["batch"], one["length"]): Latency(one[clock]["p50"], one[clock]["p95"])
        for one in speed["model"]["shapes"]
    }


def outcome(speed: Json, test: Quality | None, artifact: Artifact) -> Json:
    """What a build came to, in a few figures: kept as outputs, compared with predictions."""
    longest = max(latencies(speed).items(), key=lambda item: (-item[0].batch, item[0].length), default=None)
    generate = speed["model"].get("generate")
    return {
        "size": artifact.size,
        "memory": speed["model"]["memory"]["peak"],
        "load": speed["model"]["load"]["seconds"],
        "speedup": speed.get("speedup"),
        "p95": longest[1].p95 / 1000 if longest else None,
        "tokensPerSecond": generate["tokensPerSecond"] if generate else None,
        "metric": test.metric if test else None,
        "quality": test.value.value if test and test.value else None,
        "relative": test.relative.encoded() if test and test.relative else None,
    }


def for_gates(speed: Json, test: Quality | None, artifact: Artifact) -> Mapping[str, Measured]:
    """Every figure that a gate may ask for, by the gate's name."""
    model = speed["model"]
    found = {
        "size": Measured(artifact.size / 1e6),
        "memory": Measured(model["memory"]["peak"] / 1e6),
        "load": Measured(model["load"]["seconds"]),
    }
    if speed.get("speedup"):
        found["speedup"] = Measured(speed["speedup"])
    if generate := model.get("generate"):
        found["tokens-per-second"] = Measured(generate["tokensPerSecond"])
    for shape, latency in latencies(speed).items():
        found[f"p50 {shape.batch}x{shape.length}"] = Measured(latency.p50)
        found[f"p95 {shape.batch}x{shape.length}"] = Measured(latency.p95)
    if test is None:
        return found
    for name, value in test.metrics.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[name] = Measured(float(value))
    if test.value is not None:
        found[test.metric] = _measured(test.value)
    if test.relative is not None:
        found["relative-quality"] = _measured(test.relative)
    return found


def row(rung: str, one: Candidate, found: Quality | None, speed: Json, artifact: Artifact) -> Json:
    """A candidate as a line of the report's table, with its figures on the validation split."""
    return {
        "name": one.name,
        "level": rung,
        "runtime": one.runtime,
        "key": artifact.key,
        "size": artifact.size,
        "memory": one.memory,
        "load": one.load,
        "speedup": speed.get("speedup"),
        "time": one.time,
        "shapes": [
            {"batch": shape.batch, "length": shape.length, "p50": latency.p50, "p95": latency.p95}
            for shape, latency in one.latency.items()
        ],
        "tokensPerSecond": (speed["model"].get("generate") or {}).get("tokensPerSecond"),
        "quality": found.encoded() if found else None,
    }


def _interval(body: Json) -> Interval | None:
    return Interval.decoded(body) if body else None


def _measured(found: Interval) -> Measured:
    return Measured(found.value, found.low, found.high)
