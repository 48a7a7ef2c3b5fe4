"""Which documents made a resource, and in which of them a value of it stands."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Path, Span
from gamma_orch.spec.positions import Document, Documents, Part, has


class Origin(NamedTuple):
    """A patched resource: its document, the patches laid over it in order, and all of them together."""

    document: Document
    patches: tuple[Document, ...]
    merged: dict[str, Json]  # metadata and spec


@dataclass(frozen=True)
class Origins:
    """Finds the place of a resource's key or value, in the patch where a patch wrote it."""

    documents: Documents
    of: Mapping[Address, Document]
    patched: Mapping[Address, Origin]

    def span(self, address: Address, path: Path = (), part: Part = Part.VALUE) -> Span:
        document = self._document(address, path)
        return self.documents.span(document, path, part) if document is not None else Span("")

    def span_inside(self, address: Address, path: Path, ordinal: int) -> Span:
        """The place of the n-th expression inside a text."""
        document = self._document(address, path)
        return self.documents.span_inside(document, path, ordinal) if document is not None else Span("")

    def _document(self, address: Address, path: Path) -> Document | None:
        best = self.of.get(address)
        if best is None or (origin := self.patched.get(address)) is None:
            return best
        length = _reach(best.data, path)[0]
        for patch in origin.patches:  # later ones win where they reach as far
            reached, owned = _reach(patch.data, path)
            if owned or reached > length:
                best, length = patch, len(path) if owned else reached
        return best


def _reach(data: Json, path: Path) -> tuple[int, bool]:
    """How many parts of a path exist in a document, and whether it decides what stands at its end."""
    replaced = False
    for count, part in enumerate(path):
        if has(data, part):
            replaced = replaced or isinstance(data, list)
            data = data[part]
        else:
            # Below a list or a single value that a patch put there, nothing else's keys show.
            return count, count > 0 and (replaced or not isinstance(data, dict))
    return len(path), len(path) > 0
