"""A model that comes as ONNX already: which graphs are meant, and their copies.

Called by `fetch_model`, where a source has no safetensors or names an `.onnx` file. The graph is taken as
it is; only its structure is checked here. Weights beside the graph are copied under the names it has them.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import onnx
from onnx import TensorProto

from gamma_orch.core.provider import Permanent

_ROLES = {
    "encoder": "encoder_model.onnx",
    "decoder": "decoder_model.onnx",
    "decoder_with_past": "decoder_with_past_model.onnx",
}
_INT8 = {TensorProto.INT8, TensorProto.UINT8}
_INT4 = {"MatMulNBits", "GatherBlockQuantized"}


def graphs(files: Mapping[str, Path], where: str) -> dict[str, str]:
    """Role -> name inside the source. Raises Permanent where several could be meant."""
    found = [name for name in files if name.endswith(".onnx")]
    by_file = {PurePosixPath(name).name: name for name in found}
    parts = {role: by_file[file] for role, file in _ROLES.items() if file in by_file}
    if {"encoder", "decoder"} <= parts.keys():
        return parts
    if len(found) == 1:
        return {"model": found[0]}
    if "model.onnx" in by_file:
        return {"model": by_file["model.onnx"]}
    raise Permanent(
        f"{where} has {len(found)} ONNX graphs: {', '.join(sorted(found)[:12])}. Name the one that is "
        "meant in `file`."
    )


def copy(
    files: Mapping[str, Path], names: Mapping[str, str], out: Path
) -> tuple[dict[str, str], list[str], Any]:
    """Copies the graphs with what they refer to. Returns the card's graphs, the names of all files that were
    copied, and the first graph, without its outside weights. Raises Permanent for a broken graph."""
    made: dict[str, str] = {}
    taken: list[str] = []
    first = None
    for role, name in names.items():
        path = files[name]
        try:
            graph = onnx.load(path, load_external_data=False)
            onnx.checker.check_model(graph, full_check=False) if not _outside(graph) else None
        except Exception as error:
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise Permanent(f"{name} is no whole ONNX graph: {line}. Fetch it again.") from error
        first = first or graph
        made[role] = f"{role}.onnx"
        shutil.copyfile(path, out / made[role])
        taken.append(name)
        for location in _outside(graph):
            beside = PurePosixPath(name).parent / location
            if PurePosixPath(location).name != location or str(beside) not in files:
                raise Permanent(
                    f"{name} keeps weights in {location!r}, which is not beside it. Bring the whole "
                    "folder, not "
                    "the graph alone."
                )
            shutil.copyfile(files[str(beside)], out / location)
            taken.append(str(beside))
    return made, taken, first


def precision(graph: Any) -> str:
    """Of the weights: float32, float16, int8 or int4."""
    if any(node.op_type in _INT4 for node in graph.graph.node):
        return "int4"
    types = [tensor.data_type for tensor in graph.graph.initializer if len(tensor.dims) > 1]
    if any(kind in _INT8 for kind in types):
        return "int8"
    return "float16" if types and all(kind == TensorProto.FLOAT16 for kind in types) else "float32"


def parameters(graph: Any) -> int:
    total = 0
    for tensor in graph.graph.initializer:
        count = 1
        for size in tensor.dims:
            count *= size
        total += count
    return total


def _outside(graph: Any) -> list[str]:
    found = {
        entry.value
        for tensor in graph.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return sorted(found)
