"""Asks the Prometheus and the ledger of an environment for what a report is made of.

`gathered` is called by `gamma report`. A question that Prometheus does not answer makes its own figures
unknown, and no others; a Prometheus that does not run makes all of them so, and the ledger is read all the
same.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import ProviderError
from gamma_orch.core.resource import Resource
from gamma_orch.kinds.monitoring.slo import BUDGET, counters
from gamma_orch.report import alerts, objectives, services
from gamma_orch.report.answers import Answer, series
from gamma_orch.report.contents import Raw
from gamma_orch.report.span import Span
from gamma_orch.spec.durations import duration, written_duration
from gamma_orch.spec.quantities import share_of
from gamma_orch.store.database import Database
from gamma_orch.store.ledger import events, released
from gamma_orch.targets.prometheus import Prometheus

AT_ONCE = 4
MOMENT = 0.001  # seconds: a sample that lies on the edge of two pieces is counted in one of them
MONITORS = "health|ready|metrics"  # the routes that monitors ask
_SIZES = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}


async def gathered(
    environment: str,
    desired: Mapping[Address, Resource],
    database: Database,
    server: Prometheus | None,
    name: str,
    start: float,
    end: float,
) -> Raw:
    """`server`: the target `name`; None where the environment declares no Prometheus. Raises StoreError."""
    asking = _Asking(server)
    await asking.begin()
    span = Span.of(start, end, asking.interval)
    up, firing, api, aims = await asyncio.gather(
        asking.over(f"max by (job) (max_over_time(up[{span.fine}s]))", span, fine=True),
        asking.over(f'count_over_time(ALERTS{{alertstate="firing"}}[{span.fine}s])', span, fine=True),
        _services(asking, span),
        asyncio.gather(*(_objective(asking, one, span) for one in _of("SLO", desired, name))),
    )
    others = [one for kind in ("SLO", "AlertRule") for one in _of(kind, desired, name, elsewhere=True)]
    return Raw(
        environment=environment,
        commit=released(database, environment),
        span=span,
        prometheus=server.title if server is not None else "",
        error=asking.error,
        up=up,
        firing=firing,
        services=api,
        objectives=aims,
        running=asking.rules,
        elsewhere=sorted(f"{one.address} on {one.spec['prometheus']}" for one in others),
        events=await asyncio.to_thread(events, database, environment),
    )


class _Asking:
    """Several questions at once, each with its answer, or with why there is none."""

    def __init__(self, server: Prometheus | None) -> None:
        self._server = server
        self._limit = asyncio.Semaphore(AT_ONCE)
        self.error = ""
        self.interval = 0.0  # the longest between two of its scrapes or evaluations, in seconds
        self.rules: list[alerts.Running] = []

    async def begin(self) -> None:
        """What it runs; or why it cannot be asked."""
        if self._server is None:
            self.error = "The environment declares no Prometheus."
            return
        if not self._server.exists:
            self.error = f"{self._server.title} was never started: it has no data."
            return
        try:
            groups, jobs = await self._server.groups(), await self._server.jobs()
        except ProviderError as error:
            self.error = str(error)
            return
        self.rules = [_running(rule) for one in groups for rule in one["rules"] if rule["type"] == "alerting"]
        scraped = (seconds(str(one.get("scrape_interval", "0s"))) for one in jobs.values())
        self.interval = max([0.0, *scraped, *(float(one["interval"]) for one in groups)])

    async def over(self, query: str, span: Span, fine: bool = False) -> Answer:
        """The query at the end of each step of the span."""
        step, late = (span.fine, MOMENT) if fine else (span.step, 0.0)
        said = f"{query}  # each {written(step)}"
        if self.error or self._server is None:
            return Answer(said, error=self.error)
        try:
            async with self._limit:
                found = await self._server.query_range(query, span.start + step + late, span.end + late, step)
        except ProviderError as error:
            return Answer(said, error=str(error))
        return Answer(said, series(found))

    async def at(self, query: str, moment: float) -> Answer:
        if self.error or self._server is None:
            return Answer(query, error=self.error)
        try:
            async with self._limit:
                return Answer(query, series(await self._server.query(query, moment)))
        except ProviderError as error:
            return Answer(query, error=str(error))


async def _services(asking: _Asking, span: Span) -> services.Source:
    counted = f'increase(gamma_requests_total{{route!~"{MONITORS}"}}[{span.step}s])'
    took = f'increase(gamma_request_seconds_bucket{{route!~"{MONITORS}"}}[{span.step}s])'
    return services.Source(
        *await asyncio.gather(
            asking.over(f"sum by (job, model, status) ({counted})", span),
            asking.over(f"sum by (job, le) ({took})", span),
            asking.over(f"sum by (job, cache) (increase(gamma_answers_total[{span.step}s]))", span),
        )
    )


async def _objective(asking: _Asking, one: Resource, span: Span) -> objectives.Source:
    window = duration(one.spec["window"])
    whole = Span.of(span.end - window.total_seconds(), span.end, asking.interval)
    part, total, is_bad = counters(one.spec["indicator"])

    async def asked(over: Span) -> objectives.Asked:
        found = await asyncio.gather(
            *(asking.over(f"sum(increase({what}[{over.step}s]))", over) for what in (part, total))
        )
        return objectives.Asked(over, found[0], found[1], is_bad)

    return objectives.Source(
        name=one.address.name,
        objective=share_of(one.spec["objective"]),
        window=written_duration(window),
        about=one.spec["about"],
        now=await asked(span),
        whole=await asked(whole),
        recorded=await asking.at(f'{BUDGET}{{slo="{one.address.name}"}}', span.end),
    )


def _of(
    kind: str, desired: Mapping[Address, Resource], server: str, elsewhere: bool = False
) -> Sequence[Resource]:
    own = (one for address, one in sorted(desired.items()) if address.kind == kind)
    return [one for one in own if (one.spec["prometheus"] != server) is elsewhere]


def _running(rule: Json) -> alerts.Running:
    labels = rule.get("labels") or {}
    return alerts.Running(
        str(rule["name"]), labels.get("severity", alerts.NOT_SAID), labels.get("resource", alerts.NOT_SAID)
    )


def seconds(text: str) -> float:
    """As Prometheus writes durations: 5s, 1m30s, 250ms."""
    return sum(float(number) * _SIZES[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdwy])", text))


def written(step: int) -> str:
    return next(
        f"{step // size}{unit}"
        for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
        if step % size == 0
    )
