"""When nobody is told: days and hours as a policy says them, and as an Alertmanager takes them. Pure but for
the names of time zones, which the machine knows.

Hours that go over midnight belong to the day on which they begin; an Alertmanager wants them in two parts.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import nearest
from gamma_orch.spec.written_out import WrittenOut

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
WHOLE = "00:00-24:00"
_HOURS = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)")
_DAY = "|".join(DAYS)


def _hours(value: str) -> str:
    if _HOURS.fullmatch(value) is None:
        raise ValueError(
            f"hours are two times of a day, from and until, such as 22:00-06:00, and not {value!r}"
        )
    first, last = value.split("-")
    if first == last:
        raise ValueError(f"from {first} until {last} is no time; for the whole day leave `hours` out")
    return f"{first}-24:00" if last == "00:00" else value


def _day(value: str) -> str:
    if unknown := [one for one in value.split("-", 1) if one not in DAYS]:
        near = nearest(unknown[0], DAYS)
        also = f"; did you mean {near!r}?" if near else ""
        raise ValueError(f"{unknown[0]!r} is no day: write monday, or several as monday-friday{also}")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        known = sorted(available_timezones())
        if known:  # or else this machine knows none, and another may
            near = nearest(value, known)
            also = f"; did you mean {near!r}?" if near else ""
            raise ValueError(f"{value!r} is no time zone: write one such as Europe/Berlin{also}") from None
    return value


Hours = Annotated[
    str, AfterValidator(_hours), WithJsonSchema({"type": "string", "pattern": f"^{_HOURS.pattern}$"})
]
Day = Annotated[
    str,
    AfterValidator(_day),
    WithJsonSchema({"type": "string", "pattern": f"^({_DAY})(-({_DAY}))?$"}),
]
Zone = Annotated[str, StringConstraints(min_length=1), AfterValidator(_zone)]


class Mute(WrittenOut):
    days: list[Day] = Field(default_factory=lambda: list(DAYS), min_length=1)
    """On which days it begins: saturday, or several as monday-friday. Default: on all."""
    hours: Hours = WHOLE
    """From when until when: 22:00-06:00 goes on until the morning after. Default: the whole day."""
    zone: Zone = "UTC"
    """Of days and hours: Europe/Berlin."""

    @field_validator("days")
    @classmethod
    def _each(cls, value: list[str]) -> list[str]:
        """One by one and in their order, so that another spelling is no change."""
        found = {day for said in value for day in _between(*said.split("-"))}
        return [day for day in DAYS if day in found]

    @model_validator(mode="after")
    def _sometimes(self) -> Self:
        if len(self.days) == len(DAYS) and self.hours == WHOLE:
            raise ValueError("this is always, and nobody would ever be told: say `days`, or `hours`")
        return self


def intervals(mutes: Sequence[Json]) -> list[Json]:
    """As an Alertmanager takes them, and tells of them."""
    return [one for said in mutes for one in _intervals(said)]


def _intervals(said: Json) -> Iterator[Json]:
    first, last = said["hours"].split("-")
    days = list(said["days"])
    if first < last:
        yield _interval(first, last, days, said["zone"])
        return
    yield _interval(first, "24:00", days, said["zone"])
    after = {DAYS[(DAYS.index(day) + 1) % len(DAYS)] for day in days}
    yield _interval("00:00", last, [day for day in DAYS if day in after], said["zone"])


def _interval(first: str, last: str, days: list[str], zone: str) -> Json:
    whole, always = f"{first}-{last}" == WHOLE, len(days) == len(DAYS)
    return {
        **({} if whole else {"times": [{"start_time": first, "end_time": last}]}),
        **({} if always else {"weekdays": days}),
        "location": zone,
    }


def _between(first: str, last: str = "") -> Iterator[str]:
    """The days of a range, which may go over the end of a week."""
    place = DAYS.index(first)
    yield first
    while last and DAYS[place] != last:
        place = (place + 1) % len(DAYS)
        yield DAYS[place]
