"""A model that reads a text as a whole: a classifier of texts or of tokens, or an embedder.

What is the same on every runtime is here: tokens, batches, pooling. A runtime gives `run_ids`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gamma_orch.runtimes.batching import batched, padded
from gamma_orch.runtimes.errors import WrongTask
from gamma_orch.runtimes.folder import Card, Task
from gamma_orch.runtimes.text import Marks, Span, Text

if TYPE_CHECKING:
    import numpy as np

BATCH = 32


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a token classifier says of one text."""

    logits: "np.ndarray"  # float32 [tokens, labels], the frame's tokens ([CLS], [SEP]) among them
    spans: list[Span]  # of each token in the text, in characters; (0, 0) for the frame's


class Encoder(ABC):
    def __init__(self, card: Card, text: Text, marks: Marks) -> None:
        self.card = card
        self.text = text
        self.marks = marks

    @abstractmethod
    def run_ids(self, input_ids: "np.ndarray", attention_mask: "np.ndarray") -> "np.ndarray":
        """One pass over int64 [rows, tokens] each, float32 out: [rows, labels] of a text classifier,
        [rows, tokens, labels] of a token classifier, last hidden states [rows, tokens, dim] of an embedder.
        """

    def logits(self, texts: Sequence[str], batch: int = BATCH) -> "np.ndarray":
        """float32 [texts, labels]. Raises WrongTask for what is not a text classifier."""
        import numpy as np

        self._needs("text-classification")
        rows = batched(self.text.ids(texts), batch, self._whole)
        return np.stack(rows) if rows else np.zeros((0, len(self.card.labels)), dtype=np.float32)

    def embed(self, texts: Sequence[str], batch: int = BATCH) -> "np.ndarray":
        """float32 [texts, dim], of length 1 where the card says so. Raises WrongTask for a classifier."""
        import numpy as np

        self._needs("embeddings")
        rows = batched(self.text.ids(texts), batch, self._pooled)
        return np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)

    def tokens(self, texts: Sequence[str], batch: int = BATCH) -> list[Tokens]:
        """Logits for each token of each text. Raises WrongTask for what is not a token classifier."""
        self._needs("token-classification")
        encoded = self.text.ids_and_spans(texts)

        def run(rows: list[Sequence[int]]) -> "list[np.ndarray]":
            answer = self.run_ids(*padded(rows, self.marks.pad))
            return [answer[number, : len(row)] for number, row in enumerate(rows)]

        found = batched([ids for ids, _ in encoded], batch, run)
        return [Tokens(logits, spans) for logits, (_, spans) in zip(found, encoded, strict=True)]

    def pooled_ids(self, input_ids: "np.ndarray", attention_mask: "np.ndarray") -> "np.ndarray":
        """The embeddings of rows of ids, float32 [rows, dim]."""
        return pooled(self.card, self.run_ids(input_ids, attention_mask), attention_mask)

    def _whole(self, rows: list[Sequence[int]]) -> "list[np.ndarray]":
        return list(self.run_ids(*padded(rows, self.marks.pad)))

    def _pooled(self, rows: list[Sequence[int]]) -> "list[np.ndarray]":
        return list(self.pooled_ids(*padded(rows, self.marks.pad)))

    def _needs(self, task: Task) -> None:
        if self.card.task != task:
            raise WrongTask(
                f"The model is for {self.card.task}, and was asked for {task}. Use one that is built for it."
            )


def pooled(card: Card, states: "np.ndarray", mask: "np.ndarray") -> "np.ndarray":
    """float32 [rows, dim] of states [rows, tokens, dim]: the first token's, or the mean over the mask."""
    import numpy as np

    if card.pooling == "cls":
        vectors = states[:, 0]
    else:
        weights: np.ndarray = mask[:, :, None].astype(np.float32)
        vectors = (states * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-9)
    if card.normalize:
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return np.asarray(vectors, dtype=np.float32)
