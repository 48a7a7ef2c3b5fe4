"""What the machine is that models are measured on: processor, cores, instruction sets, memory.

Called where candidates are chosen (which are worth building here) and for the key of a benchmark: what was
measured on another machine says nothing of this one. Reads /proc and asks psutil; imports no library of
models, but for `gpus`, which is for worker processes.
"""

import math
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gamma_orch.core.canonical import Json, digest

# What runtimes choose their kernels by. On x86 under the kernel's names, on Arm under ours.
_X86 = (
    "avx2", "f16c", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16",
)  # fmt: skip
_ARM: Mapping[str, str] = {
    "asimd": "neon", "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16", "asimdhp": "fp16", "sve": "sve",
}  # fmt: skip
_NO_LIMIT = 1 << 60  # cgroup v1 spells "no limit" as a number near 2**63


@dataclass(frozen=True, slots=True)
class Host:
    cpu: str
    architecture: str  # x86_64, aarch64
    cores: int  # that this process may use: affinity and cgroup quota count
    instructions: tuple[str, ...]
    memory: int  # bytes, at most what the cgroup allows
    gpus: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """Names the machine in keys of benchmarks. Memory is left out: it decides whether a model runs, not
        how fast, and differs by a few pages between boots of one machine."""
        return digest({key: value for key, value in self.encoded().items() if key != "memory"})

    def has(self, *instructions: str) -> bool:
        return set(instructions) <= set(self.instructions)

    def encoded(self) -> Json:
        return {**asdict(self), "instructions": list(self.instructions), "gpus": list(self.gpus)}

    def __str__(self) -> str:
        cores = f"{self.cores} core{'s' * (self.cores != 1)}"
        sets = f", {', '.join(self.instructions)}" if self.instructions else ""
        gpus = "".join(f", {name}" for name in self.gpus)
        return f"{self.cpu}, {cores}{sets}, {self.memory / 2**30:.0f} GiB{gpus}"


def probe(
    gpus: Iterable[str] = (), proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")
) -> Host:
    """This machine, as this process may use it. What cannot be read is left empty, never guessed."""
    info = _text(proc / "cpuinfo")
    return Host(
        cpu=_model(info),
        architecture=platform.machine(),
        cores=_cores(cgroup),
        instructions=_instructions(info),
        memory=_memory(proc, cgroup),
        gpus=tuple(gpus),
    )


def gpus() -> tuple[str, ...]:
    """The accelerators that torch sees, by name. Imports torch: for worker processes."""
    try:
        import torch
    except ImportError:
        return ()
    if not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _model(info: str) -> str:
    for name in ("model name", "Model", "Hardware"):
        if found := re.search(rf"^{name}\s*:\s*(.+)$", info, re.MULTILINE):
            return " ".join(found[1].split())
    part, maker = (
        re.search(rf"^CPU {name}\s*:\s*(\S+)", info, re.MULTILINE) for name in ("part", "implementer")
    )
    if part and maker:  # Arm names no model, but numbers it
        return f"implementer {maker[1]} part {part[1]}"
    return platform.processor() or platform.machine()


def _instructions(info: str) -> tuple[str, ...]:
    if found := re.search(r"^flags\s*:\s*(.+)$", info, re.MULTILINE):
        flags = set(found[1].split())
        return tuple(name for name in _X86 if name in flags)
    if found := re.search(r"^Features\s*:\s*(.+)$", info, re.MULTILINE):
        features = set(found[1].split())
        return tuple(ours for theirs, ours in _ARM.items() if theirs in features)
    return ("neon",) if platform.machine() in ("arm64", "aarch64") else ()


def _cores(cgroup: Path) -> int:
    affine = hasattr(os, "sched_getaffinity")  # not on macOS
    cores = len(os.sched_getaffinity(0)) if affine else os.cpu_count() or 1
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def _quota(cgroup: Path) -> float | None:
    """The cgroup's share of processors: cgroup v2, then v1."""
    words = _text(cgroup / "cpu.max").split()
    if len(words) == 2 and words[0] != "max":
        return int(words[0]) / int(words[1])
    quota, period = _numbers(cgroup, ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
    return quota / period if quota and period and quota > 0 else None


def _memory(proc: Path, cgroup: Path) -> int:
    found = re.search(r"^MemTotal:\s*(\d+) kB", _text(proc / "meminfo"), re.MULTILINE)
    if found:
        total = int(found[1]) * 1024
    else:
        import psutil

        total = psutil.virtual_memory().total
    limits = _numbers(cgroup, ("memory.max", "memory/memory.limit_in_bytes"))
    return min([total, *(limit for limit in limits if limit and 0 < limit < _NO_LIMIT)])


def _numbers(folder: Path, names: Sequence[str]) -> list[int | None]:
    found: list[int | None] = []
    for name in names:
        text = _text(folder / name).strip()
        found.append(int(text) if text.lstrip("-").isdigit() else None)
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
