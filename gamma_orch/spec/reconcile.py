"""How an environment is kept converged by itself: `Environment.spec.reconcile`.

Read by the engine, which refuses to act in a freeze window, and by `orchestration`, which makes
schedules and sensors of it. A person who runs `gamma apply` is bound by the freeze windows alone.
"""

from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator, model_validator

from gamma_orch.spec.durations import Duration
from gamma_orch.spec.model import Spec


class Freeze(Spec):
    """A time in which nothing is changed: from one moment to another, or again and again."""

    reason: str = Field(min_length=1)
    """Why; whoever is refused reads it."""
    from_: str | None = Field(default=None, alias="from")
    """The first moment, with its zone: 2026-12-24T00:00:00Z."""
    until: str | None = None
    """The moment after the last one."""
    cron: str | None = None
    """When it begins, again and again, as in cron: "0 16 * * FRI"."""
    for_: Duration | None = Field(default=None, alias="for")
    """How long it lasts from each of these times on: 62h."""
    zone: str = "UTC"
    """The time zone of cron: Europe/Berlin."""

    @field_validator("from_", "until")
    @classmethod
    def _a_moment(cls, value: str | None) -> str | None:
        if isinstance(value, str) and _moment(value) is None:
            raise ValueError("a moment is written with its zone: 2026-12-24T18:00:00Z or ...+01:00")
        return value

    @field_validator("cron")
    @classmethod
    def _a_cron(cls, value: str | None) -> str | None:
        return checked_cron(value)

    @field_validator("zone")
    @classmethod
    def _a_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (OSError, KeyError, ValueError):  # KeyError: a zone that is not found
            raise ValueError("this time zone is not known; write it as in Europe/Berlin") from None
        return value

    @model_validator(mode="after")
    def _one_of_two(self) -> "Freeze":
        once, again = (self.from_, self.until), (self.cron, self.for_)
        if (None in once) == (None in again) or (any(once) and any(again)):
            raise ValueError("A freeze window has either from and until, or cron and for.")
        return self

    def holds(self, now: datetime) -> datetime | None:
        """The end of the window that `now` lies in; None outside of it."""
        if self.cron and self.for_:
            local = now.astimezone(ZoneInfo(self.zone))
            begun = next(CronSim(self.cron, local + _MINUTE, reverse=True), None)
            end = begun + self.for_ if begun else None
            return end if begun and end and begun <= now < end else None
        start, end = _moment(self.from_ or ""), _moment(self.until or "")
        return end if start and end and start <= now < end else None


class Flapping(Spec):
    """When a resource that keeps drifting is left alone, because something else keeps writing it."""

    heals: int = Field(default=3, ge=1, le=100)
    """So many heals ..."""
    within: Duration = timedelta(hours=1)
    """... in so long a time are enough."""


class ReconcileSpec(Spec):
    """What happens without anybody asking."""

    every: Duration | None = None
    """Plan, and apply what is pending, each time this has passed: 5m."""
    cron: str | None = None
    """The same at the times of a cron expression: "*/10 * * * *". Either this or `every`."""
    suspend: bool = False
    """Start nothing by itself, and observe nothing; `gamma apply` and runs started by hand still work."""
    drift: Literal["heal", "report", "off"] = "heal"
    """What to do about a change made outside: heal it, report it, or do not look (off)."""
    observe: Duration = timedelta(minutes=1)
    """How often to look for drift."""
    branch: str | None = None
    """The git branch that is followed; without it, whatever is checked out."""
    remote: str | None = None
    """The git remote that the branch is fetched from, such as origin; without it, the local repository."""
    freeze: list[Freeze] = Field(default_factory=list)
    """When nothing may be changed."""
    retry: Duration = timedelta(minutes=10)
    """How long a resource that failed is left alone, where nothing about it changed."""
    flapping: Flapping = Flapping()
    """When to stop healing a resource that drifts again and again."""
    notify: str | None = None
    """A URL that gets one POST with JSON for each failed run."""

    @field_validator("cron")
    @classmethod
    def _a_cron(cls, value: str | None) -> str | None:
        return checked_cron(value)

    @field_validator("every", "observe")
    @classmethod
    def _not_at_once(cls, value: timedelta | None) -> timedelta | None:
        if isinstance(value, timedelta) and value < _SHORTEST:
            raise ValueError("shorter than 5s is no use: a tick itself takes that long")
        return value

    @model_validator(mode="after")
    def _one_rhythm(self) -> "ReconcileSpec":
        if self.every is not None and self.cron is not None:
            raise ValueError("Say either every or cron.")
        if self.remote is not None and self.branch is None:
            raise ValueError("A remote needs the branch that is followed.")
        return self

    def frozen(self, now: datetime) -> tuple[Freeze, datetime] | None:
        """The freeze window that holds now, and its end; the one that ends last where several do."""
        held = [(end, window) for window in self.freeze if (end := window.holds(now)) is not None]
        if not held:
            return None
        end, window = max(held, key=lambda pair: pair[0])
        return window, end.astimezone(UTC)


_MINUTE = timedelta(minutes=1)
_SHORTEST = timedelta(seconds=5)


def checked_cron(value: str | None) -> str | None:
    if isinstance(value, str):
        try:
            CronSim(value, datetime(2000, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise ValueError(f'a cron expression has five fields, as in "*/5 * * * *": {error}') from None
    elif value is not None:
        raise ValueError("a cron expression is known before anything runs; write it out")
    return value


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else None
