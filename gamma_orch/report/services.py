"""Each service of the API over a span, from the metrics of `gamma_orch.app.metrics`. Pure.

A service is a job of Prometheus. Counts are what `increase` gives, so resets of counters are dealt with
there. Requests by monitors, for health and metrics, are not counted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gamma_orch.report.answers import Answer, Line, added, both, by, known_share, total
from gamma_orch.report.presence import Presence
from gamma_orch.report.span import Span

QUANTILES = (0.5, 0.95, 0.99)
MADE = "made"  # the cache level of an answer that the model gave
NO_MODEL = ("", "unknown")


@dataclass(frozen=True, slots=True)
class Source:
    requests: Answer  # by job, model and status
    seconds: Answer  # by job and le
    answers: Answer  # by job and cache


@dataclass(frozen=True, slots=True)
class Share:
    name: str
    requests: float
    share: float


@dataclass(frozen=True, slots=True)
class Service:
    name: str
    requests: float | None
    failed: float | None  # by a fault of the service: status 5xx
    availability: float | None
    known: float  # the share of the span in which it was counted
    seen: float | None  # the share of the span in which Prometheus got an answer from it
    silent: float  # seconds in which Prometheus asked and got none
    p50: float | None  # seconds
    p95: float | None
    p99: float | None
    bound: float | None  # what took longer is not told apart
    cached: float | None  # the share of predictions that no model made
    models: tuple[Share, ...]
    rate: Line  # requests a second
    errors: Line  # share of them
    latency: Mapping[str, Line]  # by quantile: p50, p95, p99
    queries: tuple[str, ...]


def services(span: Span, source: Source, presence: Presence) -> tuple[Service, ...]:
    counted = by(span, source.requests, "job", "model", "status")
    names = sorted({job for job, _, _ in counted})
    return tuple(_service(name, span, source, counted, presence) for name in names)


def _service(
    name: str, span: Span, source: Source, counted: Mapping[tuple[str, ...], Line], presence: Presence
) -> Service:
    own = {key[1:]: values for key, values in counted.items() if key[0] == name}
    requests = added(own.values())
    failures = [values for (_, status), values in own.items() if status.startswith("5")]
    failed = added([*failures, tuple(None if value is None else 0.0 for value in requests)])
    all_requests, all_failed = total(requests), total(failed)
    buckets = {
        _bound(le): values
        for (job, le), values in by(span, source.seconds, "job", "le").items()
        if job == name
    }
    whole = {le: total(values) or 0.0 for le, values in buckets.items()}
    cache = {
        level: total(values) or 0.0
        for (job, level), values in by(span, source.answers, "job", "cache").items()
        if job == name
    }
    predictions = sum(cache.values())
    answered, silent = presence.answered(name)
    p50, p95, p99 = (quantile(q, whole) for q in QUANTILES)
    return Service(
        name=name,
        requests=all_requests,
        failed=all_failed,
        availability=1 - all_failed / all_requests if all_requests and all_failed is not None else None,
        known=known_share(requests),
        seen=answered,
        silent=silent,
        p50=p50,
        p95=p95,
        p99=p99,
        bound=max((le for le in buckets if math.isfinite(le)), default=None),
        cached=1 - cache.get(MADE, 0.0) / predictions if predictions else None,
        models=_models(own),
        rate=tuple(None if value is None else value / span.step for value in requests),
        errors=both(failed, requests, lambda bad, all_: bad / all_ if all_ else None),
        latency={f"p{q * 100:.0f}": _over_time(q, buckets, span) for q in QUANTILES},
        queries=(source.requests.query, source.seconds.query, source.answers.query),
    )


def quantile(q: float, buckets: Mapping[float, float]) -> float | None:
    """By the counts up to each bound, in seconds, as `histogram_quantile` has it: evenly within a bucket, and
    the greatest bound where it lies beyond that. None without events."""
    bounds = sorted(buckets)
    if not bounds or math.isfinite(bounds[-1]) or len(bounds) < 2:
        return None
    counts, most = [], 0.0
    for bound in bounds:  # what was scraped in between may be less than what is below it
        most = max(most, buckets[bound])
        counts.append(most)
    if not most:
        return None
    rank = q * most
    place = next(n for n, count in enumerate(counts) if count >= rank)
    if place == len(bounds) - 1:
        return bounds[-2]
    low, below = (bounds[place - 1], counts[place - 1]) if place else (0.0, 0.0)
    within = counts[place] - below
    return low + (bounds[place] - low) * ((rank - below) / within if within else 1.0)


def _over_time(q: float, buckets: Mapping[float, Line], span: Span) -> Line:
    found = []
    for n in range(span.count):
        at = {le: value for le, values in buckets.items() if (value := values[n]) is not None}
        found.append(quantile(q, at))
    return tuple(found)


def _models(own: Mapping[tuple[str, ...], Line]) -> tuple[Share, ...]:
    """Of the requests that name a model of the service."""
    counts: dict[str, float] = {}
    for (model, _), values in own.items():
        if model not in NO_MODEL:
            counts[model] = counts.get(model, 0.0) + (total(values) or 0.0)
    whole = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return tuple(Share(name, count, count / whole) for name, count in ordered if whole)


def _bound(le: str) -> float:
    return math.inf if le == "+Inf" else float(le)
