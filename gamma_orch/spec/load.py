"""Bytes of files -> documents, with every problem of every file. The first stage of the language.

A file is checked as text, cut at its lines `---`, and each piece is read by itself, so that a
mistake in one document hides none of the others. Pure: files are read by `spec.files`, and what
was parsed before comes in as a mapping and goes out as one (`spec.cache` keeps it on disk). When
all files are known from there, PyYAML is not even imported.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic, Span
from gamma_orch.spec.codes import Code
from gamma_orch.spec.positions import Document, Documents

# Bump it when the meaning of a text changes: it is part of the cache's name for what it holds.
FORMAT = 1

MAX_BYTES = 1 << 20
MAX_DOCUMENTS = 2000

# What a cache holds for the sha256 of a file's bytes: line, dynamic and data of each document.
Parsed = list[tuple[int, bool, dict[str, Json]]]

_CUT = re.compile(r"^(?:---|\.\.\.)(?=[ \t\r\n]|\Z)", re.MULTILINE)
_REFUSED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_BARE_RETURN = re.compile(r"\r(?!\n)")
_BLANK = re.compile(r"[ \t\r]*(#.*)?")
_YAML_DIRECTIVE = re.compile(r"%YAML[ \t]+1\.[0-9]+[ \t\r]*(#.*)?")

_OTHER_ENCODINGS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_NAMES = {
    "\x00": "a NUL byte",
    "\x1b": "an escape character",
    "\x85": "the line separator U+0085",
    "\u2028": "the line separator U+2028",
    "\u2029": "the paragraph separator U+2029",
    "\ufeff": "a byte order mark",
}


class Piece(NamedTuple):
    """The text of one document in a file, and the line on which it begins, from 1."""

    text: str
    line: int


@dataclass(frozen=True)
class Loaded:
    documents: Documents
    diagnostics: tuple[Diagnostic, ...]
    parsed: Mapping[str, Parsed]  # what is worth keeping: all faultless files of this tree, by sha256


def load(texts: Mapping[str, bytes], cache: Mapping[str, Parsed] | None = None) -> Loaded:
    """Read all files, in the order of their names. `cache` is the `parsed` of an earlier call."""
    documents: list[Document] = []
    diagnostics: list[Diagnostic] = []
    parsed: dict[str, Parsed] = {}
    known = cache or {}
    make = Document._make
    for file in sorted(texts):
        content = texts[file]
        identity = hashlib.sha256(content).hexdigest()
        if (entries := known.get(identity)) is None:
            entries, problems = _read(file, content)
            diagnostics += problems
            if not problems:
                parsed[identity] = entries
        else:
            parsed[identity] = entries
        documents += [make((file, line, dynamic, data)) for line, dynamic, data in entries]
    return Loaded(Documents(tuple(documents), texts), tuple(diagnostics), parsed)


def decoded(content: bytes) -> str:
    """A file's text as `load` sees it; only for content that `load` had no complaint about."""
    return content.decode("utf-8-sig", errors="replace")


def pieces(text: str) -> list[Piece]:
    """The documents of a file. Every piece but the first begins with its `---` or `...`."""
    found = []
    start, line = 0, 1
    for cut in _CUT.finditer(text):
        if cut.start() > start:
            found.append(Piece(text[start : cut.start()], line))
            line += text.count("\n", start, cut.start())
            start = cut.start()
    found.append(Piece(text[start:], line))
    return found


def _read(file: str, content: bytes) -> tuple[Parsed, list[Diagnostic]]:
    from gamma_orch.spec import syntax

    text, problems = _text(file, content)
    if problems:
        return [], problems
    cut = pieces(text)
    if len(cut) > MAX_DOCUMENTS + 1:
        problem = Diagnostic(
            Code.TOO_MANY_DOCUMENTS,
            f"The file has {len(cut):,} documents; at most {MAX_DOCUMENTS:,} are read from one file.",
            Span(file),
            hint="split it into several files",
        )
        return [], [problem]
    entries: Parsed = []
    for piece in cut:
        body, faults = _body(file, piece)
        problems += faults
        if body is None:
            continue
        if (read := syntax.quick(body)) is not None:
            data, first = read
        else:
            reading = syntax.careful(body, piece.line)
            data, first = reading.data, reading.first
            problems += [
                Diagnostic(p.code, p.message, _span(file, piece, p.spot), p.path, hint=p.hint)
                for p in reading.problems
            ]
            if reading.problems:
                continue
        if data is None:
            continue
        if type(data) is not dict:
            problems.append(
                Diagnostic(
                    Code.NOT_A_MAP,
                    f"A document is a map with apiVersion, kind, metadata and spec; here is {_named(data)}.",
                    _span(file, piece, first),
                    hint="give each resource its own document, separated by a line ---",
                )
            )
            continue
        if "\\" in body and (path := _nul(data)) is not None:
            place = syntax.careful(body).places[path]  # type: ignore[index]
            problems.append(
                Diagnostic(
                    Code.CHARACTER,
                    "The escape \\0 puts a NUL character into a text; most targets cannot store one.",
                    _span(file, piece, place.value),
                    path,
                    hint="take it away",
                )
            )
            continue
        # An escape may hide a `$` or a `{`: a document with one is looked at as if it had both.
        entries.append((piece.line + first[0], "${" in body or "\\" in body, data))
    return entries, problems


