"""The pass `sparsify`: the smallest weights of every linear layer become zero.

Unstructured: zeros lie anywhere, and no kernel that the runtimes here have skips them. It speeds nothing
up, and needs as much memory; only a compressed file is smaller. The facts say so, with the sizes. The same
weights and ratio give the same bytes.
"""

import zlib
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import graph_folder, torch_folder

HONEST = (
    "Zeros that lie anywhere speed nothing up here: ONNX Runtime, OpenVINO and PyTorch multiply by them as "
    "by any other number, and keep them in memory. Only the compressed size falls. To be faster, use `prune` "
    "or INT8."
)


def run(job: Job) -> Json:
    """Parameters: `ratio` of the weights of each layer that become zero, above 0 and below 1."""
    source = job.inputs["model"]
    card = graph_folder.card(source, "torch")
    ratio = job.params.get("ratio", 0.5)
    if not isinstance(ratio, int | float) or not 0 < ratio < 1:
        raise Permanent(f"`ratio` is a share between 0 and 1 (50% is 0.5), not {ratio}.")
    model = torch_folder.load(source, card)
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear | Conv1D)]
    tied = _tables(model)
    layers = [layer for layer in layers if layer.weight.data_ptr() not in tied]
    if not layers:
        raise Permanent(f"This {card.architecture} has no linear layer whose weights could become zero.")
    zeros = total = 0
    for layer in layers:
        zeros += _zeroed(layer.weight.data, ratio)
        total += layer.weight.numel()
    torch_folder.write(model, card, source, job.out)
    before, after = (_compressed(folder, card.graphs["model"]) for folder in (source, job.out))
    return {
        "layers": len(layers),
        "zeros": round(zeros / total, 6),
        "zerosOfAllWeights": round(zeros / sum(weight.numel() for weight in model.parameters()), 6),
        "compressedMegabytesBefore": before,
        "compressedMegabytes": after,
        "speedsUp": False,
        "note": HONEST,
    }


def _zeroed(weights: torch.Tensor, ratio: float) -> int:
    """Set the smallest of the weights to zero, in place; how many are zero then."""
    count = round(weights.numel() * ratio)
    if count:
        order = weights.abs().flatten().argsort(stable=True)
        weights.view(-1)[order[:count]] = 0
    return int((weights == 0).sum())


def _tables(model: Any) -> set[int]:
    """Where the weights of embedding tables lie: an output layer that is tied to one is a lookup too."""
    return {module.weight.data_ptr() for module in model.modules() if isinstance(module, torch.nn.Embedding)}


def _compressed(folder: Any, name: str) -> float:
    squeeze = zlib.compressobj(6)
    size = 0
    with (folder / name).open("rb") as opened:
        while part := opened.read(1 << 20):
            size += len(squeeze.compress(part))
    return round((size + len(squeeze.flush())) / 1e6, 3)
