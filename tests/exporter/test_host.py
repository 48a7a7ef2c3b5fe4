"""The machine, as psutil has it, and a file system that hangs."""

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from gamma_orch.exporter import host
from gamma_orch.exporter.contract import Host, names
from gamma_orch.exporter.source import Failed
from tests.exporter.running import Exporter, series


def test_what_it_says(exporter: Exporter, name: str, tmp_path: Path):
    collector = exporter.put(name, host={"disks": ["/", str(tmp_path)], "interfaces": ["lo"]})
    found = exporter.scrape(name)
    assert {one for one, _ in found} == names(collector)
    memory, disk, network = (
        psutil.virtual_memory(),
        psutil.disk_usage("/"),
        psutil.net_io_counters(pernic=True),
    )
    assert found[series("host_cpus")] == os.cpu_count()
    assert found[series("host_memory_bytes")] == memory.total
    assert found[series("host_memory_available_bytes")] == pytest.approx(memory.available, rel=0.2)
    assert found[series("host_boot_seconds")] == pytest.approx(psutil.boot_time(), abs=2)
    assert found[series("host_disk_bytes", path="/")] == disk.total
    assert found[series("host_disk_free_bytes", path="/")] == pytest.approx(disk.free, rel=0.1)
    assert found[series("host_disk_bytes", path=str(tmp_path))] == psutil.disk_usage(str(tmp_path)).total
    assert found[series("host_network_received_bytes_total", interface="lo")] <= network["lo"].bytes_recv
    assert {dict(labels)["over"] for one, labels in found if one == "host_load"} == {"1m", "5m", "15m"}
    modes = {dict(labels)["mode"]: value for (one, labels), value in found.items() if "cpu_sec" in one}
    assert modes.keys() == {"user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"}
    assert modes["user"] == pytest.approx(psutil.cpu_times().user, rel=0.1)


def test_interfaces_are_all_but_the_loopback(exporter: Exporter, name: str):
    exporter.put(name, host={})
    found = exporter.scrape(name)
    shown = {dict(labels)["interface"] for one, labels in found if one == "host_network_sent_bytes_total"}
    assert shown == set(psutil.net_io_counters(pernic=True)) - {"lo"}


def test_what_is_not_there_keeps_nothing_else_from_being_shown(exporter: Exporter, name: str):
    exporter.put(name, host={"disks": ["/nowhere", "/"]})
    found = exporter.scrape(name)
    assert series("host_disk_bytes", path="/") in found
    assert series("host_cpus") in found
    assert exporter.error(name) == "/nowhere cannot be read: No such file or directory."
    exporter.put(name, host={"interfaces": ["nobody"]})
    found = exporter.scrape(name)
    assert series("host_disk_bytes", path="/") in found
    assert exporter.error(name) == "the machine cannot be read: there is no interface nobody."


async def collected(source: host.HostSource) -> tuple[set[str], Failed | None]:
    found = set()
    try:
        async for metric in source.collect(0.1):
            found |= {f"{metric.name} {sample.labels.get('path', '')}".strip() for sample in metric.samples}
    except Failed as failed:
        return found, failed
    return found, None


def test_a_file_system_that_hangs_keeps_one_thread(monkeypatch: pytest.MonkeyPatch):
    """There is no way to make one here: it is psutil that hangs, in the place of the kernel."""
    freed = threading.Event()
    asked: list[str] = []
    real = psutil.disk_usage

    def hangs(path: str) -> Any:
        asked.append(path)
        if path == "/dead":
            freed.wait(20)
        return real("/")

    monkeypatch.setattr(psutil, "disk_usage", hangs)

    async def run() -> None:
        source = host.HostSource(Host(disks=("/dead", "/")))
        for _ in range(3):
            found, failed = await collected(source)
            assert {"host_cpus", "host_disk_bytes /"} <= found
            assert "host_disk_bytes /dead" not in found
            assert failed is not None
            assert failed.late
            assert str(failed) == "/dead does not answer."
        assert asked.count("/dead") == 1
        freed.set()
        await asyncio.sleep(0.05)
        found, failed = await collected(source)
        assert "host_disk_bytes /dead" in found
        assert failed is None
        source.close()

    asyncio.run(run())
