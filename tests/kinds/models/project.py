"""A whole project with tiny models, for tests that run `gamma` as a user does, with real passes."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kinds.models.tiny import sentences, tiny

ENVIRONMENT = """apiVersion: gamma/v1
kind: Environment
metadata: {{name: {name}}}
spec: {{builds: {{threads: 1}}}}
"""
SPECS: Mapping[str, str] = {
    "data": """apiVersion: gamma/v1
kind: Dataset
metadata: {name: reviews}
spec:
  source: {path: data/reviews.csv}
  columns: {text: text, label: label}
  splits: {test: 0.3, validation: 0.3}
""",
    "model": """apiVersion: gamma/v1
kind: Model
metadata: {name: sentiment}
spec:
  task: text-classification
  source: {path: base}
  labels: [negative, positive]
  finetune: {dataset: reviews, epochs: 2, batch: 8, length: 32, rank: 4, learningRate: 0.01, seed: 3}
  optimize: {passes: [{pass: export}, {pass: quantize-dynamic}]}
  benchmark: {batches: [1], lengths: [16], seconds: 0.05}
  gates:
    - {metric: size, max: 10}
""",
}


def project(folder: Path, environments: tuple[str, ...] = ("dev",), rows: int = 160, **specs: str) -> Path:
    """The project's files; `specs` takes the place of those above, by name."""
    (folder / "specs").mkdir(parents=True)
    (folder / "data").mkdir()
    for name, text in {**SPECS, **specs}.items():
        (folder / "specs" / f"{name}.yaml").write_text(text)
    for name in environments:
        (folder / "environments" / name).mkdir(parents=True)
        (folder / "environments" / name / "environment.yaml").write_text(ENVIRONMENT.format(name=name))
    tiny("bert", folder / "base", task="text-classification", labels=("negative", "positive"))
    (folder / "base" / "gamma-model.json").unlink()
    write_rows(folder, rows)
    return folder


def write_rows(folder: Path, rows: int, seed: int = 0) -> None:
    """Reviews that differ: each has its number."""
    with (folder / "data" / "reviews.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for number, (text, label) in enumerate(sentences(rows, seed)):
            writer.writerow((f"{text} {number}", label))


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str
    cpu: float  # seconds of processor, children included

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environ() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GAMMA_")}
    return {**kept, "PYTHONDONTWRITEBYTECODE": ""}


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """`gamma` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "gamma_orch.cli", *arguments],
        cwd=folder,
        env=environ(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def gamma(folder: Path, *arguments: str) -> Done:
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=600)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Done(process.returncode, out, err, cpu)


def wait_for(what: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)
