"""The pass `quantize-weights`: weights in INT4 or INT8, a scale for each block; activations stay float32.

For decoders, whose cost is to read their weights once a token. An embedding table is quantized the same way
where its width is a multiple of the block. The same graph gives the same bytes.
"""

from typing import Any

import numpy as np
from onnxruntime.quantization import QuantFormat
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import graph_folder, quantize_dynamic, quantized

BITS = (4, 8)
BLOCKS = (16, 32, 64, 128, 256)  # what ONNX Runtime's kernels take
INT8_COMPUTE = 4  # MatMulNBits' accuracy_level: activations are quantized for each block, the sums are int32


def run(job: Job) -> Json:
    """Parameters: `bits` (4), `block` (32), `symmetric` (false)."""
    card = graph_folder.card(job.inputs["model"], "onnxruntime")
    bits, block = job.params.get("bits", 4), job.params.get("block", 32)
    if bits not in BITS or block not in BLOCKS:
        raise Permanent(
            f"Weights are quantized to {' or '.join(map(str, BITS))} bits in blocks of "
            f"{', '.join(map(str, BLOCKS))}; not to {bits} in blocks of {block}."
        )

    def change(graph: Any) -> Any:
        settings = DefaultWeightOnlyQuantConfig(
            block_size=block,
            is_symmetric=bool(job.params.get("symmetric", False)),
            accuracy_level=INT8_COMPUTE,
            quant_format=QuantFormat.QOperator,
            op_types_to_quantize=("MatMul", "Gather") if bits == 4 else ("MatMul",),
            quant_axes=(("MatMul", 0), ("Gather", 1)),
            bits=bits,
        )
        quantizer = MatMulNBitsQuantizer(graph, algo_config=settings)
        with np.errstate(divide="ignore", invalid="ignore"):
            quantizer.process()  # a block of zeros, as the row of a padding token is, has the scale 0
        made = quantizer.model.model
        # ONNX Runtime has no lookup in blocks of 8 bits: there the whole table has one scale.
        return made if bits == 4 else quantize_dynamic.changed(job, made, operators=["Gather"])

    return quantized.whole(job, card, f"INT{bits} weights", f"int{bits}", change)
