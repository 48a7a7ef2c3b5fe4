"""From a folder to a model that answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gamma_orch.runtimes.encoder import Encoder
from gamma_orch.runtimes.errors import ModelBroken, WrongTask
from gamma_orch.runtimes.folder import Card
from gamma_orch.runtimes.generator import Generator
from gamma_orch.runtimes.graph import Graph
from gamma_orch.runtimes.graphs import GraphDecoder, GraphEncoder, GraphEncoderDecoder
from gamma_orch.runtimes.integrity import checked
from gamma_orch.runtimes.past import Past, PastInValues
from gamma_orch.runtimes.text import Marks, Text

Model = Encoder | Generator


def load(folder: Path, threads: int = 1, cache: Path | None = None, **options: Any) -> Model:
    """Open the model of `folder` with the runtime that its card names, on `threads` threads.

    `cache`: a folder for what a runtime compiles of the model, for the next that loads it.
    `options` go to the runtime: `compute` ("float32", "bfloat16", "auto") to OpenVINO, in the place of what
    the card says; `precision` ("float32", "bfloat16") to PyTorch. Raises ModelBroken where the folder is no
    whole, safe model.
    """
    card = checked(folder)
    if card.runtime == "torch":
        from gamma_orch.runtimes import pytorch

        return pytorch.opened(folder, card, threads, **options)
    text, marks = Text(folder, card), Marks.read(folder)
    open_ = _Opening(folder, card, threads, cache, options)
    match card.task:
        case "text-generation":
            return GraphDecoder(card, text, marks, open_.past("model"))
        case "summarization":
            return GraphEncoderDecoder(card, text, marks, open_.graph("encoder"), open_.past("decoder"))
        case _:
            return GraphEncoder(card, text, marks, open_.graph("model"))


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


@dataclass(frozen=True, slots=True)
class _Opening:
    folder: Path
    card: Card
    threads: int
    cache: Path | None
    options: Mapping[str, Any]

    def graph(self, role: str) -> Graph:
        if self.card.runtime == "onnxruntime":
            from gamma_orch.runtimes.ort import OrtGraph

            return OrtGraph(self._path(role), self.threads, **self.options)
        from gamma_orch.runtimes.ov import OvGraph

        return OvGraph(self._path(role), self.threads, **self._for_openvino)

    def past(self, role: str) -> Past:
        if self.card.runtime == "onnxruntime":
            return PastInValues(self.graph(role))
        from gamma_orch.runtimes.ov import OvPast

        return OvPast(self._path(role), self.threads, **self._for_openvino)

    @property
    def _for_openvino(self) -> Mapping[str, Any]:
        return {"compute": self.card.compute, "cache": self.cache, **self.options}

    def _path(self, role: str) -> Path:
        try:
            return self.folder / self.card.graphs[role]
        except KeyError:
            raise ModelBroken(
                f"{self.folder} has no graph for the role {role}, which {self.card.task} needs. "
                "Build the model anew."
            ) from None
