"""Folders of graphs, as the passes after the export take and give them: whole, each standing alone.

What is beside the graphs (tokenizer, configuration) is copied as it is; a graph of more than two gigabytes
keeps its weights in a file beside it, for protobuf can hold no more.
"""

import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import openvino

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.passes.torch_folder import TOKENIZER
from gamma_orch.runtimes import Model, ModelError, load
from gamma_orch.runtimes.folder import Card, Runtime
from gamma_orch.runtimes.integrity import CONFIG, read_json
from gamma_orch.runtimes.ov import check_weights
from gamma_orch.runtimes.text import Text

BESIDE = (*TOKENIZER, "config.json", "generation_config.json")
_COUNTED = re.compile(r"[A-Za-z]+_\d+(_\d+)?")
_BETWEEN = re.compile(r">\s+<")
PROTOBUF = 2_000_000_000  # bytes that one protobuf file may hold, with room for the nodes

_WORDS: Mapping[Runtime, str] = {"torch": "PyTorch", "onnxruntime": "ONNX", "openvino": "OpenVINO"}
_BEFORE: Mapping[Runtime, str] = {
    "torch": "Put it before the export.",
    "onnxruntime": "Put it after `export`, and before `openvino`.",
    "openvino": "Put it after `openvino`.",
}


def card(folder: Path, runtime: Runtime) -> Card:
    """Raises Permanent where the folder holds no model, or one in another form than the pass takes."""
    try:
        found = Card.read(folder)
    except (FileNotFoundError, ValueError) as error:
        raise Permanent(f"The input is not a model folder: {error}.") from None
    if found.runtime != runtime:
        raise Permanent(
            f"This pass takes a model in {_WORDS[runtime]}, and it is in {_WORDS[found.runtime]}. "
            f"{_BEFORE[runtime]}"
        )
    return found


def opened(folder: Path, threads: int) -> Model:
    """Load it. Raises Permanent where it is broken."""
    try:
        return load(folder, threads)
    except ModelError as error:
        raise Permanent(str(error)) from error


def text(folder: Path, said: Card) -> Text:
    """Its tokenizer. Raises Permanent where it is broken."""
    try:
        return Text(folder, said)
    except ModelError as error:
        raise Permanent(str(error)) from error


def config(folder: Path) -> dict[str, Any]:
    """Its configuration. Raises Permanent where it is broken."""
    try:
        return read_json(folder / CONFIG)
    except ModelError as error:
        raise Permanent(str(error)) from error


def read(path: Path) -> Any:
    """An ONNX graph. Raises Permanent where the file is cut off."""
    try:
        return onnx.load(path)
    except Exception as error:
        raise Permanent(f"{path.name} is cut off or no ONNX graph ({error}). Build it anew.") from error


def write(model: Any, path: Path) -> None:
    """The same graph is the same bytes."""
    large = model.ByteSize() > PROTOBUF
    data = {"location": path.name + ".data"} if large else {}
    onnx.save_model(model, path, save_as_external_data=large, **data)


def read_openvino(path: Path) -> Any:
    """A graph in OpenVINO's form. Raises Permanent where a file is cut off."""
    try:
        check_weights(path)
        return openvino.Core().read_model(path)
    except (ModelError, RuntimeError) as error:
        raise Permanent(f"{path.name} cannot be read: {error} Build it anew.") from error


def write_openvino(model: Any, path: Path, half: bool = False) -> None:
    """The same graph is the same bytes: a node without a name of its own gets one from a counter of the whole
    process, which is counted anew here. `half`: constants as float16."""
    for number, node in enumerate(model.get_ordered_ops()):
        if _COUNTED.fullmatch(node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}/{number}")
    openvino.save_model(model, path, compress_to_fp16=half)
    # A fifth of the file is what is between the tags, for readers that are not there.
    path.write_text(_BETWEEN.sub("><", path.read_text(encoding="utf-8")), encoding="utf-8")


def copy_beside(source: Path, out: Path) -> None:
    for name in BESIDE:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def finished(source: Path, out: Path, said: Card, **changes: Any) -> Card:
    """Put beside the graphs in `out` what makes it a whole model folder; `changes` are to the card."""
    copy_beside(source, out)
    made = replace(said, **changes)
    made.write(out)
    return made


def each_graph(source: Path, out: Path, said: Card, change: Callable[[Path, Path], Any]) -> dict[str, Any]:
    """`change(from, to)` on every graph of the folder; what it returned, by role."""
    return {role: change(source / name, out / name) for role, name in said.graphs.items()}


def megabytes(folder: Path, said: Card) -> float:
    """Of the graphs and the weights beside them, in units of 10**6 bytes."""
    stems = {Path(name).stem for name in said.graphs.values()}
    files = (path for path in folder.iterdir() if path.is_file() and path.name.split(".")[0] in stems)
    return round(sum(path.stat().st_size for path in files) / 1e6, 3)


def operators(model: Any) -> dict[str, int]:
    """How many nodes of each type, the most frequent first."""
    return dict(Counter(node.op_type for node in model.graph.node).most_common())


def sizes(source: Path, before: Card, out: Path, after: Card) -> dict[str, float]:
    was, now = megabytes(source, before), megabytes(out, after)
    return {"megabytesBefore": was, "megabytes": now, "smaller": round(1 - now / was, 4) if was else 0.0}


def openvino_operators(model: Any) -> dict[str, int]:
    """The same of a graph in OpenVINO's form."""
    return dict(Counter(node.get_type_name() for node in model.get_ordered_ops()).most_common())
