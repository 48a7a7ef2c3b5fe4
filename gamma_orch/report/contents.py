"""The report: its sections, and a summary of them that is read in twenty seconds. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum

from gamma_orch.core.canonical import Json
from gamma_orch.core.event import Event
from gamma_orch.report import alerts as fired
from gamma_orch.report import changes as changed
from gamma_orch.report import objectives as aims
from gamma_orch.report import services as served
from gamma_orch.report.answers import Answer
from gamma_orch.report.presence import presence
from gamma_orch.report.span import Span
from gamma_orch.report.words import NOTHING, count, lasting, moment, percent, times

WHOLE = 0.995  # from this share on, a time is not said to have gaps


@dataclass(frozen=True, slots=True)
class Raw:
    """What was asked, and said."""

    environment: str
    commit: str
    span: Span
    prometheus: str  # the target, for people; "" where the environment has none
    error: str  # why nothing could be asked of it
    up: Answer
    firing: Answer
    services: served.Source
    objectives: Sequence[aims.Source]
    running: Sequence[fired.Running]
    elsewhere: Sequence[str]  # objectives and rules on another Prometheus
    events: Sequence[Event]


class Tone(StrEnum):
    GOOD = "good"
    BAD = "bad"
    PLAIN = "plain"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Fact:
    name: str
    value: str
    says: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class Source:
    prometheus: str
    error: str
    known: float  # the share of the span in which Prometheus was there
    gaps: tuple[tuple[float, float], ...]
    query: str


@dataclass(frozen=True, slots=True)
class Report:
    environment: str
    commit: str
    span: Span
    source: Source
    summary: tuple[Fact, ...]
    objectives: tuple[aims.Objective, ...]
    services: tuple[served.Service, ...]
    services_why: str  # nothing is known of them
    alerts: fired.Alerts
    changes: changed.Changes
    elsewhere: tuple[str, ...]

    def encoded(self) -> Json:
        body = asdict(self)
        span = self.span
        body["span"] = {
            "start": _iso(span.start),
            "end": _iso(span.end),
            "step": span.step,
            "fine": span.fine,
        }
        return body


def report(raw: Raw) -> Report:
    there = presence(raw.span, raw.up, raw.firing)
    source = Source(raw.prometheus, raw.error or raw.up.error, there.share, tuple(there.gaps()), raw.up.query)
    services = served.services(raw.span, raw.services, there)
    objectives = tuple(aims.objective(one) for one in raw.objectives)
    alerts = fired.alerts(raw.span, raw.firing, raw.running, there)
    changes = changed.changes(raw.span, raw.events)
    why = raw.services.requests.error or ("" if services else _no_requests(source))
    return Report(
        environment=raw.environment,
        commit=raw.commit,
        span=raw.span,
        source=source,
        summary=(
            _availability(services, why),
            _objective(objectives),
            _alerts(alerts),
            *_changes(changes),
            _data(source),
        ),
        objectives=objectives,
        services=services,
        services_why=why,
        alerts=alerts,
        changes=changes,
        elsewhere=tuple(raw.elsewhere),
    )


def _no_requests(source: Source) -> str:
    return source.error or "Prometheus has no requests of a service in this time."


def _availability(services: Sequence[served.Service], why: str) -> Fact:
    counted = [one for one in services if one.availability is not None]
    requests = sum(one.requests or 0.0 for one in counted)
    if not counted:
        nothing = why or "No requests were made: nothing is known of how they would have gone."
        return Fact("Availability", NOTHING, nothing, Tone.UNKNOWN)
    failed = sum(one.failed or 0.0 for one in counted)
    says = f"Of {count(requests)} requests, {count(failed)} failed by a fault of the service."
    least = min(counted, key=lambda one: (one.availability or 0.0, one.name))
    if len(counted) > 1 and failed:
        says += f" Least available was {least.name}: {percent(least.availability)}."
    known = min(one.known for one in counted)
    if known < WHOLE:
        says += f" There is data for {percent(known)} of the time."
    return Fact("Availability", percent(1 - failed / requests), says, Tone.PLAIN)


def _objective(objectives: Sequence[aims.Objective]) -> Fact:
    name = "Worst objective"
    if not objectives:
        return Fact(name, "none", "The environment has no SLO.", Tone.UNKNOWN)
    worst = aims.worst(objectives)
    if worst is None:
        return Fact(
            name, NOTHING, f"Nothing is known of {times(len(objectives), 'objective')}.", Tone.UNKNOWN
        )
    known = [one for one in objectives if one.met is not None]
    met, unknown = sum(one.met is True for one in known), len(objectives) - len(known)
    left = (
        f"{percent(worst.left)} of its error budget of {worst.window} is left"
        if (worst.left or 0.0) >= 0
        else f"its error budget of {worst.window} is overdrawn"
    )
    says = (
        f"{percent(worst.attained)} went well where {percent(worst.objective)} should; {left}. "
        f"{met} of {times(len(known), 'objective')} {'was' if len(known) == 1 else 'were'} met."
    )
    if unknown:
        says += f" Of {unknown} nothing is known."
    bad = (worst.left or 0.0) < 0 or met < len(known)
    return Fact(name, worst.name, says, Tone.BAD if bad else Tone.GOOD)


def _alerts(alerts: fired.Alerts) -> Fact:
    if alerts.firings is None:
        return Fact("Alerts", NOTHING, alerts.why, Tone.UNKNOWN)
    if not alerts.firings:
        return Fact("Alerts", "none", f"None of {times(len(alerts.quiet), 'rule')} fired.", Tone.GOOD)
    most = alerts.rules[0]
    says = (
        f"Of {times(len({one.name for one in alerts.rules}), 'rule')}. For {lasting(alerts.seconds)} at least"
        f" one fired. Most often: {most.name}, {times(most.firings, 'time')}."
    )
    return Fact("Alerts", count(alerts.firings), says, Tone.PLAIN)


def _changes(changes: changed.Changes) -> tuple[Fact, Fact]:
    says = f"Steps in {times(changes.runs, 'run')}, of {times(changes.resources, 'resource')}."
    if changes.found:
        says += f" {changes.found} found changed outside, {changes.healed} of them taken back."
    open_ = [one for one in changes.failures if not one.mended]
    failed = "No step failed."
    if changes.failed:
        names = ", ".join(one.resource for one in open_[:3]) + (", ..." if len(open_) > 3 else "")
        failed = f"Not applied since: {names}." if open_ else "All of them were applied since."
    if all(day.done is None for day in changes.days):
        nothing = "Nothing was ever applied."
        return Fact("Changes", NOTHING, nothing, Tone.UNKNOWN), Fact(
            "Failures", NOTHING, nothing, Tone.UNKNOWN
        )
    tone = Tone.BAD if open_ else Tone.GOOD if not changes.failed else Tone.PLAIN
    return (
        Fact("Changes", count(changes.steps), says, Tone.PLAIN),
        Fact("Failures", count(changes.failed), failed, tone),
    )


def _data(source: Source) -> Fact:
    if source.error:
        return Fact("Data", NOTHING, source.error, Tone.UNKNOWN)
    if not source.gaps:
        return Fact("Data", "100 %", "Prometheus was there for the whole of the time.", Tone.GOOD)
    longest = max(source.gaps, key=lambda one: one[1] - one[0])
    says = f"The longest gap is from {moment(longest[0])} to {moment(longest[1])}. Nothing is known of it."
    return Fact("Data", percent(source.known), says, Tone.BAD if source.known < WHOLE else Tone.PLAIN)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
