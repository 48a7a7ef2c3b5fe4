"""Bytes of files -> documents, with every problem of every file. The first stage of the language.

A file is checked as text, cut at its lines `---`, and each piece is read by itself, so that a
mistake in one document hides none of the others. Pure: files are read by `spec.files`, and what
was parsed before comes in as a mapping and goes out as one (`spec.cache` keeps it on disk). When
all files are known from there, PyYAML is not even imported.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from gamma_orch.core.address import NAME as ADDRESS_NAME
from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic, Path, Span
from gamma_orch.spec.codes import Code
from gamma_orch.spec.positions import Document, Documents
from gamma_orch.spec.words import printable

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

_KIND = re.compile(r"kind: +([A-Z][A-Za-z0-9]*)")
_NAME = re.compile(r"(?:metadata: *\{ *| +)name: +([a-z0-9._-]+)")

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
    lost: set[Address] = set()
    known = cache or {}
    make = Document._make
    for file in sorted(texts):
        content = texts[file]
        identity = hashlib.sha256(content).hexdigest()
        if (entries := known.get(identity)) is None:
            entries, problems, broken = _read(file, content)
            diagnostics += problems
            lost |= broken
            if not problems:
                parsed[identity] = entries
        else:
            parsed[identity] = entries
        documents += [make((file, line, dynamic, data)) for line, dynamic, data in entries]
    return Loaded(
        Documents(tuple(documents), texts, not diagnostics, frozenset(lost)), tuple(diagnostics), parsed
    )


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


def _read(file: str, content: bytes) -> tuple[Parsed, list[Diagnostic], set[Address]]:
    text, problems = _text(file, content)
    if problems:
        return [], problems, set()
    cut = pieces(text)
    count = sum(not piece.text.startswith("...") for piece in cut)
    if count > MAX_DOCUMENTS:
        message = f"The file has {count:,} documents; at most {MAX_DOCUMENTS:,} are read from one file."
        return (
            [],
            [_fault(Code.TOO_MANY_DOCUMENTS, message, Span(file), "split it into several files")],
            set(),
        )
    entries: Parsed = []
    lost: set[Address] = set()
    for piece in cut:
        entry, faults = _document(file, piece)
        problems += faults
        if faults and (address := _intended(piece.text)) is not None:
            lost.add(address)
        if entry is not None:
            entries.append(entry)
    return entries, problems, lost


def _intended(text: str) -> Address | None:
    """What a document that cannot be read would probably have been called."""
    kind = name = None
    within = False  # the lines below `metadata:`
    for line in text.split("\n"):
        within = line.startswith("metadata:") or (within and line.startswith(" "))
        if kind is None and (found := _KIND.match(line)):
            kind = found[1]
        elif within and name is None and (found := _NAME.match(line)):
            name = found[1]
    return Address(kind, name) if kind and name and ADDRESS_NAME.fullmatch(name) else None


def _document(file: str, piece: Piece) -> tuple[tuple[int, bool, dict[str, Json]] | None, list[Diagnostic]]:
    """One document, or what is wrong with it; neither for one without content."""
    from gamma_orch.spec.syntax import quick

    body, problems = _body(file, piece)
    if body is None:
        return None, problems
    if (read := quick(body)) is not None:
        data, first = read
    else:
        from gamma_orch.spec.careful import Careful

        reading = Careful(body, piece.line)
        data, first = reading.data, reading.first
        problems = [
            Diagnostic(
                problem.code,
                problem.message,
                _span(file, piece, problem.spot),
                tuple(printable(part) if isinstance(part, str) else part for part in problem.path),
                None,
                problem.hint,
            )
            for problem in reading.problems
        ]
        if problems:
            return None, problems
    if data is None:
        return None, []
    if type(data) is not dict:
        sort = "a list" if type(data) is list else "a text" if type(data) is str else "a single value"
        message = f"A document is a map with apiVersion, kind, metadata and spec; here is {sort}."
        hint = "give each resource its own document, separated by a line ---"
        return None, [_fault(Code.NOT_A_MAP, message, _span(file, piece, first), hint)]
    if "\\" in body and (path := _nul(data, ())) is not None:
        from gamma_orch.spec.careful import Careful

        message = "An escape puts a NUL character into this text; most targets cannot store one."
        span = _span(file, piece, Careful(body).places[path].value)
        return None, [_fault(Code.CHARACTER, message, span, "take the escape away", path)]
    # An escape may hide a `$` or a `{`: a document with one is looked at as if it had both.
    return (piece.line + first[0], "${" in body or "\\" in body, data), []


def _text(file: str, content: bytes) -> tuple[str, list[Diagnostic]]:
    """A file's text, or why it is none."""

    if len(content) > MAX_BYTES:
        message = f"The file is larger than {MAX_BYTES >> 20} MiB."
        hint = "split it; bulk data belongs into an artifact, not into specs"
        return "", [_fault(Code.TOO_LARGE, message, Span(file), hint)]
    for mark, name in _OTHER_ENCODINGS:
        if content.startswith(mark):
            message = f"The file is {name}; specs are UTF-8."
            return "", [_fault(Code.ENCODING, message, Span(file, 1, 1), "save it as UTF-8")]
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        message = f"Byte {error.start} (0x{content[error.start]:02x}) is not UTF-8."
        hint = "save the file as UTF-8; what is not text does not belong into specs"
        return "", [_fault(Code.ENCODING, message, _at(file, before, len(before)), hint)]
    text = text.removeprefix("\ufeff")
    if (found := _BARE_RETURN.search(text)) is not None:
        message = "A line ends with a carriage return alone."
        hint = "end lines with a line feed, as every editor on Linux and macOS does"
        return "", [_fault(Code.LINE_END, message, _at(file, text, found.start()), hint)]
    problems = []
    for found in islice(_REFUSED.finditer(text), 5):
        character = found.group()
        name = _NAMES.get(character, f"the control character U+{ord(character):04X}")
        hint = "remove it, or write it as an escape in double quotes"
        message = f"Here stands {name}, which nobody can see."
        problems.append(_fault(Code.CHARACTER, message, _at(file, text, found.start()), hint))
    return text, problems


