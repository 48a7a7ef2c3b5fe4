"""What a source's configuration says that a model is, and whether it can be used for the task.

Called by `fetch_model` before any weight is read, so that what cannot work is said in a second.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto import configuration_auto, modeling_auto

from gamma_orch.core.diagnostic import did_you_mean
from gamma_orch.core.provider import Permanent

CLASSES: Mapping[str, Any] = {
    "text-classification": transformers.AutoModelForSequenceClassification,
    "token-classification": transformers.AutoModelForTokenClassification,
    "embeddings": transformers.AutoModel,
    "text-generation": transformers.AutoModelForCausalLM,
    "summarization": transformers.AutoModelForSeq2SeqLM,
}
CLASSIFIES = ("text-classification", "token-classification")
_NAMES: Mapping[str, Mapping[str, str]] = {
    "text-classification": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "token-classification": modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    "embeddings": modeling_auto.MODEL_MAPPING_NAMES,
    "text-generation": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "summarization": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
}


def config(files: Mapping[str, Path], where: str) -> dict[str, Any]:
    """config.json, with a `model_type` that transformers knows. Raises Permanent."""
    if "config.json" not in files:
        listed = ", ".join(sorted(files)[:12])
        raise Permanent(f"{where} has no config.json, so nothing says what model it is. There are: {listed}")
    try:
        body = json.loads(files["config.json"].read_text(encoding="utf-8"))
    except ValueError as error:
        raise Permanent(f"{where}: config.json is no JSON: {error}") from None
    kind = body.get("model_type") if isinstance(body, dict) else None
    if not kind:
        raise Permanent(
            f"{where}: config.json has no model_type. Write which architecture it is, such as "
            '"model_type": "bert", into a copy of it, and use that.'
        )
    if kind not in configuration_auto.CONFIG_MAPPING_NAMES:
        own = " It brings code of its own (auto_map), which is never run." if "auto_map" in body else ""
        hint = did_you_mean(kind, configuration_auto.CONFIG_MAPPING_NAMES)
        raise Permanent(
            f"{where}: the architecture {kind!r} is not known to transformers {transformers.__version__}"
            f"{': ' + hint if hint else '.'}{own}"
        )
    return dict(body)


def check_task(task: str) -> None:
    """Raises Permanent where there is no such task."""
    if task not in CLASSES:
        raise Permanent(f"There is no task {task!r}: {did_you_mean(task, CLASSES)}")


def check(kind: str, task: str) -> None:
    """Raises Permanent where a model of this `model_type` cannot do the task."""
    check_task(task)
    if _can(kind, task):
        return
    able = ", ".join(name for name in CLASSES if _can(kind, name)) or "none of the tasks"
    raise Permanent(
        f"A model of the architecture {kind!r} cannot do {task}; it can do {able}. "
        "Change the task, or take another source."
    )


def _can(kind: str, task: str) -> bool:
    return kind in _NAMES[task] and not (task == "text-generation" and _fills(kind))


def _fills(kind: str) -> bool:
    """Trained to fill gaps or to translate; that transformers has a generator's class for it says nothing."""
    return (
        kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        or kind in modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    )


def positions(config: Any) -> int | None:
    """How many tokens the model can place; None where nothing limits it (T5, relative positions)."""
    if config.model_type in ("t5", "mt5", "longt5"):
        return None
    count = getattr(config, "max_position_embeddings", None)
    if count is None:
        return None
    # Their positions begin after the padding index.
    after = config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet")
    return int(count) - (config.pad_token_id + 1 if after else 0)
