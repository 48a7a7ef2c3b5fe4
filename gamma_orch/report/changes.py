"""What the reconciler did, from the events of the ledger. Pure.

A run is what one holder of the lease has done: its events have one token. It begins with its plan and ends
with its last event.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gamma_orch.core.address import Address
from gamma_orch.core.event import Event, Type
from gamma_orch.report.span import Span

BY_DAGSTER = "Dagster"  # begins the purpose of its runs


@dataclass(frozen=True, slots=True)
class Failure:
    resource: str
    times: int
    last: float  # seconds since 1970
    error: str
    mended: bool  # it has been applied since


@dataclass(frozen=True, slots=True)
class Drift:
    resource: str
    found: int
    healed: int
    reason: str  # of the last


@dataclass(frozen=True, slots=True)
class Day:
    date: str
    done: int | None  # None: the ledger begins later
    failed: int | None
    drifted: int | None


@dataclass(frozen=True, slots=True)
class Changes:
    begins: float | None  # the ledger, where that is within the span or there is none
    runs: int
    by_dagster: int
    whole: int  # runs whose plan was carried out to its end
    steps: int
    resources: int
    failed: int
    failures: tuple[Failure, ...]
    found: int
    healed: int
    drifts: tuple[Drift, ...]
    median: float | None  # seconds of a run
    p95: float | None
    days: tuple[Day, ...]
    source: str = "the events of the ledger: `gamma history`"


def changes(span: Span, events: Sequence[Event]) -> Changes:
    """`events`: all of the ledger up to the end of the span or later, in order."""
    log = [one for one in events if when(one) <= span.end]
    own = [one for one in log if when(one) > span.start]
    planned = [one for one in own if one.type is Type.PLANNED]
    released = {one.token for one in own if one.type is Type.RELEASED}
    done = [one for one in own if one.type is Type.DONE and one.address is not None]
    failed = [one for one in own if one.type is Type.FAILED and one.address is not None]
    drifts = _drifts(own)
    took = sorted(_durations(planned, own))
    first = when(log[0]) if log else None
    return Changes(
        begins=first if first is None or first > span.start else None,
        runs=len(planned),
        by_dagster=sum(str(one.data.get("purpose", "")).startswith(BY_DAGSTER) for one in planned),
        whole=sum(one.token in released for one in planned),
        steps=len(done),
        resources=len({one.address for one in done}),
        failed=len(failed),
        failures=_failures(failed, log),
        found=sum(one.found for one in drifts),
        healed=sum(one.healed for one in drifts),
        drifts=drifts,
        median=quantile(took, 0.5),
        p95=quantile(took, 0.95),
        days=_days(span, own, first),
    )


def when(event: Event) -> float:
    return datetime.fromisoformat(event.at).timestamp()


def quantile(ordered: Sequence[float], q: float) -> float | None:
    """One of the values: the least that so many are not above."""
    return ordered[max(math.ceil(q * len(ordered) - 1e-9), 1) - 1] if ordered else None


def _durations(planned: Sequence[Event], own: Sequence[Event]) -> list[float]:
    """Of each run that has done something, from its plan to its last event."""
    last = {one.token: when(one) for one in own if one.type in (Type.DONE, Type.FAILED)}
    return [last[one.token] - when(one) for one in planned if one.token in last]


def _failures(failed: Sequence[Event], log: Sequence[Event]) -> tuple[Failure, ...]:
    done = {one.address: one.seq for one in log if one.type is Type.DONE}
    by: dict[Address, list[Event]] = {}
    for one in failed:
        assert one.address is not None
        by.setdefault(one.address, []).append(one)
    found = [
        Failure(
            str(address),
            len(own),
            when(own[-1]),
            str(own[-1].data["error"]),
            done.get(address, 0) > own[-1].seq,
        )
        for address, own in by.items()
    ]
    return tuple(sorted(found, key=lambda one: (one.mended, -one.last, one.resource)))


def _drifts(own: Sequence[Event]) -> tuple[Drift, ...]:
    """Found by a run that was to take it back, and healed where that run has done so."""
    done = {(one.address, one.token): one.seq for one in own if one.type is Type.DONE}
    by: dict[Address, list[Event]] = {}
    for one in own:
        if one.type is Type.DRIFTED and one.address is not None:
            by.setdefault(one.address, []).append(one)
    found = [
        Drift(
            str(address),
            len(events),
            sum(done.get((address, one.token), 0) > one.seq for one in events),
            str(events[-1].data.get("reason", "")),
        )
        for address, events in by.items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.found, one.resource)))


def _days(span: Span, own: Sequence[Event], first: float | None) -> tuple[Day, ...]:
    """Of UTC, each that the span has a part of."""
    counts: dict[tuple[str, Type], int] = {}
    for one in own:
        key = (one.at[:10], one.type)
        counts[key] = counts.get(key, 0) + 1
    day = datetime.fromtimestamp(span.start, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    begins = datetime.fromtimestamp(first, UTC).strftime("%Y-%m-%d") if first is not None else None
    found = []
    while day.timestamp() < span.end:
        date = day.strftime("%Y-%m-%d")
        if begins is None or date < begins:
            found.append(Day(date, None, None, None))
        else:
            found.append(
                Day(date, *(counts.get((date, kind), 0) for kind in (Type.DONE, Type.FAILED, Type.DRIFTED)))
            )
        day += timedelta(days=1)
    return tuple(found)
