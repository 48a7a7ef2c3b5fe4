"""LoRA adapters of one base: each a model of its own to whoever asks, all on one copy of the weights.

Called by the server, which asks a base and its adapters side by side. An adapter's model has modules of its
own around the very tensors of the base, and peft puts the small matrices there. Always:

- The base is not touched: it answers as if there were no adapters, and each adapter as if there were no
  others. Nothing is switched, so any two of them may run at the same time, in any thread.
- An adapter takes the memory of its small matrices and of its head. It goes with the last who holds it.
- It goes with the weights that it was learned on, and with no others: the digest decides.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gamma_orch.runtimes import integrity
from gamma_orch.runtimes.encoder import Encoder
from gamma_orch.runtimes.errors import ModelBroken
from gamma_orch.runtimes.folder import Card
from gamma_orch.runtimes.generator import Generator
from gamma_orch.runtimes.pytorch import TorchDecoder, TorchEncoder, TorchEncoderDecoder

if TYPE_CHECKING:
    import torch

CONFIG = "adapter_config.json"
PREFIX = "base_model.model."  # before the names of the base's modules, as peft writes them
# What the configuration may say, and what of it changes no answer. Whatever else it says would make another
# model of it than the one that was measured.
MEANT = frozenset({"r", "lora_alpha", "target_modules", "modules_to_save", "fan_in_fan_out"})
IDLE = frozenset(
    {"auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout", "peft_version", "revision"}
)
ANEW = "Build the adapter anew."


def adapted(base: Encoder | Generator, digest: str, folder: Path) -> Encoder | Generator:
    """The model of `base` with the adapter in `folder`. `digest`: of the folder that the base is from.

    A classifier's head and labels are the adapter's. Raises ModelBroken where the folder is no whole, safe
    adapter, or goes with another base.
    """
    card = integrity.checked(folder, needs=())
    if not isinstance(base, TorchEncoder | TorchDecoder | TorchEncoderDecoder):
        raise ModelBroken(
            f"{folder} is an adapter, and its base is made for {base.card.runtime}, where adapters have no "
            "place. Serve a base that is not optimized."
        )
    _check_base(base.card, digest, card, folder)
    config, weights = _config(folder), _weights(folder / card.graphs["adapter"])
    module = _beside(base.module)
    _put_head(module, config["modules_to_save"] or (), weights, folder)
    _put_lora(module, config, weights, folder)
    model = type(base)(replace(base.card, labels=card.labels), base.text, base.marks, module.eval())
    if isinstance(model, TorchEncoder):
        _check_labels(model, folder)
    return model


def _check_base(base: Card, digest: str, card: Card, folder: Path) -> None:
    if "adapter" not in card.graphs:
        raise ModelBroken(f"{folder} is a whole model and no adapter. Serve it under a name of its own.")
    if (card.task, card.architecture, card.base) != (base.task, base.architecture, digest):
        raise ModelBroken(
            f"{folder} is an adapter for {card.task} on the {card.architecture} {card.base[:12]}, and the "
            f"base here is the {base.architecture} {digest[:12]} for {base.task}. An adapter fits only the "
            "weights that it was learned on: serve those, or build the adapter anew."
        )


def _config(folder: Path) -> dict[str, Any]:
    from peft import LoraConfig

    path = folder / CONFIG
    if not path.is_file():
        raise ModelBroken(f"{folder} has no {CONFIG}, so nothing says how its weights go. {ANEW}")
    said, usual = integrity.read_json(path), LoraConfig().to_dict()
    odd = sorted(name for name in said.keys() - MEANT - IDLE if said[name] != usual.get(name))
    if odd or "r" not in said:
        raise ModelBroken(
            f"{path} is not that of an adapter as it is built here ({', '.join(odd) or 'r'}). {ANEW}"
        )
    return {name: said.get(name) for name in MEANT}


def _weights(path: Path) -> "dict[str, torch.Tensor]":
    from safetensors.torch import load_file

    return {name.removeprefix(PREFIX): tensor for name, tensor in load_file(path).items()}


def _beside(module: Any) -> Any:
    """Modules of their own on the same tensors: what is put in the place of one of them is there alone."""
    tensors = chain(module.parameters(), module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def _put_head(module: Any, names: Sequence[str], weights: "dict[str, torch.Tensor]", folder: Path) -> None:
    """The parts that were learned whole, which `weights` is without then. They may have more outputs than the
    base's, or fewer: one for each label of the adapter."""
    import torch

    for name in names:
        try:
            part = module.get_submodule(name)
            for place, _ in list(part.named_parameters()):
                owner, _, leaf = place.rpartition(".")
                tensor = weights.pop(f"{name}.{place}")
                setattr(part.get_submodule(owner), leaf, torch.nn.Parameter(tensor, requires_grad=False))
        except (AttributeError, KeyError) as error:
            raise ModelBroken(
                f"{folder} does not go with its base: it is to replace {name}, and one of the two has no "
                f"such weights ({error}). {ANEW}"
            ) from error


def _put_lora(
    module: Any, config: Mapping[str, Any], weights: "dict[str, torch.Tensor]", folder: Path
) -> None:
    import peft

    name = "default"
    lora = peft.LoraConfig(**{**config, "modules_to_save": None, "inference_mode": True})
    try:
        peft.inject_adapter_in_model(lora, module, name)
        told = peft.set_peft_model_state_dict(module, weights, name)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelBroken(
            f"{folder} does not go with its base: {lines[0].rstrip('.')[:300]}. {ANEW}"
        ) from error
    wrong = sorted([*(key for key in told.missing_keys if ".lora_" in key), *told.unexpected_keys])
    if wrong:
        raise ModelBroken(
            f"{folder} does not go with its base: one of the two has no {wrong[0]}, nor {len(wrong) - 1} "
            f"other weights. {ANEW}"
        )


def _check_labels(model: TorchEncoder, folder: Path) -> None:
    import numpy as np

    one: np.ndarray = np.ones((1, 1), dtype=np.int64)
    try:
        found = model.run_ids(one, one).shape[-1]
    except RuntimeError as error:
        raise ModelBroken(f"{folder} does not go with its base: {error}. {ANEW}") from error
    if found != len(model.card.labels):
        raise ModelBroken(f"{folder} has {len(model.card.labels)} labels and a head for {found}. {ANEW}")
