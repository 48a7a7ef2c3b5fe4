"""An encoder-decoder with its decoder once: called by `export`, on three graphs of optimum's.

optimum gives the decoder twice, since only the first call computes the keys and values by which the decoder
reads the source. They depend on the encoder's output alone: here the nodes that compute them move to the
end of the encoder's graph. What is left of the first decoder is what the second one does with a past of no
tokens, so it goes: half the size on disk and in memory. That the second one can do with such a past, parity
shows.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import compose, numpy_helper
from onnx.utils import Extractor

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.passes import graph_folder

_STATES = "encoder_hidden_states"
_PREFIX = "cross/"


def rearranged(encoder: Path, first_decoder: Path, decoder: Path) -> tuple[Any, Any]:
    """The encoder that also gives `present.N.encoder.key` and `.value`, and the decoder for all tokens."""
    first = graph_folder.read(first_decoder)
    wanted = [o.name for o in first.graph.output if ".encoder." in o.name]
    if not wanted:
        raise Permanent(
            "The exporter gave a decoder without keys and values of the source. "
            "Use `optimize: {level: none}`, which runs the model in PyTorch."
        )
    _let_go(first.graph, wanted)
    projections = Extractor(first).extract_model([_STATES], wanted)
    # Both graphs have an onnx::MatMul_1, so the names of one are set apart; where they meet is undone.
    projections = compose.add_prefix(projections, _PREFIX).graph
    whole = graph_folder.read(encoder)
    meet = {_STATES: whole.graph.output[0].name} | {name: name for name in wanted}
    meet = {_PREFIX + theirs: ours for theirs, ours in meet.items()}
    for node in projections.node:
        node.input[:] = [meet.get(name, name) for name in node.input]
        node.output[:] = [meet.get(name, name) for name in node.output]
    for output in projections.output:
        output.name = meet[output.name]
    whole.graph.node.extend(projections.node)
    whole.graph.initializer.extend(projections.initializer)
    whole.graph.output.extend(projections.output)
    with_past = graph_folder.read(decoder)
    for graph in (whole, with_past):
        onnx.checker.check_model(graph)
    return whole, with_past


def _let_go(graph: Any, wanted: list[str]) -> None:
    """Take the rows of the keys and values from the states themselves. The exporter takes them from the
    shape of the decoder's own states, so that all that the decoder computes would hang on to the
    projections."""
    makers = {output: node for node in graph.node for output in node.output}
    for output in graph.output:
        if output.name not in wanted:
            continue
        turned = makers[output.name]
        split = makers.get(turned.input[0]) if turned.op_type == "Transpose" else None
        if split is None or split.op_type != "Reshape":
            raise Permanent(
                f"The exporter computes {output.name} in a way that is not known here, by {turned.op_type}. "
                "Use `optimize: {level: none}`, which runs the model in PyTorch."
            )
        _, heads, _, width = (size.dim_value for size in output.type.tensor_type.shape.dim)
        shape = f"{_PREFIX}shape/{output.name}"
        graph.initializer.append(numpy_helper.from_array(np.array([0, 0, heads, width]), shape))
        split.input[1] = shape  # 0: as in what is reshaped
