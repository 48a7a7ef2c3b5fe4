"""When Prometheus was there, and when its jobs answered it. Pure.

A Prometheus that runs has a sample of `up` for each job, whatever that answers. So where there is none of any
job, Prometheus was not there, and nothing is known of that time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gamma_orch.report.answers import Answer
from gamma_orch.report.span import Span


@dataclass(frozen=True, slots=True)
class Presence:
    span: Span
    known: frozenset[int]  # the places on the fine grid at which Prometheus was there
    jobs: Mapping[str, Mapping[int, bool]]  # whether it answered, by the place

    @property
    def count(self) -> int:
        return round(self.span.seconds / self.span.fine)

    @property
    def share(self) -> float:
        return len(self.known) / self.count

    def answered(self, job: str) -> tuple[float | None, float]:
        """The share of the span in which it answered, and the seconds in which it was asked and did not."""
        if (by_place := self.jobs.get(job)) is None:
            return None, 0.0
        told = by_place.values()
        return sum(told) / self.count, float(sum(not one for one in told) * self.span.fine)

    def gaps(self) -> list[tuple[float, float]]:
        """From when to when nothing is known."""
        found: list[tuple[float, float]] = []
        start, fine = self.span.start, self.span.fine
        for place in range(self.count):
            if place in self.known:
                continue
            begin, end = start + place * fine, start + (place + 1) * fine
            if found and found[-1][1] == begin:
                found[-1] = (found[-1][0], end)
            else:
                found.append((begin, end))
        return found


def place(span: Span, at: float) -> int:
    """On the fine grid: which of its pieces, from 0 on, ends at this moment."""
    return round((at - span.start) / span.fine) - 1


def presence(span: Span, up: Answer, firing: Answer) -> Presence:
    """`up`: by job, 1 where it answered at least once. Who has evaluated a rule was there too."""
    jobs: dict[str, dict[int, bool]] = {}
    for one in up.series:
        told = jobs.setdefault(one.labels.get("job", ""), {})
        for at, value in one.points:
            told[place(span, at)] = told.get(place(span, at), False) or value > 0
    there = {place(span, at) for one in firing.series for at, _ in one.points}
    for told in jobs.values():
        there |= set(told)
    whole = range(round(span.seconds / span.fine))
    return Presence(span, frozenset(one for one in there if one in whole), jobs)
