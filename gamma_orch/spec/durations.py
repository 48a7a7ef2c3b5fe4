"""Durations as people write them in YAML: `90s`, `5m`, `2h`, `7d`."""

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_TEXT = re.compile(r"([0-9]{1,9})([smhd])")


def duration(value: Any) -> Any:
    """Text -> timedelta. Raises ValueError with the way to write it."""
    if isinstance(value, timedelta):
        return value
    found = _TEXT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("a duration is a whole number and a unit s, m, h or d: 90s, 5m, 2h, 7d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def written_duration(value: timedelta) -> str:
    """The shortest spelling: 300 s is 5m."""
    seconds = int(value.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


Duration = Annotated[
    timedelta,
    BeforeValidator(duration),
    PlainSerializer(written_duration, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": f"^{_TEXT.pattern}$"}),
]
