"""What the tests of training and cutting share: tiny models of three layers, data of each task, and jobs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gamma_orch.kinds.models.job import Job
from gamma_orch.runtimes.folder import Task
from tests.kinds.models.tiny import Kind, sentences, tiny

LABELS = ("negative", "positive")
KINDS: tuple[Kind, ...] = ("bert", "distilbert", "roberta", "gpt2", "llama", "t5", "bart")
TASK: dict[Kind, Task] = {
    "gpt2": "text-generation",
    "llama": "text-generation",
    "t5": "summarization",
    "bart": "summarization",
}
# The one in the middle can go, and the others can be told from it.
_THREE: dict[Kind, dict[str, Any]] = {
    "distilbert": {"n_layers": 3, "hidden_dim": 48},
    "gpt2": {"n_layer": 3},
    "t5": {"num_layers": 3, "d_ff": 48, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "bart": {"encoder_layers": 3, "decoder_layers": 3, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48},
}


def small(
    kind: Kind, folder: Path, task: Task | None = None, labels: Sequence[str] = LABELS, **config: Any
) -> Path:
    three = _THREE.get(kind, {"num_hidden_layers": 3, "intermediate_size": 48})
    return tiny(kind, folder, task, labels, **{**three, **config})


def data(
    folder: Path,
    task: Task = "text-classification",
    train: int = 96,
    validation: int = 32,
    without: Sequence[str] = (),
) -> Path:
    """Made-up reviews, as the task needs them; those of the train split have none of the words `without`."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {"train": train, "validation": validation, "test": 8}
    for seed, (split, count) in enumerate(counts.items()):
        made = sentences(4 * count, seed)
        if split == "train":
            made = [pair for pair in made if not any(word in pair[0] for word in without)]
        lines = [
            json.dumps(_row(task, f"{split}-{i}", text, label))
            for i, (text, label) in enumerate(made[:count])
        ]
        (folder / f"{split}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return folder


def _row(task: Task, name: str, text: str, label: str) -> dict[str, Any]:
    words = text.split()
    match task:
        case "token-classification":
            return {"tokens": words, "tags": ["B" if len(word) > 5 else "O" for word in words]}
        case "summarization":
            return {"text": text, "summary": " ".join(words[:3])}
        case "text-classification":
            return {"id": name, "text": text, "label": label}
    return {"text": text}


def job(folder: Path, params: dict[str, Any], **inputs: Path) -> Job:
    out, work = folder / "out", folder / "work"
    out.mkdir(parents=True)
    work.mkdir(parents=True, exist_ok=True)
    return Job(params, inputs, out, work, 1, lambda text, fraction: None)
