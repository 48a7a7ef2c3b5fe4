"""YAML's own syntax errors, in words for people who never read the YAML specification.

`spec.careful` hands over what the parser said and the line it said it of; back comes a code, a
message, a hint and the column. The table is by the parser's fixed phrases; what is not in it gets
the last, general, sentence, so that no phrase of the parser is ever shown. Pure.
"""

import re
from typing import NamedTuple

from gamma_orch.spec.codes import Code


class Words(NamedTuple):
    code: Code
    message: str
    hint: str
    column: int


_LEADING_TAB = re.compile(r" *\t")

_OPEN_QUOTE = "A quote is opened and not closed."
_CLOSE_QUOTE = "close it; inside '…' a quote is written ''"

_QUOTE_IT = "put ${…} in quotes inside […] and {…}"

# The parser's phrase, then our message and hint.
_SAID: tuple[tuple[str, str, str], ...] = (
    (
        "mapping values are not allowed",
        "A key with a colon cannot stand here.",
        "check the indentation of this line and the one above; put a text that contains ': ' in quotes",
    ),
    (
        "could not find expected ':'",
        "This line is neither a key with a colon nor part of the text above it.",
        "write `key: value`, or indent the line if it belongs to the text above",
    ),
    (
        "block sequence entries are not allowed",
        "A list item cannot stand here.",
        "begin the list on a line of its own below its key",
    ),
    (
        "mapping keys are not allowed",
        "A key cannot stand here.",
        "begin the map on a line of its own below its key",
    ),
    (
        "did not find expected key",
        "This line does not fit into the map around it.",
        "indent it exactly as its neighbours, and close every quote and bracket above it",
    ),
    (
        "did not find expected '-'",
        "This line does not fit into the list around it.",
        "begin each item with '- ' at the same indentation",
    ),
    (
        "did not find expected ',' or ']'",
        "The list that begins with '[' {opened} does not go on here.",
        "separate items by commas and close the list with ']'",
    ),
    (
        "did not find expected ',' or '}'",
        "The map that begins with '{' {opened} does not go on here.",
        "separate its entries by commas and close the map with '}'",
    ),
    (
        "did not find expected node content",
        "A value is missing here.",
        "write the value, or take the comma or bracket away",
    ),
    (
        "did not find expected <document start>",
        "The document has ended before this line.",
        "separate documents by a line ---, and check the indentation",
    ),
    (
        "while scanning an a",  # an alias, an anchor
        "A value that begins with * or & needs quotes.",
        "put the value in quotes",
    ),
    ("while scanning a tag", "A value that begins with ! needs quotes.", "put the value in quotes"),
    ("found unexpected end of stream", _OPEN_QUOTE, _CLOSE_QUOTE),
    ("found unexpected document indicator", _OPEN_QUOTE, _CLOSE_QUOTE),
    (
        "found unknown escape character",
        "The backslash in this text in double quotes begins no known escape.",
        "write \\\\ for a backslash, or use single quotes",
    ),
    (
        "hexdecimal number",  # the parser's spelling
        "The escape in this text in double quotes is cut short.",
        "write \\xNN, \\uNNNN or \\UNNNNNNNN with hexadecimal digits",
    ),
    (
        "invalid Unicode character escape",
        "The escape in this text in double quotes is no character.",
        "write the character itself",
    ),
    ("found unexpected ':'", "A colon cannot stand here inside […] or {…}.", "put the text in quotes"),
    ("indentation indicator equal to 0", "The digit after | or > must be 1 to 9.", "leave the digit out"),
    (
        "did not find expected comment or line break",
        "Nothing may follow | or > on its line.",
        "begin the text on the next line",
    ),
)


def blames_the_beginning(said: str) -> bool:
    """Whether what must be mended is where the parser began, not where it gave up."""
    return "end of stream" in said or "document indicator" in said or "find expected ':'" in said


def syntax(said: str, line: str, column: int, opened: str) -> Words:
    """The parser's phrase as our own words.

    `line` is the text it points at, `column` (from 0) the place there; `opened` says where the
    list or map around it begins.
    """
    at = line[column : column + 1]
    if _LEADING_TAB.match(line) or at == "\t" or "a tab character" in said:
        message = "A tab stands where YAML expects spaces."
        if _LEADING_TAB.match(line):
            message = "This line is indented with a tab; YAML counts spaces only."
        return Words(Code.TAB, message, "replace the tab by two spaces", max(line.find("\t"), 0))
    if line.startswith("%"):
        message = "A line that begins with % is a directive; none may stand inside a document."
        return Words(Code.DIRECTIVE, message, "remove the line, or put the text in quotes", 0)
    if "cannot start any token" in said:
        message = f"An unquoted value cannot begin with {printable(at)}."
        return Words(Code.SYNTAX, message, "put the value in quotes", column)
    if "did not find expected key" in said and line[:column].strip():
        message = "Something follows a value that has already ended."
        return Words(Code.SYNTAX, message, "put the whole value in quotes, or begin a new line", column)
    if "expected node content" in said and not line[column:].strip():
        message = "The document ends before this value does."
        return Words(Code.SYNTAX, message, "close every [ and { that is open", column)
    for phrase, message, hint in _SAID:
        if phrase in said:
            if "${" in line and "{opened}" in message:
                return Words(Code.SYNTAX, message.replace("{opened}", opened), _QUOTE_IT, column)
            return Words(Code.SYNTAX, message.replace("{opened}", opened), hint, column)
    message = "The YAML cannot be read past this place."
    return Words(Code.SYNTAX, message, "check quotes, brackets and indentation", column)


def printable(text: str, most: int = 40) -> str:
    """A word from a file as it may be shown: no control characters, no endless length."""
    shown = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)


def quoted(text: str) -> str:
    return f"'{printable(text)}'"