def _text(file: str, content: bytes) -> tuple[str, list[Diagnostic]]:
    """A file's text, or why it is none."""

    def fault(code: Code, message: str, hint: str, span: Span) -> tuple[str, list[Diagnostic]]:
        return "", [Diagnostic(code, message, span, hint=hint)]

    if len(content) > MAX_BYTES:
        return fault(
            Code.TOO_LARGE,
            f"The file is larger than 1 MiB ({len(content):,} bytes).",
            "split it; bulk data belongs into an artifact, not into specs",
            Span(file),
        )
    for mark, name in _OTHER_ENCODINGS:
        if content.startswith(mark):
            return fault(
                Code.ENCODING, f"The file is {name}; specs are UTF-8.", "save it as UTF-8", Span(file, 1, 1)
            )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        return fault(
            Code.ENCODING,
            f"Byte {error.start} (0x{content[error.start]:02x}) is not UTF-8.",
            "save the file as UTF-8; what is not text does not belong into specs",
            _at(file, before, len(before)),
        )
    text = text.removeprefix("\ufeff")
    if (found := _BARE_RETURN.search(text)) is not None:
        return fault(
            Code.LINE_END,
            "A line ends with a carriage return alone.",
            "end lines with a line feed, as every editor on Linux and macOS does",
            _at(file, text, found.start()),
        )
    problems = []
    for found in _REFUSED.finditer(text):
        character = found.group()
        name = _NAMES.get(character, f"the control character U+{ord(character):04X}")
        problems.append(
            Diagnostic(
                Code.CHARACTER,
                f"Here stands {name}, which nobody can see.",
                _at(file, text, found.start()),
                hint="remove it, or write it as an escape in double quotes",
            )
        )
        if len(problems) == 5:
            break
    return text, problems


def _body(file: str, piece: Piece) -> tuple[str | None, list[Diagnostic]]:
    """The text the parser gets: without directives, and None where nothing but they stand."""
    text = piece.text
    if text.startswith("..."):
        text = text[3:]
        if not _BLANK.fullmatch(text.partition("\n")[0]):
            return None, [
                Diagnostic(
                    Code.SYNTAX,
                    "Nothing may follow '...' on its line.",
                    Span(file, piece.line, 4),
                    hint="begin the next document with a line ---",
                )
            ]
    if "%" not in text:
        return text, []
    problems = []
    lines = text.split("\n")
    directives = False
    for number, line in enumerate(lines):
        if line.startswith("%"):
            directives = True
            if not _YAML_DIRECTIVE.fullmatch(line):
                problems.append(
                    Diagnostic(
                        Code.DIRECTIVE,
                        f"{line.split()[0][:40]} is a directive; only %YAML 1.2 may stand here.",
                        Span(file, piece.line + number, 1),
                        hint="remove the line",
                    )
                )
        elif not _BLANK.fullmatch(line):
            if directives and not problems:
                problems.append(
                    Diagnostic(
                        Code.DIRECTIVE,
                        "A directive must be followed by a line ---.",
                        Span(file, piece.line + number, 1),
                        hint="put --- above this line, or remove the directive",
                    )
                )
            return (None if problems else text), problems
    return None, problems


def _nul(data: Json, path: tuple[str | int, ...] = ()) -> tuple[str | int, ...] | None:
    """The path of the first text with a NUL character. The depth was bounded by the parser."""
    if type(data) is str:
        return path if "\x00" in data else None
    if type(data) is dict:
        for key, value in data.items():
            if "\x00" in key:
                return (*path, key)
            if (found := _nul(value, (*path, key))) is not None:
                return found
    elif type(data) is list:
        for index, value in enumerate(data):
            if (found := _nul(value, (*path, index))) is not None:
                return found
    return None


def _named(data: Json) -> str:
    if type(data) is list:
        return "a list"
    if type(data) is str:
        return "a text"
    return "a single value"


def _span(file: str, piece: Piece, spot: tuple[int, int]) -> Span:
    return Span(file, piece.line + spot[0], spot[1] + 1)


def _at(file: str, text: str, offset: int) -> Span:
    line_start = text.rfind("\n", 0, offset) + 1
    return Span(file, text.count("\n", 0, offset) + 1, offset - line_start + 1)
