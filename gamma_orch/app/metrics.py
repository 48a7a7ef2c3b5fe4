"""What a worker counts for Prometheus, and the page that tells it of all workers together.

Each worker process makes one `Recorder` before it does anything else, and tells it what happens; whoever
is scraped, any of them, answers with `exposition`, which adds up all slots. Always:

- A worker writes to files of its slot (0, 1, ...), never of its process id. A worker that is started again
  in the same slot goes on counting where the one before stopped, and no file piles up. Two processes in one
  slot would destroy each other's counts, so the second is refused.
- Gauges are of living workers only: those of a slot that nobody holds are left out.
- Labels are few: a route by its template, a model that the bundle declares (any other is `unknown`), a
  status, a level. Never a principal, a path or a text.
- A count is in the file the moment it is made: a killed worker loses none.

It is used by one thread, the event loop's; `dropped`, `exposition` and `snapshot` may be called in any.
"""

import asyncio
import fcntl
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal, TextIO, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from gamma_orch.app.security import REASONS

MEDIA = CONTENT_TYPE_LATEST
UNKNOWN = "unknown"
PATIENCE = 2.0  # seconds that a worker waits for the one before to leave its slot

LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

Refusal = Literal["unauthenticated", "forbidden", "limited"]
Log = Literal["access", "requests", "predictions", "security"]
Watched = Literal["in_flight", "clients", "queue"]
Tell = Callable[[float], None]

_INFO = "gamma_bundle_info"
# What a file raises that a machine without power left half written.
_BROKEN = (struct.error, RuntimeError, ValueError)


