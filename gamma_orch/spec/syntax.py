"""One YAML document's text -> plain data, or every problem of it with its place.

The parser is libyaml through PyYAML, read event by event: no recursion, so nesting cannot exhaust
a stack, and no intermediate tree. There are two looks at a text. The quick one (`places` is None)
gives data or gives up at the first oddity; only then does the careful one run, which records the
place of every key and value, goes on after each problem it can, and names them all.

Called by `spec.load` for what its cache does not know, and by `spec.positions` when somebody
wants a place. Importing this module imports PyYAML, so both do it late. Pure.
"""

from typing import NamedTuple

from yaml.cyaml import CParser
from yaml.error import Mark, MarkedYAMLError, YAMLError
from yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Path
from gamma_orch.core.leaves import RESERVED
from gamma_orch.spec import words
from gamma_orch.spec.codes import Code
from gamma_orch.spec.scalars import FIRST, WORDS, Refused, plain

MAX_DEPTH = 32
MAX_PROBLEMS = 50

Spot = tuple[int, int]  # line and column inside the text, both from 0


class Place(NamedTuple):
    """Where a value stands in its document's text."""

    key: Spot  # of its key; of the value itself for a list item and for the root
    value: Spot
    start: int  # offset of a scalar's first character in the text, quotes included
    end: int  # and behind its last; 0 and 0 for maps and lists


Places = dict[Path, Place]


class Problem(NamedTuple):
    code: Code
    message: str
    hint: str
    path: Path
    spot: Spot


class Oddity(Exception):
    """The quick look met something that the careful look must explain."""


class _Enough(Exception):
    """The careful look cannot or should not go on."""


# The key that stands in while a key that is no text is being passed over.
_ODD_KEY = "?"


