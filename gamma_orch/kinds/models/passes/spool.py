"""Rows on disk in the order they came, and an index of them in memory by which they are written sorted.

Called by `prepare_data`. A row costs about forty bytes of memory, whatever its text; so a data set larger
than the memory can be sorted by hash. Which rows come out, and in what order, depends on the rows alone
and never on the order in which they came.
"""

import mmap
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

PERCENTILES = (50, 90, 95, 99, 100)


class Spool:
    """Rows are added, then `seal` ends that; a row's number is the order in which it came."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")  # what a killed build left here is overwritten
        self._end = 0
        self._ids = array("Q")  # the first 64 bits of the hash
        self._offsets = array("Q")
        self._sizes = array("I")
        self.splits = array("B")
        self.labels = array("I")
        self.characters = array("I")
        self.words = array("I")
        self._map: mmap.mmap | bytes = b""

    def add(self, digest: str, split: int, label: int, line: bytes, characters: int, words: int) -> None:
        self._ids.append(int(digest[:16], 16))
        self._offsets.append(self._end)
        self._sizes.append(len(line))
        self.splits.append(split)
        self.labels.append(label)
        self.characters.append(characters)
        self.words.append(words)
        self._file.write(line)
        self._end += len(line)

    def seal(self) -> None:
        self._file.close()
        if self._end:
            with self._path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def close(self) -> None:
        """The rows are gone afterwards."""
        self._file.close()
        if isinstance(self._map, mmap.mmap):
            self._map.close()
        self._path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._ids)

    def line(self, number: int) -> bytes:
        start = self._offsets[number]
        return self._map[start : start + self._sizes[number]]

    def groups(self) -> Iterator[list[int]]:
        """The numbers of the rows by ascending hash; rows of one hash together, by ascending bytes."""
        group: list[int] = []
        for number in np.argsort(np.asarray(self._ids), kind="stable").tolist():
            if group and self._ids[group[0]] != self._ids[number]:
                yield group
                group = []
            group.append(number)
            if len(group) > 1:
                group.sort(key=self.line)
        if group:
            yield group

    def write(self, numbers: Iterable[int], path: Path) -> None:
        with path.open("wb") as file:
            for number in numbers:
                file.write(self.line(number))


def percentiles(values: Iterable[int]) -> Mapping[str, int]:
    """By nearest rank, so that each is the length of some row. {"p50": ..., "max": ...}"""
    found = np.percentile(np.fromiter(values, dtype=np.int64), PERCENTILES, method="inverted_cdf")
    names = [*(f"p{rank}" for rank in PERCENTILES[:-1]), "max"]
    return dict(zip(names, map(int, found), strict=True))
