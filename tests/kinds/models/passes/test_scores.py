"""The measures of each task, by hand and beside their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.kinds.models.passes import scores


def test_classification_by_hand():
    answers, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 0])
    found = scores.classification(predicted, answers, ("a", "b", "c", "never"))
    assert found["accuracy"] == 3 / 6
    assert found["recall"] == {"a": 2 / 3, "b": 1 / 2, "c": 0.0}
    assert found["f1"] == pytest.approx((4 / 7 + 2 / 4 + 0) / 3)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_classification_is_scikit_learns(pairs: list[tuple[int, int]]):
    from sklearn.metrics import accuracy_score, f1_score

    predicted, answers = (np.array(column) for column in zip(*pairs, strict=True))
    found = scores.classification(predicted, answers, ("a", "b", "c", "d"))
    assert found["accuracy"] == pytest.approx(accuracy_score(answers, predicted))
    assert found["f1"] == pytest.approx(f1_score(answers, predicted, average="macro", zero_division=0))


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-PER I-PER O B-LOC", {(1, 3, "PER"), (4, 5, "LOC")}),
        ("B-PER B-PER I-PER", {(0, 1, "PER"), (1, 3, "PER")}),
        ("I-PER I-PER I-LOC", {(0, 2, "PER"), (2, 3, "LOC")}),
        ("O I-PER B-PER", {(1, 2, "PER"), (2, 3, "PER")}),
        ("S-PER B-LOC I-LOC E-LOC I-LOC", {(0, 1, "PER"), (1, 4, "LOC"), (4, 5, "LOC")}),
        ("B-LOC I-PER", {(0, 1, "LOC"), (1, 2, "PER")}),
        ("NOUN O VERB VERB", {(0, 1, "NOUN"), (2, 3, "VERB"), (3, 4, "VERB")}),
        ("O O", set()),
    ],
)
def test_entities(tags: str, expected: set[scores.Entity]):
    assert scores.entities(tags.split()) == expected


def test_an_entity_counts_only_as_a_whole():
    true = ["B-PER", "I-PER", "O", "B-LOC"]
    assert scores.entity_counts(true, true) == (2, 2, 2)
    assert scores.entity_counts(["B-PER", "O", "O", "B-LOC"], true) == (1, 2, 2)
    assert scores.entity_counts(["B-LOC", "I-LOC", "O", "O"], true) == (0, 1, 2)
    assert list(scores.f1_of_counts(np.array([[1.0, 2, 2], [0, 0, 0]]))) == [0.5, 0.0]


def test_cosines():
    ours, theirs = np.array([[1.0, 0], [1, 1], [0, 0]]), np.array([[2.0, 0], [1, 0], [1, 1]])
    assert scores.cosines(ours, theirs) == pytest.approx([1, 2**-0.5, 0])


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [5, 4, 3, -9], -1.0),
        ([1, 2, 2, 3], [1, 3, 3, 9], 1.0),
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),  # 1 - 6 * 4 / (5 * 24)
        ([1, 1, 1], [1, 2, 3], None),
    ],
)
def test_rank_correlation(ours: list[float], theirs: list[float], expected: float | None):
    found = scores.rank_correlation(np.array(ours), np.array(theirs))
    assert found == (None if expected is None else pytest.approx(expected))


def test_log_losses_of_large_logits():
    logits = np.array([[1000.0, 1000, -1000], [0, np.log(3), -np.inf]], np.float32)
    assert scores.log_losses(logits, np.array([0, 1])) == pytest.approx([np.log(2), np.log(4 / 3)])


@pytest.mark.parametrize(
    ("said", "reference", "expected"),
    [
        ("police killed the gunman", "Police kill the gunman.", 0.75),
        ("the gunman police killed", "police killed the gunman", 0.5),  # Lin (2004): order matters
        ("same words", "same, words!", 1.0),
        ("", "something", 0.0),
        ("a b", "c d e", 0.0),
        ("a b c d", "a c", 2 / 3),
    ],
)
def test_rouge_l(said: str, reference: str, expected: float):
    assert scores.rouge_l(said, reference) == pytest.approx(expected)
