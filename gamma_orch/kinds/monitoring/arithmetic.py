"""The arithmetic of PromQL: from numbers to a number, and from the samples of one series to a number. Pure.

Where Prometheus has a formula of its own (the extrapolation of a rate, a quantile, the inside of a bucket)
it is written here as there; version 2.42.
"""

import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

Samples = Sequence[tuple[int, float]]  # times in ms, in their order


def _values(samples: Samples) -> list[float]:
    return [value for _, value in samples]


def quantile(share: float, values: Sequence[float]) -> float:
    if not values or math.isnan(share):
        return math.nan
    if share < 0:
        return -math.inf
    if share > 1:
        return math.inf
    ordered = sorted(values, key=lambda value: (not math.isnan(value), value))
    rank = share * (len(ordered) - 1)
    lower = max(0, math.floor(rank))
    upper = min(len(ordered) - 1, lower + 1)
    weight = rank - math.floor(rank)
    return ordered[lower] * (1 - weight) + ordered[upper] * weight


def _added(more: float, total: float, lost: float) -> tuple[float, float]:
    """Kahan's sum, as Neumaier has it: the total, and what rounding has lost of it."""
    found = total + more
    return found, lost + ((total - found) + more if abs(total) >= abs(more) else (more - found) + total)


def _mean(values: Sequence[float]) -> float:
    """From value to value, and not of their sum: the mean of values that are all the same is the same."""
    mean = lost = 0.0
    for count, value in enumerate(values, 1):
        if math.isinf(mean) and (value == mean or math.isfinite(value)):
            continue
        mean, lost = _added(value / count - mean / count, mean, lost)
    return mean if math.isinf(mean) else mean + lost


def _variance(values: Sequence[float]) -> float:
    """By Welford's method. Of values that are all the same it is 0, and not what rounding has left."""
    mean = lost = total = more = 0.0
    for count, value in enumerate(values, 1):
        apart = value - (mean + lost)
        mean, lost = _added(apart / count, mean, lost)
        total, more = _added(apart * (value - (mean + lost)), total, more)
    return (total + more) / len(values)


def _least(values: Sequence[float]) -> float:
    return min((value for value in values if not math.isnan(value)), default=math.nan)


def _most(values: Sequence[float]) -> float:
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def _sum(values: Sequence[float]) -> float:
    return math.fsum(values) if all(map(math.isfinite, values)) else sum(values)


AGGREGATES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "sum": _sum,
    "avg": _mean,
    "min": _least,
    "max": _most,
    "count": lambda values: float(len(values)),
    "group": lambda values: 1.0,
    "stddev": lambda values: math.sqrt(_variance(values)),
    "stdvar": _variance,
}


def _changes(samples: Samples) -> float:
    pairs = pairwise(samples)
    return float(sum(a != b and not (math.isnan(a) and math.isnan(b)) for (_, a), (_, b) in pairs))


def _last_two(samples: Samples, rate: bool) -> float | None:
    if len(samples) < 2:
        return None
    (before, first), (now, last) = samples[-2:]
    change = last if rate and last < first else last - first
    return change / ((now - before) / 1000) if rate else change


def _slope(samples: Samples, at: int) -> tuple[float, float] | None:
    """Of the line through the samples: its rise in a second, and its height at that time."""
    if len(samples) < 2:
        return None
    xs, ys = [(time - at) / 1000 for time, _ in samples], _values(samples)
    if all(value == ys[0] for value in ys):
        return (0.0, ys[0]) if math.isfinite(ys[0]) else (math.nan, math.nan)
    count = len(xs)
    covariance = _sum([x * y for x, y in zip(xs, ys, strict=True)]) - _sum(xs) * _sum(ys) / count
    variance = _sum([x * x for x in xs]) - _sum(xs) ** 2 / count
    rise = covariance / variance
    return rise, _sum(ys) / count - rise * _sum(xs) / count


def predicted(samples: Samples, now: int, ahead: float) -> float | None:
    found = _slope(samples, now)
    return None if found is None else found[1] + found[0] * ahead


def _derivative(samples: Samples) -> float | None:
    found = _slope(samples, samples[0][0])
    return None if found is None else found[0]


OVER_TIME: Mapping[str, Callable[[Samples], float | None]] = {
    "avg_over_time": lambda samples: _mean(_values(samples)),
    "sum_over_time": lambda samples: _sum(_values(samples)),
    "min_over_time": lambda samples: _least(_values(samples)),
    "max_over_time": lambda samples: _most(_values(samples)),
    "count_over_time": lambda samples: float(len(samples)),
    "stddev_over_time": lambda samples: math.sqrt(_variance(_values(samples))),
    "stdvar_over_time": lambda samples: _variance(_values(samples)),
    "last_over_time": lambda samples: samples[-1][1],
    "present_over_time": lambda samples: 1.0,
    "changes": _changes,
    "resets": lambda samples: float(sum(b < a for (_, a), (_, b) in pairwise(samples))),
    "irate": lambda samples: _last_two(samples, rate=True),
    "idelta": lambda samples: _last_two(samples, rate=False),
    "deriv": _derivative,
}


