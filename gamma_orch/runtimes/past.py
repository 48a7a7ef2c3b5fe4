"""A decoder's graph and what it must remember of a batch: the keys and values of the tokens so far.

Where they lie decides what a token costs. ONNX Runtime gives them out and takes them in again, as values of
its own that are not copied; OpenVINO keeps them inside (`ov.OvPast`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gamma_orch.runtimes.errors import ModelBroken
from gamma_orch.runtimes.graph import Graph, Value

if TYPE_CHECKING:
    import numpy as np

PAST, PRESENT = "past_key_values.", "present."


class Past(ABC):
    inputs: Sequence[str]  # the graph's, those for the past among them

    @abstractmethod
    def start(self, rows: int, fixed: Mapping[str, Value]) -> Any:
        """The memory of a new batch of `rows` rows: a past of no tokens. `fixed` is fed at each step."""

    @abstractmethod
    def step(self, memory: Any, feeds: Mapping[str, Value]) -> "np.ndarray":
        """The logits of the tokens in `feeds`, float32 [rows, tokens, vocabulary], and remember these
        tokens."""


class PastInValues(Past):
    """The past goes out of the graph and in again."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.inputs = graph.inputs
        self._pairs = pairs(graph.inputs, graph.outputs)

    def start(self, rows: int, fixed: Mapping[str, Value]) -> dict[str, Value]:
        return {**fixed, **{name: self._empty(name, rows) for name in self._pairs}}

    def step(self, memory: dict[str, Value], feeds: Mapping[str, Value]) -> "np.ndarray":
        answer = self._graph.run({**feeds, **memory}, keep=list(self._pairs.values()))
        memory.update({past: answer[present] for past, present in self._pairs.items()})
        logits: np.ndarray = answer["logits"]
        return logits

    def _empty(self, name: str, rows: int) -> "np.ndarray":
        import numpy as np

        return np.zeros(empty_shape(self._graph.shape(name), name, rows), dtype=np.float32)


def pairs(inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, str]:
    """The inputs that hold the past, each with the output that holds it with the present added."""
    found = {name: name.replace(PAST, PRESENT) for name in inputs if name.startswith(PAST)}
    return {name: output for name, output in found.items() if output in outputs}


def empty_shape(shape: Sequence[int | None], name: str, rows: int) -> tuple[int, int, int, int]:
    """Of a past of no tokens: [rows, heads, 0, width of a head]. Raises ModelBroken where the graph's input
    leaves the heads or the width open."""
    _, heads, _, width = shape
    if heads is None or width is None:
        raise ModelBroken(f"The input {name} does not say its heads and width. Build the model anew.")
    return rows, heads, 0, width
