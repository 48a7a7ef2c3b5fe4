"""LoRA through peft: which layers get small matrices (Hu et al., 2021), and the adapter's folder.

Called by `finetune`, `merge` and `distil`. peft keeps the names of layers in sets, whose order changes from
run to run; here they are sorted, so that one training is one sequence of bytes.
"""

import json
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import peft
import torch
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers.pytorch_utils import Conv1D

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.passes import torch_folder
from gamma_orch.kinds.models.passes.accepted import CLASSIFIES

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ALL = "all-linear"


@dataclass(frozen=True, slots=True)
class Lora:
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: str | tuple[str, ...] = ALL  # or the ends of the layers' names

    @classmethod
    def of(cls, params: Json) -> Self:
        said = {name: params[name] for name in ("rank", "alpha", "dropout") if params.get(name) is not None}
        targets = params.get("targets") or ALL
        return cls(**said, targets=targets if isinstance(targets, str) else tuple(targets))

    def attach(self, model: Any, news: set[str], task: str) -> Any:
        """`model` with LoRA on it: only the small matrices, the head of a classifier and what is new learn.

        Raises Permanent for a target that the model does not have, or a rank above what a layer can hold.
        """
        head = _head(model, news, task)
        layers = _layers(model, head)
        chosen = self._chosen(layers)
        for name in chosen:
            least = min(layers[name].weight.shape)
            if self.rank > least:
                raise Permanent(
                    f"LoRA of rank {self.rank} is more than the layer {name} can hold: it is "
                    f"{' x '.join(map(str, layers[name].weight.shape))}, so at most {least}. 8 to 64 is "
                    "usual."
                )
        config = peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=_short(chosen, dict(model.named_modules())),
            modules_to_save=head or None,
            fan_in_fan_out=any(isinstance(layers[name], Conv1D) for name in chosen),
            bias="none",
        )
        with torch_folder.quiet():
            return peft.get_peft_model(model, config)

    def _chosen(self, layers: dict[str, Any]) -> list[str]:
        if self.targets == ALL:
            return sorted(layers)
        chosen: set[str] = set()
        for target in (self.targets,) if isinstance(self.targets, str) else self.targets:
            found = {name for name in layers if f".{name}".endswith(f".{target}")}
            if not found:
                there = sorted({name.rpartition(".")[2] for name in layers})
                near = get_close_matches(target, there, 3)
                raise Permanent(
                    f"LoRA's targets name {target!r}, and the model has no such layer. "
                    + (f"Do you mean {' or '.join(near)}? " if near else "")
                    + f"There are: {', '.join(there)}; or {ALL} for all of them."
                )
            chosen |= found
        return sorted(chosen)


def write(model: Any, out: Path) -> None:
    """The adapter of a model that `attach` made: configuration and weights, and no path of this machine."""
    config = model.peft_config["default"]
    said = {
        name: sorted(value) if isinstance(value, set) else value for name, value in config.to_dict().items()
    }
    for name in ("target_modules", "modules_to_save"):
        said[name] = sorted(said[name]) if said[name] else None
    said |= {"inference_mode": True, "base_model_name_or_path": ""}
    (out / CONFIG).write_text(json.dumps(said, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()}, out / WEIGHTS, {"format": "pt"}
    )


def merged(model: Any, adapter: Path) -> Any:
    """`model` with the adapter added to its own weights, and none of peft left. Raises Permanent."""
    try:
        with torch_folder.quiet():
            whole = peft.PeftModel.from_pretrained(model, str(adapter))
            return whole.merge_and_unload(safe_merge=True).eval()
    except Exception as error:
        raise Permanent(
            f"The adapter does not go with this model: {str(error).strip().splitlines()[0][:300]}. An "
            "adapter can only be merged into the base that it was trained on."
        ) from error


def _head(model: Any, news: set[str], task: str) -> list[str]:
    """The modules that learn whole: what stands on the body of a classifier, and what is new in the body."""
    if task not in CLASSIFIES:
        return []
    head = set(torch_folder.heads(model))
    return sorted(head | {n.rpartition(".")[0] for n in news if n.partition(".")[0] not in head})


def _layers(model: Any, head: list[str]) -> dict[str, Any]:
    """The matrices that LoRA may go on: all but the head's and the one that answers with a token."""
    output = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
        and module is not output
        and not any(name == part or name.startswith(part + ".") for part in head)
    }


def _short(chosen: list[str], modules: dict[str, Any]) -> list[str]:
    """The last part of a name where it means no other module, else the whole name."""
    others = {name.rpartition(".")[2] for name in modules if name not in set(chosen)}
    return sorted({name if (last := name.rpartition(".")[2]) in others else last for name in chosen})
