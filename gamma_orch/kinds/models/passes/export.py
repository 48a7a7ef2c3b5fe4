"""The pass `export`: a PyTorch folder becomes a folder of ONNX graphs, and is kept only if it answers the
same.

The graphs are optimum's. An encoder-decoder is rearranged (`cross_keys`), so that its decoder is there once
and not twice, and so is the decoder's embedding table (`tables`). The same weights give the same bytes.
"""

import contextlib
import logging
import shutil
import warnings
from collections.abc import Iterator
from typing import Any

from optimum.exporters.onnx import onnx_export_from_model

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import cross_keys, first_token, graph_folder, parity, tables
from gamma_orch.kinds.models.passes.architectures import EXPORTED_AS, Form, architecture
from gamma_orch.runtimes.folder import Card

LOWEST, HIGHEST = 14, 20  # opsets that optimum writes and every later pass reads


def run(job: Job) -> Json:
    """Parameters: `opset`, optimum's choice if left out. Facts: parity, and the nodes by operator."""
    source = job.inputs["model"]
    card = graph_folder.card(source, "torch")
    form = architecture(card).form
    opset = job.params.get("opset")
    if opset is not None and not (isinstance(opset, int) and LOWEST <= opset <= HIGHEST):
        raise Permanent(f"There is no opset {opset} to export to; there are {LOWEST} to {HIGHEST}.")
    job.tell("exporting", None)
    graphs, narrow = _exported(job, card, form, opset)
    made = graph_folder.finished(
        source, job.out, card, runtime="onnxruntime", precision="float32", graphs=graphs
    )
    job.tell("comparing with PyTorch", None)
    # Loaded anew: an exporter patches the model that it is given.
    reference, candidate = (graph_folder.opened(folder, job.threads) for folder in (source, job.out))
    report = parity.compared(reference, candidate)
    parity.require(report, f"The ONNX export of this {card.architecture}")
    return {
        "parity": report.facts(parity.word(candidate)),
        "nodes": {
            role: graph_folder.operators(graph_folder.read(job.out / name)) for role, name in graphs.items()
        },
        "megabytes": graph_folder.megabytes(job.out, made),
        "lastLayerOnFirstTokenOnly": narrow,
    }


def _exported(job: Job, card: Card, form: Form, opset: int | None) -> tuple[dict[str, str], bool]:
    """The graphs in `out`, by role; and whether the last layer runs on the first token alone."""
    module: Any = graph_folder.opened(job.inputs["model"], job.threads)
    narrow = first_token.narrowed(module.module, card)
    made = job.work / "onnx"
    shutil.rmtree(made, ignore_errors=True)
    try:
        with _quiet():
            onnx_export_from_model(
                module.module,
                made,
                opset=opset,
                task=EXPORTED_AS[card.task],
                do_validation=False,  # ours is stricter
                no_post_process=form is Form.ENCODER_DECODER,  # else it joins the two decoders into one graph
            )
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise Permanent(
            f"The exporter cannot write this {card.architecture} for {card.task}: "
            f"{lines[0].rstrip('.')[:300]}. Use `optimize: {{level: none}}`, which runs it in PyTorch."
        ) from error
    if form is Form.ENCODER_DECODER:
        encoder, decoder = cross_keys.rearranged(
            *(made / f"{name}_model.onnx" for name in ("encoder", "decoder", "decoder_with_past"))
        )
        tables.once(decoder)
        found = {"encoder": encoder, "decoder": decoder}
    else:
        found = {"model": graph_folder.read(made / "model.onnx")}
    for role, graph in found.items():
        graph_folder.write(graph, job.out / f"{role}.onnx")
    shutil.rmtree(made, ignore_errors=True)
    return {role: f"{role}.onnx" for role in found}, narrow


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Tracing warns of every Python branch in the model; whether one matters is what parity tells."""
    loggers = [logging.getLogger(name) for name in ("optimum", "torch.onnx", "transformers")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
