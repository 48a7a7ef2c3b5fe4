"""Documents, and the place of every key and value in them, found only when somebody asks.

A document keeps its data and the line it begins on, nothing more: ten thousand faultless ones
need no places. When a diagnostic is about to be shown, that one document's text is read again
with places on (`spec.syntax`), and the answer is kept. Used by every later stage of the language
and, through `Desired.locate`, by whoever complains about a resource afterwards.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Path, Span

if TYPE_CHECKING:
    from gamma_orch.spec.careful import Places
    from gamma_orch.spec.load import Piece

# Where an expression may begin in the text of a file; `$${` is a literal `${`.
_DOLLAR = re.compile(r"\$\$\{|\$\{")


class Part(Enum):
    """Which word a span should point at."""

    KEY = "key"
    VALUE = "value"


def has(data: Json, part: str | int) -> bool:
    """Whether a map has this key, or a list this position."""
    if isinstance(data, dict):
        return part in data
    return isinstance(data, list) and isinstance(part, int) and part < len(data)


class Document(NamedTuple):
    """One YAML document. The data is shared and never changed."""

    file: str
    line: int  # of its first key, from 1
    dynamic: bool  # whether its text may hold an expression; False saves a walk
    data: dict[str, Json]


@dataclass(frozen=True)
class Documents:
    """All documents of a tree, sorted by file and line, and the texts to find places in."""

    items: tuple[Document, ...] = ()
    texts: Mapping[str, bytes] = field(default_factory=dict)
    whole: bool = True  # False: some could not be read, so what is wanted is not known
    lost: frozenset[Address] = frozenset()  # what those probably declare, so far as that can be told
    # Of documents of other formats (`spec.foreign`), by file and line: where a path of ours was said there.
    elsewhere: "Mapping[tuple[str, int], Mapping[Path, tuple[Document, Path]]]" = field(default_factory=dict)
    _pieces: "dict[str, list[Piece]]" = field(default_factory=dict, repr=False, compare=False)
    _places: "dict[tuple[str, int], tuple[Piece, Places]]" = field(
        default_factory=dict, repr=False, compare=False
    )

    def span(self, document: Document, path: Path = (), part: Part = Part.VALUE) -> Span:
        """The place of a key or value; of the nearest one around it where there is none."""
        document, path = self._said(document, path)
        piece, places = self._look(document)
        for length in range(len(path), -1, -1):
            place = places.get(path[:length])
            if place is not None:
                exact = length == len(path)
                line, column = place.value if part is Part.VALUE and exact else place.key
                return Span(document.file, piece.line + line, column + 1)
        return Span(document.file, document.line, 1)

    def span_inside(self, document: Document, path: Path, ordinal: int) -> Span:
        """The place of the n-th `${` or `$${` (from 0) inside a text."""
        wrote, at = self._said(document, path)
        piece, places = self._look(wrote)
        place = places.get(at)
        if place is not None and place.end:
            text = _body(piece)
            for count, found in enumerate(_DOLLAR.finditer(text, place.start, place.end)):
                if count == ordinal:
                    before = text[: found.start()]
                    line = before.count("\n")
                    column = len(before) - (before.rfind("\n") + 1)
                    return Span(wrote.file, piece.line + line, column + 1)
        return self.span(document, path)

    def _said(self, document: Document, path: Path) -> tuple[Document, Path]:
        """The document and the path that people wrote."""
        known = self.elsewhere.get((document.file, document.line), {})
        said = (known[path[:length]] for length in range(len(path), -1, -1) if path[:length] in known)
        return next(said, (document, path))

    def _look(self, document: Document) -> "tuple[Piece, Places]":
        from gamma_orch.spec import careful, load

        known = self._places.get((document.file, document.line))
        if known is not None:
            return known
        cut = self._pieces.get(document.file)
        if cut is None:
            cut = self._pieces[document.file] = load.pieces(load.decoded(self.texts.get(document.file, b"")))
        piece = cut[max(bisect_right(cut, document.line, key=lambda piece: piece.line) - 1, 0)]
        places = careful.Careful(_body(piece)).places
        self._places[document.file, document.line] = piece, places
        return piece, places


def _body(piece: "Piece") -> str:
    # Line ends of documents (`...`) are blanked as `spec.load` does, so that offsets agree.
    return piece.text.removeprefix("...")
