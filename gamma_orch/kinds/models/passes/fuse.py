"""The pass `fuse`: attention, normalization and activation become single nodes of ONNX Runtime's own.

ONNX Runtime does much of this by itself when it loads a graph; done here it is seen, counted, and kept. A
fused graph is for ONNX Runtime alone. The same graph gives the same bytes.
"""

from collections.abc import Mapping
from typing import Any

from onnx import helper
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import graph_folder, parity, quantized
from gamma_orch.kinds.models.passes.architectures import architecture

OWN = "com.microsoft"  # where the fused nodes are defined
ATTENTION = ("Attention", "MultiHeadAttention", "GroupQueryAttention")
SLOWER = (
    "On a DistilBERT and one thread a fused graph ran at 0.94 to 1.02 times the speed of the plain one in "
    "float32, and after quantize-dynamic 1 to 11 % slower: ONNX Runtime fuses by itself when it loads a "
    "graph. Benchmark both before you keep this pass."
)


def run(job: Job) -> Json:
    """No parameters. Facts: fused nodes by kind, parity with the graph before. Raises Permanent where
    nothing was fused, or the answers moved."""
    source = job.inputs["model"]
    card = graph_folder.card(source, "onnxruntime")
    if card.precision != "float32":
        raise Permanent(f"Nothing is fused in a graph of {card.precision} weights. Put `fuse` first.")
    known = architecture(card)
    if not known.fused_as:
        raise Permanent(
            f"ONNX Runtime's tool knows no fusion for {card.architecture} as it is exported. Take `fuse` "
            "out: the runtime fuses what it can when it loads the graph."
        )
    config = graph_folder.config(source)
    fused: dict[str, Json] = {}
    for role, name in card.graphs.items():
        job.tell(f"fusing the {role}", None)
        with quantized.quiet():
            made = optimize_model(
                str(source / name),
                model_type=known.fused_as,
                num_heads=config[known.heads],
                hidden_size=config[known.width],
                optimization_options=FusionOptions(known.fused_as),
                opt_level=0,  # what the runtime does at load stays for then: it depends on the processor
                use_gpu=False,
            )
        fused[role] = _counted(made, name)
        if OWN not in {opset.domain for opset in made.model.opset_import}:
            made.model.opset_import.append(helper.make_opsetid(OWN, 1))
        graph_folder.write(made.model, job.out / name)
    after = graph_folder.finished(source, job.out, card)
    job.tell("comparing with the graph before", None)
    report = parity.compared(
        graph_folder.opened(source, job.threads), graph_folder.opened(job.out, job.threads)
    )
    parity.require(report, f"The fused graph of this {card.architecture}")
    word = parity.word(graph_folder.opened(job.out, job.threads))
    return {
        "fused": fused,
        "parity": report.facts(word),
        "warning": SLOWER,
        **graph_folder.sizes(source, card, job.out, after),
    }


def _counted(made: Any, name: str) -> dict[str, int]:
    """Fused nodes by kind."""
    found: Mapping[str, int] = made.get_fused_operator_statistics()
    counted = {kind: number for kind, number in found.items() if number}
    # The export has these as single nodes already.
    fused = {kind: number for kind, number in counted.items() if kind != "LayerNormalization"}
    if not fused:
        raise Permanent(
            f"Nothing in {name} was fused: no attention, normalization or activation was found in a form "
            "that ONNX Runtime's tool knows. Take `fuse` out."
        )
    return {**counted, "Attention": sum(found.get(kind, 0) for kind in ATTENTION)}
