"""The nodes of an ONNX graph that hold its weights: which of them a quantization could take, and which it
took.

Every quantization pass counts by this, since the tools pass over what does not suit them without a word:
INT4 on a GPT-2 as it is exported changes nothing at all, and leaves a larger file than INT8 does.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization.onnx_model import ONNXModel

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent

MULTIPLIES = ("MatMul", "Gemm")
LOOKS_UP = ("Gather",)
# What stands for them when their weights are quantized.
_INTEGER = ("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QGemm", "QLinearMatMul")
_BLOCKWISE = {"MatMulNBits": "MatMul", "GatherBlockQuantized": "Gather"}
_SMALL_TYPES = frozenset(
    getattr(onnx.TensorProto, name)
    for name in ("INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2")
    if hasattr(onnx.TensorProto, name)
)


@dataclass(frozen=True, slots=True)
class Counted:
    candidates: dict[str, int]  # nodes with weights before, by operator
    changed: dict[str, int]  # of them, those whose weights are small integers after
    left: tuple[str, ...]  # the names of those that are not

    def facts(self) -> dict[str, Json]:
        return {
            "candidates": dict(self.candidates),
            "changed": dict(self.changed),
            "unchanged": list(self.left[:20]),
        }


def candidates(model: Any, operators: tuple[str, ...] = (*MULTIPLIES, *LOOKS_UP)) -> dict[str, str]:
    """The nodes of these operators with a matrix of weights: name and operator."""
    held = {
        tensor.name
        for tensor in model.graph.initializer
        if len(tensor.dims) == 2 and tensor.data_type == onnx.TensorProto.FLOAT
    }
    return {
        node.name: node.op_type
        for node in model.graph.node
        if node.op_type in operators and any(name in held for name in node.input[:2])
    }


def counted(before: Any, after: Any, operators: tuple[str, ...] = (*MULTIPLIES, *LOOKS_UP)) -> Counted:
    """How many of the weights of `before` are quantized in `after`."""
    wanted = candidates(before, operators)
    still = candidates(after, operators)
    left = tuple(sorted(name for name in wanted if name in still))
    changed = _quantized(after)
    changed.subtract(_quantized(before))
    return Counted(dict(Counter(wanted.values())), dict(+changed), left)


def require(found: Counted, graph: str, before: Any, what: str) -> None:
    """Raises Permanent where not one multiplication was changed: with what was found, and why nothing
    matched."""
    if sum(number for operator, number in found.changed.items() if operator in MULTIPLIES):
        return
    present = Counter(node.op_type for node in before.graph.node if node.op_type in (*MULTIPLIES, "Conv"))
    listed = ", ".join(f"{number} {operator}" for operator, number in present.items()) or "none"
    count = sum(found.candidates.values())
    raise Permanent(
        f"{what} changed no layer of {graph}: it has {listed} ({count} nodes, lookups among them, have "
        "a matrix of float32 weights), and none matched. Is the model quantized already? Use this pass once, "
        "on an export in float32."
    )


def prepared(model: Any) -> Any:
    """The graph with every weight where quantization looks for it, for generators: a Gemm becomes a MatMul
    (and an Add), and a weight that is transposed as the graph runs is transposed here. That unties an
    output layer from the embedding table: each is quantized by itself, in the direction that suits it."""
    whole = ONNXModel(model)
    whole.replace_gemm_with_matmul()
    _fold_transposed(whole.model.graph)
    whole.topological_sort()
    return whole.model


def _fold_transposed(graph: Any) -> None:
    held = {tensor.name: tensor for tensor in graph.initializer}
    gone = []
    for node in graph.node:
        if node.op_type != "Transpose" or node.input[0] not in held or len(held[node.input[0]].dims) != 2:
            continue
        turned = np.ascontiguousarray(numpy_helper.to_array(held[node.input[0]]).T)
        graph.initializer.append(numpy_helper.from_array(turned, node.output[0]))
        gone.append(node)
    for node in gone:
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _quantized(model: Any) -> Counter[str]:
    """The nodes whose weights are small integers, by the operator that they were."""
    small = {t.name for t in model.graph.initializer if t.data_type in _SMALL_TYPES}
    floats = {
        node.output[0]: "dequantized"
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in small
    }
    found: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type in _BLOCKWISE:
            found[_BLOCKWISE[node.op_type]] += 1
        elif node.op_type in _INTEGER and any(name in small for name in node.input):
            found["MatMul"] += 1
        elif node.op_type in MULTIPLIES and any(name in floats for name in node.input[:2]):
            found[node.op_type] += 1
        elif node.op_type == "Gather" and (node.input[0] in small or node.input[0] in floats):
            found["Gather"] += 1
    return found
