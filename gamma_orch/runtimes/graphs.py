"""Encoders, decoders and encoder-decoders over compiled graphs: what ONNX Runtime and OpenVINO have in
common.

The names of inputs and outputs are those of the ONNX export. A decoder is one graph, which takes the keys and
values of the past and gives them with the present added; the first call gives it a past of no tokens. An
encoder-decoder's encoder also gives the keys and values that the decoder reads the source by, so that one
decoder graph serves the first token and all others.
"""

from typing import TYPE_CHECKING

from gamma_orch.runtimes.encoder import Encoder
from gamma_orch.runtimes.errors import ModelBroken
from gamma_orch.runtimes.folder import Card
from gamma_orch.runtimes.generator import Generator, State
from gamma_orch.runtimes.graph import Graph
from gamma_orch.runtimes.past import PAST, PRESENT, Past
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

        rows, tokens = input_ids.shape
        if self._graph.shapes_cost:
            input_ids, attention_mask = self._rounded(input_ids, attention_mask)
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._types:
            feeds["token_type_ids"] = np.zeros_like(input_ids)
        answer: np.ndarray = self._graph.run(feeds)[self._output][:rows]
        return answer[:, :tokens] if self.card.task != "text-classification" else answer

    def _rounded(self, ids: "np.ndarray", mask: "np.ndarray") -> "tuple[np.ndarray, np.ndarray]":
        """The same batch in one of few shapes: with tokens of padding, and rows that nobody asked for."""
        import numpy as np

        rows, tokens = ids.shape
        most = max(self.card.max_length, tokens)
        shape = rounded(rows, 2), min(rounded(max(tokens, 8), 3), most)
        if shape == ids.shape:
            return ids, mask
        # By hand: `np.pad` takes a tenth of what a short text costs.
        wide, seen = np.full(shape, self.marks.pad, dtype=ids.dtype), np.zeros(shape, dtype=mask.dtype)
        wide[:rows, :tokens], seen[:rows, :tokens] = ids, mask
        seen[rows:, 0] = 1  # a row without any token to attend to is NaN in most models
        return wide, seen


class GraphDecoder(Generator):
    def __init__(self, card: Card, text: Text, marks: Marks, past: Past) -> None:
        super().__init__(card, text, marks)
        self._past = past
        self._positions = "position_ids" in past.inputs

    def begin(self, input_ids: "np.ndarray", attention_mask: "np.ndarray") -> "tuple[np.ndarray, State]":
        state = State(attention_mask, self._past.start(len(input_ids), {}))
        return self._run(state, input_ids), state

    def advance(self, state: State, tokens: "np.ndarray") -> "np.ndarray":
        import numpy as np

        state.mask = np.concatenate([state.mask, np.ones((len(tokens), 1), dtype=np.int64)], axis=1)
        return self._run(state, tokens[:, None])[:, -1]

    def _run(self, state: State, ids: "np.ndarray") -> "np.ndarray":
        import numpy as np

        feeds = {"input_ids": ids, "attention_mask": state.mask}
        if self._positions:
            feeds["position_ids"] = np.ascontiguousarray(positions(state.mask)[:, -ids.shape[1] :])
        return self._past.step(state.memory, feeds)


class GraphEncoderDecoder(Generator):
    def __init__(self, card: Card, text: Text, marks: Marks, encoder: Graph, decoder: Past) -> None:
        super().__init__(card, text, marks)
        self._start = marks.begin
        self._encoder, self._decoder = encoder, decoder
        # The source's keys and values, which stay as they are: by the decoder's name, the encoder's.
        self._source = {
            name: name.replace(PAST, PRESENT)
            for name in decoder.inputs
            if name.startswith(PAST) and name.replace(PAST, PRESENT) in encoder.outputs
        }
        if not self._source:
            raise ModelBroken(
                "The encoder does not give the keys and values by which the decoder reads the source. "
                "Build the model anew."
            )

    def begin(self, input_ids: "np.ndarray", attention_mask: "np.ndarray") -> "tuple[np.ndarray, State]":
        import numpy as np

        answer = self._encoder.run(
            {"input_ids": input_ids, "attention_mask": attention_mask}, keep=list(self._source.values())
        )
        fixed = {name: answer[given] for name, given in self._source.items()}
        if "encoder_attention_mask" in self._decoder.inputs:
            fixed["encoder_attention_mask"] = attention_mask
        state = State(attention_mask, self._decoder.start(len(input_ids), fixed))
        tokens: np.ndarray = np.full(len(input_ids), self._start, dtype=np.int64)
        return self.advance(state, tokens)[:, None], state

    def advance(self, state: State, tokens: "np.ndarray") -> "np.ndarray":
        return self._decoder.step(state.memory, {"input_ids": tokens[:, None]})[:, -1]


def positions(mask: "np.ndarray") -> "np.ndarray":
    """Of each token among those that are not padding, from 0; int64, of the shape of the mask."""
    import numpy as np

    return np.maximum(mask.cumsum(axis=1) - 1, 0)


def rounded(number: int, digits: int) -> int:
    """Up, to one that has `digits` binary digits and then zeros. With 3, a number grows by less than a
    quarter, and there are four between each power of two and the next."""
    step: int = 1 << max(number.bit_length() - digits, 0)
    return -(-number // step) * step
