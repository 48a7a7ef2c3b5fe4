"""Which of several candidates is the best inside a budget: measured, never guessed. Pure.

Called by the pass that reports on a model, for each rung of a level and for `auto`. Always:

- Quality is tested by the lower bound of its 95 % interval, never by the estimate. What is compared as
  "more accurate" is that bound too: of two candidates, the one of which more is certain.
- Latency and memory are measured, and a difference under 5 % is noise. Candidates whose objective is
  within 5 % of the best one's tie, and of those the earlier in the list is taken. So a second measurement
  does not flip a choice, and the order of the list is a preference.
- What is chosen is dominated by nothing inside the budget, and does not depend on the order of the list
  otherwise.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from gamma_orch.core.canonical import Json
from gamma_orch.kinds.models.intervals import Interval

NOISE = 1.05  # a measured ratio under this is no difference


class Objective(StrEnum):
    FASTEST = "fastest"
    SMALLEST = "smallest"
    MOST_ACCURATE = "most-accurate"
    # The least product of time, size and memory, divided by quality: each counts alike, in shares.
    BALANCED = "balanced"


class Shape(NamedTuple):
    batch: int  # texts a request
    length: int  # tokens a text

    def __str__(self) -> str:
        return f"batch {self.batch} x length {self.length}"


DEFAULT_SHAPE = Shape(1, 128)


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds a request."""

    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Candidate:
    name: str
    key: str  # of the artifact
    size: int  # bytes on disk
    time: float  # geometric mean over the shapes, as a share of the source's: 0.25 is four times as fast
    memory: int  # resident bytes of a process with this model, at the peak
    latency: Mapping[Shape, Latency] = field(default_factory=dict)
    load: float = 0.0  # seconds until a new process can answer
    quality: Interval | None = None  # the task's measure on the validation split; higher is better
    relative: Interval | None = None  # as a share of the source's, paired; of the source itself 1, 1, 1
    runtime: str = ""

    @property
    def sure(self) -> float:
        """The share of the source's quality that is certain; below everything where nothing was measured."""
        known = self.relative or self.quality
        return known.low if known else -math.inf


@dataclass(frozen=True, slots=True)
class Budget:
    """What a model may cost, and how good it must stay. None: no matter."""

    objective: Objective = Objective.FASTEST
    size: int | None = None  # bytes, at most
    memory: int | None = None  # bytes, at most
    latency: float | None = None  # ms, p95 at `shape`, at most
    shape: Shape = DEFAULT_SHAPE
    quality: float | None = None  # least, of the task's measure
    relative: float | None = None  # least share of the source's


@dataclass(frozen=True, slots=True)
class Miss:
    """One limit that a candidate does not keep."""

    text: str
    excess: float  # by what share of the limit; infinite where it was not measured


@dataclass(frozen=True, slots=True)
class Nearest:
    """The candidate that comes closest to a budget that none keeps."""

    name: str
    misses: tuple[str, ...]

    def __str__(self) -> str:
        return f"nearest is {self.name}: {'; '.join(self.misses)}"


@dataclass(frozen=True, slots=True)
class Choice:
    chosen: str | None
    rejected: Mapping[str, tuple[str, ...]]  # why, with figures, in the order of the list
    pareto: tuple[str, ...]  # of all candidates, inside the budget or not
    nearest: Nearest | None = None  # only where nothing was chosen
    tied: tuple[str, ...] = ()  # others that were as good, within the noise

    def encoded(self) -> Json:
        return {
            "chosen": self.chosen,
            "rejected": {name: list(why) for name, why in self.rejected.items()},
            "pareto": list(self.pareto),
            "nearest": {"name": self.nearest.name, "misses": list(self.nearest.misses)}
            if self.nearest
            else None,
            "tied": list(self.tied),
        }


