"""Starts the worker process and hands it jobs: the one place where passes are run from.

The worker sees no secret: its environment is this process's without GAMMA_SECRET_* and what Gamma itself is
steered by. Hubs are offline unless a job's source is one.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent, Tell, Temporary
from gamma_orch.kinds.models.derivation import title

LIBRARIES = ("torch", "transformers", "onnxruntime", "openvino")


class Stopped(Temporary):
    """The build was interrupted."""


class Worker:
    """Used as `with`. A job at a time; `stop` may be called from any thread."""

    def __init__(self, threads: int, log: Path, online: bool = False) -> None:
        """`log`: a file for what the libraries print."""
        self._threads, self._log, self._online = threads, log, online
        self._process: subprocess.Popen[str] | None = None
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            if self._process.stdin:
                self._process.stdin.close()
            try:
                self._process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout:
                self._process.stdout.close()
            self._process = None

    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """End the running job at once. What it has saved stays for the next build."""
        self._stopped.set()
        if self._process is not None:
            self._process.kill()

    def run(
        self, op: str, params: Json, inputs: Mapping[str, Path], out: Path, work: Path, tell: Tell
    ) -> Json:
        """Carry out one pass; its facts. Raises Permanent or Temporary, with the pass's own words."""
        if self._stopped.is_set():
            raise Stopped("stopped before it was done")
        process = self._started()
        order = {
            "op": op,
            "params": params,
            "inputs": {name: str(path) for name, path in inputs.items()},
            "out": str(out),
            "work": str(work),
            "threads": self._threads,
        }
        answer: Json = {}
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                answer = json.loads(line)
                if "say" not in answer:
                    break
                tell(answer["say"], answer["fraction"])
        except BrokenPipeError:
            answer = {}
        return self._result(op, answer)

    def _result(self, op: str, answer: Json) -> Json:
        if "facts" in answer:
            return answer["facts"]
        if "temporary" in answer:
            raise Temporary(answer["temporary"])
        if "permanent" in answer:
            raise Permanent(answer["permanent"])
        if "defect" in answer:
            self._note(answer["trace"])
            raise Permanent(
                f"The pass {title(op)} failed: {answer['defect']}. The whole error is in {self._log}."
            )
        if self._stopped.is_set():
            raise Stopped("stopped before it was done")
        code = self._process.wait() if self._process else 0
        self._process = None
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        memory = " (often: not enough memory)" if code == -9 else ""
        raise Temporary(
            f"The process of the pass {title(op)} ended {how}{memory}. What it last said is in {self._log}."
        )

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("a", encoding="utf-8") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "gamma_orch.kinds.models.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=_environment(self._threads, self._online),
                )
        return self._process

    def _note(self, text: str) -> None:
        with self._log.open("a", encoding="utf-8") as log:
            log.write(text + "\n")


def _environment(threads: int, online: bool) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GAMMA_", "PYTEST_"))}
    count = str(threads)
    return {
        **kept,
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONHASHSEED": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "MPLBACKEND": "Agg",
        **({} if online else {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}),
    }


def missing_libraries() -> list[str]:
    """What the extra `models` brings and is not there. Looks, imports nothing."""
    from importlib.util import find_spec

    return [name for name in LIBRARIES if find_spec(name) is None]
