"""One YAML document's text -> plain data, read event by event; it stops at the first oddity.

The parser is libyaml through PyYAML. There is no recursion, so nesting cannot exhaust a stack, and
no intermediate tree. This quick look is all that a faultless text ever gets. A text with anything
odd in it is read again by `spec.careful`, which builds on the class here, knows the place of every
key and value, and says what is wrong.

Called by `spec.load` for what its cache does not know. Importing this module imports PyYAML, so
that is done late. Pure.
"""

from typing import Any, NoReturn

from yaml.cyaml import CParser  # type: ignore[attr-defined]  # its stub forgets to export it
from yaml.error import YAMLError
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
from gamma_orch.core.leaves import RESERVED
from gamma_orch.spec.scalars import FIRST, WORDS, Refused, plain

MAX_DEPTH = 32

# An event of the parser. The library's own types allow marks to be None; libyaml always sets them.
Event = Any

Spot = tuple[int, int]  # line and column inside the text, both from 0


class Oddity(Exception):
    """The quick look met something that only the careful one can explain."""


class Reading:
    """Builds the data of one text. What is odd goes to the methods `odd_…`, which raise here."""

    def __init__(self) -> None:
        self.data: Json = None  # None for a text with nothing but comments
        self.first: Spot = (0, 0)  # where the document's content begins
        self.here: Json = None  # the map or list being filled; None outside of all
        self.key: str | None = None  # in a map: the key whose value comes next
        # What is around `here`, outermost first; True where it stands as a key, which is odd.
        self.around: list[tuple[Json, str | None, bool]] = []

    def read(self, text: str) -> None:
        event_of = CParser(text).get_event
        while True:
            event: Event = event_of()
            kind = type(event)
            if kind is ScalarEvent:
                self._scalar(event)
            elif kind is MappingStartEvent:
                self._open(event, {})
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                self._close()
            elif kind is SequenceStartEvent:
                self._open(event, [])
            elif kind is AliasEvent:
                self.odd_alias(event)
            elif kind is StreamEndEvent:
                return

    def _scalar(self, event: Event) -> None:
        value: Json = event.value
        if event.implicit[0] and (value in WORDS or value[0] in FIRST):
            value = plain(value)
        if self.key is None and type(self.here) is dict:
            self._key(event, value)
        else:
            self._put(event, value)
            if type(value) is Refused:
                self.odd_number(event, value)
            if event.anchor is not None or event.tag is not None:
                self.odd_mark(event)
            self.key = None

    def _key(self, event: Event, resolved: Json) -> None:
        key = event.value
        if (
            type(resolved) is not str
            or key in self.here
            or key in RESERVED
            or not key.isprintable()
            or (key == "<<" and event.implicit[0])
            or event.anchor is not None
            or event.tag is not None
        ):
            self.odd_key(event, resolved)
        self.key = key
        self.place_key(event)

    def _put(self, event: Event, value: Json) -> None:
        here = self.here
        if type(here) is dict:
            here[self.key] = value
        elif here is None:
            self.data = value
            self.first = (event.start_mark.line, event.start_mark.column)
        else:
            here.append(value)
        self.place_value(event)

    def _open(self, event: Event, child: Json) -> None:
        odd = self.key is None and type(self.here) is dict
        if odd:
            self.odd_container(event)
        self._put(event, child)
        if event.anchor is not None or event.tag is not None:
            self.odd_mark(event)
        self.around.append((self.here, self.key, odd))
        if len(self.around) > MAX_DEPTH:
            self.odd_depth(event)
        self.here, self.key = child, None

    def _close(self) -> None:
        self.here, self.key, odd = self.around.pop()
        if not odd:
            self.key = None

    # --- for the careful look -----------------------------------------------------------------

    def place_key(self, event: Event) -> None:
        """`self.key` stands at this event."""

    def place_value(self, event: Event) -> None:
        """The value just put stands at this event."""

    def odd_key(self, event: Event, resolved: Json) -> None:
        raise Oddity

    def odd_container(self, event: Event) -> None:
        raise Oddity

    def odd_number(self, event: Event, refused: Refused) -> None:
        raise Oddity

    def odd_mark(self, event: Event) -> None:
        raise Oddity

    def odd_alias(self, event: Event) -> None:
        raise Oddity

    def odd_depth(self, event: Event) -> NoReturn:
        raise Oddity


def quick(text: str) -> tuple[Json, Spot] | None:
    """The document's data and where it begins; None when the careful look is needed."""
    reading = Reading()
    try:
        reading.read(text)
    except (Oddity, YAMLError):
        return None
    return reading.data, reading.first
