"""The time that a report is about, and the two grids on it. Pure.

Of counters a point each `step` is asked for, and stands for the step that ends there. Whether something was
there at all, an alert or Prometheus itself, is asked each `fine`, which divides the step.
"""

import math
from dataclasses import dataclass

POINTS = 200  # of a plot, about
MOST = 10_800  # of a series that Prometheus gives at once: it has 11,000 as its limit
SIZES = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
LEAST = 60  # seconds of a step
SLOWEST = 300.0  # one collector that looks once a day makes nothing else coarse
SAMPLES = 4  # in a step: an increase needs two, and one may be lost


@dataclass(frozen=True, slots=True)
class Span:
    start: float  # seconds since 1970, as the end
    end: float
    step: int
    fine: int

    @classmethod
    def of(cls, start: float, end: float, interval: float = 0.0) -> "Span":
        """`interval`: the longest between two scrapes or evaluations, in seconds. It begins up to a step
        before `start`, so that it is a whole number of steps."""
        interval = min(interval, SLOWEST)
        step = _size(max((end - start) / POINTS, SAMPLES * interval, LEAST))
        length = max(math.ceil((end - start) / step - 1e-9), 1) * step
        least = max(length / MOST, interval, SIZES[0])
        fine = next((size for size in SIZES if size >= least and step % size == 0), step)
        return cls(end - length, end, step, fine)

    @property
    def seconds(self) -> float:
        return self.end - self.start

    @property
    def count(self) -> int:
        return round(self.seconds / self.step)

    @property
    def times(self) -> tuple[float, ...]:
        """The ends of its steps."""
        return tuple(self.start + self.step * (n + 1) for n in range(self.count))


def _size(least: float) -> int:
    """A size that people know, or else whole days."""
    return next((size for size in SIZES if size >= least), math.ceil(least / 86400) * 86400)
