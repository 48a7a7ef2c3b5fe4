"""Which tasks there are, which class of transformers does each, and whether a source's architecture can.

Called by `fetch_model` and `stated`, before any weight is loaded.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto import modeling_auto

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import did_you_mean
from gamma_orch.core.provider import Permanent

CLASSES: Mapping[str, Any] = {
    "text-classification": transformers.AutoModelForSequenceClassification,
    "token-classification": transformers.AutoModelForTokenClassification,
    "embeddings": transformers.AutoModel,
    "text-generation": transformers.AutoModelForCausalLM,
    "summarization": transformers.AutoModelForSeq2SeqLM,
}
CLASSIFIES = ("text-classification", "token-classification")  # these have a head with labels
_KNOWN: Mapping[str, Mapping[str, str]] = {
    "text-classification": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "token-classification": modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    "embeddings": modeling_auto.MODEL_MAPPING_NAMES,
    "text-generation": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "summarization": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
}
# What configurations call the number of positions that were learned or that rotate.
_POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx")
_OFFSET = {"roberta": 2, "xlm-roberta": 2, "camembert": 2}  # positions that stand for padding


def check_task(task: str) -> None:
    """Raises Permanent for a task that there is not."""
    if task not in CLASSES:
        hint = did_you_mean(task, CLASSES) or f"there are {', '.join(CLASSES)}"
        raise Permanent(f"There is no task {task!r}: {hint}.")


def check(model_type: str, task: str) -> None:
    """Raises Permanent where transformers has no class for the architecture and the task."""
    if model_type in _KNOWN[task]:
        return
    every = {name for names in _KNOWN.values() for name in names}
    if model_type not in every:
        hint = did_you_mean(model_type, sorted(every))
        raise Permanent(f"The architecture {model_type!r} is not known to transformers. {hint}".rstrip())
    able = [name for name, names in _KNOWN.items() if model_type in names]
    raise Permanent(
        f"The architecture {model_type} cannot do {task}; it can do {', '.join(able)}. "
        "Change the task, or take another source."
    )


def config(files: Mapping[str, Path], where: str) -> Json:
    """The source's config.json. Raises Permanent where it is missing, broken, or names no architecture."""
    if "config.json" not in files:
        raise Permanent(
            f"{where} has no config.json, so it is not known what its weights are of. Name the folder that "
            "has it in `file`."
        )
    try:
        found = json.loads(files["config.json"].read_text(encoding="utf-8"))
    except ValueError as error:
        raise Permanent(f"{where}: config.json is no JSON: {error}.") from None
    if not isinstance(found, dict) or not isinstance(found.get("model_type"), str):
        raise Permanent(
            f"{where}: config.json has no model_type, so the architecture is not known. "
            'Write it: "model_type": "bert".'
        )
    return found


def positions(of: Any) -> int | None:
    """How many tokens an architecture has positions for; None where their number is not bounded."""
    for name in _POSITIONS:
        value = getattr(of, name, None)
        if isinstance(value, int) and value > 0:
            return value - _OFFSET.get(str(getattr(of, "model_type", "")), 0)
    return None
