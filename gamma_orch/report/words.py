"""Figures as people read them. Pure. What is not known is `no data`."""

import math
from datetime import UTC, datetime

NOTHING = "no data"
_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def percent(share: float | None) -> str:
    """Rounded down, so that 99.996 % is not said to be all, nor a missed objective to be met."""
    if share is None:
        return NOTHING
    if 0 < share < 0.0001:
        return "less than 0.01 %"
    if -0.0001 < share < 0:
        return "-0.01 %"
    value = math.floor(share * 10_000 + 1e-6) / 100
    return f"{value:.2f}".rstrip("0").rstrip(".") + " %"


def count(number: float | None) -> str:
    return NOTHING if number is None else f"{number:,.0f}"


def times(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def latency(seconds: float | None, bound: float | None = None) -> str:
    if seconds is None:
        return NOTHING
    text = f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
    return f"{text} or more" if bound is not None and seconds >= bound else text


def lasting(seconds: float | None) -> str:
    """In two units at most: 40 s, 10 min, 2 h 5 min, 3 d 4 h."""
    if seconds is None:
        return NOTHING
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    left = round(seconds)
    for size, name, part, lower in _UNITS:
        if left >= size:
            whole, rest = divmod(round(left / part), size // part)
            return f"{whole} {name}" + (f" {rest} {lower}" if rest else "")
    return f"{left} s"


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
