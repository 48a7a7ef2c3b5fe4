"""What is measured of a model, task by task: what it does on each row, and that beside its reference.

Called by `evaluate`. Each task has two functions: `own` runs the model and keeps a value or more a row;
`beside` needs only these values of both models, so a reference is run once, whatever is compared with it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models import intervals
from gamma_orch.kinds.models.intervals import Interval, Paired
from gamma_orch.kinds.models.passes import scores
from gamma_orch.runtimes.batching import batched, padded
from gamma_orch.runtimes.text import Text

_LOGITS = 64_000_000  # numbers of a generator's logits in memory at once
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Rows:
    rows: Sequence[Json]
    ids: np.ndarray  # int64 [rows]
    length: int | None
    batch: int
    new: int
    tell: Callable[[str, float | None], None]


@dataclass(frozen=True, slots=True)
class Own:
    """What one model did: a value or more a row, and what follows from them alone."""

    arrays: Arrays
    metric: str  # what its quality is
    quality: Interval | None  # None: only beside a reference
    metrics: Json


@dataclass(frozen=True, slots=True)
class Beside:
    """What a model did, set beside its reference's arrays on the same rows."""

    relative: Interval | None
    facts: Json
    quality: Interval | None = None  # where quality is likeness to the reference
    metrics: Json = None


# --- running --------------------------------------------------------------------------------------


def _text(model: Any, folder: Path, length: int | None) -> Text:
    """The model's tokenizer, cutting at `length` tokens or at what the model can take."""
    limits = [limit for limit in (length, model.card.max_length) if limit]
    return Text(folder, replace(model.card, max_length=min(limits, default=0)))


def _batched(rows: Rows, ids: Sequence[Sequence[int]], size: int, run: Callable[..., Any]) -> list[Any]:
    done = 0

    def step(part: list[Sequence[int]]) -> Any:
        nonlocal done
        found = run(part)
        done += len(part)
        rows.tell(f"{done:,} of {len(ids):,} rows", done / len(ids))
        return found

    return batched(ids, size, step)


