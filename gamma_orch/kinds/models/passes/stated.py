"""What the spec, else the source itself, says of a model's use: its length, pooling, labels.

Called by `fetch_model`, which writes it into the card. sentence-transformers keeps it in small files of its
own beside the model.
"""

import json
from typing import Any

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.passes import accepted
from gamma_orch.kinds.models.passes.brought import Brought

_UNLIMITED = 10**9  # transformers' word for a tokenizer without a limit is larger
_DEFAULT_LENGTH = 512


def labels(config: Any) -> tuple[str, ...]:
    """Of a classifier, by index."""
    return tuple(str(config.id2label[number]) for number in sorted(config.id2label))


def length(params: Json, brought: Brought, config: Any, tokenizer: Any) -> int:
    """Tokens at most: as asked, else as the source says. Raises Permanent for more than it can place."""
    most = accepted.positions(config)
    asked = params.get("maxLength")
    if asked is not None:
        if most is not None and asked > most:
            raise Permanent(
                f"maxLength is {asked}, and {brought.where} has positions for {most} tokens: {most} at most."
            )
        return int(asked)
    said = [most] if most is not None else []
    if tokenizer.model_max_length < _UNLIMITED:
        said.append(int(tokenizer.model_max_length))
    if params["task"] == "embeddings":
        sentence = _json(brought, "sentence_bert_config.json").get("max_seq_length")
        said += [int(sentence)] if sentence else []
    return min(said, default=_DEFAULT_LENGTH)


def pooling(params: Json, brought: Brought) -> str:
    if params["task"] != "embeddings":
        return ""
    if params.get("pooling"):
        return str(params["pooling"])
    modes = _json(brought, "1_Pooling/config.json")
    used = [name for name, value in modes.items() if name.startswith("pooling_mode_") and value is True]
    known = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
    if used and (len(used) > 1 or used[0] not in known):
        raise Permanent(
            f"{brought.where} pools by {', '.join(used)}, and only mean and cls can be done. Write "
            "`pooling` to use "
            "one of them all the same."
        )
    return known[used[0]] if used else "mean"


def normalize(params: Json, brought: Brought) -> bool:
    if params["task"] != "embeddings":
        return False
    if params.get("normalize") is not None:
        return bool(params["normalize"])
    modules = _json(brought, "modules.json")
    return any(str(one.get("type", "")).endswith(".Normalize") for one in modules if isinstance(one, dict))


def _json(brought: Brought, name: str) -> Any:
    try:
        return json.loads(brought.files[name].read_text(encoding="utf-8"))
    except KeyError:
        return {}
    except ValueError as error:
        raise Permanent(f"{brought.where}: {name} is no JSON: {error}") from None
