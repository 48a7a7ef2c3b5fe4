"""Batches of texts of like length: what padding costs is decided here.

A batch is as long as its longest row, so rows are sorted by length before they are cut into batches;
unsorted, padding costs more than batching gains. What comes back is in the caller's order.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    import numpy as np

Side = Literal["left", "right"]
Result = TypeVar("Result")


def padded(rows: Sequence[Sequence[int]], pad: int, side: Side = "right") -> "tuple[np.ndarray, np.ndarray]":
    """Ids and mask, both int64 [rows, longest]; a row of no tokens becomes one of padding, with the mask on,
    for a row without any token to attend to is NaN in most models."""
    import numpy as np

    longest = max((len(row) for row in rows), default=0) or 1
    ids: np.ndarray = np.full((len(rows), longest), pad, dtype=np.int64)
    mask: np.ndarray = np.zeros((len(rows), longest), dtype=np.int64)
    for number, row in enumerate(rows):
        part = slice(0, len(row) or 1) if side == "right" else slice(longest - (len(row) or 1), longest)
        if row:
            ids[number, part] = row
        mask[number, part] = 1
    return ids, mask


def batched(
    rows: Sequence[Sequence[int]],
    size: int,
    run: Callable[[list[Sequence[int]]], Sequence[Result]],
) -> list[Result]:
    """`run` on batches of at most `size` rows, the longest first; one result a row, in the order of `rows`.

    Longest first: a batch that does not fit into memory fails at once, and a runtime's arena grows once.
    """
    if size < 1:
        raise ValueError(f"A batch has at least one row, not {size}.")
    order = sorted(range(len(rows)), key=lambda number: (-len(rows[number]), number))
    found: dict[int, Result] = {}
    for start in range(0, len(order), size):
        numbers = order[start : start + size]
        results = run([rows[number] for number in numbers])
        found.update(zip(numbers, results, strict=True))
    return [found[number] for number in range(len(rows))]
