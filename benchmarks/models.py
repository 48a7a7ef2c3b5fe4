"""What a model comes to at each level, beside its own source in PyTorch and beside the peers. One table.

    python -m benchmarks.models [--peers VENV] [--rows N] [--keep FOLDER]

`sentiment` of the reference project, on all rows of its data: fine-tuned once, then built at the levels
basic, advanced and ultra by the product itself (`gamma apply` in a project that is written here). Quality is
on the test split with paired 95 % intervals; speed on one thread, each model in turns with the source, all
in this run. `--peers`: a virtual environment with `olive-ai` and `optimum-onnx`, whose own commands quantize
the same fine-tuned source; what they make is measured by the same passes. About an hour on two cores the
first time; artifacts are kept in FOLDER, so a second run only measures.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gamma_orch.kinds.models.workers import Worker
from gamma_orch.runtimes.folder import Card
from gamma_orch.store.artifacts import Artifacts

ROOT = Path(__file__).parents[1]
LEVELS = ("basic", "advanced", "ultra")
SHAPES = ((1, 32), (1, 128), (16, 32), (16, 128))
ENVIRONMENT = """apiVersion: gamma/v1
kind: Environment
metadata: {name: dev}
spec: {}
"""
Json = Any


@dataclass(frozen=True)
class Variant:
    name: str
    folder: Path
    seconds: float | None = None  # that its maker took, after fine-tuning


def write_project(folder: Path, rows: int | None) -> None:
    """The reference project's data and model, the model once for each level."""
    (folder / "specs").mkdir(parents=True, exist_ok=True)
    (folder / "environments" / "dev").mkdir(parents=True, exist_ok=True)
    (folder / "environments" / "dev" / "environment.yaml").write_text(ENVIRONMENT)
    [data] = yaml.safe_load_all((ROOT / "specs" / "models" / "reviews.yaml").read_text())
    [model] = yaml.safe_load_all((ROOT / "specs" / "models" / "sentiment.yaml").read_text())
    if rows is not None:
        data["spec"]["limit"] = rows
    documents = [data]
    for level in LEVELS:
        spec = {**model["spec"], "optimize": {"level": level}, "benchmark": {"seconds": 3.0}}
        spec.pop("gates", None)
        documents.append({**model, "metadata": {"name": f"sentiment-{level}"}, "spec": spec})
    (folder / "specs" / "models.yaml").write_text(yaml.safe_dump_all(documents, sort_keys=False))


def gamma(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "gamma_orch.cli", *arguments, "-C", str(folder)]
    subprocess.run(command, check=True, stdout=sys.stderr)


def built(store: Artifacts) -> tuple[list[Variant], Path, Path]:
    """What the levels came to, the source that they were made from, and the data."""
    pointers = {address: body for (_, address), body in store.pointers().items()}
    found = []
    reference = None
    for level in LEVELS:
        body = pointers[f"Model/sentiment-{level}"]
        artifact = store.find(body["key"])
        report = store.find(body["told"]["report"])
        assert artifact is not None
        assert report is not None
        reference = store.find(report.facts["reference"]["key"])
        outputs = body["outputs"]
        kept = "" if outputs["level"] == level else f", gave way to {outputs['level']}"
        name = f"gamma {level}{kept}: {outputs['candidate']}"
        found.append(Variant(name, store.folder(artifact)))
    data = store.find(pointers["Dataset/reviews"]["key"])
    assert reference is not None
    assert data is not None
    return found, store.folder(reference), store.folder(data)


# --- peers ----------------------------------------------------------------------------------------


def peers(venv: Path, source: Path, work: Path) -> Iterator[Variant | str]:
    """What each peer makes of the source, or the last line of its error."""
    optimum, olive = venv / "bin" / "optimum-cli", venv / "bin" / "olive"
    export = [optimum, "export", "onnx", "-m", source, "--task", "text-classification"]
    quantize = [optimum, "onnxruntime", "quantize", "--onnx_model", work / "optimum-onnx", "--avx512_vnni"]
    auto = [
        olive, "auto-opt", "-m", source, "--task", "text-classification", "--device", "cpu",
        "--provider", "CPUExecutionProvider", "--precision", "int8", "--disable_telemetry",
    ]  # fmt: skip
    tried: list[tuple[str, list[list[Any]], Path]] = [
        ("optimum-cli O3", [[*export, "--optimize", "O3", work / "optimum-o3"]], work / "optimum-o3"),
        (
            "optimum-cli quantize --per_channel",
            [[*export, work / "optimum-onnx"], [*quantize, "--per_channel", "-o", work / "optimum-int8"]],
            work / "optimum-int8",
        ),
        ("olive auto-opt int8", [[*auto, "-o", work / "olive"]], work / "olive"),
    ]
    for name, commands, out in tried:
        error = ""
        for command in commands:
            done = subprocess.run(
                [str(part) for part in command], text=True, capture_output=True, cwd=work, check=False
            )
            if done.returncode:
                lines = (done.stderr or done.stdout).strip().splitlines() or ["no word"]
                error = f"{name}: failed: {lines[-1][:300]}"
                break
        graphs = sorted(out.rglob("*.onnx"), key=lambda path: path.stat().st_size) if out.exists() else []
        if error or not graphs:
            yield error or f"{name}: ended without an ONNX file"
            continue
        yield Variant(name, wrapped(graphs[-1], source, work / f"{out.name}-wrapped"))


