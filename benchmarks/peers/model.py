"""The model that every peer serves, by the same runtime as ours: a folder in, a label out. Texts of a batch
are padded together, as each peer's own batching hands them over."""

import os
from pathlib import Path
from typing import Any

from gamma_orch import runtimes


def load() -> Any:
    return runtimes.load_encoder(Path(os.environ["MODEL"]), threads=1)


def answer(model: Any, texts: list[str]) -> list[dict[str, Any]]:
    found = model.logits(texts, batch=16)
    labels = model.card.labels
    return [{"label": labels[int(row.argmax())], "scores": [float(x) for x in row]} for row in found]
