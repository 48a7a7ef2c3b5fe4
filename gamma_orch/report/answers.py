"""What Prometheus says to a question, and lines over time made of it. Pure.

A line has a value for each step of a span, and None where nothing is known. What Prometheus gives as NaN,
such as a share of no requests, is nothing known.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gamma_orch.core.canonical import Json
from gamma_orch.report.span import Span

Line = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Series:
    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]  # seconds since 1970, and the value


@dataclass(frozen=True, slots=True)
class Answer:
    query: str
    series: tuple[Series, ...] = ()
    error: str = ""  # why there is no answer


def series(result: Sequence[Json]) -> tuple[Series, ...]:
    """From what the HTTP API has as its result: a vector or a matrix."""
    found = []
    for one in result:
        values = one["values"] if "values" in one else [one["value"]]
        points = ((float(at), float(value)) for at, value in values)
        found.append(Series(one["metric"], tuple(point for point in points if math.isfinite(point[1]))))
    return tuple(found)


def line(span: Span, one: Series) -> Line:
    values: list[float | None] = [None] * span.count
    for at, value in one.points:
        place = round((at - span.start) / span.step) - 1
        if 0 <= place < len(values):
            values[place] = value
    return tuple(values)


def added(lines: Iterable[Line]) -> Line:
    """The sum of what is known at each step."""
    columns = zip(*lines, strict=True)
    return tuple(sum(known) if (known := _known(column)) else None for column in columns)


def both(one: Line, other: Line, of: Callable[[float, float], float | None]) -> Line:
    """What two values come to, where both are known."""
    pairs = zip(one, other, strict=True)
    return tuple(None if a is None or b is None else of(a, b) for a, b in pairs)


def total(values: Line) -> float | None:
    """None where nothing at all is known."""
    return sum(known) if (known := _known(values)) else None


def known_share(values: Line) -> float:
    return len(_known(values)) / len(values) if values else 0.0


def by(span: Span, answer: Answer, *labels: str) -> dict[tuple[str, ...], Line]:
    """The lines of a question, added up by some of its labels."""
    found: dict[tuple[str, ...], list[Line]] = {}
    for one in answer.series:
        found.setdefault(tuple(one.labels.get(label, "") for label in labels), []).append(line(span, one))
    return {key: added(lines) for key, lines in sorted(found.items())}


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
