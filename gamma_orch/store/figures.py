"""What the ledger of an environment comes to, as metrics: how the reconciler is doing.

Called by the exporter in a process of its own, at each scrape; it reads, and never makes a ledger.
"""

from collections.abc import Iterator
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from gamma_orch.core.event import Type
from gamma_orch.store.database import Database
from gamma_orch.store.ledger import present

RESOURCES, FAILING = "gamma_ledger_resources", "gamma_ledger_failing_resources"
EVENTS, LAST = "gamma_ledger_events", "gamma_ledger_last_event_seconds"
NAMES = frozenset((RESOURCES, FAILING, f"{EVENTS}_total", LAST))

_TYPES = "SELECT type, count(*), max(at) FROM events WHERE environment = :environment GROUP BY type"


def figures(ledger: str, environment: str) -> Iterator[Metric]:
    """`ledger`: its URL. Raises StoreError."""
    database = Database(ledger)
    try:
        entries = present(database, environment)[0].entries
        there = GaugeMetricFamily(RESOURCES, "Resources that are managed.", labels=["kind"])
        failing = GaugeMetricFamily(FAILING, "Of those, such as failed last time.", labels=["kind"])
        for kind in sorted({address.kind for address in entries}):
            own = [entry for address, entry in entries.items() if address.kind == kind]
            there.add_metric([kind], sum(entry.record is not None for entry in own))
            failing.add_metric([kind], sum(bool(entry.error) for entry in own))
        happened = CounterMetricFamily(EVENTS, "Events of the ledger.", labels=["type"])
        last = GaugeMetricFamily(LAST, "When the last one was, in seconds since 1970.", labels=["type"])
        counted = {
            str(row[0]): (int(row[1]), str(row[2])) for row in database.read(_TYPES, environment=environment)
        }
        for one in Type:
            count, at = counted.get(one.value, (0, ""))
            happened.add_metric([one.value], count)
            if at:
                last.add_metric([one.value], datetime.fromisoformat(at).timestamp())
        yield from (there, failing, happened, last)
    finally:
        database.close()