class Reading:
    """One look at one text. `data` is None for a text with nothing but comments."""

    def __init__(self, text: str, places: Places | None, first_line: int = 1) -> None:
        self.text = text
        self.first_line = first_line  # of the text in its file, from 1; for messages that name a line
        self.places = places
        self.problems: list[Problem] = []
        self.data: Json = None
        self.first: Spot = (0, 0)  # where the document's content begins
        self._stack: list[tuple[Json, str | None, bool]] = []
        try:
            self._read()
        except _Enough:
            pass
        except YAMLError as error:
            self._syntax(error)

    def _read(self) -> None:
        event_of = CParser(self.text).get_event
        places = self.places
        stack = self._stack
        here: Json = None  # the map or list being filled; None outside of all
        key: str | None = None  # in a map: the key whose value comes next
        while True:
            event = event_of()
            kind = type(event)
            if kind is ScalarEvent:
                resolved = event.value
                if event.implicit[0] and (resolved in WORDS or resolved[0] in FIRST):
                    resolved = plain(resolved)
                if type(here) is dict:
                    if key is None:
                        key = self._key(here, event, resolved)
                        continue
                    here[key] = resolved
                elif here is None:
                    self.data = resolved
                    self.first = (event.start_mark.line, event.start_mark.column)
                else:
                    here.append(resolved)
                if places is not None:
                    self._scalar(here, key, event)
                if type(resolved) is Refused:
                    self._note(here, key, event.start_mark, *resolved)
                if event.anchor is not None or event.tag is not None:
                    self._decorated(event, here, key)
                key = None
            elif kind is MappingStartEvent or kind is SequenceStartEvent:
                child: Json = {} if kind is MappingStartEvent else []
                odd = False
                if type(here) is dict:
                    if key is None:
                        odd = True
                        self._odd_key(here, event)
                        key = _ODD_KEY
                    here[key] = child
                elif here is None:
                    self.data = child
                    self.first = (event.start_mark.line, event.start_mark.column)
                else:
                    here.append(child)
                if places is not None:
                    self._container(here, key, event)
                if event.anchor is not None or event.tag is not None:
                    self._decorated(event, here, key)
                stack.append((here, key, odd))
                if len(stack) > MAX_DEPTH:
                    self._note(
                        None,
                        None,
                        event.start_mark,
                        Code.TOO_DEEP,
                        f"The document is nested deeper than {MAX_DEPTH} levels.",
                        "flatten it, or split it into several resources",
                    )
                    raise _Enough
                here, key = child, None
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                here, key, odd = stack.pop()
                if not odd:
                    key = None
            elif kind is AliasEvent:
                self._alias(here, key, event)
                if type(here) is dict:
                    key = _ODD_KEY if key is None else None
            elif kind is StreamEndEvent:
                return

    # --- the careful look only: problems and places -------------------------------------------

    def _path(self, here: Json, key: str | None) -> Path:
        """The path of what is being read: its ancestors' keys and positions, then its own."""
        parts: list[str | int] = []
        for holder, own, _ in self._stack:
            if holder is not None:
                parts.append(own if own is not None else len(holder) - 1)
        if key is not None:
            parts.append(key)
        elif type(here) is list:
            parts.append(len(here) - 1)
        return tuple(parts)

    def _note(self, here: Json, key: str | None, mark: Mark, code: Code, message: str, hint: str) -> None:
        if self.places is None:
            raise Oddity
        if len(self.problems) >= MAX_PROBLEMS:
            self.problems.append(
                Problem(
                    Code.MORE,
                    f"This document has more than {MAX_PROBLEMS} problems; the rest is left out.",
                    "mend those above first",
                    (),
                    (mark.line, mark.column),
                )
            )
            raise _Enough
        path = self._path(here, key)
        self.problems.append(Problem(code, message, hint, path, (mark.line, mark.column)))

    def _scalar(self, here: Json, key: str | None, event: ScalarEvent) -> None:
        assert self.places is not None
        path = self._path(here, key)
        start, end = event.start_mark, event.end_mark
        spot = (start.line, start.column)
        known = self.places.get(path)
        self.places[path] = Place(known.key if known and key is not None else spot, spot, start.index, end.index)

    def _container(self, here: Json, key: str | None, event: MappingStartEvent | SequenceStartEvent) -> None:
        assert self.places is not None
        path = self._path(here, key)
        spot = (event.start_mark.line, event.start_mark.column)
        known = self.places.get(path)
        self.places[path] = Place(known.key if known and key is not None else spot, spot, 0, 0)

    def _key(self, here: dict[str, Json], event: ScalarEvent, resolved: Json) -> str:
        """The scalar as a key: checked, and its place remembered for the value that follows."""
        mark = event.start_mark
        key: str = event.value
        if event.anchor is not None or event.tag is not None:
            self._decorated(event, here, key)
        if type(resolved) is not str:
            self._note(
                here,
                key,
                mark,
                Code.KEY_NOT_TEXT,
                f"The key {key or '(nothing)'} is not a text.",
                f'put it in quotes: "{key}"' if key else "write a key before the colon",
            )
        elif key == "<<" and event.implicit[0]:
            self._note(
                here,
                key,
                mark,
                Code.ALIAS,
                "Merge keys (<<) are not part of this language.",
                "write the fields out, use a variable ${var.…}, or a patch in the environment",
            )
        elif key in RESERVED:
            self._note(
                here, key, mark, Code.RESERVED_KEY,
                f"The key {key} is reserved: it marks values that are not known yet.",
                "choose another key",
            )  # fmt: skip
        if key in here:
            self._duplicate(here, key, mark)
        if self.places is not None:
            spot = (mark.line, mark.column)
            self.places[self._path(here, key)] = Place(spot, spot, 0, 0)
        return key

    def _duplicate(self, here: dict[str, Json], key: str, mark: Mark) -> None:
        first = "above"
        if self.places is not None and (place := self.places.get(self._path(here, key))):
            first = f"at line {self.first_line + place.key[0]}, column {place.key[1] + 1}"
        self._note(
            here,
            key,
            mark,
            Code.DUPLICATE_KEY,
            f"The key {key} is given twice; the first is {first}.",
            "remove one of them",
        )

    def _odd_key(self, here: Json, event: MappingStartEvent | SequenceStartEvent) -> None:
        self._note(
            here,
            None,
            event.start_mark,
            Code.KEY_NOT_TEXT,
            "A map or a list stands where a key should be.",
            "keys are texts; put a value that begins with { or [ in quotes",
        )

    def _alias(self, here: Json, key: str | None, event: AliasEvent) -> None:
        if type(here) is list:
            here.append(None)
        elif type(here) is dict and key is not None:
            here[key] = None
        self._note(
            here,
            key,
            event.start_mark,
            Code.ALIAS,
            f"*{event.anchor} is an alias; aliases are not part of this language.",
            "use a variable ${var.…} or a patch in the environment; put a text that begins with * in quotes",
        )

    def _decorated(self, event: ScalarEvent | MappingStartEvent | SequenceStartEvent, here: Json, key: str | None) -> None:
        if event.anchor is not None:
            self._note(
                here,
                key,
                event.start_mark,
                Code.ALIAS,
                f"&{event.anchor} is an anchor; anchors are not part of this language.",
                "use a variable ${var.…} or a patch in the environment; put a text that begins with & in quotes",
            )
        if event.tag is not None:
            self._note(
                here,
                key,
                event.start_mark,
                Code.TAG,
                "A tag (a word that begins with !) stands here; types come from the kind, not from tags.",
                "take the tag away; put a text that begins with ! in quotes",
            )

    def _syntax(self, error: YAMLError) -> None:
        if self.places is None:
            raise Oddity from None
        line, column = 0, 0
        said = str(error)
        if isinstance(error, MarkedYAMLError):
            said = f"{error.context or ''} {error.problem or ''}"
            mark = error.problem_mark or error.context_mark
            if "end of stream" in said or "document indicator" in said:
                mark = error.context_mark or mark  # where the quote was opened is what must be mended
            if mark is not None:
                line, column = mark.line, mark.column
        lines = self.text.split("\n")
        shown = lines[line] if line < len(lines) else ""
        code, message, hint = words.syntax(said, shown, column)
        if code is Code.TAB:
            column = max(shown.find("\t"), 0)
        self.problems.append(Problem(code, message, hint, (), (line, column)))


def quick(text: str) -> tuple[Json, Spot] | None:
    """The document's data and where it begins; None when the careful look is needed."""
    try:
        reading = Reading(text, None)
    except Oddity:
        return None
    return reading.data, reading.first


def careful(text: str, first_line: int = 1) -> Reading:
    """The same with the places of all keys and values, and all problems."""
    return Reading(text, {}, first_line)
