"""What a model of a task is trained to do, and how well it does it: logits beside answers, loss, measures."""

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from gamma_orch.kinds.models.passes import batches
from gamma_orch.kinds.models.passes.batches import IGNORED, Encoding, Example

MEASURES = {
    "text-classification": ("accuracy", "f1", "loss"),
    "token-classification": ("accuracy", "f1", "loss"),
    "text-generation": ("loss",),
    "summarization": ("loss",),
    "embeddings": ("cosine",),
}
FALLING = frozenset({"loss"})  # measures of which less is better
_ROWS = 64  # of one batch of measuring


def forward(model: Any, batch: dict[str, torch.Tensor], how: Encoding, *, hidden: bool = False) -> Any:
    """The model's outputs; with all hidden states where asked for."""
    more: dict[str, Any] = {"output_hidden_states": True} if hidden else {}
    if how.task == "summarization":
        labels = batch["labels"]
        more["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels=labels)
    if how.task in ("text-generation", "summarization"):
        more["use_cache"] = False
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **more)


def aligned(logits: torch.Tensor, labels: torch.Tensor, how: Encoding) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [n, classes] in float32 beside answers [n]; of a text, each token answers the one before."""
    if how.task == "text-generation":
        logits, labels = logits[:, :-1], labels[:, 1:]
    return logits.float().reshape(-1, logits.shape[-1]), labels.reshape(-1)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean over what has a label; 0 where nothing has."""
    total = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)


def autocast(precision: str) -> AbstractContextManager[Any]:
    """float32: nothing. bfloat16: matrices are multiplied in it, and the weights stay float32."""
    if precision == "bfloat16":
        return torch.autocast("cpu", torch.bfloat16)
    return contextlib.nullcontext()


def measure(
    model: Any,
    examples: Sequence[Example],
    how: Encoding,
    precision: str,
    tell: Callable[[int], None] = lambda _: None,
) -> dict[str, float]:
    """The measures of the task on all examples; `tell` hears how many are done. Uses no randomness."""
    loss, answers, right, done = 0.0, [], [], 0
    with torch.inference_mode(), autocast(precision):
        for index in batches.sorted_batches([len(example.tokens) for example in examples], _ROWS):
            batch = batches.collate([examples[i] for i in index], how)
            logits, labels = aligned(forward(model, batch, how).logits, batch["labels"], how)
            known = labels != IGNORED
            loss += float(functional.cross_entropy(logits[known], labels[known], reduction="sum"))
            answers.append(logits[known].argmax(-1).numpy())
            right.append(labels[known].numpy())
            done += len(index)
            tell(done)
    said, truth = np.concatenate(answers), np.concatenate(right)
    found = {"loss": loss / max(1, len(truth))}
    if "accuracy" in MEASURES[how.task]:
        from sklearn.metrics import f1_score

        found["accuracy"] = float((said == truth).mean())
        found["f1"] = float(f1_score(truth, said, average="macro", zero_division=0))
    return found


def pooled(states: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Vectors [rows, width] of length 1 from the last hidden states [rows, tokens, width]."""
    if pooling == "cls":
        vectors = states[:, 0]
    else:
        weight = mask.unsqueeze(-1).to(states.dtype)
        vectors = (states * weight).sum(1) / weight.sum(1).clamp(min=1)
    return functional.normalize(vectors.float(), dim=-1)
