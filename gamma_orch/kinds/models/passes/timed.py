"""One model in a process of its own, timed from inside: `python -m gamma_orch.kinds.models.passes.timed`.

Started by `benchmark`, one for each model, so that memory and load time are the model's alone: nothing is
imported here that the model's own runtime does not need. Orders come as JSON lines on standard input,
answers go as JSON lines to the descriptor that was standard output. Times are in seconds, memory in bytes.
CPU times are of the whole process, all threads and both modes.
"""

import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from gamma_orch import runtimes
from gamma_orch.core.canonical import Json
from gamma_orch.runtimes.batching import padded

SEED = 0


class Subject:
    """The model under test."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder, self._threads = folder, threads
        self._model: Any = None
        self._ready: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def load(self) -> Json:
        """Open it and let it answer once. The peak of memory counts from here on, without that of loading."""
        floor = _memory()
        wall, cpu = time.perf_counter(), time.process_time()
        self._model = runtimes.load(self._folder, threads=self._threads)
        loaded = time.perf_counter(), time.process_time()
        self._once(*self._ids(1, 8))
        first = time.perf_counter() - loaded[0]
        gc.collect()
        peak = _peak()
        card = self._model.card
        resident = _memory()
        _forget_peak()
        return {
            "runtime": card.runtime,
            "precision": card.precision,
            "task": card.task,
            "longest": card.max_length,
            "load": {"wall": loaded[0] - wall, "cpu": loaded[1] - cpu, "firstCall": first, "peak": peak},
            "floor": floor,
            "loaded": resident,
        }

    def passes(self, shapes: Sequence[tuple[int, int]], seconds: float, least: int) -> Json:
        """Passes over full rows, a batch of each shape in turn, for so long and at least so often: the times
        of each, by shape."""
        batches = [self._ids(batch, length) for batch, length in shapes]
        times: list[dict[str, list[float]]] = [{"wall": [], "cpu": []} for _ in shapes]
        end = time.perf_counter() + seconds
        while len(times[-1]["wall"]) < least or time.perf_counter() < end:
            for (ids, mask), kept in zip(batches, times, strict=True):
                wall, cpu = time.perf_counter(), time.process_time()
                self._once(ids, mask)
                kept["cpu"].append(time.process_time() - cpu)
                kept["wall"].append(time.perf_counter() - wall)
        return {"shapes": times}

    def write(self, prompt: int, new: int) -> Json:
        """One text of `new` tokens after `prompt` tokens, greedy, whatever ends it would have: time until the
        first token, and of all those after it."""
        ids, mask = self._ids(1, prompt)
        wall, cpu = time.perf_counter(), time.process_time()
        logits, state = self._model.begin(ids, mask)
        token = logits[:, -1].argmax(axis=-1)
        first = time.perf_counter(), time.process_time()
        for _ in range(new - 1):
            token = self._model.advance(state, token).argmax(axis=-1)
        last = time.perf_counter(), time.process_time()
        return {
            "first": {"wall": first[0] - wall, "cpu": first[1] - cpu},
            "rest": {"wall": last[0] - first[0], "cpu": last[1] - first[1]},
        }

    def together(self, requests: int, batch: int, length: int, seconds: float) -> Json:
        """So many requests at once, each after its last: the wall times of all, and how long that took."""
        ids, mask = self._ids(batch, length)
        start = time.perf_counter()

        def client(_: int) -> list[float]:
            mine: list[float] = []
            while not mine or time.perf_counter() < start + seconds:
                wall = time.perf_counter()
                self._once(ids, mask)
                mine.append(time.perf_counter() - wall)
            return mine

        with ThreadPoolExecutor(requests) as clients:
            walls = list(chain.from_iterable(clients.map(client, range(requests))))
        return {"wall": walls, "elapsed": time.perf_counter() - start}

    def memory(self) -> Json:
        return {**_memory(), "peak": _peak()}

    def _once(self, ids: np.ndarray, mask: np.ndarray) -> None:
        run: Callable[..., Any] = self._model.run_ids
        if self._model.card.task == "embeddings":
            run = self._model.pooled_ids
        run(ids, mask)

    def _ids(self, batch: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of `length` tokens without padding; the tokens are drawn, and none of them marks an end."""
        if (batch, length) not in self._ready:
            marks = self._model.marks
            known = np.array(
                [i for i in range(max(marks.vocabulary, 2)) if i != marks.pad and i not in marks.ends]
            )
            rows = np.random.default_rng(SEED).choice(known, (batch, length))
            self._ready[batch, length] = padded(rows.tolist(), marks.pad)
        return self._ready[batch, length]


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    subject = Subject(Path(sys.argv[1]), int(sys.argv[2]))
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = getattr(subject, order.pop("do"))(**order)
        except runtimes.ModelError as error:
            answer = {"wrong": str(error)}
        answers.write(json.dumps(answer) + "\n")


def _memory() -> Json:
    """Resident (rss); of that, this process's alone (uss), and that with its part of what is shared (pss)."""
    seen = psutil.Process().memory_full_info()
    return {"rss": seen.rss, "uss": seen.uss, "pss": getattr(seen, "pss", seen.uss)}


def _peak() -> int:
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _forget_peak() -> None:
    """Linux can; elsewhere the peak is that of loading too."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


if __name__ == "__main__":
    main()
