"""The texts that a pass tries a model on: for calibration, and to tell what a step changed.

From the dataset that the job is given, drawn by a seed; without one, made from the tokenizer's own
vocabulary, and the facts say so: ranges found on such texts are a makeshift.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.runtimes.text import Text

MADE_UP = "made from the tokenizer's vocabulary"
_LONGEST = 64  # tokens of a made-up text


@dataclass(frozen=True, slots=True)
class Samples:
    texts: tuple[str, ...]
    origin: str  # the split, or MADE_UP


def samples(job: Job, text: Text, split: str, count: int, seed: int = 0) -> Samples:
    """`count` texts at most. Raises Permanent where the dataset has no such split or no texts in it."""
    folder = job.inputs.get("data")
    if folder is None:
        return Samples(tuple(_made_up(text, count, seed)), MADE_UP)
    found = _texts(folder / f"{split}.jsonl")
    if not found:
        raise Permanent(
            f"The dataset's split {split} has no texts, and the pass needs some to look at. "
            "Give the dataset more rows, or its splits other shares."
        )
    drawn = random.Random(seed).sample(range(len(found)), min(count, len(found)))  # noqa: S311
    return Samples(tuple(found[number] for number in sorted(drawn)), f"{split} split")


def _texts(path: Path) -> list[str]:
    if not path.is_file():
        raise Permanent(
            f"The dataset has no {path.name}. It needs train.jsonl, validation.jsonl, test.jsonl."
        )
    found = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                found.append(_text(json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                raise Permanent(
                    f"{path.name}, line {number}: no row with a text ({error!r}). Prepare the dataset anew."
                ) from None
    return [text for text in found if text.strip()]


def _text(row: Any) -> str:
    return " ".join(row["tokens"]) if "tokens" in row else str(row["text"])


def _made_up(text: Text, count: int, seed: int) -> list[str]:
    draw = random.Random(seed)  # noqa: S311
    special = {number for number, token in text.raw.get_added_tokens_decoder().items() if token.special}
    known = [number for number in range(text.raw.get_vocab_size()) if number not in special]
    return [text.text(draw.choices(known, k=draw.randint(4, _LONGEST))) or "text" for _ in range(count)]
