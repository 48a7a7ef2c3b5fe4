"""Encoders, decoders and encoder-decoders over compiled graphs: what ONNX Runtime and OpenVINO have in
common.

The names of inputs and outputs are those of the ONNX export. A decoder is one graph, which takes the keys and
values of the past and gives them with the present added; the first call gives it a past of no tokens. An
encoder-decoder's encoder also gives the keys and values that the decoder reads the source by, so that one
decoder graph serves the first token and all others.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gamma_orch.runtimes.encoder import Encoder
from gamma_orch.runtimes.errors import ModelBroken
from gamma_orch.runtimes.folder import Card
from gamma_orch.runtimes.generator import Generator, State
from gamma_orch.runtimes.graph import Graph, Value
from gamma_orch.runtimes.text import Marks, Text

if TYPE_CHECKING:
    import numpy as np


class GraphEncoder(Encoder):
    def __init__(self, card: Card, text: Text, marks: Marks, graph: Graph) -> None:
        super().__init__(card, text, marks)
        self._graph = graph
        self._types = "token_type_ids" in graph.inputs
        self._output = graph.outputs[0]

    def run_ids(self, input_ids: "np.ndarray", attention_mask: "np.ndarray") -> "np.ndarray":
        import numpy as np

        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._types:
            feeds["token_type_ids"] = np.zeros_like(input_ids)
        answer: np.ndarray = self._graph.run(feeds)[self._output]
        return answer


class GraphDecoder(Generator):
    def __init__(self, card: Card, text: Text, marks: Marks, graph: Graph) -> None:
        super().__init__(card, text, marks)
        self._graph = graph
        self._positions = "position_ids" in graph.inputs
        self._past = _pairs(graph, "past_key_values.", "present.")

    def begin(self, input_ids: "np.ndarray", attention_mask: "np.ndarray") -> "tuple[np.ndarray, State]":
        empty = {name: _empty(self._graph, name, len(input_ids)) for name in self._past}
        state = State(attention_mask, empty)
        return self._run(state, input_ids), state

    def advance(self, state: State, tokens: "np.ndarray") -> "np.ndarray":
        import numpy as np

        state.mask = np.concatenate([state.mask, np.ones((len(tokens), 1), dtype=np.int64)], axis=1)
        return self._run(state, tokens[:, None])[:, -1]

    def _run(self, state: State, ids: "np.ndarray") -> "np.ndarray":
        feeds: dict[str, Value] = {"input_ids": ids, "attention_mask": state.mask, **state.memory}
        if self._positions:
            feeds["position_ids"] = positions(state.mask)[:, -ids.shape[1] :]
        answer = self._graph.run(feeds, keep=list(self._past.values()))
        state.memory = {past: answer[present] for past, present in self._past.items()}
        state.length += ids.shape[1]
        logits: np.ndarray = answer["logits"]
        return logits


class GraphEncoderDecoder(Generator):
    def __init__(self, card: Card, text: Text, marks: Marks, encoder: Graph, decoder: Graph) -> None:
        super().__init__(card, text, marks)
        if marks.start is None:
            raise ModelBroken(
                "config.json has no decoder_start_token_id, so nothing says what an output begins with. "
                "Add it as the model's source has it."
            )
        self._start = marks.start
        self._encoder, self._decoder = encoder, decoder
        self._past = _pairs(decoder, "past_key_values.", "present.")
        # The source's keys and values, which stay as they are: by the decoder's name, the encoder's.
        self._source = {
            name: name.replace("past_key_values.", "present.")
            for name in decoder.inputs
            if name.startswith("past_key_values.") and name not in self._past
        }
        if missing := sorted(set(self._source.values()) - set(encoder.outputs)):
            raise ModelBroken(
                f"The encoder does not give {missing[0]}, which the decoder needs. Build the model anew."
            )

    def begin(self, input_ids: "np.ndarray", attention_mask: "np.ndarray") -> "tuple[np.ndarray, State]":
        import numpy as np

        answer = self._encoder.run(
            {"input_ids": input_ids, "attention_mask": attention_mask}, keep=list(self._source.values())
        )
        memory = {name: answer[given] for name, given in self._source.items()}
        memory |= {name: _empty(self._decoder, name, len(input_ids)) for name in self._past}
        state = State(attention_mask, memory)
        tokens: np.ndarray = np.full(len(input_ids), self._start, dtype=np.int64)
        return self.advance(state, tokens)[:, None], state

    def advance(self, state: State, tokens: "np.ndarray") -> "np.ndarray":
        feeds = {"input_ids": tokens[:, None], "encoder_attention_mask": state.mask, **state.memory}
        used = {name: value for name, value in feeds.items() if name in self._decoder.inputs}
        answer = self._decoder.run(used, keep=list(self._past.values()))
        state.memory |= {past: answer[present] for past, present in self._past.items()}
        state.length += 1
        logits: np.ndarray = answer["logits"][:, -1]
        return logits


def positions(mask: "np.ndarray") -> "np.ndarray":
    """Of each token among those that are not padding, from 0; int64, of the shape of the mask."""
    import numpy as np

    return np.maximum(mask.cumsum(axis=1) - 1, 0)


def _pairs(graph: Graph, past: str, present: str) -> Mapping[str, str]:
    """The inputs that hold the past, each with the output that holds it with the present added."""
    found = {name: name.replace(past, present) for name in graph.inputs if name.startswith(past)}
    return {name: output for name, output in found.items() if output in graph.outputs}


def _empty(graph: Graph, name: str, rows: int) -> "np.ndarray":
    """A past of no tokens, [rows, heads, 0, width of a head]."""
    import numpy as np

    _, heads, _, width = graph.shape(name)
    if heads is None or width is None:
        raise ModelBroken(f"The input {name} does not say its heads and width. Build the model anew.")
    return np.zeros((rows, heads, 0, width), dtype=np.float32)