def choose(candidates: Sequence[Candidate], budget: Budget) -> Choice:
    """The best candidate inside the budget. Names must differ. Raises ValueError where there is none."""
    if not candidates:
        raise ValueError("there are no candidates to choose from")
    missed = {one.name: tuple(misses(one, budget)) for one in candidates}
    rejected = {name: tuple(miss.text for miss in found) for name, found in missed.items() if found}
    front = tuple(one.name for one in pareto(candidates))
    inside = [one for one in candidates if one.name not in rejected]
    if not inside:
        return Choice(None, rejected, front, _nearest(missed))
    tied = pareto(_best(inside, budget.objective))
    return Choice(tied[0].name, rejected, front, tied=tuple(one.name for one in tied[1:]))


def pareto(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other dominates, over time, size, memory and certain quality; in the given order."""
    return [one for one in candidates if not any(dominates(other, one) for other in candidates)]


def dominates(one: Candidate, other: Candidate) -> bool:
    """No worse in anything and better in something; time and memory count as better beyond the noise only."""
    return (
        one.time <= other.time
        and one.memory <= other.memory
        and one.size <= other.size
        and one.sure >= other.sure
        and (
            one.size < other.size
            or one.sure > other.sure
            or one.time * NOISE < other.time
            or one.memory * NOISE < other.memory
        )
    )


def misses(one: Candidate, budget: Budget) -> Iterator[Miss]:
    """The limits of the budget that a candidate does not keep."""
    if budget.size is not None and one.size > budget.size:
        yield _over("size", one.size, budget.size, 1e6, "MB")
    if budget.memory is not None and one.memory > budget.memory:
        yield _over("memory", one.memory, budget.memory, 1e6, "MB")
    if budget.latency is not None:
        what, seen = f"p95 at {budget.shape}", one.latency.get(budget.shape)
        if seen is None:
            yield Miss(f"{what} was not measured, and the budget limits it", math.inf)
        elif seen.p95 > budget.latency:
            yield _over(what, seen.p95, budget.latency, 1, "ms")
    if budget.quality is not None:
        yield from _under("quality", one.quality, budget.quality)
    if budget.relative is not None:
        yield from _under("share of the source's quality", one.relative, budget.relative)


def _over(what: str, value: float, limit: float, unit: float, name: str) -> Miss:
    excess = value / limit - 1 if limit > 0 else math.inf
    return Miss(f"{what} is {value / unit:,.2f} {name}, {_percent(excess)} over {limit / unit:,.2f}", excess)


def _under(what: str, found: Interval | None, least: float) -> Iterator[Miss]:
    if found is None:
        yield Miss(f"{what} was not measured, and the budget wants {least:.4f}", math.inf)
    elif found.low < least:
        excess = 1 - found.low / least if least > 0 else math.inf
        # An estimate above the limit with a bound below it is a question of more rows: say both.
        yield Miss(
            f"{what} is {found.value:.4f}, certain from {found.low:.4f} on, "
            f"{_percent(excess, 2)} under {least:.4f}",
            excess,
        )


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}%" if math.isfinite(share) else "far"


def _best(inside: Sequence[Candidate], objective: Objective) -> list[Candidate]:
    """The best by the objective, and what ties with it within the noise; in the given order."""
    match objective:
        case Objective.SMALLEST:
            least = min(one.size for one in inside)
            inside = [one for one in inside if one.size == least]
        case Objective.MOST_ACCURATE:
            most = max(one.sure for one in inside)
            inside = [one for one in inside if one.sure == most]
        case Objective.BALANCED:
            costs = [_cost(one) for one in inside]
            return [one for one, cost in zip(inside, costs, strict=True) if cost <= min(costs) * NOISE]
        case Objective.FASTEST:
            pass
    fastest = min(one.time for one in inside)
    return [one for one in inside if one.time <= fastest * NOISE]


def _cost(one: Candidate) -> float:
    """Of `balanced`: units cancel out between candidates."""
    return one.time * one.size * one.memory / one.sure if one.sure > 0 else math.inf


def _nearest(missed: Mapping[str, tuple[Miss, ...]]) -> Nearest:
    """The fewest limits missed; of those, the least by which the worst one is."""
    name = min(missed, key=lambda name: (len(missed[name]), max(miss.excess for miss in missed[name])))
    return Nearest(name, tuple(miss.text for miss in missed[name]))
