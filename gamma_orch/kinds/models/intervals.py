"""How sure a comparison of two models is that were measured on the same rows. Pure; called by `evaluate`.

The bootstrap of Efron and Tibshirani (An Introduction to the Bootstrap, 1993, chapter 13): rows are drawn
with replacement, the statistic is computed anew each time, and the 2.5 and 97.5 percentiles of these values
are the 95 % interval. It is *paired*: a drawn row brings what both models did on it, so that what is hard
for both widens nothing. Seeded: the same rows give the same interval.

Where many rows are alike, as for right or wrong, where there are four kinds of them, rows of a kind are
drawn together, by one multinomial over the kinds: the same in distribution as one by one, and hundreds of
times faster.

What a bootstrap cannot know: where two models never differ on n rows, its interval has no width, though
up to about 3/n of all rows may differ.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gamma_orch.core.canonical import Json

DRAWS = 10_000
SEED = 0
CONFIDENCE = 0.95
_CELLS = 4_000_000  # numbers in memory at once while drawing

Array = Any  # np.ndarray; numpy is imported when something is computed
Statistic = Callable[[Array], Array]  # from column sums [n, k] to [n]


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % interval. All three are NaN-free."""

    value: float
    low: float
    high: float

    def encoded(self) -> Json:
        return {"value": self.value, "low": self.low, "high": self.high}

    @classmethod
    def decoded(cls, body: Json) -> "Interval":
        return cls(body["value"], body["low"], body["high"])


def sums(values: Array, draws: int = DRAWS, seed: int = SEED) -> Array:
    """Column sums of `values` [rows, k], each time over as many rows drawn with replacement: [draws, k].

    Raises ValueError where there are no rows.
    """
    import numpy as np

    table = np.asarray(values, np.float64)
    if table.ndim != 2 or not len(table):
        raise ValueError(f"a bootstrap needs rows, and the values have the shape {table.shape}")
    kinds, counts = np.unique(table, axis=0, return_counts=True)
    random, rows = np.random.default_rng(seed), len(table)
    alike = len(kinds) * 8 < rows  # a binomial costs about as much as drawing eight rows
    step = max(1, _CELLS // (len(kinds) if alike else rows))
    parts = []
    for done in range(0, draws, step):
        size = min(step, draws - done)
        if alike:
            parts.append(random.multinomial(rows, counts / rows, size) @ kinds)
        else:
            drawn = random.integers(0, rows, (size, rows), np.int32)
            parts.append(np.column_stack([column[drawn].sum(axis=1) for column in table.T]))
    return np.concatenate(parts)


def interval(values: Array, statistic: Statistic, draws: int = DRAWS, seed: int = SEED) -> Interval | None:
    """The percentile interval of a statistic of column sums, over `values` [rows, k].

    None where the statistic is not a number on the rows themselves (a ratio to zero). Draws in which it is
    none are left out.
    """
    return percentiles(values, sums(values, draws, seed), statistic)


def percentiles(values: Array, drawn: Array, statistic: Statistic) -> Interval | None:
    """As `interval`, of sums already drawn from `values`: several statistics of the same draws."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(np.asarray(values, np.float64).sum(axis=0, keepdims=True))[0])
        found = statistic(drawn)
    if not math.isfinite(value):
        return None
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(found[np.isfinite(found)], [tail, 100 - tail])
    return Interval(value, float(low), float(high))


@dataclass(frozen=True, slots=True)
class Paired:
    """A model beside its reference: what it gains or loses, and what share of the reference's it has."""

    difference: Interval
    ratio: Interval | None  # None where the reference's value is 0

    def encoded(self) -> Json:
        return {
            "difference": self.difference.encoded(),
            "ratio": self.ratio.encoded() if self.ratio else None,
        }


def paired(values: Array, ours: Statistic, theirs: Statistic) -> Paired:
    """Both models' statistic from one table of row values [rows, k], drawn together.

    Raises ValueError where one of them is not a number on the rows.
    """
    drawn = sums(values)
    difference = percentiles(values, drawn, lambda table: ours(table) - theirs(table))
    if difference is None:
        raise ValueError("the measure is not a number on these rows")
    return Paired(difference, percentiles(values, drawn, lambda table: ours(table) / theirs(table)))


def paired_means(ours: Array, theirs: Array) -> Paired:
    """Of two values a row, [rows] each: right or wrong as 1 or 0, or a score."""
    import numpy as np

    table = np.column_stack([np.asarray(ours, np.float64), np.asarray(theirs, np.float64)])
    rows = len(table)
    return paired(table, lambda sums: sums[:, 0] / rows, lambda sums: sums[:, 1] / rows)


def mean(values: Array) -> Interval:
    """Of one value a row."""
    import numpy as np

    column = np.asarray(values, np.float64)[:, None]
    found = interval(column, lambda sums: sums[:, 0] / len(column))
    if found is None:
        raise ValueError("the mean is not a number on these rows")
    return found


def mcnemar(ours: Array, theirs: Array) -> tuple[int, int, float]:
    """Rows that only we have right, rows that only the reference has right, and McNemar's exact two-sided p.

    Under the hypothesis that both err alike, each row on which they differ is a fair coin (McNemar 1947; the
    exact form is the sign test). In whole numbers until the last division, so exact for any count.
    """
    import numpy as np

    mine, other = np.asarray(ours, bool), np.asarray(theirs, bool)
    gained, lost = int((mine & ~other).sum()), int((~mine & other).sum())
    flips = gained + lost
    term = tail = 1
    for k in range(1, min(gained, lost) + 1):
        term = term * (flips - k + 1) // k
        tail += term
    return gained, lost, float(min(1.0, 2 * tail / 2**flips)) if flips else 1.0