def _run(model: Any, rows: Rows, ids: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """The model's output for each row, without what padding got: [labels] or [tokens, ...]."""

    def run(part: list[Sequence[int]]) -> list[np.ndarray]:
        answers = model.run_ids(*padded(part, model.marks.pad))
        if answers.ndim == 2:
            return list(answers)
        return [answer[: len(row)] for answer, row in zip(answers, part, strict=True)]

    return _batched(rows, ids, rows.batch, run)


# --- text classification --------------------------------------------------------------------------


def _classify(model: Any, folder: Path, rows: Rows) -> Own:
    labels = model.card.labels
    answers = np.array([_label(labels, row["label"]) for row in rows.rows], np.int32)
    ids = _text(model, folder, rows.length).ids([str(row["text"]) for row in rows.rows])
    logits = np.stack(_run(model, rows, ids)).astype(np.float32)
    _finite(logits)
    predicted = logits.argmax(axis=1).astype(np.int32)
    return Own(
        {"logits": logits, "predicted": predicted, "answers": answers},
        "accuracy",
        intervals.mean(predicted == answers),
        scores.classification(predicted, answers, labels),
    )


def _classify_beside(own: Arrays, theirs: Arrays) -> Beside:
    right = own["predicted"] == own["answers"]
    right_theirs = theirs["predicted"] == own["answers"]
    found = intervals.paired_means(right, right_theirs)
    gained, lost, p = intervals.mcnemar(right, right_theirs)
    same_shape = own["logits"].shape == theirs["logits"].shape
    facts = {
        **found.encoded(),
        "agreement": float((own["predicted"] == theirs["predicted"]).mean()),
        "mcnemar": {"onlyOurs": gained, "onlyReference": lost, "p": p},
        "largestLogitDifference": float(np.abs(own["logits"] - theirs["logits"]).max())
        if same_shape
        else None,
    }
    return Beside(found.ratio, facts)


def _label(labels: Sequence[str], label: object) -> int:
    try:
        return labels.index(str(label))
    except ValueError:
        raise Permanent(
            f"The data has the label {str(label)!r}, and the model's are: {', '.join(labels) or 'none'}. "
            "Map it in the dataset's `labels`, or train the model on this data."
        ) from None


def _finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise Permanent(
            "The model answers with NaN or infinity. Its weights or its quantization are broken: build it "
            "with another pass, or look at the losses of its training."
        )


# --- token classification -------------------------------------------------------------------------


def _tag(model: Any, folder: Path, rows: Rows) -> Own:
    labels, text = model.card.labels, _text(model, folder, rows.length)
    encoded = text.ids_and_spans([" ".join(map(str, row["tokens"])) for row in rows.rows])
    logits = _run(model, rows, [ids for ids, _ in encoded])
    counts, right, tags = [], [], []
    for row, (_, spans), answer in zip(rows.rows, encoded, logits, strict=True):
        _finite(answer)
        true = [str(tag) for tag in row["tags"]]
        if len(true) != len(row["tokens"]):
            raise Permanent(f"Row {row.get('id')} has {len(row['tokens'])} tokens and {len(true)} tags.")
        for tag in true:
            _label(labels, tag)
        found = _tags_of_words(row["tokens"], spans, answer.argmax(axis=1), labels)
        counts.append(scores.entity_counts(found, true))
        right.append((sum(a == b for a, b in zip(found, true, strict=True)), len(true)))
        tags += [labels.index(tag) if tag in labels else -1 for tag in found]
    table, tokens = np.array(counts, np.float64), np.array(right, np.float64)
    sums = table.sum(axis=0)
    return Own(
        {"counts": table, "tags": np.array(tags, np.int32)},
        "f1",
        intervals.interval(table, scores.f1_of_counts),
        {
            "f1": float(scores.f1_of_counts(sums[None])[0]),
            "precision": float(sums[0] / sums[1]) if sums[1] else 0.0,
            "recall": float(sums[0] / sums[2]) if sums[2] else 0.0,
            "tokenAccuracy": float(tokens[:, 0].sum() / tokens[:, 1].sum()),
        },
    )


def _tags_of_words(
    words: Sequence[str], spans: Sequence[tuple[int, int]], numbers: np.ndarray, labels: Sequence[str]
) -> list[str]:
    """The tag of each word: that of its first piece. A word that was cut off has none, O."""
    ends = np.cumsum([len(str(word)) + 1 for word in words])
    tags = ["O"] * len(words)
    seen = -1
    for (start, end), number in zip(spans, numbers, strict=True):
        # By its last character: byte-level pieces may begin with the blank before the word.
        word = int(np.searchsorted(ends, end - 1, side="right"))
        if end > start and word > seen:
            tags[word], seen = labels[int(number)], word
    return tags


def _tag_beside(own: Arrays, theirs: Arrays) -> Beside:
    found = intervals.paired(
        np.hstack([own["counts"], theirs["counts"]]),
        lambda sums: scores.f1_of_counts(sums[:, :3]),
        lambda sums: scores.f1_of_counts(sums[:, 3:]),
    )
    facts = {
        **found.encoded(),
        "agreement": float((own["tags"] == theirs["tags"]).mean()),
    }
    return Beside(found.ratio, facts)


# --- embeddings -----------------------------------------------------------------------------------


def _embed(model: Any, folder: Path, rows: Rows) -> Own:
    text = _text(model, folder, rows.length)

    def vectors(column: str) -> np.ndarray:
        ids = text.ids([str(row[column]) for row in rows.rows])
        found = _batched(
            rows, ids, rows.batch, lambda part: list(model.pooled_ids(*padded(part, model.marks.pad)))
        )
        return np.stack(found).astype(np.float32)

    first = vectors("text")
    _finite(first)
    metrics = {"dimensions": first.shape[1]}
    if all(row.get("other") is not None and row.get("score") is not None for row in rows.rows):
        alike = scores.cosines(first, vectors("other"))
        given = np.array([float(row["score"]) for row in rows.rows])
        metrics["spearman"] = scores.rank_correlation(alike, given)
    return Own({"vectors": first}, "cosine", None, metrics)


def _embed_beside(own: Arrays, theirs: Arrays) -> Beside:
    if own["vectors"].shape != theirs["vectors"].shape:
        sizes = theirs["vectors"].shape[1], own["vectors"].shape[1]
        raise Permanent(
            f"The reference's vectors have {sizes[0]} numbers, this model's {sizes[1]}: nothing to compare."
        )
    alike = scores.cosines(own["vectors"], theirs["vectors"])
    mean = intervals.mean(alike)
    return Beside(mean, {}, mean, {"cosine": mean.value, "leastCosine": float(alike.min())})


# --- text generation ------------------------------------------------------------------------------


def _perplex(model: Any, folder: Path, rows: Rows) -> Own:
    ids = _text(model, folder, rows.length).ids([str(row["text"]) for row in rows.rows])
    longest = max(map(len, ids))
    size = max(1, min(rows.batch, _LOGITS // (longest * max(model.marks.vocabulary, 1))))

    def losses(part: list[Sequence[int]]) -> list[tuple[float, int]]:
        answers = model.run_ids(*padded(part, model.marks.pad, "left"))
        found = []
        for row, answer in zip(part, answers, strict=True):
            lost = scores.log_losses(answer[answer.shape[0] - len(row) : -1], np.asarray(row[1:], np.int64))
            found.append((float(lost.sum()), len(lost)))
        return found

    table = np.array(_batched(rows, ids, size, losses), np.float64)
    _finite(table)
    if not table[:, 1].sum():
        raise Permanent("No row has two tokens, so there is nothing to predict. Look at the dataset's text.")
    quality = intervals.interval(table, lambda sums: np.exp(sums[:, 0] / sums[:, 1]))
    assert quality is not None
    metrics = {"perplexity": quality.value, "tokens": int(table[:, 1].sum())}
    return Own({"losses": table}, "perplexity", quality, metrics)


def _perplex_beside(own: Arrays, theirs: Arrays) -> Beside:
    """Both by the reference's tokens, so that a model with another vocabulary is judged on the same text."""
    table = np.hstack([own["losses"][:, :1], theirs["losses"]])
    found = _paired_perplexity(table)
    return Beside(found.ratio, found.encoded())


def _paired_perplexity(table: np.ndarray) -> Paired:
    """`table`: our loss, the reference's, its tokens. The ratio is the reference's perplexity by ours: 1 is
    as good, 0.97 means that ours is 3 % more perplexed."""
    drawn = intervals.sums(table)
    difference = intervals.percentiles(
        table, drawn, lambda s: np.exp(s[:, 0] / s[:, 2]) - np.exp(s[:, 1] / s[:, 2])
    )
    ratio = intervals.percentiles(table, drawn, lambda s: np.exp((s[:, 1] - s[:, 0]) / s[:, 2]))
    assert difference is not None
    return Paired(difference, ratio)


# --- summarization --------------------------------------------------------------------------------


def _summarize(model: Any, folder: Path, rows: Rows) -> Own:
    said: list[str] = []
    for start in range(0, len(rows.rows), rows.batch):
        part = rows.rows[start : start + rows.batch]
        said += model.generate([str(row["text"]) for row in part], max_new_tokens=rows.new, batch=rows.batch)
        rows.tell(f"{len(said):,} of {len(rows.rows):,} rows", len(said) / len(rows.rows))
    found = np.array(
        [scores.rouge_l(ours, str(row["summary"])) for ours, row in zip(said, rows.rows, strict=True)]
    )
    mean = intervals.mean(found)
    return Own({"rouge": found}, "rouge", mean, {"rouge": mean.value})


def _summarize_beside(own: Arrays, theirs: Arrays) -> Beside:
    found = intervals.paired_means(own["rouge"], theirs["rouge"])
    return Beside(found.ratio, found.encoded())


@dataclass(frozen=True, slots=True)
class Measure:
    own: Callable[[Any, Path, Rows], Own]
    beside: Callable[[Arrays, Arrays], Beside]


TASKS: Mapping[str, Measure] = {
    "text-classification": Measure(_classify, _classify_beside),
    "token-classification": Measure(_tag, _tag_beside),
    "embeddings": Measure(_embed, _embed_beside),
    "text-generation": Measure(_perplex, _perplex_beside),
    "summarization": Measure(_summarize, _summarize_beside),
}
