"""Rows of a dataset as tokens, and tokens as padded batches of like length.

Called by the passes that train or measure.

The data is a folder with `train.jsonl`, `validation.jsonl` and `test.jsonl`. Which batches an epoch has, and
their order, follows from the lengths, the batch size, the seed and the epoch alone; so a run that is
resumed in the middle of an epoch knows what comes next without having kept it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.passes import torch_folder
from gamma_orch.runtimes.folder import Card

IGNORED = -100  # the label of what no loss is computed for
_BUCKET = 50  # batches that are sorted by length together
_COLUMNS = {
    "text-classification": ("text", "label"),
    "token-classification": ("tokens", "tags"),
    "embeddings": ("text",),
    "text-generation": ("text",),
    "summarization": ("text", "summary"),
}


@dataclass(frozen=True, slots=True)
class Example:
    """One row, or one window of it: token ids, and what is to be answered.

    `labels` has one number for a text classifier, one a token for a tagger and a generator, and the tokens
    of the summary for a summarizer. IGNORED: unknown.
    """

    tokens: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, slots=True)
class Encoding:
    """How rows of one task become examples."""

    tokenizer: Any
    task: str
    length: int  # tokens of an example, at most
    labels: tuple[str, ...] = ()
    windows: int = 0  # further pieces of a long text, unlabelled, at most

    @property
    def pad(self) -> int:
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0):
            if token is not None:
                return int(token)
        raise AssertionError("0 is not None")


def encoding(folder: Path, card: Card, model: Any, params: Json) -> Encoding:
    """How the rows of a dataset become examples for this model: `length` (128) and `windows` (0) of `params`.

    Raises Permanent where `length` is more than the model can take.
    """
    most = torch_folder.limit(card, model.config)
    length = params.get("length") or min(128, most or 128)
    if most is not None and length > most:
        raise Permanent(
            f"length is {length}, and this {card.architecture} model sees {most} tokens at most. Set length "
            f"to {most} or less."
        )
    how = Encoding(torch_folder.tokenizer(folder), card.task, length, card.labels, params.get("windows") or 0)
    if model.config.pad_token_id is None and card.task == "text-classification":
        model.config.pad_token_id = how.pad  # a decoder that classifies looks for the last token by it
    return how


def rows(data: Path, split: str, task: str) -> list[Json]:
    """The rows of a split. Raises Permanent where it is missing, empty or not what the task needs."""
    path = data / f"{split}.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise Permanent(f"The dataset has no {split} split ({path.name} is not there).") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = json.loads(line)
        if absent := [column for column in _COLUMNS[task] if row.get(column) is None]:
            raise Permanent(
                f"{path.name}, line {number}: {task} needs the columns {', '.join(_COLUMNS[task])}, and "
                f"{', '.join(absent)} is not there. Map it in the dataset's `columns`."
            )
        found.append(row)
    if not found:
        raise Permanent(
            f"The {split} split of the dataset is empty. Give it a larger share, or loosen the dataset's "
            "filters."
        )
    return found


def labels(found: Sequence[Json], task: str, said: Sequence[str] | None) -> tuple[str, ...]:
    """The labels of a classifier, in the order of its outputs: those said, else those of the rows, sorted.

    Raises Permanent where the rows have only one, or one that is not among those said.
    """
    if task == "text-classification":
        seen = {str(row["label"]) for row in found}
    elif task == "token-classification":
        seen = {str(tag) for row in found for tag in row["tags"]}
    else:
        return ()
    if len(seen) < 2:
        raise Permanent(
            f"Every row of the train split has the label {next(iter(seen), '')!r}: there is nothing to tell "
            "apart. Look at the dataset's label column and its filters."
        )
    if not said:
        return tuple(sorted(seen))
    if strange := sorted(seen - set(map(str, said))):
        raise Permanent(
            f"The train split has the label {strange[0]!r}, which is not among the model's labels "
            f"({', '.join(map(str, said))}). Add it to `labels`, or map it in the dataset."
        )
    return tuple(map(str, said))


def encode(found: Sequence[Json], how: Encoding) -> list[Example]:
    """Raises Permanent for a label that is not among `how.labels`."""
    match how.task:
        case "text-classification":
            return _texts(found, how, [_index(how, row["label"]) for row in found])
        case "embeddings":
            return _texts(found, how, [IGNORED] * len(found))
        case "token-classification":
            return [_tagged(row, how) for row in found]
        case "text-generation":
            return [piece for row in found for piece in _pieces(row["text"], how)]
        case _:
            return _summarized(found, how)


def _texts(found: Sequence[Json], how: Encoding, answers: Sequence[int]) -> list[Example]:
    encoded = how.tokenizer(
        [str(row["text"]) for row in found],
        truncation=True,
        max_length=how.length,
        return_overflowing_tokens=how.windows > 0,
        return_attention_mask=False,
    )
    ids = encoded["input_ids"]
    if not how.windows:
        return [_example(tokens, [answer]) for tokens, answer in zip(ids, answers, strict=True)]
    examples, seen = [], [0] * len(found)
    for tokens, row in zip(ids, encoded["overflow_to_sample_mapping"], strict=True):
        first = seen[row] == 0
        # The last window of a text may be a few words, which say little.
        if first or (seen[row] <= how.windows and len(tokens) * 2 >= how.length):
            examples.append(_example(tokens, [answers[row] if first else IGNORED]))
        seen[row] += 1
    return examples


def _tagged(row: Json, how: Encoding) -> Example:
    if len(row["tokens"]) != len(row["tags"]):
        raise Permanent(
            f"Row {row.get('id', '?')} has {len(row['tokens'])} tokens and {len(row['tags'])} tags; each "
            "token needs one tag."
        )
    encoded = how.tokenizer(row["tokens"], is_split_into_words=True, truncation=True, max_length=how.length)
    tags, last = [], None
    for word in encoded.word_ids():  # a word's tag goes to its first piece
        tags.append(IGNORED if word is None or word == last else _index(how, row["tags"][word]))
        last = word
    return _example(encoded["input_ids"], tags)


def _pieces(text: str, how: Encoding) -> Iterator[Example]:
    """A text and its end, in pieces of `length`: all of it is learnt from."""
    tokens = how.tokenizer(text, verbose=False)["input_ids"]
    end = how.tokenizer.eos_token_id
    if end is not None and (not tokens or tokens[-1] != end):
        tokens = [*tokens, end]
    for start in range(0, len(tokens), how.length):
        piece = tokens[start : start + how.length]
        if len(piece) > 1:  # one token predicts nothing
            yield _example(piece, piece)


def _summarized(found: Sequence[Json], how: Encoding) -> list[Example]:
    texts, summaries = (
        how.tokenizer(
            **{argument: [str(row[column]) for row in found]}, truncation=True, max_length=how.length
        )["input_ids"]
        for argument, column in (("text", "text"), ("text_target", "summary"))
    )
    return [_example(text, summary) for text, summary in zip(texts, summaries, strict=True)]


def _index(how: Encoding, label: object) -> int:
    try:
        return how.labels.index(str(label))
    except ValueError:
        raise Permanent(
            f"The dataset has the label {str(label)!r}, and the model's labels are: "
            f"{', '.join(how.labels)}. Add it to `labels`, or map it in the dataset."
        ) from None


def _example(tokens: Sequence[int], answer: Sequence[int]) -> Example:
    return Example(np.asarray(tokens, np.int32), np.asarray(answer, np.int32))


def order(lengths: Sequence[int], batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of an epoch, as indices: rows shuffled, those of like length together, batches shuffled."""
    random = np.random.default_rng([seed, epoch])
    shuffled, size = random.permutation(len(lengths)), batch * _BUCKET
    length, found = np.asarray(lengths), []
    for start in range(0, len(shuffled), size):
        part = shuffled[start : start + size]
        part = part[np.argsort(length[part], kind="stable")]
        found += [part[i : i + batch] for i in range(0, len(part), batch)]
    return [found[i] for i in random.permutation(len(found))]


def sorted_batches(lengths: Sequence[int], batch: int) -> list[np.ndarray]:
    """All rows once, the shortest first: for measuring, where order says nothing."""
    by_length = np.argsort(np.asarray(lengths), kind="stable")
    return [by_length[i : i + batch] for i in range(0, len(by_length), batch)]


def collate(examples: Sequence[Example], how: Encoding) -> dict[str, torch.Tensor]:
    """input_ids and attention_mask of shape [rows, longest], labels [rows] or [rows, longest]; all int64."""
    ids = _padded([example.tokens for example in examples], how.pad)
    mask = _padded([np.ones_like(example.tokens) for example in examples], 0)
    if how.task in ("text-classification", "embeddings"):
        answers = torch.tensor([int(example.labels[0]) for example in examples])
    else:
        answers = _padded([example.labels for example in examples], IGNORED)
    return {"input_ids": ids, "attention_mask": mask, "labels": answers}


def _padded(parts: Sequence[np.ndarray], filler: int) -> torch.Tensor:
    made: np.ndarray = np.full((len(parts), max(map(len, parts))), filler, np.int64)
    for row, part in zip(made, parts, strict=True):
        row[: len(part)] = part
    return torch.from_numpy(made)
