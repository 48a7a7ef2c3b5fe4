"""YAML's own syntax errors, in words for people who never read the YAML specification.

`spec.syntax` hands over what the parser said and the line it said it of; back comes a code, a
message and a hint. The table is by the parser's fixed phrases; what is not in it gets the last,
general, sentence, so that no phrase of the parser is ever shown.
"""

import re

from gamma_orch.spec.codes import Code

Words = tuple[Code, str, str]

_LEADING_TAB = re.compile(r" *\t")

_BY_PHRASE: tuple[tuple[str, str, str], ...] = (
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
    ("did not find expected ',' or ']'", "The list that begins with '[' does not go on here.", "separate items by commas and close the list with ']'"),
    ("did not find expected ',' or '}'", "The map that begins with '{' does not go on here.", "separate its entries by commas and close the map with '}'"),
    ("did not find expected node content", "A value is missing here.", "write the value, or take the comma or bracket away"),
    ("did not find expected <document start>", "The document has ended before this line.", "separate documents by a line ---, and check the indentation"),
    ("found unexpected end of stream", "A quote is opened and never closed.", "close the quote; inside '…' write a quote as ''"),
    ("found unexpected document indicator", "A quote is opened and not closed before the document ends.", "close the quote; inside '…' write a quote as ''"),
    ("found unknown escape character", "The backslash in this text in double quotes begins no known escape.", "write \\\\ for a backslash, or use single quotes"),
    ("hexdecimal number", "The escape in this text in double quotes is cut short.", "write \\xNN, \\uNNNN or \\UNNNNNNNN with hexadecimal digits"),
    ("invalid Unicode character escape", "The escape in this text in double quotes is no character.", "write the character itself"),
    ("found unexpected ':'", "A colon cannot stand here inside […] or {…}.", "put the text in quotes"),
    ("indentation indicator equal to 0", "The digit after | or > must be 1 to 9.", "leave the digit out"),
    ("did not find expected comment or line break", "Nothing may follow | or > on its line.", "begin the text on the next line"),
)  # fmt: skip

# What an unquoted value may not begin with, and why somebody would want it to.
_BEGINNINGS = {
    "@": "An unquoted value cannot begin with @.",
    "`": "An unquoted value cannot begin with a backtick.",
    "%": "An unquoted value cannot begin with %.",
}


def syntax(problem: str, line: str, column: int) -> Words:
    """The parser's phrase as our own words. `line` is the text it points at, `column` from 0."""
    if _LEADING_TAB.match(line) or (problem.find("tab") >= 0):
        return (
            Code.TAB,
            "This line is indented with a tab; YAML counts spaces only.",
            "replace the tab by two spaces",
        )
    if "cannot start any token" in problem:
        character = line[column : column + 1]
        if character == "\t":
            return Code.TAB, "A tab stands where YAML expects spaces.", "replace the tab by a space"
        message = _BEGINNINGS.get(character, f"The character {character!r} cannot stand here.")
        return Code.SYNTAX, message, "put the value in quotes"
    for phrase, message, hint in _BY_PHRASE:
        if phrase in problem:
            return Code.SYNTAX, message, hint
    return Code.SYNTAX, "The YAML cannot be read past this place.", "check quotes, brackets and indentation"
