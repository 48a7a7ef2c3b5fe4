"""The collectors that there are, as their files say at the moment, and what came of each.

Always: a file is looked at whenever its collector is asked for, and one that has changed is opened anew; what
is asked for by several at one moment is collected once; a collector that hangs, fails or floods keeps nobody
waiting but those who ask for it, and them not longer than it may take.
"""

import asyncio
import hashlib
import logging
import time
import traceback
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Metric
from pydantic import ValidationError

from gamma_orch.core.provider import ProviderError
from gamma_orch.exporter.contract import SECONDS, UP, Collector, Host, Http, Part, Python, Sql, Valkey
from gamma_orch.exporter.source import Failed, Source, family, misfits

SHARE = 0.95  # of its time after which a source gives up by itself, with what it has
OUTCOMES = ("ok", "failed", "late")

_log = logging.getLogger("gamma.exporter")


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a collector the last time."""

    up: bool | None = None  # None: it was not asked yet
    error: str = ""
    at: float | None = None  # seconds since 1970
    seconds: float | None = None
    metrics: tuple[Metric, ...] = ()


class Collectors:
    def __init__(self, folder: Path, registry: CollectorRegistry) -> None:
        self._folder = folder
        self._running: dict[str, Running] = {}
        self._scrapes = Counter(
            "gamma_exporter_scrapes", "How collectors went.", ("collector", "outcome"), registry=registry
        )

    def all(self) -> dict[str, "Running"]:
        names = {path.stem for path in self._folder.glob("*.json")} | set(self._running)
        return {name: one for name in sorted(names) if (one := self.get(name)) is not None}

    def get(self, name: str) -> "Running | None":
        """None where there is no file for it."""
        before = self._running.get(name)
        path = self._folder / f"{name}.json"
        try:
            found = path.stat()
        except OSError:
            if before is not None:
                self._running.pop(name).retire()
                for outcome in OUTCOMES:
                    self._scrapes.remove(name, outcome)
            return None
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if before is None or before.stamp != stamp:
            if before is not None:
                before.retire()
            count = {outcome: self._scrapes.labels(name, outcome) for outcome in OUTCOMES}
            self._running[name] = Running(name, path, stamp, count)
        return self._running[name]

    def close(self) -> None:
        for running in self._running.values():
            running.close()


class Running:
    """One collector, by one content of its file."""

    def __init__(
        self, name: str, path: Path, stamp: tuple[int, int, int], count: Mapping[str, Counter]
    ) -> None:
        self.digest = ""
        self.told = Told()
        self._name, self._count = name, count
        self._collector: Collector | None = None
        self._source: Source | None = None
        self._work: asyncio.Task[Failed | None] | None = None
        self._flight: asyncio.Task[Told] | None = None
        self.stamp: tuple[int, int, int] | None = stamp
        try:
            self._open(path)
        except OSError as error:
            self.stamp = None  # it is looked at again
            self._tell(Told(up=False, error=f"Its file cannot be read: {error.strerror}."))
        except (Failed, ValidationError) as error:
            words = misfits(error) if isinstance(error, ValidationError) else str(error)
            self._tell(Told(up=False, error=f"Its file is wrong. {words}."))

    async def collect(self) -> Told:
        if self._flight is None or self._flight.done():
            self._flight = asyncio.create_task(self._fly())
        return await asyncio.shield(self._flight)  # who asks and goes away takes nothing from the others

    def retire(self) -> None:
        """Close it when what is collected at the moment is there."""
        if self._flight is not None and not self._flight.done():
            self._flight.add_done_callback(lambda _: self.close())
        else:
            self.close()

    def close(self) -> None:
        if self._source is not None:
            self._source.close()

    def _open(self, path: Path) -> None:
        text = path.read_bytes()
        self.digest = hashlib.sha256(text).hexdigest()
        collector = Collector.model_validate_json(text)
        if collector.name != self._name:
            raise Failed(f"It names the collector {collector.name}")
        try:
            self._source = _source(collector.part)
        except ModuleNotFoundError as error:
            raise Failed(f"It needs the package {error.name}, which is not installed") from None
        self._collector = collector

    async def _fly(self) -> Told:
        began = time.monotonic()
        found: list[Metric] = []
        fault = await self._found(found)
        labels = self._collector.labels if self._collector else {}
        metrics, clashes = joined(found, labels)
        seconds = time.monotonic() - began
        errors = [str(fault)] * bool(fault) + clashes
        own = {**labels, "collector": self._name}
        metrics += [
            family(UP, "1: all was collected.", [(own, not errors)]),
            family(SECONDS, "How long it took.", [(own, seconds)]),
        ]
        self._count["late" if fault and fault.late else "failed" if errors else "ok"].inc()
        return self._tell(Told(not errors, " ".join(errors), time.time(), seconds, tuple(metrics)))

    async def _found(self, found: list[Metric]) -> Failed | None:
        """Nothing can make this last longer than the collector may take, not even what does not let itself be
        broken off: that is left to itself, and until it ends nothing is asked of this source."""
        if self._collector is None:
            return Failed(self.told.error)
        if self._work is not None and not self._work.done():
            return Failed("It still hangs in what it was asked before.", late=True)
        into: list[Metric] = []
        self._work = asyncio.create_task(self._fill(into, self._collector.timeout * SHARE))
        await asyncio.wait({self._work}, timeout=self._collector.timeout)
        found += into
        if self._work.done():
            return self._work.result()
        self._work.cancel()
        return Failed(f"It gave no answer in {self._collector.timeout:.3g} seconds.", late=True)

    async def _fill(self, found: list[Metric], seconds: float) -> Failed | None:
        assert self._source is not None
        try:
            async with aclosing(self._source.collect(seconds)) as parts:
                async for each in parts:
                    found.append(each)  # noqa: PERF401 - what is there is there, whatever comes after it
        except Failed as failed:
            return failed
        except ProviderError as error:  # of an embedded server that never was started
            return Failed(str(error))
        except Exception as error:  # noqa: BLE001 - a defect of one collector is not the end of the others
            where = traceback.extract_tb(error.__traceback__)[-1]
            return Failed(f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}.")
        return None

    def _tell(self, told: Told) -> Told:
        if told.error and told.error != self.told.error:
            _log.warning("%s: %s", self._name, told.error)
        elif told.up and self.told.up is False:
            _log.info("%s: all is collected again.", self._name)
        self.told = told
        return told


def joined(found: Iterable[Metric], labels: Mapping[str, str]) -> tuple[list[Metric], list[str]]:
    """One family for each name, with the labels on all, and what had to be left out: a page that has one
    series twice is none."""
    families: dict[str, Metric] = {}
    faults: list[str] = []
    for each in found:
        name = f"{each.name}_total" if each.type == "counter" else each.name
        whole = families.setdefault(name, Metric(each.name, each.documentation, each.type))
        if whole.type != each.type:
            faults.append(f"{name} is a {whole.type} and a {each.type}.")
            continue
        whole.samples += [one._replace(labels={**one.labels, **labels}) for one in each.samples]
    seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
    for name, whole in tuple(families.items()):
        keys = [(one.name, frozenset(one.labels.items())) for one in whole.samples]
        if len(set(keys) - seen) < len(keys):
            faults.append(f"Two series of {name} have the same labels.")
            del families[name]
        seen.update(keys)
    return list(families.values()), faults


def _source(part: Part) -> Source:
    """Only what is used is loaded, and need be there."""
    match part:
        case Sql():
            from gamma_orch.exporter.sql import SqlSource

            return SqlSource(part)
        case Http():
            from gamma_orch.exporter.probe import HttpSource

            return HttpSource(part)
        case Host():
            from gamma_orch.exporter.host import HostSource

            return HostSource(part)
        case Valkey():
            from gamma_orch.exporter.valkey import ValkeySource

            return ValkeySource(part)
        case Python():
            from gamma_orch.exporter.python import PythonSource

            return PythonSource(part)
