"""How fast a model is, what memory it takes and how long it loads, beside its baseline in the same minutes.

    inputs  model: a model folder; baseline (optional): the model that it is compared with
    params  {"batches": [1, 16], "lengths": [32, 128], "threads": 1, "seconds": 1.0 (each shape and model, at
             least), "concurrency": [1], "generate": {"prompt": 64, "new": 32} for models that write,
             "traffic": "mixed" for shapes that take turns (a run never follows one of its own shape),
             "host": its fingerprint, which is only here to be part of the key}
    out     benchmark.json, the facts
    facts   of each model: load seconds, memory, size, p50 and p95 of each shape by both clocks, texts/s,
            tokens/s. With a baseline: `ratios` of its times to the model's (4.0 is four times as fast) and
            their geometric mean, `speedup` (where `generate` is measured: the ratio of whole texts instead);
            `shares` of its size, memory and load time (0.25 is a quarter)

Each model runs in a fresh process (`timed`). The two take turns, A B A B, in slices of a fraction of a
second, so that whatever else the machine does happens to both. Warm-up runs are not counted. Models' files
are read once before, so that loading never waits for a disk.

Which clock a ratio goes by is `basis`: wall time, or processor time where other programs took more than a
tenth of the machine meanwhile (`others`), for waiting is theirs, not the model's. Both are reported.
The bytes of the output differ each time: it is a measurement.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import psutil

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent, Temporary
from gamma_orch.kinds.models.job import Job

FACTS = "benchmark.json"
LEAST = 5  # runs of each shape, however long they take
WARM = 2
TURNS = 8  # slices in `seconds`
BUSY = 0.1
MODEL, BASELINE = "model", "baseline"
_WEIGHTS = {".safetensors", ".onnx", ".data", ".onnx_data", ".xml", ".bin", ".gguf"}


class Process:
    """A `timed` process of one model. Used as `with`."""

    def __init__(self, folder: Path, threads: int, log: Path) -> None:
        self._folder, self._threads, self._log = folder, threads, log

    def __enter__(self) -> Self:
        counts = dict.fromkeys(
            ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(self._threads)
        )
        with self._log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.timed", str(self._folder), str(self._threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **counts, "TOKENIZERS_PARALLELISM": "false"},
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, do: str, **order: Json) -> Any:
        """Raises Permanent for a model that cannot be loaded or run, Temporary where the process is gone."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = ""
        try:
            self.process.stdin.write(json.dumps({"do": do, **order}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            raise self._gone(do)
        answer = json.loads(line)
        if "wrong" in answer:
            raise Permanent(answer["wrong"])
        return answer

    def cpu(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def _gone(self, do: str) -> Exception:
        code = self.process.wait()
        if code < 0:
            often = " (often: not enough memory)" if code == -9 else ""
            return Temporary(f"The process that ran the model was ended by signal {-code}{often}.")
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = lines[-1][:300] if lines else f"it ended with code {code}"
        return Permanent(f"The model could not be measured ({do}): {last}")


def run(job: Job) -> Json:
    params = job.params
    folders = {MODEL: job.inputs[MODEL]}
    same = False
    if BASELINE in job.inputs:
        same = job.inputs[BASELINE].resolve() == job.inputs[MODEL].resolve()
        if not same:
            folders[BASELINE] = job.inputs[BASELINE]
    threads = params.get("threads") or job.threads
    before, started = psutil.cpu_times(), time.perf_counter()
    with ExitStack() as stack:
        processes = {}
        for name, folder in folders.items():
            _read(folder)
            log = job.work / f"{name}.log"
            processes[name] = stack.enter_context(Process(folder, threads, log))
        job.tell("loading", None)
        opened = {name: process.ask("load") for name, process in processes.items()}
        _fits(opened[MODEL], params)
        measured: dict[str, dict[str, Any]] = {name: _opened(opened[name], folders[name]) for name in folders}
        steps = list(_steps(params, opened[MODEL]["task"]))
        for number, step in enumerate(steps):
            job.tell(step.text, number / len(steps))
            for name, found in step.measure(processes, params).items():
                step.keep(measured[name], found)
        for name, process in processes.items():
            measured[name]["memory"] = _memory(opened[name], process.ask("memory"))
        ours = sum(process.cpu() for process in processes.values())
    others = _others(before, psutil.cpu_times(), ours)
    facts = {
        "threads": threads,
        "host": params.get("host"),
        "others": others,
        "basis": "cpu" if others > BUSY else "wall",
        "seconds": round(time.perf_counter() - started, 3),
        **measured,
        BASELINE: measured.get(BASELINE),
    }
    if BASELINE in measured:
        facts |= _compared(facts)
    else:
        facts |= {"ratios": None, "shares": None, "speedup": 1.0 if same else None}
    (job.out / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return facts


# --- what is measured -----------------------------------------------------------------------------

Processes = Mapping[str, Process]
Found = Mapping[str, Any]


class Passes:
    """Passes over batches of full rows: of one shape over and over, or of several by turns."""

    def __init__(self, *shapes: tuple[int, int]) -> None:
        """`shapes`: rows and tokens of each."""
        self.shapes = shapes
        by_turns = " by turns" if len(shapes) > 1 else ""
        self.text = "; ".join(f"batch {batch}, length {length}" for batch, length in shapes) + by_turns

    def measure(self, processes: Processes, params: Json) -> Found:
        seconds = (params.get("seconds") or 1.0) * len(self.shapes)
        for process in processes.values():
            process.ask("passes", shapes=self.shapes, seconds=min(0.1, seconds / TURNS), least=WARM)
        found: dict[str, list[dict[str, list[float]]]] = {
            name: [{"wall": [], "cpu": []} for _ in self.shapes] for name in processes
        }
        while any(_open(times, seconds) for times in found.values()):
            for name, process in processes.items():
                # Both go on until both are done: a slice of one alone would be no comparison.
                answer = process.ask("passes", shapes=self.shapes, seconds=seconds / TURNS, least=1)
                for kept, times in zip(found[name], answer["shapes"], strict=True):
                    for clock in times:
                        kept[clock] += times[clock]
        return found

    def keep(self, into: dict[str, Any], found: Any) -> None:
        for (batch, length), times in zip(self.shapes, found, strict=True):
            wall = _spread(times["wall"])
            into["shapes"].append(
                {
                    "batch": batch,
                    "length": length,
                    "runs": len(times["wall"]),
                    "wallMs": wall,
                    "cpuMs": _spread(times["cpu"]),
                    "textsPerSecond": _round(batch / wall["p50"] * 1e3),
                }
            )


class Writing:
    """One text of so many tokens after so many."""

    def __init__(self, prompt: int, new: int) -> None:
        self.prompt, self.new = prompt, new
        self.text = f"writing {new} tokens"

    def measure(self, processes: Processes, params: Json) -> Found:
        seconds = params.get("seconds") or 1.0
        order = {"prompt": self.prompt, "new": self.new}
        for process in processes.values():
            process.ask("write", **order)
        found: dict[str, list[Any]] = {name: [] for name in processes}
        end = time.perf_counter() + seconds * len(processes)
        while any(len(runs) < LEAST for runs in found.values()) or time.perf_counter() < end:
            for name, process in processes.items():
                found[name].append(process.ask("write", **order))
        return found

    def keep(self, into: dict[str, Any], found: Any) -> None:
        first = {clock: _spread([run["first"][clock] for run in found]) for clock in ("wall", "cpu")}
        whole = {
            clock: _spread([run["first"][clock] + run["rest"][clock] for run in found])
            for clock in ("wall", "cpu")
        }
        token = float(np.median([run["rest"]["wall"] for run in found])) / max(self.new - 1, 1)
        into["generate"] = {
            "prompt": self.prompt,
            "new": self.new,
            "runs": len(found),
            "firstTokenMs": first["wall"],
            "wallMs": whole["wall"],
            "cpuMs": whole["cpu"],
            "tokensPerSecond": _round(1 / token) if token > 0 else None,
        }


class Together:
    """Several requests at once, of one text each."""

    def __init__(self, requests: int, length: int) -> None:
        self.requests, self.length = requests, length
        self.text = f"{requests} requests at once, length {length}"

    def measure(self, processes: Processes, params: Json) -> Found:
        seconds = params.get("seconds") or 1.0
        order = {"requests": self.requests, "batch": 1, "length": self.length}
        found: dict[str, dict[str, Any]] = {name: {"wall": [], "elapsed": 0.0} for name in processes}
        for process in processes.values():
            process.ask("together", **order, seconds=0)
        for _ in range(2):
            for name, process in processes.items():
                answer = process.ask("together", **order, seconds=seconds / 2)
                found[name]["wall"] += answer["wall"]
                found[name]["elapsed"] += answer["elapsed"]
        return found

    def keep(self, into: dict[str, Any], found: Any) -> None:
        into["concurrency"].append(
            {
                "requests": self.requests,
                "length": self.length,
                "runs": len(found["wall"]),
                "wallMs": _spread(found["wall"]),
                "textsPerSecond": _round(len(found["wall"]) / found["elapsed"]),
            }
        )


def _steps(params: Json, task: str) -> Iterator[Passes | Writing | Together]:
    lengths = params.get("lengths") or [32, 128]
    shapes = [(batch, length) for batch in params.get("batches") or [1, 16] for length in lengths]
    if params.get("traffic") == "mixed":
        yield Passes(*shapes)
    else:
        yield from map(Passes, shapes)
    generate = params.get("generate")
    if generate and task in ("text-generation", "summarization"):
        yield Writing(generate["prompt"], generate["new"])
    for requests in params.get("concurrency") or []:
        if requests > 1:
            for length in lengths:
                yield Together(requests, length)


def _open(shapes: Sequence[Mapping[str, Sequence[float]]], seconds: float) -> bool:
    fewest = min(len(times["wall"]) for times in shapes)
    return fewest < LEAST or sum(sum(times["wall"]) for times in shapes) < seconds


def _fits(opened: Json, params: Json) -> None:
    longest = opened["longest"]
    asked = max(params.get("lengths") or [128])
    if (generate := params.get("generate")) and opened["task"] == "text-generation":
        asked = max(asked, generate["prompt"] + generate["new"])
    if longest and asked > longest:
        raise Permanent(
            f"The benchmark asks for {asked} tokens, and the model sees {longest} at most. "
            "Lower benchmark.lengths or benchmark.newTokens."
        )


# --- figures --------------------------------------------------------------------------------------


def _opened(opened: Json, folder: Path) -> dict[str, Any]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        "runtime": opened["runtime"],
        "precision": opened["precision"],
        "load": {
            "seconds": round(opened["load"]["wall"], 4),
            "cpuSeconds": round(opened["load"]["cpu"], 4),
            "firstCallMs": _round(1e3 * opened["load"]["firstCall"]),
        },
        "size": sum(path.stat().st_size for path in files),
        "weights": sum(path.stat().st_size for path in files if path.suffix in _WEIGHTS),
        "shapes": [],
        "concurrency": [],
    }


def _memory(opened: Json, last: Json) -> Json:
    """Bytes. `floor`: the process before it loads a model. `peak`: the most while it ran, after loading;
    `own` is that without the floor."""
    floor = opened["floor"]["rss"]
    return {
        "floor": floor,
        "loaded": opened["loaded"]["rss"],
        "loadedUss": opened["loaded"]["uss"],
        "loadedPss": opened["loaded"]["pss"],
        "peakLoading": opened["load"]["peak"],
        "peak": last["peak"],
        "uss": last["uss"],
        "own": max(last["peak"] - floor, 0),
    }


def _compared(facts: Json) -> Json:
    model, baseline, basis = facts[MODEL], facts[BASELINE], facts["basis"]
    shapes = []
    for ours, theirs in zip(model["shapes"], baseline["shapes"], strict=True):
        ratio = {
            clock: _quotient(theirs[f"{clock}Ms"]["p50"], ours[f"{clock}Ms"]["p50"])
            for clock in ("wall", "cpu")
        }
        shapes.append({"batch": ours["batch"], "length": ours["length"], **ratio})
    load = "cpuSeconds" if basis == "cpu" else "seconds"
    shares = {
        "size": _quotient(model["size"], baseline["size"]),
        "weights": _quotient(model["weights"], baseline["weights"]),
        "memory": _quotient(model["memory"]["peak"], baseline["memory"]["peak"]),
        "memoryOwn": _quotient(model["memory"]["own"], baseline["memory"]["own"]),
        "load": _quotient(model["load"][load], baseline["load"][load]),
    }
    ratios: dict[str, Any] = {"shapes": shapes}
    batches = sorted({one["batch"] for one in shapes})
    ratios["byBatch"] = {
        str(batch): _geometric([one[basis] for one in shapes if one["batch"] == batch]) for batch in batches
    }
    if "generate" in model and "generate" in baseline:
        ours, theirs = model["generate"], baseline["generate"]
        ratios["generate"] = {
            clock: _quotient(theirs[f"{clock}Ms"]["p50"], ours[f"{clock}Ms"]["p50"])
            for clock in ("wall", "cpu")
        }
        return {"ratios": ratios, "shares": shares, "speedup": ratios["generate"][basis]}
    return {"ratios": ratios, "shares": shares, "speedup": _geometric([one[basis] for one in shapes])}


def _geometric(ratios: Sequence[float]) -> float:
    return _round(math.exp(sum(map(math.log, ratios)) / len(ratios)))


def _quotient(above: float, below: float) -> float:
    return _round(above / below) if below > 0 else 0.0


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds."""
    p50, p95 = np.percentile(np.asarray(seconds) * 1e3, [50, 95])
    return {"p50": _round(p50), "p95": _round(p95)}


def _round(value: float) -> float:
    """To four digits: more is noise."""
    return float(f"{value:.4g}")


def _others(before: Any, after: Any, ours: float) -> float:
    """The share of the machine's processor time that programs other than the measured took."""
    spent = {name: getattr(after, name) - getattr(before, name) for name in after._fields}
    for counted in ("guest", "guest_nice"):  # part of user and nice already
        spent.pop(counted, None)
    total = sum(spent.values())
    busy = total - spent.get("idle", 0.0) - spent.get("iowait", 0.0)
    return round(min(max((busy - ours) / total, 0.0), 1.0), 3) if total > 0 else 0.0


def _read(folder: Path) -> None:
    """Into the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 24):
                    pass
