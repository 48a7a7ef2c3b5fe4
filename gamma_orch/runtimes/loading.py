"""From a folder to a model that answers."""

from pathlib import Path
from typing import Any

from gamma_orch.runtimes.encoder import Encoder
from gamma_orch.runtimes.errors import ModelBroken, WrongTask
from gamma_orch.runtimes.folder import Card
from gamma_orch.runtimes.generator import Generator
from gamma_orch.runtimes.graph import Graph
from gamma_orch.runtimes.graphs import GraphDecoder, GraphEncoder, GraphEncoderDecoder
from gamma_orch.runtimes.integrity import checked
from gamma_orch.runtimes.text import Marks, Text

Model = Encoder | Generator


def load(folder: Path, threads: int = 1, **options: Any) -> Model:
    """Open the model of `folder` with the runtime that its card names, on `threads` threads.

    `options` go to the runtime: `compute` ("float32", "bfloat16", "auto") to OpenVINO, `precision`
    ("float32", "bfloat16") to PyTorch. Raises ModelBroken where the folder is no whole, safe model.
    """
    card = checked(folder)
    if card.runtime == "torch":
        from gamma_orch.runtimes import pytorch

        return pytorch.opened(folder, card, threads, **options)
    text, marks = Text(folder, card), Marks.read(folder)
    graphs = {role: _graph(folder / name, card, threads, options) for role, name in card.graphs.items()}
    try:
        match card.task:
            case "text-generation":
                return GraphDecoder(card, text, marks, graphs["model"])
            case "summarization":
                return GraphEncoderDecoder(card, text, marks, graphs["encoder"], graphs["decoder"])
            case _:
                return GraphEncoder(card, text, marks, graphs["model"])
    except KeyError as error:
        raise ModelBroken(
            f"{folder} has no graph for the role {error}, which {card.task} needs. Build the model anew."
        ) from None


def load_encoder(folder: Path, threads: int = 1, **options: Any) -> Encoder:
    """As `load`; raises WrongTask where the model generates."""
    model = load(folder, threads, **options)
    if not isinstance(model, Encoder):
        raise WrongTask(f"{folder} is a model for {model.card.task}, which gives no logits of a text.")
    return model


def load_generator(folder: Path, threads: int = 1, **options: Any) -> Generator:
    """As `load`; raises WrongTask where the model does not generate."""
    model = load(folder, threads, **options)
    if not isinstance(model, Generator):
        raise WrongTask(f"{folder} is a model for {model.card.task}, which writes no text.")
    return model


def _graph(path: Path, card: Card, threads: int, options: dict[str, Any]) -> Graph:
    if card.runtime == "onnxruntime":
        from gamma_orch.runtimes.ort import OrtGraph

        return OrtGraph(path, threads, **options)
    from gamma_orch.runtimes.ov import OvGraph

    return OvGraph(path, threads, **options)
