"""The pass `openvino`: ONNX graphs become OpenVINO's form, and are kept only if they answer the same.

In float32 the limit is the export's. Weights in float16 halve the file and are computed with in float32
again; how far the answers move is told, not limited. The same graph gives the same bytes.
"""

from pathlib import Path
from typing import Any

import openvino
from openvino._offline_transformations import apply_moc_transformations

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import graph_folder, parity, quantized
from gamma_orch.kinds.models.passes.architectures import Form, architecture

PRECISIONS = ("float32", "float16")


def run(job: Job) -> Json:
    """Parameters: `precision` of the weights on disk, float32 or float16."""
    source = job.inputs["model"]
    card = graph_folder.card(source, "onnxruntime")
    form = architecture(card).form
    precision = job.params.get("precision", "float32")
    if precision not in PRECISIONS:
        raise Permanent(f"Weights are written as {' or '.join(PRECISIONS)}, not as {precision}.")
    names = {role: f"{Path(name).stem}.xml" for role, name in card.graphs.items()}
    nodes: dict[str, Json] = {}
    for role, name in card.graphs.items():
        job.tell(f"converting the {role}", None)
        model = converted(source / name)
        if form is Form.ENCODER:
            # What each load would fuse is fused once: a third of the nodes goes, and the time to read them.
            # In a decoder this hides weights behind a norm's, where no quantization finds them.
            apply_moc_transformations(model, cf=False)
        nodes[role] = graph_folder.openvino_operators(model)
        graph_folder.write_openvino(model, job.out / names[role], half=precision == "float16")
    half = {"precision": "float16"} if precision == "float16" else {}
    made = graph_folder.finished(source, job.out, card, runtime="openvino", graphs=names, **half)
    job.tell("comparing with ONNX", None)
    before, after = (graph_folder.opened(folder, job.threads) for folder in (source, job.out))
    report = parity.compared(before, after)
    if precision == "float32" and card.precision == "float32":
        parity.require(report, f"OpenVINO's form of this {card.architecture}")
    return {
        "parity": report.facts(parity.word(after)),
        "nodes": nodes,
        **graph_folder.sizes(source, card, job.out, made),
        **(quantized.difference(job) if half else {}),
    }


def converted(path: Path) -> Any:
    """Raises Permanent where OpenVINO has no such operator."""
    try:
        # Not `convert_model`, which reports its use to the maker.
        return openvino.Core().read_model(path)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise Permanent(
            f"OpenVINO cannot read {path.name}: {lines[-1].rstrip('.')[:300]}. "
            "A graph with nodes of ONNX Runtime's own (fused, or quantized) stays with it: put "
            "`openvino` right after `export`."
        ) from error
