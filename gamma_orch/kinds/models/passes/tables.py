"""The embedding tables of ONNX graphs: once in a file where the output layer multiplies by the same numbers,
and in blocks of 8 bits, for which ONNX Runtime has no lookup of its own.

Called by `export` and `quantize_weights`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

_MIDDLE = 128  # what stands for 0 in 8 bits without zero points


def tied(model: Any) -> dict[str, tuple[str, Any]]:
    """The tables that an output layer multiplies by, turned: name, with the weights' name and the node."""
    held = _matrices(model.graph)
    tables = {node.input[0] for node in _lookups(model.graph)}
    found = {}
    for node in model.graph.node:
        if node.op_type != "MatMul" or node.input[1] not in held:
            continue
        turned = held[node.input[1]]
        for name in sorted(tables):
            table = held[name]
            if list(table.dims) != list(turned.dims)[::-1]:
                continue
            if np.array_equal(numpy_helper.to_array(table), numpy_helper.to_array(turned).T):
                found[name] = (node.input[1], node)
    return found


def once(model: Any) -> int:
    """Change the graph: an output layer turns the table as it is loaded, instead of having it once more. How
    many did. `weights.prepared` is the way back."""
    graph = model.graph
    changed = tied(model)
    for table, (weights, node) in changed.items():
        turned = helper.make_node(
            "Transpose", [table], [f"{weights}/turned"], f"{weights}/Transpose", perm=[1, 0]
        )
        graph.node.insert(list(graph.node).index(node), turned)
        node.input[1] = turned.output[0]
        if not any(weights in other.input for other in graph.node):
            graph.initializer.remove(next(t for t in graph.initializer if t.name == weights))
    return len(changed)


def in_blocks(model: Any, multiplied: Mapping[str, str], block: int) -> None:
    """Change every lookup in a float32 table to one in 8 bits, with a scale for each block of `block` numbers
    of a row (for a row, where its width is no multiple). `multiplied`: by the table's name, the output of the
    symmetric MatMulNBits that has the same numbers; these are then there once."""
    graph = model.graph
    held = _matrices(graph)
    makers = {output: node for node in graph.node for output in node.output}
    made: dict[str, tuple[str, str]] = {}
    nodes = []
    for node in graph.node:
        table = node.input[0] if node.op_type == "Gather" else ""
        if table not in held or _axis(node) != 0:
            nodes.append(node)
            continue
        width = held[table].dims[1]
        if table not in made:
            same = makers.get(multiplied.get(table, ""))
            if same is not None and same.op_type == "MatMulNBits" and width % block == 0:
                made[table] = same.input[1], same.input[2]
            else:
                made[table] = _quantized(graph, held[table], block if width % block == 0 else width)
        nodes += _lookup(graph, node, *made[table], width)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    for tensor in [t for t in graph.initializer if t.name in made and t.name not in used]:
        graph.initializer.remove(tensor)


def _quantized(graph: Any, table: Any, block: int) -> tuple[str, str]:
    """The table as uint8 [rows, blocks, block], and float32 scales [rows, blocks]: their names."""
    numbers = numpy_helper.to_array(table)
    blocks = numbers.reshape(len(numbers), -1, block)
    scales = np.abs(blocks).max(axis=-1) / 127
    steps = np.rint(blocks / np.where(scales == 0, 1, scales)[..., None])
    small = (steps + _MIDDLE).astype(np.uint8)
    names = f"{table.name}_Q8", f"{table.name}_scales"
    for name, array in zip(names, (small, scales.astype(np.float32)), strict=True):
        graph.initializer.append(numpy_helper.from_array(array, name))
    return names


def _lookup(graph: Any, node: Any, small: str, scales: str, width: int) -> Iterator[Any]:
    """The nodes that give what `node` gives: (small[ids] - 128) * scales[ids], in one row again."""
    ids, name = node.input[1], node.name or node.output[0]

    def constant(word: str, array: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(array, f"{name}/{word}"))
        return f"{name}/{word}"

    def op(kind: str, word: str, *inputs: str, **attributes: Any) -> Any:
        return helper.make_node(kind, inputs, [f"{name}/{word}"], f"{name}/{word}", **attributes)

    last = constant("last", np.array([-1], dtype=np.int64))
    # Keeps the name of the lookup: it is the one that is counted as changed.
    rows = helper.make_node("Gather", [small, ids], [f"{name}/rows"], node.name, axis=0)
    yield rows
    yield op("Cast", "numbers", rows.output[0], to=onnx.TensorProto.FLOAT)
    middle = constant("middle", np.array(_MIDDLE, dtype=np.float32))
    yield op("Sub", "steps", f"{name}/numbers", middle)
    yield op("Gather", "scales", scales, ids, axis=0)
    yield op("Unsqueeze", "scales/one", f"{name}/scales", last)
    yield op("Mul", "blocks", f"{name}/steps", f"{name}/scales/one")
    yield op("Shape", "shape", ids)
    wide = constant("width", np.array([width], dtype=np.int64))
    yield op("Concat", "shape/wide", f"{name}/shape", wide, axis=0)
    yield helper.make_node(
        "Reshape", [f"{name}/blocks", f"{name}/shape/wide"], [node.output[0]], f"{name}/Reshape"
    )


def _matrices(graph: Any) -> dict[str, Any]:
    return {
        t.name: t for t in graph.initializer if len(t.dims) == 2 and t.data_type == onnx.TensorProto.FLOAT
    }


def _lookups(graph: Any) -> Iterator[Any]:
    held = _matrices(graph)
    return (n for n in graph.node if n.op_type == "Gather" and n.input[0] in held and _axis(n) == 0)


def _axis(node: Any) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
