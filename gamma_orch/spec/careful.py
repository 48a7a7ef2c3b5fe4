"""One YAML document's text -> the place of every key and value, and every problem of it.

Used where the quick look of `spec.syntax` met something odd, and by `spec.positions` when somebody
wants a place. It goes on after each problem it can, so that one reading names them all. Pure.
"""

from typing import NamedTuple, NoReturn

from yaml.error import MarkedYAMLError, YAMLError
from yaml.events import ScalarEvent

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Path
from gamma_orch.core.leaves import RESERVED
from gamma_orch.spec import words
from gamma_orch.spec.codes import Code
from gamma_orch.spec.scalars import Refused
from gamma_orch.spec.syntax import MAX_DEPTH, Event, Reading, Spot

MAX_PROBLEMS = 50

# Stands in for a key that is a map, a list or an alias while it is being passed over.
_ODD_KEY = "?"

_INSTEAD = "use a variable ${var.…} or a patch in the environment"


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


class _Enough(Exception):
    """The careful look cannot or should not go on."""


class Careful(Reading):
    """A reading that keeps places and problems. `data` is only good where there are no problems."""

    def __init__(self, text: str, first_line: int = 1) -> None:
        super().__init__()
        self.places: Places = {}
        self.problems: list[Problem] = []
        self._first_line = first_line  # of the text in its file; for messages that name a line
        try:
            self.read(text)
        except _Enough:
            pass
        except YAMLError as error:
            self.problems.append(_syntax(error, text, first_line))

    def place_key(self, event: Event) -> None:
        spot = (event.start_mark.line, event.start_mark.column)
        self.places[self._path()] = Place(spot, spot, 0, 0)

    def place_value(self, event: Event) -> None:
        path = self._path()
        spot = (event.start_mark.line, event.start_mark.column)
        key = self.places[path].key if self.key is not None and path in self.places else spot
        if isinstance(event, ScalarEvent):
            scalar: Event = event
            self.places[path] = Place(key, spot, scalar.start_mark.index, scalar.end_mark.index)
        else:
            self.places[path] = Place(key, spot, 0, 0)

    def _path(self) -> Path:
        """The path of what is being read: the keys and positions around it, then its own."""
        parts: list[str | int] = []
        for holder, key, _ in [*self.around, (self.here, self.key, False)]:
            if key is not None:
                parts.append(key)
            elif type(holder) is list:
                parts.append(max(len(holder) - 1, 0))
        return tuple(parts)

    def _note(self, event: Event, code: Code, message: str, hint: str) -> None:
        spot = (event.start_mark.line, event.start_mark.column)
        if len(self.problems) >= MAX_PROBLEMS:
            message = f"This document has more than {MAX_PROBLEMS} problems; the rest is left out."
            self.problems.append(Problem(Code.MORE, message, "mend those above first", (), spot))
            raise _Enough
        self.problems.append(Problem(code, message, hint, self._path(), spot))

    # --- what can be odd ----------------------------------------------------------------------

    def odd_key(self, event: Event, resolved: Json) -> None:
        key = self.key = event.value
        if event.anchor is not None or event.tag is not None:
            self.odd_mark(event)
        if type(resolved) is not str:
            shown = words.printable(key)
            hint = f'put it in quotes: "{shown}"' if key else "write a key before the colon"
            self._note(event, Code.KEY_NOT_TEXT, f"The key {shown or '(nothing)'} is not a text.", hint)
        elif key == "<<" and event.implicit[0]:
            message = "Merge keys (<<) are not part of this language."
            self._note(event, Code.ALIAS, message, f"write the fields out, or {_INSTEAD}")
        elif key in RESERVED:
            message = f"The key {key} is reserved: it marks values that are not known yet."
            self._note(event, Code.RESERVED_KEY, message, "choose another key")
        elif not key.isprintable():
            self._note(
                event, Code.CHARACTER, "The key has a character that nobody can see.", "retype the key"
            )
        if key in self.here:
            first = self.places[self._path()].key
            place = f"line {self._first_line + first[0]}, column {first[1] + 1}"
            message = f"The key {words.printable(key)} is given twice; the first is at {place}."
            self._note(event, Code.DUPLICATE_KEY, message, "remove one of them")

    def odd_container(self, event: Event) -> None:
        message = "A map or a list stands where a key should be."
        hint = "keys are texts; put a value that begins with { or [ in quotes"
        self._note(event, Code.KEY_NOT_TEXT, message, hint)
        self.key = _ODD_KEY

    def odd_number(self, event: Event, refused: Refused) -> None:
        self._note(event, *refused)

    def odd_alias(self, event: Event) -> None:
        message = f"*{event.anchor} is an alias; aliases are not part of this language."
        hint = f"{_INSTEAD}; put a text that begins with * in quotes"
        if type(self.here) is dict and self.key is None:
            self._note(event, Code.ALIAS, message, hint)
            self.key = _ODD_KEY
            return
        self._put(event, None)
        self._note(event, Code.ALIAS, message, hint)
        self.key = None

    def odd_mark(self, event: Event) -> None:
        if event.anchor is not None:
            message = f"&{event.anchor} is an anchor; anchors are not part of this language."
            self._note(event, Code.ALIAS, message, f"{_INSTEAD}; put a text that begins with & in quotes")
        if event.tag is not None:
            message = (
                "A tag (a word that begins with !) stands here; types come from the kind, not from tags."
            )
            hint = "take the tag away; put a text that begins with ! in quotes"
            self._note(event, Code.TAG, message, hint)

    def odd_depth(self, event: Event) -> NoReturn:
        self.here, self.key = None, None
        message = f"The document is nested deeper than {MAX_DEPTH} levels."
        self._note(event, Code.TOO_DEEP, message, "flatten it, or split it into several resources")
        raise _Enough


def _syntax(error: YAMLError, text: str, first_line: int) -> Problem:
    """The parser's own error, in our words."""
    said, spot, opened = str(error), (0, 0), "above"
    if isinstance(error, MarkedYAMLError):
        said = f"{error.context or ''} {error.problem or ''}"
        mark, begun = error.problem_mark or error.context_mark, error.context_mark
        if begun is not None:
            opened = f"at line {first_line + begun.line}, column {begun.column + 1}"
            mark = begun if words.blames_the_beginning(said) else mark
        if mark is not None:
            spot = (mark.line, mark.column)
    lines = text.split("\n")
    if spot[0] >= len(lines):  # behind a last line that has no end
        spot = (len(lines) - 1, len(lines[-1]))
    code, message, hint, column = words.syntax(said, lines[spot[0]], spot[1], opened)
    return Problem(code, message, hint, (), (spot[0], column))
