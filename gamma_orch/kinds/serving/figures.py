"""What the workers of a service did between two looks at them. Called by `scaling_policy`.

A look asks each worker who it is (`app.control`), the system how much processor that process has used, and
reads the counters that the worker leaves in the service's folder (`app.metrics`). So it sees this machine
alone; of the queue the moment of the look, between two looks the processor and the latencies, and of those
only whole answers: a text that is streamed takes as long as somebody reads it.

Looks are remembered beside the policy, because a command that looks is gone before the window is over.
"""

import asyncio
import contextlib
import json
import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from gamma_orch.app import control
from gamma_orch.app.routes import ROUTES
from gamma_orch.kinds.serving.scaling import Figures, Measure
from gamma_orch.kinds.serving.whole import write

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER = 2.0  # seconds that a worker has to say who it is
MANY = 100  # looks that are remembered, at most
ROUTES_TIMED = frozenset(one.name for one in ROUTES if one.scope == "predict" and one.name != "stream")
_UNREADABLE = (OSError, struct.error, RuntimeError, ValueError)  # as app.metrics has them


class Unseen(Exception):
    """The workers cannot be looked at. The text says why."""


@dataclass(frozen=True, slots=True)
class Look:
    at: float  # seconds since 1970
    cpu: Mapping[str, float]  # seconds of processor so far, of each worker by slot and process
    queue: float | None  # texts that wait; None: not known
    latencies: Mapping[str, float] | None  # requests so far, by the bound in seconds that they kept


_LOOKS = TypeAdapter(list[Look])


async def look(home: Path, slots: Sequence[int], now: float) -> Look:
    """At the workers of these numbers. Raises Unseen."""
    try:
        states = await asyncio.gather(*(control.ask(home, slot, "state", ANSWER) for slot in slots))
    except control.Silent as error:
        raise Unseen(str(error)) from None
    if faults := [state["error"] for state in states if "error" in state]:
        raise Unseen(f"a worker does not say how it is: {faults[0]}")
    cpu = {f"{state['slot']}:{state['pid']}": _cpu(state["pid"]) for state in states}
    queue = latencies = None
    with contextlib.suppress(*_UNREADABLE):
        queue, latencies = _counted(home / "metrics", slots)
    return Look(now, cpu, queue, latencies)


def answered(folder: Path, slots: Sequence[int]) -> tuple[float, float]:
    """Requests that these workers have answered so far, and those of them with a fault of ours (500)."""
    answers = faults = 0.0
    for slot in slots:
        with contextlib.suppress(*_UNREADABLE):
            for name, labels, value in _values(folder / f"counter_{slot}.db"):
                if name == "gamma_requests_total":
                    answers += value
                    faults += value if labels["status"] == "500" else 0.0
    return answers, faults


def between(looks: Sequence[Look], now: Look, window: float) -> Figures:
    """From the youngest look that is a window old, or else from the oldest, of those at the same workers."""
    together = [one for one in looks if one.cpu.keys() == now.cpu.keys() and one.at < now.at]
    old = [one for one in together if one.at <= now.at - window]
    since = old[-1] if old else together[0] if together else now
    seconds, workers = now.at - since.at, len(now.cpu)
    if not seconds:
        return Figures(workers, now.at, 0.0)
    measured: dict[Measure, float] = {
        "cpu": (sum(now.cpu.values()) - sum(since.cpu.values())) / seconds / workers
    }
    queues = [one.queue for one in (*together, now) if one.at >= since.at and one.queue is not None]
    if now.queue is not None:
        measured["queue"] = sum(queues) / len(queues) / workers
    requests = 0
    if now.latencies is not None and since.latencies is not None:
        before = since.latencies
        kept = {bound: max(0.0, count - before.get(bound, 0.0)) for bound, count in now.latencies.items()}
        requests = round(sum(kept.values()))
        measured["p95"] = percentile(kept, 0.95)
    return Figures(workers, now.at, seconds, measured, requests)


def percentile(kept: Mapping[str, float], share: float) -> float:
    """Of requests by the bound that they kept, evenly spread between two bounds, as Prometheus takes it. What
    kept none lies at the last bound. 0 where there was no request."""
    total, below, least = sum(kept.values()) * share, 0.0, 0.0
    for bound in sorted(kept, key=float):
        if total and below + kept[bound] >= total:
            most = float(bound)
            inside = (total - below) / kept[bound] if kept[bound] else 0.0
            return least if most == float("inf") else least + (most - least) * inside
        below += kept[bound]
        least = float(bound) if float(bound) != float("inf") else least
    return 0.0


def remembered(path: Path) -> list[Look]:
    """The oldest first. What cannot be read is forgotten: it is made anew."""
    try:
        return _LOOKS.validate_json(path.read_bytes())
    except (OSError, ValueError):
        return []


def remember(path: Path, looks: Sequence[Look], since: float) -> None:
    """Raises OSError."""
    kept = [one for one in looks if one.at >= since][-MANY:]
    write(path, _LOOKS.dump_json(kept).decode())


def _cpu(pid: int) -> float:
    import psutil

    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error as error:
        raise Unseen(f"process {pid} cannot be looked at: {type(error).__name__}") from None
    return float(times.user + times.system)


def _counted(folder: Path, slots: Sequence[int]) -> tuple[float, Mapping[str, float]]:
    queue = 0.0
    latencies: dict[str, float] = defaultdict(float)
    for slot in slots:
        for name, _, value in _values(folder / f"gauge_livesum_{slot}.db"):
            queue += value if name == "gamma_queue_texts" else 0.0
        for name, labels, value in _values(folder / f"histogram_{slot}.db"):
            if name == "gamma_request_seconds_bucket" and labels["route"] in ROUTES_TIMED:
                latencies[labels["le"]] += value
    return queue, dict(latencies)


def _values(file: Path) -> "Iterator[tuple[str, Mapping[str, str], float]]":
    from prometheus_client.mmap_dict import MmapedDict

    for key, value, *_ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
        _, name, labels, _ = json.loads(key)
        yield name, labels, value
