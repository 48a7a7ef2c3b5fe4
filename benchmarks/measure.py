"""Time, processor time and memory of one process, from outside, as the kernel counted them.

The measuring process must stay small: the kernel counts its memory into the child's peak, because
for a moment the child is a copy of it. So nothing here imports Gamma.
"""

import math
import os
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cost:
    wall: float  # seconds
    cpu: float  # seconds, user and system
    rss: float  # MB, at the peak
    status: int
    output: str = ""  # the end of what it printed
    stopped: bool = False  # it went over a limit: the figures are what it had used by then


class Failed(Exception):
    """A command that was measured did not end as it should."""


def run(
    command: Sequence[str | Path],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    seconds: float = 3600,
    megabytes: float = 16_000,
) -> Cost:
    """Run to the end, or to a limit of time or memory."""
    log = folder / ".output"
    stopped = threading.Event()
    ended = threading.Event()
    with log.open("wb") as output:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command], cwd=folder, stdout=output, stderr=output, env=environment
        )

        def watch() -> None:
            while not ended.wait(0.5):
                late = time.perf_counter() - begun > seconds
                if late or _resident(process.pid) > megabytes:
                    stopped.set()
                    os.kill(process.pid, signal.SIGKILL)
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        ended.set()
        watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
    text = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    log.unlink()
    cpu = used.ru_utime + used.ru_stime
    return Cost(wall, cpu, used.ru_maxrss / 1024, process.returncode, text, stopped.is_set())


def expect(cost: Cost, status: int, what: str) -> Cost:
    """The cost, if the command ended with this status or was stopped at a limit."""
    if cost.status != status and not cost.stopped:
        raise Failed(f"{what} ended with status {cost.status} instead of {status}:\n{cost.output}")
    return cost


def middle(costs: Sequence[Cost]) -> Cost:
    """The median of each figure."""
    return Cost(
        statistics.median(cost.wall for cost in costs),
        statistics.median(cost.cpu for cost in costs),
        statistics.median(cost.rss for cost in costs),
        costs[0].status,
        stopped=any(cost.stopped for cost in costs),
    )


def exponent(points: Mapping[int, float]) -> float | None:
    """The slope b of time = a * size**b, by least squares on the logarithms."""
    if len(points) < 2:
        return None
    xs = [math.log(size) for size in points]
    ys = [math.log(value) for value in points.values()]
    return statistics.linear_regression(xs, ys).slope


def _resident(pid: int) -> float:
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0
