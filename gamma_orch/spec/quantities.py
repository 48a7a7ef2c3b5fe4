"""Sizes and short times as people write them in YAML: `30MB`, `1.5GB`, `20ms`, `2s`, `99.5%`.

Sizes are decimal (1 MB is 1,000,000 bytes), as disks and downloads are counted. A spec keeps the text, in
one spelling; `size_of`, `seconds_of` and `share_of` give the number to whoever reckons with it.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

_SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_NUMBER = r"([0-9]{1,12}(?:\.[0-9]{1,6})?)"
_SIZE = re.compile(_NUMBER + r" ?(B|kB|MB|GB|TB)")
_TIME = re.compile(_NUMBER + r" ?(us|ms|s|m)")
_SHARE = re.compile(_NUMBER + r" ?%")


def size_of(text: str) -> int:
    """Bytes. Raises ValueError with the way to write it."""
    found = _SIZE.fullmatch(str(text))
    if found is None:
        raise ValueError("a size is a number and a unit B, kB, MB, GB or TB: 30MB, 1.5GB")
    return round(float(found[1]) * _SIZES[found[2]])


def seconds_of(text: str) -> float:
    """Seconds. Raises ValueError with the way to write it."""
    found = _TIME.fullmatch(str(text))
    if found is None:
        raise ValueError("a time is a number and a unit us, ms, s or m: 20ms, 1.5s")
    return float(found[1]) * _TIMES[found[2]]


def share_of(value: str | float) -> float:
    """A part of 1, written as 99.5% or 0.995. Raises ValueError with the way to write it."""
    if isinstance(value, str) and (found := _SHARE.fullmatch(value)):
        return float(found[1]) / 100
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise ValueError("a share is written as 99.5% or as 0.995")


def _written(check: Any) -> Any:
    def spelled(value: Any) -> Any:
        check(value)
        return value.replace(" ", "") if isinstance(value, str) else value

    return spelled


def _pattern(of: re.Pattern[str]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{of.pattern}$"})


Size = Annotated[str, BeforeValidator(_written(size_of)), _pattern(_SIZE)]
Latency = Annotated[str, BeforeValidator(_written(seconds_of)), _pattern(_TIME)]


def _between(value: str | float) -> str | float:
    if not 0 <= share_of(value) <= 10:
        raise ValueError("a share lies between 0% and 1000%")
    return value


Share = Annotated[
    str | float,
    BeforeValidator(_written(share_of)),
    AfterValidator(_between),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": f"^{_SHARE.pattern}$"}]}),
]