def _body(file: str, piece: Piece) -> tuple[str | None, list[Diagnostic]]:
    """The text the parser gets: None where nothing but comments and directives stand."""
    text = piece.text
    if text.startswith("..."):
        text = text[3:]
        if not _BLANK.fullmatch(text.partition("\n")[0]):
            message = "Nothing may follow '...' on its line."
            hint = "begin the next document with a line ---"
            return None, [_fault(Code.SYNTAX, message, Span(file, piece.line, 4), hint)]
    problems: list[Diagnostic] = []
    directive = False
    for number, line in enumerate(text.split("\n") if "%" in text else ()):
        here = Span(file, piece.line + number, 1)
        if line.startswith("%"):
            directive = True
            if not _YAML_DIRECTIVE.fullmatch(line):
                message = f"{printable(line.split()[0])} is a directive; only %YAML 1.2 may stand here."
                problems.append(_fault(Code.DIRECTIVE, message, here, "remove the line"))
        elif not _BLANK.fullmatch(line):
            if directive and not problems:
                message = "A directive must be followed by a line ---."
                hint = "put --- above this line, or remove the directive"
                problems.append(_fault(Code.DIRECTIVE, message, here, hint))
            break
    return None if directive or problems else text, problems


def _nul(data: Json, path: Path) -> Path | None:
    """The path of the first text that an escape gave a NUL character. The depth is bounded."""
    if type(data) is str:
        return path if "\0" in data else None
    if type(data) is dict:
        inner: Iterable[tuple[str | int, Json]] = data.items()
    elif type(data) is list:
        inner = enumerate(data)
    else:
        return None
    return next((found for key, value in inner if (found := _nul(value, (*path, key))) is not None), None)


def _fault(code: Code, message: str, span: Span, hint: str, path: Path = ()) -> Diagnostic:
    return Diagnostic(code, message, span, path, None, hint)


def _span(file: str, piece: Piece, spot: tuple[int, int]) -> Span:
    return Span(file, piece.line + spot[0], spot[1] + 1)


def _at(file: str, text: str, offset: int) -> Span:
    line_start = text.rfind("\n", 0, offset) + 1
    return Span(file, text.count("\n", 0, offset) + 1, offset - line_start + 1)
