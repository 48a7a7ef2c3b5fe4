"""How good answers are: the measures of each task, from arrays alone. Called by `evaluate`.

Each is computed from values that one row contributes, so that an interval can draw rows anew. Sources:
accuracy, recall and F1 as scikit-learn defines them; entities as CoNLL-2000's evaluation and seqeval count
them; ROUGE-L as Lin (2004) defines it for one reference, over words in lower case, with F of equal weights.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from gamma_orch.core.canonical import Json

_WORD = re.compile(r"\w+")
Entity = tuple[int, int, str]  # first token, past its last, what it is


def classification(predicted: np.ndarray, answers: np.ndarray, labels: Sequence[str]) -> Json:
    """Accuracy, macro F1 and the recall of each label that the rows have, from label numbers [rows].

    Macro F1 is over the labels that occur among the answers or the predictions.
    """
    right = predicted == answers
    recalls, scores = {}, []
    for number, label in enumerate(labels):
        true, found = answers == number, predicted == number
        if true.any():
            recalls[label] = float(right[true].mean())
        if true.any() or found.any():
            scores.append(2 * int((true & found).sum()) / int(true.sum() + found.sum()))
    return {"accuracy": float(right.mean()), "f1": float(np.mean(scores)), "recall": recalls}


def entities(tags: Sequence[str]) -> set[Entity]:
    """The entities of a row of tags in IOB1, IOB2, IOE or BIOES, as CoNLL's evaluation reads them.

    Tags without a prefix (noun, verb) are entities of one token each; O is none.
    """
    prefixed = all(tag == "O" or tag[:2] in ("B-", "I-", "E-", "S-") for tag in tags)
    if not prefixed:
        return {(i, i + 1, tag) for i, tag in enumerate(tags) if tag != "O"}
    return set(_spans(tags))


def _spans(tags: Sequence[str]) -> Iterator[Entity]:
    start, kind = 0, ""
    for i, tag in enumerate([*tags, "O"]):
        prefix, name = ("O", "") if tag == "O" else (tag[0], tag[2:])
        if kind and (prefix in "OBS" or name != kind):
            yield start, i, kind
            kind = ""
        if name and not kind:
            start, kind = i, name
        if kind and prefix in "ES":
            yield start, i + 1, kind
            kind = ""


def entity_counts(predicted: Sequence[str], answers: Sequence[str]) -> tuple[int, int, int]:
    """Entities of one row: found rightly, found at all, there to be found."""
    found, true = entities(predicted), entities(answers)
    return len(found & true), len(found), len(true)


def f1_of_counts(sums: np.ndarray) -> np.ndarray:
    """F1 from sums of `entity_counts` [n, 3]: 2 right / (found + there). Where there is nothing, 0."""
    below = sums[:, 1] + sums[:, 2]
    return np.divide(2 * sums[:, 0], below, out=np.zeros(len(sums)), where=below > 0)


def cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Of the vectors of each row, [rows, size] both: [rows]. A vector of zeros is like none: 0."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    dots = np.einsum("ij,ij->i", ours.astype(np.float64), theirs.astype(np.float64))
    return np.divide(dots, lengths, out=np.zeros(len(dots)), where=lengths > 0)


def rank_correlation(ours: np.ndarray, theirs: np.ndarray) -> float | None:
    """Spearman's: Pearson's correlation of the ranks, equal values sharing theirs. None where one side is
    constant."""
    first, second = _ranks(ours), _ranks(theirs)
    if first.std() == 0 or second.std() == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def log_losses(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-log p of each target, from logits [tokens, vocabulary] and [tokens]: [tokens], in nats."""
    wide: np.ndarray = logits.astype(np.float64)
    most = wide.max(axis=1)
    total = np.log(np.exp(wide - most[:, None]).sum(axis=1)) + most
    return total - wide[np.arange(len(targets)), targets]


def rouge_l(said: str, reference: str) -> float:
    """F of the longest common subsequence of words, in [0, 1]."""
    ours, theirs = _WORD.findall(said.lower()), _WORD.findall(reference.lower())
    if not ours or not theirs:
        return 0.0
    return 2 * _common(ours, theirs) / (len(ours) + len(theirs))


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    row = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for j, other in enumerate(second, 1):
            above = row[j]
            row[j] = before + 1 if word == other else max(above, row[j - 1])
            before = above
    return row[-1]
