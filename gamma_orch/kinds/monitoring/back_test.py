"""How often a rule would have fired: its expression over what Prometheus remembers, and the states of its
alerts in that. Pure but for `told`, which asks; called for the lines of a plan."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.change import Impact
from gamma_orch.core.kind import Fields
from gamma_orch.core.provider import ProviderError
from gamma_orch.core.render import duration
from gamma_orch.kinds.monitoring import promql
from gamma_orch.targets.prometheus import Prometheus

DAYS = 7
POINTS = 10_000  # of a series that Prometheus gives at once: it has 11,000 as its limit
SHORTEST = 5.0  # seconds between two points
PATIENCE = 10.0  # seconds for all rules of a plan: what is not answered by then is not told
AT_ONCE = 4
OLDEST = "prometheus_tsdb_lowest_timestamp_seconds"


@dataclass(frozen=True, slots=True)
class Fired:
    times: int
    longest: float  # seconds

    def sentence(self, span: float) -> str:
        when = f"in the last {_span(span)}"
        if not self.times:
            return f"{when} it would not have fired"
        often = "once" if self.times == 1 else f"{self.times:,} times"
        return f"{when} it would have fired {often}, for {duration(self.longest)} at the longest"


def fired(matrix: Sequence[Json], step: float, wait: float, keep: float) -> Fired:
    """Of the series that an expression gives over time, a point each `step`: an alert begins with a series,
    fires when it was there for `wait`, and ends `keep` after the series has gone. All in seconds."""
    times, longest = 0, 0.0
    for series in matrix:
        points = [float(at) for at, _ in series["values"]]
        began = last = points[0]
        lasted: list[float] = []
        for at in points[1:]:
            # While it does not fire yet, one point without it is enough to begin anew.
            patience = step * 1.5 + (keep if last - began >= wait else 0.0)
            if at - last > patience:
                lasted.append(last - began)
                began = at
            last = at
        lasted.append(last - began)
        firing = [one - wait + keep + step for one in lasted if one >= wait]
        times, longest = times + len(firing), max([longest, *firing])
    return Fired(times, longest)


def told(server: Prometheus, rules: Mapping[Address, Fields]) -> dict[Address, Impact]:
    """What is known of each. A Prometheus that does not run, or answers late, is no reason for an error."""
    end = time.time()
    try:
        span = _remembered(server, end)
    except ProviderError:
        return {}
    found: dict[Address, Impact] = {}
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        asked = {pool.submit(_sentence, server, fields, span, end): one for one, fields in rules.items()}
        with suppress(TimeoutError):
            for future in as_completed(asked, PATIENCE):
                with suppress(ProviderError):
                    found[asked[future]] = Impact(note=future.result())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return found


def _sentence(server: Prometheus, fields: Fields, span: float, end: float) -> str:
    expr = str(fields["expr"])
    step = max(SHORTEST, span / POINTS)
    matrix = server.queried("query_range", query=expr, start=end - span, end=end, step=f"{step:.3f}")[
        "result"
    ]
    if not matrix:
        for name in sorted(promql.parsed(expr).metrics):
            if not server.queried("series", **{"match[]": name, "start": end - span, "end": end, "limit": 1}):
                return f"no data of {name} in the last {_span(span)}"
    return fired(matrix, step, float(fields["for"]), float(fields["keepFiringFor"])).sentence(span)


def _remembered(server: Prometheus, end: float) -> float:
    """Seconds that it can be asked about, at most so many days."""
    most = DAYS * 86400.0
    oldest = [float(one["value"][1]) for one in server.queried("query", query=OLDEST)["result"]]
    return min(most, max(end - min(oldest), SHORTEST)) if oldest else most


def _span(seconds: float) -> str:
    """As people say it: 7 days, 3 hours, 20 minutes."""
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size * 1.5 or (seconds >= size and name == "minute"):
            count = round(seconds / size)
            return f"{count} {name}s" if count != 1 else f"{name}"
    return "minute"