def wrapped(graph: Path, source: Path, folder: Path) -> Path:
    """A peer's graph as a folder that the passes can measure, with the source's tokenizer."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in graph.parent.iterdir():
        if path.suffix in (".onnx", ".data") or path.name.endswith("onnx_data"):
            shutil.copy(path, folder / path.name)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(source / name, folder / name)
    card = Card.read(source)
    Card(
        card.task, card.architecture, "onnxruntime", "int8", {"model": graph.name}, card.labels, "", False,
        card.max_length,
    ).write(folder)  # fmt: skip
    return folder


# --- measuring ------------------------------------------------------------------------------------


def measured(
    worker: Worker,
    variant: Variant,
    source: Path,
    data: Path,
    reference: Path | None,
    work: Path,
    seconds: float,
) -> Json:
    def run(op: str, params: Json, **inputs: Path) -> tuple[Json, Path]:
        name = "".join(c if c.isalnum() else "-" for c in variant.name)
        out, scratch = work / f"{op}-{name}", work / f"{op}-{name}-work"
        for folder in (out, scratch):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        print(f"  {variant.name}: {op}", file=sys.stderr)
        return worker.run(op, params, inputs, out, scratch, lambda _text, _far: None), out

    beside = {"reference": reference} if reference else {}
    quality, where = run(
        "evaluate", {"split": "test", "length": 128}, model=variant.folder, data=data, **beside
    )
    batches, lengths = sorted({b for b, _ in SHAPES}), sorted({n for _, n in SHAPES})
    speed, _ = run(
        "benchmark",
        {"batches": batches, "lengths": lengths, "threads": 1, "seconds": seconds},
        model=variant.folder,
        baseline=source,
    )
    return {"name": variant.name, "quality": quality, "speed": speed, "evaluation": str(where)}


def row(found: Json, source: Json) -> tuple[str, ...]:
    speed, quality = found["speed"], found["quality"]
    model, clock = speed["model"], f"{speed['basis']}Ms"
    times = [f"{one[clock]['p50']:.2f}" for one in model["shapes"]]
    by_batch = (speed.get("ratios") or {}).get("byBatch", {})
    value, relative = quality["quality"], quality["relative"]
    beside = quality["reference"] or {}
    base = source["speed"]["model"]
    return (
        found["name"],
        *times,
        f"{speed['speedup'] or 1:.2f}x",
        f"{by_batch.get('1', 1):.2f}x",
        f"{by_batch.get('16', 1):.2f}x",
        f"{model['weights'] / 1e6:.1f}",
        f"{1 - model['weights'] / base['weights']:.1%}",
        f"{model['memory']['peak'] / 1e6:.0f}",
        f"{1 - model['memory']['peak'] / base['memory']['peak']:.0%}",
        f"{model['load']['seconds']:.2f}",
        f"{value['value']:.2%} ({value['low']:.2%}-{value['high']:.2%})",
        f"{relative['value']:.2%} ({relative['low']:.2%}-{relative['high']:.2%})" if relative else "100%",
        f"{beside['agreement']:.2%}" if beside else "",
        f"{beside['largestLogitDifference']:.2g}" if beside.get("largestLogitDifference") is not None else "",
    )


HEADER = (
    "model", "1x32 ms", "1x128 ms", "16x32 ms", "16x128 ms", "faster", "batch 1", "batch 16", "MB", "smaller",
    "peak MB", "less", "load s", "accuracy", "of the source's", "same labels", "largest logit difference",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--keep", type=Path, default=ROOT / ".gamma" / "benchmarks" / "models")
    asked = parser.parse_args()
    keep = asked.keep.resolve()
    write_project(keep, asked.rows)
    gamma(keep, "apply", "-e", "dev", "--yes")
    store = Artifacts(str(keep / ".gamma" / "artifacts"), keep / ".gamma" / "builds")
    variants, source, data = built(store)
    work = keep / "measured"
    work.mkdir(exist_ok=True)
    said: list[str] = []
    if asked.peers:
        for one in peers(asked.peers.resolve(), source, work):
            if isinstance(one, str):
                said.append(one)
            else:
                variants.append(one)
    with Worker(2, work / "log.txt") as worker:
        base = measured(worker, Variant("source", source), source, data, None, work, asked.seconds)
        where = Path(base["evaluation"])
        found = [measured(worker, one, source, data, where, work, asked.seconds) for one in variants]
    rows = [row(one, base) for one in (base, *found)]
    print("| " + " | ".join(HEADER) + " |\n|" + "---|" * len(HEADER))
    for cells in rows:
        print("| " + " | ".join(cells) + " |")
    for line in said:
        print(line)
    print(f"\n{base['quality']['rows']:,} test rows; 1 thread; {base['speed']['basis']} time, medians.")
    (keep / "table.json").write_text(json.dumps([base, *found], indent=1) + "\n")


if __name__ == "__main__":
    main()