def extrapolated(samples: Samples, start: int, end: int, name: str) -> float | None:
    """rate, increase and delta, as `extrapolatedRate` of Prometheus has them."""
    if len(samples) < 2:
        return None
    counter = name != "delta"
    (first_at, first), (last_at, last) = samples[0], samples[-1]
    result = last - first
    if counter:
        result += sum(a for (_, a), (_, b) in pairwise(samples) if b < a)
    to_start, to_end = (first_at - start) / 1000, (end - last_at) / 1000
    sampled = (last_at - first_at) / 1000
    between = sampled / (len(samples) - 1)
    if counter and result > 0 and first >= 0:
        to_start = min(to_start, sampled * (first / result))
    threshold = between * 1.1
    covered = sampled
    covered += to_start if to_start < threshold else between / 2
    covered += to_end if to_end < threshold else between / 2
    factor = covered / sampled
    return result * (factor / ((end - start) / 1000) if name == "rate" else factor)


def _rounded(value: float, to: float = 1.0) -> float:
    inverse = 1.0 / to  # as Prometheus: 0.1 has no exact form, and its inverse has
    return math.floor(value * inverse + 0.5) / inverse


def _log(value: float, log: Callable[[float], float]) -> float:
    if value > 0:
        return log(value)
    return -math.inf if value == 0 else math.nan


def _moment(value: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(value, dt.UTC)


EACH: Mapping[str, Callable[..., float]] = {
    "abs": abs,
    "ceil": lambda value: float(math.ceil(value)) if math.isfinite(value) else value,
    "floor": lambda value: float(math.floor(value)) if math.isfinite(value) else value,
    "round": lambda value, to=1.0: _rounded(value, to) if math.isfinite(value) else value,
    "sqrt": lambda value: math.sqrt(value) if value >= 0 else math.nan,
    "exp": lambda value: math.exp(value) if value < 709.78 else math.inf,
    "ln": lambda value: _log(value, math.log),
    "log2": lambda value: _log(value, math.log2),
    "log10": lambda value: _log(value, math.log10),
    "sgn": lambda value: math.nan if math.isnan(value) else float((value > 0) - (value < 0)),
    "clamp": lambda value, least, most: max(least, min(most, value)),
    "clamp_min": lambda value, least: max(least, value),
    "clamp_max": lambda value, most: min(most, value),
    "minute": lambda value: float(_moment(value).minute),
    "hour": lambda value: float(_moment(value).hour),
    "day_of_week": lambda value: float(_moment(value).isoweekday() % 7),
    "day_of_month": lambda value: float(_moment(value).day),
    "month": lambda value: float(_moment(value).month),
    "year": lambda value: float(_moment(value).year),
}


def _divided(left: float, right: float) -> float:
    if right:
        return left / right
    if not left or math.isnan(left):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def _modulo(left: float, right: float) -> float:
    return math.nan if not right or math.isinf(left) else math.fmod(left, right)


def _power(left: float, right: float) -> float:
    try:
        return math.pow(left, right)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.inf if left == 0 else math.nan


ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": _divided,
    "%": _modulo,
    "^": _power,
    "atan2": math.atan2,
}
COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    ">": lambda left, right: left > right,
    "<": lambda left, right: left < right,
    ">=": lambda left, right: left >= right,
    "<=": lambda left, right: left <= right,
}


def bucket(share: float, buckets: list[tuple[float, float]]) -> float:
    if math.isnan(share):
        return math.nan
    if share < 0 or share > 1:
        return math.copysign(math.inf, share - 0.5)
    if buckets[-1][0] != math.inf or len(buckets) < 2:
        return math.nan
    counts, highest = [], -math.inf
    for _, count in buckets:
        highest = max(highest, count)
        counts.append(highest)
    total = counts[-1]
    if not total or math.isnan(total):
        return math.nan
    rank = share * total
    place = next((n for n, count in enumerate(counts[:-1]) if count >= rank), len(buckets) - 1)
    if place == len(buckets) - 1:
        return buckets[-2][0]
    if place == 0 and buckets[0][0] <= 0:
        return buckets[0][0]
    start, before = (0.0, 0.0) if place == 0 else (buckets[place - 1][0], counts[place - 1])
    end, count = buckets[place][0], counts[place] - before
    return start + (end - start) * ((rank - before) / count)


def printed(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value).removesuffix(".0")
