"""Do two models answer the same? Shared by the export, which must, and by quantization, which tells how
nearly.

An export can be wrong without an error: a graph whose mask hangs on the wrong input answers well on a single
text, and a decoder whose layers read each other's past answers well at its first token. So models are
compared on padded batches of rows of different lengths, once with padding and once with noise where the
mask is zero, and decoders also token by token against a reference that reads its whole text anew each time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.runtimes import Encoder, Generator, Model
from gamma_orch.runtimes.batching import Side, padded

LIMIT = 1e-3  # of an export in float32: the largest difference of one number
# Up to this size of the numbers. Beyond it the limit grows with them, for float32 keeps digits, not decimals:
# SmolLM2's logits reach 30 and are 0.0013 apart on two runtimes, with every answer the same.
ORDINARY = 10.0
STEPS = 6  # tokens after the prompt that a decoder is compared on
_ROWS = ((9,), (1, 6), (17, 4, 11), (33, 2, 20, 12))  # lengths of the rows of each batch
_PROMPT = 16  # tokens of a sample that a generator is given to continue
_WRITTEN = 24  # tokens it then writes


@dataclass(slots=True)
class Report:
    difference: float = 0.0  # the largest of one number
    size: float = 0.0  # the largest number of the reference
    same: int = 0  # answers (labels, likeliest tokens) that are the same
    asked: int = 0
    shapes: list[str] = field(default_factory=list)
    cosine: float = 1.0  # the least, between two embeddings
    cosines: float = 0.0  # their sum
    vectors: int = 0

    def compare(self, ours: np.ndarray, theirs: np.ndarray, classes: bool = True) -> None:
        """Rows of numbers [rows, n]; NaN where the other has none is an infinite difference."""
        apart = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
        worst = float(np.where(np.isnan(apart), np.inf, apart).max()) if apart.size else 0.0
        self.difference = max(self.difference, worst)
        self.size = max(self.size, float(np.nan_to_num(np.abs(theirs)).max()) if theirs.size else 0.0)
        if classes:
            self.same += int((ours.argmax(axis=-1) == theirs.argmax(axis=-1)).sum())
            self.asked += int(np.prod(ours.shape[:-1]))
        else:
            lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
            cosines = (ours * theirs).sum(axis=-1) / np.maximum(lengths, 1e-12)
            self.cosine = min(self.cosine, float(cosines.min()))
            self.cosines += float(cosines.sum())
            self.vectors += cosines.size

    def facts(self, word: str) -> dict[str, Json]:
        """`word`: what an answer is, as in sameLabels."""
        found: dict[str, Json] = {"maxDifference": _rounded(self.difference)}
        if self.asked:
            found[f"same{word}"] = round(self.same / self.asked, 6)
            found["compared"] = self.asked
        else:
            found["leastCosine"] = round(self.cosine, 6)
            found["meanCosine"] = round(self.cosines / self.vectors, 6) if self.vectors else None
        if self.shapes:
            found["shapes"] = list(self.shapes)
        return found


def word(model: Model) -> str:
    return "Labels" if isinstance(model, Encoder) else "GreedyTokens"


def compared(reference: Model, candidate: Model, seed: int = 0) -> Report:
    """The candidate beside the reference on batches of seeded noise of several shapes."""
    draw = np.random.default_rng(seed)
    report = Report()
    longest = reference.card.max_length or 512
    for rows in _ROWS:
        lengths = [min(length, max(longest - STEPS, 1)) for length in rows]
        for noise in (False, True):
            side: Side = "right" if isinstance(reference, Encoder) or reference.encodes else "left"
            ids, mask = _batch(reference, lengths, side, draw, noise)
            report.shapes.append(f"{len(lengths)}x{max(lengths)}{' noise' if noise else ''}")
            if isinstance(reference, Encoder) and isinstance(candidate, Encoder):
                _encoders(report, reference, candidate, ids, mask)
            elif isinstance(reference, Generator) and isinstance(candidate, Generator):
                _generators(report, reference, candidate, ids, mask)
    return report


def require(report: Report, what: str, limit: float = LIMIT) -> None:
    """Raises Permanent, with figures, where the difference is not below `limit`."""
    limit *= max(1.0, report.size / ORDINARY)
    if report.difference < limit:
        return
    answers = f", and {report.same} of {report.asked} answers are the same" if report.asked else ""
    raise Permanent(
        f"{what} does not answer as the PyTorch model does: the largest difference of a number is "
        f"{report.difference:.3g}, allowed is less than {limit:.3g}{answers} "
        f"(batches {', '.join(report.shapes)}). The graph is wrong or its weights are too large for float32; "
        "nothing is kept. Use `optimize: {level: none}` until the exporter is repaired."
    )


def changed(before: Model, after: Model, texts: Sequence[str]) -> dict[str, Json]:
    """What a quantization changed in the answers to `texts`: facts."""
    report = Report()
    if isinstance(before, Encoder) and isinstance(after, Encoder):
        for ids, mask in _batches(before, texts):
            if before.card.task == "embeddings":
                report.compare(after.pooled_ids(ids, mask), before.pooled_ids(ids, mask), classes=False)
            else:
                _encoders(report, before, after, ids, mask)
        return report.facts(word(before))
    assert isinstance(before, Generator)
    assert isinstance(after, Generator)
    rows = [ids for ids in before.text.ids(texts) if ids]
    if before.encodes:
        for start in range(0, len(rows), 8):
            ids, mask = padded(rows[start : start + 8], before.marks.pad)
            _generators(report, before, after, ids, mask)
    else:
        for start in range(0, len(rows), 8):
            ids, mask = padded([row[:64] for row in rows[start : start + 8]], before.marks.pad, "left")
            there: np.ndarray = mask.astype(bool)
            report.compare(after.run_ids(ids, mask)[there], before.run_ids(ids, mask)[there])
    return {**report.facts(word(before)), **_written(before, after, rows[:8])}


def _written(before: Generator, after: Generator, rows: Sequence[Sequence[int]]) -> dict[str, Json]:
    """How far two models write the same when each goes on from its own words."""
    given = [list(row) if before.encodes else list(row[:_PROMPT]) for row in rows]
    ours, theirs = (model.generate_ids(given, _WRITTEN) for model in (after, before))
    alike = [_alike(one, other) for one, other in zip(ours, theirs, strict=True)]
    return {
        "prompts": len(given),
        "sameContinuations": sum(one == other for one, other in zip(ours, theirs, strict=True)),
        "sameTokensFromStart": round(sum(alike) / len(alike), 2) if alike else None,
    }


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    return next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _encoders(report: Report, reference: Encoder, candidate: Encoder, ids: Any, mask: Any) -> None:
    ours, theirs = candidate.run_ids(ids, mask), reference.run_ids(ids, mask)
    if ours.shape != theirs.shape:
        raise Permanent(
            f"The model gives an array of shape {ours.shape} where the reference gives {theirs.shape}."
        )
    if ours.ndim == 3:  # an answer a token: those under the mask are nobody's
        ours, theirs = ours[mask.astype(bool)], theirs[mask.astype(bool)]
    report.compare(ours, theirs, classes=reference.card.task != "embeddings")


def _generators(report: Report, reference: Generator, candidate: Generator, ids: Any, mask: Any) -> None:
    """The prompt, then token by token what the reference finds likeliest."""
    ours, state = candidate.begin(ids, mask)
    if reference.encodes:
        theirs, remembered = reference.begin(ids, mask)
        report.compare(ours[:, 0], theirs[:, 0])
        last = theirs[:, -1]
        for _ in range(STEPS):
            tokens = last.argmax(axis=-1)
            last = reference.advance(remembered, tokens)
            report.compare(candidate.advance(state, tokens), last)
        return
    theirs = reference.run_ids(ids, mask)
    there = mask.astype(bool)
    report.compare(ours[there], theirs[there])
    for _ in range(STEPS):
        tokens = theirs[:, -1].argmax(axis=-1)
        ids = np.concatenate([ids, tokens[:, None]], axis=1)
        mask = np.concatenate([mask, np.ones_like(tokens)[:, None]], axis=1)
        theirs = reference.run_ids(ids, mask)
        report.compare(candidate.advance(state, tokens), theirs[:, -1])


def _batch(model: Model, lengths: Sequence[int], side: Side, draw: Any, noise: bool) -> tuple[Any, Any]:
    """Random ids. With `noise` there are ids under the mask too, which must not matter."""
    vocabulary = model.marks.vocabulary or model.text.raw.get_vocab_size()
    usable = np.array([n for n in range(vocabulary) if n != model.marks.pad])
    rows = [list(draw.choice(usable, size=length)) for length in lengths]
    ids, mask = padded(rows, model.marks.pad, side)
    if noise:
        ids = np.where(mask == 1, ids, draw.choice(usable, size=ids.shape))
    return ids, mask


def _batches(model: Encoder, texts: Sequence[str]) -> list[tuple[Any, Any]]:
    rows = sorted(model.text.ids(texts), key=len)
    return [padded(rows[start : start + 16], model.marks.pad) for start in range(0, len(rows), 16)]


def _rounded(number: float) -> float | str:
    return float(f"{number:.3g}") if np.isfinite(number) else "infinite"