class Recorder:
    def __init__(self, directory: Path | None = None, slot: int = 0) -> None:
        """`directory`: shared by the workers of a service; None counts for this process alone.

        Raises RuntimeError where another process holds the slot, or this one has a directory already.
        """
        self._slots = None if directory is None else _Slots(directory, slot)
        registry = self._registry = CollectorRegistry()
        self._models = {""}

        def counter(name: str, says: str, *labels: str) -> _Children:
            return _Children(Counter(name, says, labels, registry=registry), "inc", self._models)

        def histogram(name: str, says: str, buckets: Iterable[float], *labels: str) -> _Children:
            made = Histogram(name, says, labels, registry=registry, buckets=tuple(buckets))
            return _Children(made, "observe", self._models)

        def gauge(name: str, says: str, *labels: str) -> _Children:
            made = Gauge(name, says, labels, registry=registry, multiprocess_mode="livesum")
            return _Children(made, "set", self._models)

        self._requests = counter("gamma_requests", "Requests answered.", "model", "route", "status")
        self._seconds = histogram(
            "gamma_request_seconds", "From the first byte to the answer.", LATENCIES, "model", "route"
        )
        self._answers = counter("gamma_answers", "Predictions, by where they came from.", "model", "cache")
        self._batches = histogram("gamma_batch_texts", "Texts that ran together.", SIZES, "model")
        self._waits = histogram("gamma_queue_wait_seconds", "Wait for a batch.", LATENCIES, "model")
        self._tokens = counter("gamma_tokens", "Tokens read and written.", "model", "direction")
        self._shadows = counter("gamma_shadow_answers", "Answers of shadows.", "model", "agrees")
        self._refused = counter("gamma_refused", "Requests turned away.", "reason", "limit")
        self._security = counter("gamma_security_events", "Security events.", "kind", "reason")
        for kind, reasons in REASONS.items():  # all there are: what begins at 0 has a rate from its first one
            for reason in reasons:
                _ = self._security[kind, reason]
        self._dropped = counter("gamma_log_rows_dropped", "Log rows that nobody could take.", "log")
        for log in get_args(Log):  # made here: the thread that writes the log must make no child
            _ = self._dropped[log,]
        self._lag = histogram("gamma_loop_lag_seconds", "How late the event loop is.", LATENCIES)[()]
        self._valkey: Gauge | None = None
        self._bundles = gauge(_INFO, "Workers that run this bundle.", "digest")
        self._gauges: dict[Watched, _Children] = {
            "in_flight": gauge("gamma_requests_in_flight", "Requests being answered."),
            "clients": gauge("gamma_live_clients", "Connections to the live stream."),
            "queue": gauge("gamma_queue_texts", "Texts that wait.", "model"),
        }
        self._sources: dict[tuple[Watched, str], tuple[Tell, Callable[[], float]]] = {}
        self._digest = ""

    # The hot path

    def request(self, route: str, model: str, status: int, seconds: float, cache: str = "") -> None:
        """A request was answered; `cache`: the level that a prediction came from, `model` where from none."""
        self._requests[model, route, status](1)
        self._seconds[model, route](seconds)
        if cache:
            self._answers[model, cache](1)

    def tokens(self, model: str, read: int, written: int) -> None:
        self._tokens[model, "in"](read)
        self._tokens[model, "out"](written)

    def batch(self, model: str, texts: int, waited: Iterable[float]) -> None:
        """A batch begins; `waited`: the seconds that each of its requests waited."""
        self._batches[model,](texts)
        observe = self._waits[model,]
        for seconds in waited:
            observe(seconds)

    def refused(self, reason: Refusal, limit: str = "") -> None:
        """`limit`: the name of the one that is used up."""
        self._refused[reason, limit](1)

    def security(self, kind: str, reason: str) -> None:
        self._security[kind, reason](1)

    def shadow(self, model: str, agrees: bool) -> None:
        self._shadows[model, "yes" if agrees else "no"](1)

    def dropped(self, log: Log, rows: int = 1) -> None:
        self._dropped[log,](rows)

    # State

    def valkey(self, up: bool) -> None:
        if self._valkey is None:  # a worker that has none says nothing about it
            self._valkey = Gauge(
                "gamma_valkey_up",
                "1: every worker reaches Valkey.",
                registry=self._registry,
                multiprocess_mode="livemin",
            )
        self._valkey.set(up)

    def bundle(self, digest: str, models: Iterable[str] = ()) -> None:
        """This worker answers by another bundle from now on; `models`: the names that it declares."""
        if self._digest:
            self._bundles[self._digest,](0)
        self._digest = digest
        self._bundles[digest,](1)
        self._models.clear()
        self._models.update(models, ("",))

    def watch(self, what: Watched, count: Callable[[], float] | None, model: str = "") -> None:
        """`sample` asks `count` from now on. None: it is gone, and is 0."""
        key = (what, model)
        self._models.add(model)  # it is loaded, and in the bundle that is told of when all are
        tell = self._gauges[what][(model,) if what == "queue" else ()]
        if count is None:
            self._sources.pop(key, None)
            tell(0)
        else:
            self._sources[key] = tell, count

    def lag(self, seconds: float) -> None:
        self._lag(seconds)

    def sample(self) -> None:
        """Write down what is watched. `beat` calls it."""
        for tell, count in self._sources.values():
            tell(count())

    async def beat(self, every: float = 0.25) -> None:
        """Sample, and measure how late the event loop is, until cancelled."""
        while True:
            self.sample()
            due = time.perf_counter() + every
            await asyncio.sleep(every)
            self.lag(max(0.0, time.perf_counter() - due))

    # The page

    def exposition(self) -> bytes:
        """All slots together, in the Prometheus text format (`MEDIA`). Takes milliseconds: use a thread."""
        return generate_latest(_Told(self._slots or self._registry))

    def snapshot(self) -> dict[str, float]:
        """The sum of each series over its labels, histograms as `_count` and `_sum`; and what no sum tells:
        how many predictions a cache answered, and how many requests failed by our fault (5xx)."""
        cached, failed = "gamma_answers_cached_total", "gamma_requests_failed_total"
        totals = {cached: 0.0, failed: 0.0}
        for metric in _Told(self._slots or self._registry).collect():
            for sample in metric.samples:
                if not sample.name.endswith("_bucket"):
                    totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
                if sample.name == "gamma_answers_total" and sample.labels["cache"] != "made":
                    totals[cached] += sample.value
                if sample.name == "gamma_requests_total" and sample.labels["status"].startswith("5"):
                    totals[failed] += sample.value
        return totals


