"""The pass `quantize-weights`: weights in INT4 or INT8, a scale for each block; activations stay float32.

For decoders, whose cost is to read their weights once a token. An embedding table is quantized the same way:
in INT4 where its width is a multiple of the block, in INT8 always, and there it is the output layer's own
where the two are tied. The same graph gives the same bytes.
"""

from typing import Any

import numpy as np
from onnxruntime.quantization import QuantFormat
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import graph_folder, quantized, tables

BITS = (4, 8)
BLOCKS = (16, 32, 64, 128, 256)  # what ONNX Runtime's kernels take
INT8_COMPUTE = 4  # MatMulNBits' accuracy_level: activations are quantized for each block, the sums are int32


def run(job: Job) -> Json:
    """Parameters: `bits` (4), `block` (32), `symmetric` (true for 8 bits, where no zero points save an eighth
    of what the blocks add and change nothing in the answers; false for 4)."""
    card = graph_folder.card(job.inputs["model"], "onnxruntime")
    bits, block = job.params.get("bits", 4), job.params.get("block", 32)
    symmetric = bool(job.params.get("symmetric", bits == 8))
    if bits not in BITS or block not in BLOCKS:
        raise Permanent(
            f"Weights are quantized to {' or '.join(map(str, BITS))} bits in blocks of "
            f"{', '.join(map(str, BLOCKS))}; not to {bits} in blocks of {block}."
        )

    def change(graph: Any) -> Any:
        settings = DefaultWeightOnlyQuantConfig(
            block_size=block,
            is_symmetric=symmetric,
            accuracy_level=INT8_COMPUTE,
            quant_format=QuantFormat.QOperator,
            op_types_to_quantize=("MatMul", "Gather") if bits == 4 else ("MatMul",),
            quant_axes=(("MatMul", 0), ("Gather", 1)),
            bits=bits,
        )
        tied = {table: node.output[0] for table, (_, node) in tables.tied(graph).items()} if symmetric else {}
        quantizer = MatMulNBitsQuantizer(graph, algo_config=settings)
        with np.errstate(divide="ignore", invalid="ignore"):
            quantizer.process()  # a block of zeros, as the row of a padding token is, has the scale 0
        made = quantizer.model.model
        if bits == 8:
            tables.in_blocks(made, tied, block)
        return made

    return quantized.whole(job, card, f"INT{bits} weights", f"int{bits}", change)
