"""From text to token ids and back, by the `tokenizers` library alone: `tokenizer.json` of a model's folder.

Used by every runtime, so that a model is given the same ids wherever it runs. Padding is not done here: it
belongs to the batch (`batching`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gamma_orch.runtimes.errors import ModelBroken
from gamma_orch.runtimes.folder import Card
from gamma_orch.runtimes.integrity import CONFIG, TOKENIZER, read_json

Ids = list[int]
Span = tuple[int, int]  # of a token in its text, in characters; (0, 0) for one that the text does not have


@dataclass(frozen=True, slots=True)
class Marks:
    """The ids that mean something to the loop around a model."""

    pad: int
    ends: frozenset[int]  # generation stops at any of them
    start: int | None  # what an encoder-decoder's output begins with
    first: int | None  # what must come right after it, where the model was trained so (BART)
    vocabulary: int

    @property
    def begin(self) -> int:
        """`start`; raises ModelBroken where the source does not say it."""
        if self.start is None:
            raise ModelBroken(
                "config.json has no decoder_start_token_id, so nothing says what an output begins with. "
                "Add it as the model's source has it."
            )
        return self.start

    @classmethod
    def read(cls, folder: Path) -> "Marks":
        config = read_json(folder / CONFIG)
        said = {
            **config,
            **{k: v for k, v in read_json(folder / "generation_config.json").items() if v is not None},
        }
        ends = said.get("eos_token_id")
        listed = [end for end in (ends if isinstance(ends, list) else [ends]) if end is not None]
        pad = next((i for i in (said.get("pad_token_id"), *listed) if i is not None), 0)
        return cls(
            pad=int(pad),
            ends=frozenset(int(end) for end in listed),
            start=said.get("decoder_start_token_id"),
            first=said.get("forced_bos_token_id"),
            vocabulary=int(config.get("vocab_size", 0)),
        )


class Text:
    """The tokenizer of a model folder. Safe to use from several threads."""

    def __init__(self, folder: Path, card: Card) -> None:
        import tokenizers

        try:
            self.raw: Any = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:
            raise ModelBroken(
                f"{folder / TOKENIZER} cannot be read as a tokenizer: {error}. Build or fetch the model anew."
            ) from error
        self.raw.no_padding()
        self.raw.no_truncation()
        self._longest = card.max_length
        self._cut = tokenizers.Tokenizer.from_str(self.raw.to_str())
        if card.max_length:
            self._cut.enable_truncation(card.max_length)

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """With the model's own frame ([CLS] ... [SEP]), cut at the end to the model's greatest length."""
        return [self._cut.encode(text).ids for text in texts]

    def ids_and_spans(self, texts: Sequence[str]) -> list[tuple[Ids, list[Span]]]:
        encoded = [self._cut.encode(text) for text in texts]
        return [(one.ids, list(one.offsets)) for one in encoded]

    def prompt(self, text: str, room: int) -> Ids:
        """What to continue: cut at the *start*, so that `room` further tokens fit into the model."""
        ids: Ids = self.raw.encode(text).ids
        most = max(self._longest - room, 1) if self._longest else len(ids)
        return ids[-most:] if len(ids) > most else ids

    def text(self, ids: Sequence[int]) -> str:
        decoded: str = self.raw.decode(list(ids), skip_special_tokens=True)
        return decoded

    def pieces(self, prompt: Sequence[int] = ()) -> "Pieces":
        return Pieces(self.raw, prompt)


class Pieces:
    """Turns ids into text one by one, as they come: a character is given when its last byte is there."""

    def __init__(self, raw: Any, prompt: Sequence[int]) -> None:
        from tokenizers.decoders import DecodeStream

        self._raw = raw
        # What comes after a prompt is decoded with it in view: a word that begins with a blank keeps it.
        self._stream = DecodeStream(ids=list(prompt), skip_special_tokens=True)

    def add(self, token: int) -> str:
        piece: str | None = self._stream.step(self._raw, token)
        return piece or ""
