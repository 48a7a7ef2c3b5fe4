"""One compiled graph, whatever runtime compiled it: named arrays in, named arrays out."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

# An array of numpy, or one that stays inside the runtime between two calls (`keep`) and is only handed back.
Value = Any


class Graph(Protocol):
    inputs: Sequence[str]
    outputs: Sequence[str]
    shapes_cost: bool
    """Whether each shape of a batch takes time and memory of its own, for as long as the graph is loaded."""

    def run(self, feeds: Mapping[str, Value], keep: Sequence[str] = ()) -> dict[str, Value]:
        """All outputs by name. Those in `keep` come as the runtime's own values, fit to be fed again
        without a copy; all others as numpy arrays. Safe to call from several threads."""
        ...

    def shape(self, name: str) -> Sequence[int | None]:
        """The shape of an input; None where it may vary."""
        ...