class _Children(dict[tuple[object, ...], Tell]):
    """The bound method of each child of a metric, by its labels, made at its first use.

    A first label `model` that is not declared becomes `unknown`, and is not remembered: whoever invents
    names makes neither series nor memory.
    """

    def __init__(self, metric: Counter | Gauge | Histogram, method: str, models: set[str]) -> None:
        super().__init__()
        self._metric, self._method = metric, method
        self._models = models if metric._labelnames[:1] == ("model",) else None

    def __missing__(self, labels: tuple[object, ...]) -> Tell:
        if self._models is not None and labels[0] not in self._models and labels[0] != UNKNOWN:
            return self[(UNKNOWN, *labels[1:])]
        child = self._metric.labels(*labels) if labels else self._metric
        tell: Tell = getattr(child, self._method)
        self[labels] = tell
        return tell


class _Told(Collector):
    """What is collected, without the bundles that no worker runs any more."""

    def __init__(self, source: Collector) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        for metric in self._source.collect():
            if metric.name == _INFO:
                metric.samples = [sample for sample in metric.samples if sample.value]
            yield metric


class _Slots(Collector):
    """The files of all slots, this process's among them."""

    _of_this_process: ClassVar["_Slots | None"] = None

    def __init__(self, directory: Path, slot: int) -> None:
        if _Slots._of_this_process is not None:
            raise RuntimeError("This process has a slot already: metrics are made once.")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._lock = _held(directory / f"{slot}.lock")  # until the process ends
        for file in directory.glob(f"*_{slot}.db"):
            if file.name.startswith("gauge_") or not _whole(file):
                file.unlink()
        values.ValueClass = _value_class(directory, slot)
        _Slots._of_this_process = self

    def collect(self) -> Iterable[Metric]:
        files = [file for file in self._directory.glob("*.db") if self._counts(file)]
        try:
            return _merged(files)
        except _BROKEN:
            return _merged([file for file in files if _whole(file)])

    def _counts(self, file: Path) -> bool:
        slot = file.stem.rpartition("_")[2]
        return not file.name.startswith("gauge_") or _is_held(self._directory / f"{slot}.lock")


def _merged(files: Iterable[Path]) -> Iterable[Metric]:
    merged: Iterable[Metric] = MultiProcessCollector.merge([str(file) for file in files])  # type: ignore[no-untyped-call]
    return merged


def _whole(file: Path) -> bool:
    try:
        for _ in MmapedDict.read_all_values_from_file(file):  # type: ignore[no-untyped-call]
            pass
    except _BROKEN:
        return False
    return True


def _held(path: Path) -> TextIO:
    """The file, locked for as long as it is open."""
    file = path.open("a")
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # One that looks (`_is_held`) has it for a moment only.
            if time.monotonic() > end:
                file.close()
                raise RuntimeError(
                    f"The slot {path.stem} in {path.parent} belongs to another process that still runs. "
                    "Give this worker a slot of its own, or end that process first."
                ) from None
            time.sleep(0.02)
        else:
            return file


def _is_held(path: Path) -> bool:
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _value_class(directory: Path, slot: int) -> Any:
    """A number in a file of the slot, as prometheus_client wants it where there are several processes.

    The library's own has a lock and looks for a fork at every step, which costs more than the counting;
    here is one thread, and nobody forks.
    """
    files: dict[str, Any] = {}

    class Value:
        __slots__ = ("_file", "_key", "_value")
        _multiprocess = True

        def __init__(
            self,
            kind: str,
            metric: str,
            name: str,
            labels: list[str],
            given: list[str],
            says: str,
            multiprocess_mode: str = "",
            **_: object,
        ) -> None:
            prefix = f"{kind}_{multiprocess_mode}" if kind == "gauge" else kind
            if prefix not in files:
                files[prefix] = MmapedDict(str(directory / f"{prefix}_{slot}.db"))  # type: ignore[no-untyped-call]
            self._file = files[prefix]
            self._key = mmap_key(metric, name, labels, given, says)
            self._value: float = self._file.read_value(self._key)[0]

        def inc(self, amount: float) -> None:
            self._value += amount
            self._file.write_value(self._key, self._value, 0.0)

        def set(self, value: float, timestamp: float | None = None) -> None:
            self._value = value
            self._file.write_value(self._key, value, timestamp or 0.0)

        def get(self) -> float:
            return self._value

        def get_exemplar(self) -> None:
            return None

    return Value


disable_created_metrics()  # type: ignore[no-untyped-call]
