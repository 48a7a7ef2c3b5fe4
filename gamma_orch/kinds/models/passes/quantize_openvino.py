"""The pass `quantize-openvino`: INT8 by NNCF with ranges found on calibration texts, or weights alone.

With ranges: encoders only; the texts go through one by one, so that no padding has a say in a range. Weights
alone: any model, INT8 or INT4 (then embedding tables and the last layer stay INT8). The same graph, texts and
seed give the same bytes.
"""

import os
from collections import Counter
from typing import Any

os.environ.setdefault("NNCF_CI", "1")  # NNCF then reports nothing of its use to the maker

import nncf
import numpy as np

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import graph_folder, quantized
from gamma_orch.kinds.models.passes.architectures import Form, architecture
from gamma_orch.kinds.models.passes.samples import samples
from gamma_orch.runtimes.folder import Card

PRESETS = {"performance": nncf.QuantizationPreset.PERFORMANCE, "mixed": nncf.QuantizationPreset.MIXED}
MODES = {"int8": nncf.CompressWeightsMode.INT8_ASYM, "int4": nncf.CompressWeightsMode.INT4_ASYM}
LONGEST = 256  # tokens of a calibration text
MULTIPLIES = ("MatMul", "Gather", "Convolution")


def run(job: Job) -> Json:
    """Parameters: `preset` (performance or mixed), `rows` of the training split (300), `seed` (0),
    `smoothQuant` (NNCF's own choice; -1 turns it off), `biasCorrection` (fast or accurate), `ignored`
    (names of nodes to leave as they are); or `weights` (int8, int4) with `block` (64). `compute` (auto): what
    the rest is multiplied in when the model runs, kept on its card."""
    source = job.inputs["model"]
    card = graph_folder.card(source, "openvino")
    only = job.params.get("weights")
    if only is not None and only not in MODES:
        raise Permanent(f"Weights alone are quantized to {' or '.join(MODES)}, not to {only}.")
    if only is None and architecture(card).form is not Form.ENCODER:
        raise Permanent(
            f"Ranges of activations are found for encoders only, and {card.architecture} generates. "
            "Write `weights: int8` or `weights: int4`."
        )
    nncf.set_log_level("ERROR")
    layers: dict[str, Json] = {}
    calibration: dict[str, Json] = {}
    for role, name in card.graphs.items():
        job.tell(f"quantizing the {role}", None)
        model = graph_folder.read_openvino(source / name)
        before = _with_weights(model)
        if only is not None:
            model = _compressed(model, only, job.params)
        else:
            model, calibration = _calibrated(job, model, card)
        layers[role] = _checked(before, model, name)
        graph_folder.write_openvino(model, job.out / name)
    compute = job.params.get("compute", "auto")
    made = graph_folder.finished(source, job.out, card, precision=only or "int8", compute=compute)
    job.tell("comparing with the model before", None)
    facts = {"layers": layers, **graph_folder.sizes(source, card, job.out, made), **quantized.difference(job)}
    return {**facts, "calibration": calibration} if calibration else facts


def _compressed(model: Any, only: str, params: Json) -> Any:
    if only == "int8":
        return nncf.compress_weights(model, mode=MODES[only])
    return nncf.compress_weights(
        model,
        mode=MODES[only],
        group_size=params.get("block", 64),
        ratio=1.0,
        advanced_parameters=nncf.AdvancedCompressionParameters(
            # A layer whose width no block divides gets smaller blocks, or stays INT8.
            group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST,
        ),
    )


def _calibrated(job: Job, model: Any, card: Card) -> tuple[Any, dict[str, Json]]:
    params = job.params
    preset = params.get("preset", "performance")
    if preset not in PRESETS:
        raise Permanent(f"There is no preset {preset!r}; there are {', '.join(PRESETS)}.")
    text = graph_folder.text(job.inputs["model"], card)
    tried = samples(job, text, "train", params.get("rows", 300), params.get("seed", 0))
    inputs = {value.any_name for value in model.inputs}

    def feeds(row: list[int]) -> dict[str, np.ndarray]:
        ids = np.array([row[:LONGEST]], dtype=np.int64)
        given = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        return {name: array for name, array in given.items() if name in inputs}

    advanced = nncf.AdvancedQuantizationParameters()
    if "smoothQuant" in params:
        advanced.smooth_quant_alphas = nncf.AdvancedSmoothQuantParameters(matmul=params["smoothQuant"])
    ignored = params.get("ignored") or []
    made = nncf.quantize(
        model,
        nncf.Dataset(text.ids(tried.texts), feeds),
        preset=PRESETS[preset],
        model_type=nncf.ModelType.TRANSFORMER,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(tried.texts),
        fast_bias_correction=params.get("biasCorrection", "fast") == "fast",
        ignored_scope=nncf.IgnoredScope(names=ignored) if ignored else None,
        advanced_parameters=advanced,
    )
    return made, {"texts": len(tried.texts), "from": tried.origin, "preset": preset}


def _with_weights(model: Any) -> dict[str, int]:
    """Nodes by operator that multiply by, or look up in, a matrix of constants."""
    return dict(Counter(node.get_type_name() for node in model.get_ordered_ops() if _kind(node) is not None))


def _checked(before: dict[str, int], model: Any, name: str) -> dict[str, Json]:
    changed = Counter(
        node.get_type_name() for node in model.get_ordered_ops() if _kind(node) in ("i8", "u8", "i4", "u4")
    )
    quantizers = sum(node.get_type_name() == "FakeQuantize" for node in model.get_ordered_ops())
    if not changed:
        listed = ", ".join(f"{number} {operator}" for operator, number in before.items()) or "none"
        raise Permanent(
            f"NNCF changed no layer of {name}: it has {listed} with weights, and none matched. "
            "Is the model quantized already, or everything named in `ignored`?"
        )
    left = [node.get_friendly_name() for node in model.get_ordered_ops() if _kind(node) in ("f32", "f16")]
    return {
        "candidates": dict(before),
        "changed": dict(changed),
        "unchanged": left[:20],
        "quantizedActivations": quantizers,
    }


def _kind(node: Any) -> str | None:
    """The type in which the weights of a node are stored; None where it has no matrix of weights."""
    if node.get_type_name() not in MULTIPLIES:
        return None
    for source in node.input_values():
        held = source.get_node()
        # Weights in a smaller type are behind what makes numbers of them again.
        while held.get_type_name() in (
            "Convert",
            "Multiply",
            "Subtract",
            "Reshape",
            "FakeQuantize",
            "Transpose",
        ):
            held = held.input_value(0).get_node()
        if held.get_type_name() == "Constant" and len(held.get_output_shape(0)) >= 2:
            return str(held.get_output_element_type(0).get_type_name())
    return None
