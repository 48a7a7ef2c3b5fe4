"""The pass `quantize-static`: INT8 weights and activations, ranges found beforehand on calibration texts.

For encoders. The texts go through one by one, so that no padding has a say in a range (entropy and
percentile take those of at least the median length, cut to it: the tool wants them equal). Only
multiplications by weights, and embedding tables, are quantized: to quantize what lies between (attention,
normalization) costs accuracy and gains no time. The same graph and texts give the same bytes.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import graph_folder, quantized
from gamma_orch.kinds.models.passes.architectures import Form, architecture
from gamma_orch.kinds.models.passes.samples import samples

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
LONGEST = 128  # tokens of a calibration text: the histograms of longer ones fill the memory
OPERATORS = ["MatMul", "Gemm", "Gather"]


class Reader(CalibrationDataReader):
    """Gives the feeds one by one, as the tool wants them."""

    def __init__(self, feeds: Sequence[dict[str, np.ndarray]]) -> None:
        self._feeds = feeds
        self._left: Iterator[dict[str, np.ndarray]] = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)

    def rewind(self) -> None:
        self._left = iter(self._feeds)


def run(job: Job) -> Json:
    """Parameters: `method` (minmax, entropy, percentile), `rows` of the training split (200), `seed` (0)."""
    card = graph_folder.card(job.inputs["model"], "onnxruntime")
    if architecture(card).form is not Form.ENCODER:
        raise Permanent(
            f"Static ranges are found for encoders only, and {card.architecture} generates. "
            "Use quantize-dynamic or quantize-weights."
        )
    method = job.params.get("method", "minmax")
    if method not in METHODS:
        raise Permanent(f"There is no calibration method {method!r}; there are {', '.join(METHODS)}.")
    text = graph_folder.text(job.inputs["model"], card)
    tried = samples(job, text, "train", job.params.get("rows", 200), job.params.get("seed", 0))
    rows = [row[:LONGEST] for row in text.ids(tried.texts)]
    if method != "minmax":  # the tool puts what it sees of an activation into one array
        length = sorted(map(len, rows))[len(rows) // 2]
        rows = [row[:length] for row in rows if len(row) >= length]

    def change(graph: Any) -> Any:
        feeds = _feeds(graph, rows)
        with tempfile.TemporaryDirectory(dir=job.work) as folder:
            made = Path(folder) / "quantized.onnx"
            quantize_static(
                graph,
                made,
                Reader(feeds),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=OPERATORS,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=METHODS[method],
                use_external_data_format=graph.ByteSize() > graph_folder.PROTOBUF,
                extra_options={"MatMulConstBOnly": True},
            )
            return graph_folder.read(made)

    facts = quantized.whole(job, card, "INT8 with static ranges", "int8", change)
    return {**facts, "calibration": {"texts": len(rows), "from": tried.origin, "method": method}}


def _feeds(graph: Any, rows: Sequence[Sequence[int]]) -> list[dict[str, np.ndarray]]:
    inputs = {value.name for value in graph.graph.input}
    found = []
    for row in rows:
        ids = np.array([row], dtype=np.int64)
        feeds = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        found.append({name: array for name, array in feeds.items() if name in inputs})
    return found
