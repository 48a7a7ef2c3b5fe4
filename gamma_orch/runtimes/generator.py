"""A model that writes: a decoder that continues a text, or an encoder-decoder that turns one into another.

The loop is the same on every runtime: `begin` puts a batch of prompts, `advance` gives each row its next
token and keeps what the model must remember in a `State`. A runtime gives these two.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gamma_orch.runtimes.batching import Side, batched, padded
from gamma_orch.runtimes.folder import Card
from gamma_orch.runtimes.sampling import Chooser, Sampling
from gamma_orch.runtimes.text import Ids, Marks, Text

if TYPE_CHECKING:
    import numpy as np

BATCH = 8
GREEDY = Sampling()
Finish = Literal["", "stop", "length"]  # not yet, at an end token, at the limit


@dataclass(slots=True)
class State:
    """What a model remembers of a batch between two tokens."""

    mask: "np.ndarray"  # int64 [rows, tokens so far]: of the prompt and what came after; of the source text
    memory: Any  # past keys and values, in the runtime's own form


class Writing:
    """One text while it is written: an iterator over its pieces, one a token; "" where a character is not
    whole yet. Whoever stops asking stops the writing."""

    def __init__(
        self, tokens: Iterator[list[int | None]], text: Text, prompt: Ids, seen: Ids, most: int
    ) -> None:
        """`seen`: the part of the prompt that what is written goes on from."""
        self._tokens = tokens
        self._text = text
        self._pieces = text.pieces(seen)
        self._most = most
        self.read = len(prompt)  # tokens
        self.ids: Ids = []  # what is written so far
        self.finish: Finish = ""

    @property
    def text(self) -> str:
        """All of it so far, as `generate` gives it."""
        return self._text.text(self.ids)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for (token,) in self._tokens:
            if token is not None:
                self.ids.append(token)
                return self._pieces.add(token)
        self.finish = "length" if len(self.ids) == self._most else "stop"
        raise StopIteration


class Generator(ABC):
    def __init__(self, card: Card, text: Text, marks: Marks) -> None:
        self.card = card
        self.text = text
        self.marks = marks

    @abstractmethod
    def begin(self, input_ids: "np.ndarray", attention_mask: "np.ndarray") -> "tuple[np.ndarray, State]":
        """Put int64 [rows, tokens] each; logits float32 [rows, tokens, vocabulary] of a decoder, which is
        padded on the left, [rows, 1, vocabulary] of an encoder-decoder, after its start token."""

    @abstractmethod
    def advance(self, state: State, tokens: "np.ndarray") -> "np.ndarray":
        """Give each row one more token, int64 [rows]; the logits after it, float32 [rows, vocabulary]."""

    @property
    def encodes(self) -> bool:
        """Whether the prompt is read by an encoder, and the output begins anew."""
        return "encoder" in self.card.graphs or self.card.task == "summarization"

    def run_ids(self, input_ids: "np.ndarray", attention_mask: "np.ndarray") -> "np.ndarray":
        """The logits of `begin` alone: what reading a prompt costs."""
        return self.begin(input_ids, attention_mask)[0]

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int = 64,
        sampling: Sampling = GREEDY,
        batch: int = BATCH,
    ) -> list[str]:
        """What the model writes for each prompt, without the prompt. Ends at an end token or at the limit."""
        rows = [self._prompt(text, max_new_tokens) for text in prompts]
        return [self.text.text(ids) for ids in self.generate_ids(rows, max_new_tokens, sampling, batch)]

    def generate_ids(
        self,
        rows: Sequence[Sequence[int]],
        max_new_tokens: int,
        sampling: Sampling = GREEDY,
        batch: int = BATCH,
    ) -> list[Ids]:
        """The new ids for each row of ids, without the end token."""

        def run(some: list[Sequence[int]]) -> list[Ids]:
            written: list[Ids] = [[] for _ in some]
            for tokens in self._tokens(some, max_new_tokens, sampling):
                for row, token in zip(written, tokens, strict=True):
                    if token is not None:
                        row.append(token)
            return written

        return batched([list(row) for row in rows], batch, run)

    def stream(self, prompt: str, max_new_tokens: int = 64, sampling: Sampling = GREEDY) -> Iterator[str]:
        """The same as `generate` for one prompt, piece by piece as it is written."""
        return filter(None, self.writing(prompt, max_new_tokens, sampling))

    def writing(self, prompt: str, max_new_tokens: int = 64, sampling: Sampling = GREEDY) -> Writing:
        """The same, with what a server must know of it. The model runs when it is asked for a piece."""
        ids = self._prompt(prompt, max_new_tokens)
        tokens = self._tokens([ids], max_new_tokens, sampling)
        return Writing(tokens, self.text, ids, [] if self.encodes else ids, max_new_tokens)

    def perplexity(self, texts: Sequence[str], targets: Sequence[str] = (), batch: int = BATCH) -> float:
        """exp of the mean negative log-likelihood of a token given those before it, over all tokens.

        A decoder is asked for the second token of each text on; an encoder-decoder for all tokens of the
        `targets`, one for each text. NaN where there is no token to ask for.
        """
        import numpy as np

        rows: list[tuple[Ids, Ids]]
        if self.encodes:
            if len(targets) != len(texts):
                raise ValueError("An encoder-decoder's perplexity is that of one target for each text.")
            rows = list(zip(self.text.ids(texts), self.text.ids(targets), strict=True))
        else:
            rows = [(ids, ids[1:]) for ids in self.text.ids(texts)]
        losses = [self._losses(rows[start : start + batch]) for start in range(0, len(rows), batch)]
        total, count = (sum(part) for part in zip(*losses, strict=True)) if losses else (0.0, 0)
        return float(np.exp(total / count)) if count else float("nan")

    def _losses(self, rows: Sequence[tuple[Ids, Ids]]) -> tuple[float, int]:
        import numpy as np

        ids, mask = padded([row for row, _ in rows], self.marks.pad, self._side)
        wanted, there = padded([target for _, target in rows], self.marks.pad, self._side)
        there *= np.array([[1 if target else 0] for _, target in rows])
        logits, state = self.begin(ids, mask)
        if self.encodes:
            columns = [logits[:, 0]]
            columns += [self.advance(state, wanted[:, n]) for n in range(wanted.shape[1] - 1)]
            logits = np.stack(columns, axis=1)
        else:
            logits = logits[:, -wanted.shape[1] - 1 : -1]
        shifted = logits - logits.max(axis=-1, keepdims=True)
        normal = np.log(np.exp(shifted, dtype=np.float64).sum(axis=-1))
        likely = np.take_along_axis(shifted, wanted[:, :, None], axis=-1)[:, :, 0] - normal
        return float(-(likely * there).sum()), int(there.sum())

    @property
    def _side(self) -> Side:
        """Where a shorter row is padded: a decoder's last token must be the last of its row."""
        return "right" if self.encodes else "left"

    def _prompt(self, text: str, room: int) -> Ids:
        if self.encodes:
            return self.text.ids([text])[0]
        return self.text.prompt(text, room)

    def _tokens(
        self, rows: Sequence[Sequence[int]], most: int, sampling: Sampling
    ) -> Iterator[list[int | None]]:
        """Each row's next token, step by step; None for a row that has ended. Ends when all have."""
        import numpy as np

        if not rows or most < 1:
            return
        chooser = Chooser(sampling, len(rows))
        logits, state = self.begin(*padded(rows, self.marks.pad, self._side))
        last = logits[:, -1]
        open_rows: np.ndarray = np.ones(len(rows), dtype=bool)
        for step in range(most):
            chosen = chooser.next(last)
            if step == 0 and self.encodes and self.marks.first is not None:
                chosen[:] = self.marks.first
            open_rows &= ~np.isin(chosen, list(self.marks.ends))
            if not open_rows.any():
                return
            yield [int(token) if still else None for token, still in zip(chosen, open_rows, strict=True)]
            if step + 1 < most:
                last = self.advance(state, np.where(open_rows, chosen, self.marks.pad))
