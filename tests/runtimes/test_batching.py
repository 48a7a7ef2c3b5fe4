"""Batches of like length, in the caller's order."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.runtimes.batching import batched, padded


@given(st.lists(st.lists(st.integers(1, 9), max_size=6), max_size=12), st.integers(1, 5))
def test_each_row_has_its_own_answer_whatever_the_batches(rows: list[list[int]], size: int):
    seen = []

    def run(some: list[Sequence[int]]) -> list[int]:
        seen.append([len(row) for row in some])
        return [sum(row) for row in some]

    assert batched(rows, size, run) == [sum(row) for row in rows]
    assert all(len(lengths) <= size for lengths in seen)
    flat = [length for lengths in seen for length in lengths]
    assert flat == sorted(flat, reverse=True)  # the longest first, and each with its like


def test_padding_on_either_side():
    ids, mask = padded([[5, 6, 7], [8], []], 0)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0], [0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0]]
    ids, mask = padded([[5, 6, 7], [8], []], 0, "left")
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8], [0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1], [0, 0, 1]]


def test_a_batch_of_none():
    with pytest.raises(ValueError, match="at least one row"):
        batched([[1]], 0, lambda rows: rows)
