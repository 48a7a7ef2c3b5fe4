"""The machine. Always: a file system that hangs (a server of NFS that is gone) keeps one thread, however
often it is asked for, and no other figure."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil
from prometheus_client import Metric

from gamma_orch.exporter.contract import HOST, Host
from gamma_orch.exporter.source import Failed, Parts, family

# Those of a guest are in `user` already.
MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


class HostSource:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._asked: dict[str, asyncio.Future[list[Metric]]] = {}
        self._threads = ThreadPoolExecutor(1 + len(host.disks), "host")

    async def collect(self, seconds: float) -> Parts:
        asked = {"the machine": self._ask("the machine", lambda: _machine(self._host.interfaces))}
        for path in self._host.disks:
            asked[path] = self._ask(path, lambda path=path: _disk(path))  # type: ignore[misc]
        await asyncio.wait(asked.values(), timeout=seconds)
        faults = []
        late = False
        for what, answer in asked.items():
            if not answer.done():
                faults.append(f"{what} does not answer.")
                late = True
            elif isinstance(error := answer.exception(), OSError):
                faults.append(f"{what} cannot be read: {error.strerror}.")
            else:
                for each in answer.result():
                    yield each
        if faults:
            raise Failed(" ".join(faults), late)

    def close(self) -> None:
        self._threads.shutdown(wait=False)

    def _ask(self, what: str, work: Callable[[], list[Metric]]) -> asyncio.Future[list[Metric]]:
        """In a thread, unless it still waits since it was asked the last time."""
        if what not in self._asked or self._asked[what].done():
            self._asked[what] = asyncio.get_running_loop().run_in_executor(self._threads, work)
        return self._asked[what]


def _machine(interfaces: tuple[str, ...]) -> list[Metric]:
    spent, memory = psutil.cpu_times(), psutil.virtual_memory()
    network = psutil.net_io_counters(pernic=True)
    if lost := sorted(set(interfaces) - set(network)):
        raise OSError(0, f"there is no interface {lost[0]}")
    shown = interfaces or sorted(set(network) - {"lo"})
    load = dict(zip(("1m", "5m", "15m"), os.getloadavg(), strict=True))
    return [
        _family("host_cpu_seconds_total", {mode: getattr(spent, mode) for mode in MODES}, "mode"),
        _family("host_cpus", {"": psutil.cpu_count() or 0}),
        _family("host_load", load, "over"),
        _family("host_memory_bytes", {"": memory.total}),
        _family("host_memory_available_bytes", {"": memory.available}),
        _family("host_swap_used_bytes", {"": psutil.swap_memory().used}),
        _family(
            "host_network_received_bytes_total", {one: network[one].bytes_recv for one in shown}, "interface"
        ),
        _family(
            "host_network_sent_bytes_total", {one: network[one].bytes_sent for one in shown}, "interface"
        ),
        _family("host_boot_seconds", {"": psutil.boot_time()}),
    ]


def _disk(path: str) -> list[Metric]:
    usage = psutil.disk_usage(path)
    return [
        _family("host_disk_bytes", {path: usage.total}, "path"),
        _family("host_disk_free_bytes", {path: usage.free}, "path"),
    ]


def _family(name: str, values: dict[str, float], label: str = "") -> Metric:
    return family(name, HOST[name], [({label: key} if label else {}, value) for key, value in values.items()])
