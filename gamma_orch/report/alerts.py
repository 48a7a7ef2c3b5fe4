"""What fired, how often, for how long, and about what. Pure.

`ALERTS{alertstate="firing"}` has a sample at each evaluation at which an alert fires. Asked is how many there
were in each piece of the fine grid, so an alert that fires on and one that begins anew are told apart by a
piece without samples in between, and the first and the last piece count as far as they are filled.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gamma_orch.report.answers import Answer, Series
from gamma_orch.report.presence import Presence, place
from gamma_orch.report.span import Span

NOT_SAID = ""  # the resource or the severity of a rule that names none


@dataclass(frozen=True, slots=True)
class Running:
    """A rule that Prometheus runs at the end of the span."""

    name: str
    severity: str = NOT_SAID
    about: str = NOT_SAID


@dataclass(frozen=True, slots=True)
class Firing:
    """One alert from its beginning to its end: the times for which it is known, in seconds since 1970."""

    pieces: tuple[tuple[float, float], ...]

    @property
    def seconds(self) -> float:
        return _length(self.pieces)


@dataclass(frozen=True, slots=True)
class Noise:
    """A rule that has fired."""

    name: str
    severity: str
    about: str
    firings: int
    seconds: float  # in which at least one of its alerts fired
    longest: float
    times: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Cause:
    about: str
    severity: str
    firings: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Alerts:
    firings: int | None  # None: nothing is known
    seconds: float
    rules: tuple[Noise, ...]  # the noisiest first
    causes: tuple[Cause, ...]
    quiet: tuple[str, ...]  # rules that never fired
    why: str
    queries: tuple[str, ...]


def alerts(span: Span, firing: Answer, running: Sequence[Running], presence: Presence) -> Alerts:
    queries = (firing.query,)
    if firing.error or not presence.known:
        why = firing.error or "Prometheus has no data of this time."
        return Alerts(None, 0.0, (), (), (), why, queries)
    usual = max((value for one in firing.series for _, value in one.points), default=1.0)
    found = [(one.labels, firings(span, one, usual, presence.known)) for one in firing.series]
    rules: dict[tuple[str, str, str], list[Firing]] = {}
    for labels, own in found:
        key = (
            labels.get("alertname", ""),
            labels.get("severity", NOT_SAID),
            labels.get("resource", NOT_SAID),
        )
        rules.setdefault(key, []).extend(own)
    noises = sorted(
        (_noise(*key, own) for key, own in rules.items() if own),
        key=lambda one: (-one.firings, -one.seconds, one.name, one.severity, one.about),
    )
    fired = {one.name for one in noises}
    return Alerts(
        firings=sum(one.firings for one in noises),
        seconds=_length(_merged(piece for one in noises for piece in one.times)),
        rules=tuple(noises),
        causes=_causes(noises),
        quiet=tuple(sorted({one.name for one in running} - fired)),
        why="",
        queries=queries,
    )


def firings(span: Span, one: Series, usual: float, known: frozenset[int]) -> list[Firing]:
    """`usual`: samples of a full piece, where that cannot be told from the alert itself. A time of which
    nothing is known, with the alert before and after it, ends none, and is not counted."""
    counts = {place(span, at): value for at, value in one.points}
    runs: list[list[int]] = []
    for at in sorted(counts):
        if runs and not any(between in known for between in range(runs[-1][-1] + 1, at)):
            runs[-1].append(at)
        else:
            runs.append([at])
    return [Firing(_pieces(span, run, counts, usual)) for run in runs]


def _pieces(
    span: Span, run: Sequence[int], counts: Mapping[int, float], usual: float
) -> tuple[tuple[float, float], ...]:
    """The first and the last piece are filled as far as they have the samples of the one beside them."""
    found = []
    for at in run:
        begin, end = span.start + at * span.fine, span.start + (at + 1) * span.fine
        if at == run[0]:
            begin = end - span.fine * min(1.0, counts[at] / (counts[run[1]] if len(run) > 2 else usual))
        elif at == run[-1]:
            end = begin + span.fine * min(1.0, counts[at] / (counts[run[-2]] if len(run) > 2 else usual))
        found.append((begin, end))
    return _merged(found)


def _noise(name: str, severity: str, about: str, own: Sequence[Firing]) -> Noise:
    times = _merged(piece for one in own for piece in one.pieces)
    return Noise(name, severity, about, len(own), _length(times), max(one.seconds for one in own), times)


def _causes(noises: Sequence[Noise]) -> tuple[Cause, ...]:
    found: dict[tuple[str, str], list[Noise]] = {}
    for one in noises:
        found.setdefault((one.about, one.severity), []).append(one)
    made = (
        Cause(*key, sum(one.firings for one in own), _length(_merged(t for one in own for t in one.times)))
        for key, own in found.items()
    )
    return tuple(sorted(made, key=lambda one: (-one.firings, -one.seconds, one.about, one.severity)))


def _merged(times: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """The times in which at least one of them was."""
    found: list[tuple[float, float]] = []
    for begin, end in sorted(times):
        if found and begin <= found[-1][1] + 1e-6:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return tuple(found)


def _length(times: Iterable[tuple[float, float]]) -> float:
    return sum(end - begin for begin, end in times)
