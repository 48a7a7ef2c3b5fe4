"""What every quantization of ONNX graphs does around its tool: prepare, change, count, and tell what it cost.

Called by `quantize_dynamic`, `quantize_static` and `quantize_weights`.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

from gamma_orch.core.canonical import Json
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import graph_folder, parity, weights
from gamma_orch.kinds.models.passes.architectures import Form, architecture
from gamma_orch.kinds.models.passes.samples import samples
from gamma_orch.runtimes.folder import Card

COMPARED = 32  # texts on which the answers before and after are compared


def whole(job: Job, card: Card, what: str, precision: str, change: Callable[[Any], Any]) -> dict[str, Json]:
    """`change` on every graph of the input. Facts: layers changed, sizes, difference. Raises Permanent
    where a graph has no layer that was changed."""
    source = job.inputs["model"]
    generates = architecture(card).form is not Form.ENCODER
    layers: dict[str, Json] = {}
    for role, name in card.graphs.items():
        job.tell(f"quantizing the {role}", None)
        graph = graph_folder.read(source / name)
        if generates:
            graph = weights.prepared(graph)
        before = _copied(graph)
        with quiet():
            after = change(graph)
        found = weights.counted(before, after)
        weights.require(found, name, before, what)
        layers[role] = found.facts()
        graph_folder.write(after, job.out / name)
    made = graph_folder.finished(source, job.out, card, precision=precision)
    job.tell("comparing with the model before", None)
    return {"layers": layers, **graph_folder.sizes(source, card, job.out, made), **difference(job)}


def difference(job: Job) -> dict[str, Json]:
    """What the pass changed in the answers, on texts of the data or made-up ones."""
    before = graph_folder.opened(job.inputs["model"], job.threads)
    after = graph_folder.opened(job.out, job.threads)
    tried = samples(job, before.text, "validation", COMPARED, seed=1)
    return {"comparedWithInput": {**parity.changed(before, after, tried.texts), "texts": tried.origin}}


def _copied(graph: Any) -> Any:
    copy = type(graph)()
    copy.CopyFrom(graph)
    return copy


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The tools log to the root logger, and advise steps that are done here or that change nothing."""
    root = logging.getLogger()
    before = root.level
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        root.setLevel(before)
