"""Each SLO over a span: what was attained, and what is left of the error budget. Pure.

Both are reckoned from events, each counted once: of ten thousand requests at an objective of 99.5 % fifty may
fail. The rules that an SLO becomes count each five minutes alike (`recorded`), which is what its alerts go
by.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gamma_orch.report.answers import Answer, Line, added, both, known_share, line, total
from gamma_orch.report.span import Span


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked about an objective over one time: the part that is good or bad, and the whole."""

    span: Span
    part: Answer
    total: Answer
    is_bad: bool


@dataclass(frozen=True, slots=True)
class Source:
    name: str
    objective: float
    window: str
    about: str | None
    now: Asked  # over the span of the report
    whole: Asked  # over the window of the objective
    recorded: Answer


@dataclass(frozen=True, slots=True)
class Objective:
    name: str
    objective: float  # the share that must go well
    window: str
    about: str | None
    attained: float | None  # over the span
    events: float | None
    bad: float | None
    known: float  # the share of the span for which there is data
    left: float | None  # of the error budget, over the window; below 0 it is overdrawn
    window_known: float
    window_start: float
    window_step: int
    burn: Line  # what was left at each step of the window
    recorded: float | None
    why: str  # it is not known
    queries: tuple[str, ...]

    @property
    def met(self) -> bool | None:
        return None if self.attained is None else self.attained >= self.objective - 1e-12


def objective(source: Source) -> Objective:
    events, bad = counted(source.now)
    whole_events, whole_bad = counted(source.whole)
    all_events, all_bad = total(events), total(bad)
    burn = burnt(whole_events, whole_bad, 1 - source.objective)
    left = next((value for value in reversed(burn) if value is not None), None)
    values = [point[1] for one in source.recorded.series for point in one.points]
    return Objective(
        name=source.name,
        objective=source.objective,
        window=source.window,
        about=source.about,
        attained=None if not all_events or all_bad is None else 1 - all_bad / all_events,
        events=all_events,
        bad=all_bad,
        known=known_share(bad),
        left=left,
        window_known=known_share(whole_bad),
        window_start=source.whole.span.start,
        window_step=source.whole.span.step,
        burn=burn,
        recorded=values[0] if values else None,
        why=_why(source.now, all_events, all_bad),
        queries=(
            source.now.part.query,
            source.now.total.query,
            source.whole.part.query,
            source.whole.total.query,
            source.recorded.query,
        ),
    )


def counted(asked: Asked) -> tuple[Line, Line]:
    """What was asked for, and what of it failed, at each step; both None where one is not known."""
    span = asked.span
    nothing: Line = (None,) * span.count
    events = _line(span, asked.total) or nothing
    if asked.part.error:
        return nothing, nothing
    part = _line(span, asked.part) or nothing
    if asked.is_bad:  # where nothing has failed yet, there may be no series of failures
        part = tuple(
            0.0 if value is None and all_ is not None else value
            for value, all_ in zip(part, events, strict=True)
        )
    failed = both(part, events, lambda some, all_: min(max(some if asked.is_bad else all_ - some, 0.0), all_))
    return tuple(all_ if bad is not None else None for all_, bad in zip(events, failed, strict=True)), failed


def burnt(events: Line, bad: Line, budget: float) -> Line:
    """What is left of the budget of all these events, step by step; None where nothing is known of a step."""
    if not (all_events := total(events)):
        return (None,) * len(events)
    spent, found = 0.0, []
    for value in bad:
        spent += value or 0.0
        found.append(None if value is None else 1 - spent / (budget * all_events))
    return tuple(found)


def worst(found: Sequence[Objective]) -> Objective | None:
    """That with the least of its budget left, of those of which something is known."""
    known = [one for one in found if one.left is not None]
    return min(known, key=lambda one: (one.left or 0.0, one.name), default=None)


def _line(span: Span, answer: Answer) -> Line:
    return added(line(span, one) for one in answer.series)


def _why(asked: Asked, events: float | None, bad: float | None) -> str:
    if error := asked.total.error or asked.part.error:
        return error
    if bad is None:
        return "Prometheus has no data of it in this time."
    return "" if events else "There was nothing to count: no events in this time."
