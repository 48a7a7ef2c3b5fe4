"""The machine, as /proc and the cgroup tell of it."""

import dataclasses
import os
from pathlib import Path

import psutil
import pytest

from gamma_orch.kinds.models.host import Host, probe

X86 = """processor : 0
model name\t: Intel(R)  Xeon(R) Platinum 8481C
flags\t\t: fpu sse2 avx avx2 fma f16c avx512f avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8

"""
ARM = """processor\t: 0
Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp asimddp sve i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


@pytest.fixture
def machine(tmp_path: Path):
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    (cgroup / "cpu").mkdir(parents=True)
    (cgroup / "memory").mkdir()
    proc.mkdir()
    (proc / "meminfo").write_text("MemTotal:       16384000 kB\nMemFree: 1 kB\n")

    def look(info: str = X86, files: dict[str, str] | None = None) -> Host:
        (proc / "cpuinfo").write_text(info)
        for name, text in (files or {}).items():
            (cgroup / name).write_text(text)
        return probe(proc=proc, cgroup=cgroup)

    return look


def test_an_x86(machine):
    host = machine()
    assert host.cpu == "Intel(R) Xeon(R) Platinum 8481C"
    assert host.instructions == (
        "avx2", "f16c", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16",
    )  # fmt: skip
    assert host.has("avx512_vnni", "amx_int8")
    assert not host.has("avx512_vnni", "avx_vnni")
    assert host.memory == 16384000 * 1024


def test_an_arm(machine):
    host = machine(ARM)
    assert host.cpu == "implementer 0x41 part 0xd40"
    assert host.instructions == ("neon", "dotprod", "i8mm", "bf16", "fp16", "sve")


def test_a_container_has_what_its_cgroup_leaves(machine):
    host = machine(files={"memory.max": "2147483648\n", "cpu.max": "50000 100000\n"})
    assert (host.memory, host.cores) == (2**31, 1)


def test_the_first_version_of_cgroups(machine):
    host = machine(
        files={
            "memory/memory.limit_in_bytes": "1073741824\n",
            "cpu/cpu.cfs_quota_us": "80000\n",
            "cpu/cpu.cfs_period_us": "100000\n",
        }
    )
    assert (host.memory, host.cores) == (2**30, 1)


@pytest.mark.parametrize(
    "files",
    [
        {"memory.max": "max\n", "cpu.max": "max 100000\n"},
        {"memory/memory.limit_in_bytes": "9223372036854771712\n", "cpu/cpu.cfs_quota_us": "-1\n"},
        {},
    ],
)
def test_no_limit(machine, files: dict[str, str]):
    host = machine(files=files)
    assert (host.memory, host.cores) == (16384000 * 1024, len(os.sched_getaffinity(0)))


def test_what_cannot_be_read_is_empty(tmp_path: Path):
    host = probe(proc=tmp_path, cgroup=tmp_path)
    assert host.memory == psutil.virtual_memory().total
    assert host.cpu
    assert host.cores >= 1


def test_the_fingerprint_names_what_decides_speed(machine):
    host = machine()
    same = dataclasses.replace(host, memory=host.memory // 2)
    assert same.fingerprint() == host.fingerprint()
    others = [
        dataclasses.replace(host, cores=host.cores + 1),
        dataclasses.replace(host, instructions=host.instructions[:-1]),
        dataclasses.replace(host, cpu="another"),
        dataclasses.replace(host, gpus=("one",)),
    ]
    assert len({host.fingerprint(), *(one.fingerprint() for one in others)}) == 5


def test_this_machine():
    host = probe()
    assert host.fingerprint() == probe().fingerprint()
    assert 1 <= host.cores <= (os.cpu_count() or 1)
    assert 0 < host.memory <= psutil.virtual_memory().total
    assert str(host).startswith(host.cpu)
