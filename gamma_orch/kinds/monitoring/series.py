"""Series of samples: as they are kept for the evaluation, and as the tests of rules write them. Pure.

The notation is that of `promtool test rules`: `1 2 _ 4` (`_`: no sample), `1+2x3` is 1 3 5 7, `5x3` is
5 5 5 5, `stale` marks the series as gone.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

import promql_parser as parser

from gamma_orch.kinds.monitoring.promql import NAME

LOOKBACK = 300_000  # ms for which a sample is the value of its series
Tags = frozenset[tuple[str, str]]  # the labels of a series
_NUMBER = r"[-+]?(?:[0-9]*\.?[0-9]+(?:e[-+]?[0-9]+)?|inf|nan)"
_PART = re.compile(
    rf"(?P<gone>_|stale)(?:x(?P<gaps>[0-9]+))?|(?P<first>{_NUMBER})(?:(?P<step>[-+]{_NUMBER.removeprefix('[-+]?')})?x(?P<times>[0-9]+))?",
    re.IGNORECASE,
)
MOST = 100_000  # samples of one series


class BadSeries(ValueError):
    """It is no series in this notation. The text says what is wrong."""


@dataclass(slots=True)
class Series:
    """Samples of one series, in the order of their time (ms). None as a value: it is marked stale."""

    times: list[int] = field(default_factory=list)
    values: list[float | None] = field(default_factory=list)

    def add(self, time: int, value: float | None) -> None:
        self.times.append(time)
        self.values.append(value)

    def at(self, time: int, left_open: bool) -> float | None:
        last = bisect_right(self.times, time) - 1
        if last < 0 or self.times[last] < time - LOOKBACK + left_open:
            return None
        return self.values[last]

    def within(self, start: int, end: int, left_open: bool) -> list[tuple[int, float]]:
        first = (bisect_right if left_open else bisect_left)(self.times, start)
        last = bisect_right(self.times, end)
        found = zip(self.times[first:last], self.values[first:last], strict=True)
        return [(time, value) for time, value in found if value is not None]


def parsed(name: str, samples: str, every: int) -> tuple[Tags, Series]:
    """A series by its name with labels, one sample each `every` ms from 0 on. Raises BadSeries."""
    return _tags(name), _samples(samples, every)


def load(series: Mapping[str, str], every: int) -> dict[Tags, Series]:
    """Raises BadSeries, with the name of the one that is wrong."""
    found = {}
    for name, samples in series.items():
        try:
            tags, one = parsed(name, samples, every)
        except BadSeries as error:
            raise BadSeries(f"{name!r}: {error}") from None
        if tags in found:
            raise BadSeries(f"{name!r}: it is there twice")
        found[tags] = one
    return found


def _tags(name: str) -> Tags:
    try:
        tree = parser.parse(name)
    except ValueError as error:
        raise BadSeries(f"it is no name of a series: {error}") from None
    if not isinstance(tree, parser.VectorSelector) or tree.offset or tree.at:
        raise BadSeries('write a metric with its labels: up{job="api"}')
    pairs = [(one.name, one.value) for one in tree.matchers.matchers if one.op == parser.MatchOp.Equal]
    if len(pairs) != len(tree.matchers.matchers):
        raise BadSeries("a series has each label with one value: write =")
    if tree.name:
        pairs.append((NAME, str(tree.name)))
    return frozenset(pairs)


def _samples(text: str, every: int) -> Series:
    found = Series()
    number = 0
    for word in text.split():
        matched = _PART.fullmatch(word)
        if matched is None:
            raise BadSeries(f"{word!r} is no sample: write numbers, 1+2x3, _ or stale")
        count = int(matched["gaps"] or 1) if matched["gone"] else int(matched["times"] or 0) + 1
        if number + count > MOST:
            raise BadSeries(f"it has more than {MOST:,} samples")
        if matched["gone"] == "stale":
            found.add(number * every, None)
        elif not matched["gone"]:
            value, step = float(matched["first"]), float(matched["step"] or 0)
            for place in range(number, number + count):
                found.add(place * every, value)
                value += step
        number += count
    return found
