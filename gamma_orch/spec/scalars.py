"""What a plain (unquoted) word of YAML means: the core schema of YAML 1.2, a little stricter.

`true`, `null` and numbers are values; `yes`, `on`, dates and `1:30` are texts. Refused are the
spellings that mean different things to different readers: 010, .nan, .inf, integers beyond 64 bit.
Called by `spec.syntax` for each plain scalar; pure.
"""

import re
from typing import NamedTuple

from gamma_orch.core.canonical import Json
from gamma_orch.spec.codes import Code

WORDS: dict[str, Json] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
}  # fmt: skip

# Only a word that begins so can be anything but a text: one look at its first letter decides most.
FIRST = frozenset("0123456789+-.")

_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_SIGNED = re.compile(r"[-+]?0[0-9]")


class Refused(NamedTuple):
    """A plain word that looks like a number and may not be one."""

    code: Code
    message: str
    hint: str


def plain(word: str) -> Json | Refused:
    """The value of a plain word; a `Refused` where its meaning would be anybody's guess."""
    if word in WORDS:
        return WORDS[word]
    if word[0] not in FIRST:
        return word
    if _INTEGER.fullmatch(word):
        if _SIGNED.match(word):
            return _leading_zero(word)
        return _integer(word, 10)
    if _OCTAL.fullmatch(word):
        return _integer(word[2:], 8)
    if _HEX.fullmatch(word):
        return _integer(word[2:], 16)
    if _FLOAT.fullmatch(word):
        if _SIGNED.match(word):
            return _leading_zero(word)
        number = float(word)
        if number in (float("inf"), float("-inf")):
            return Refused(
                Code.NUMBER,
                f"The number {_short(word)} is too large to be kept.",
                "the greatest is about 1.8e308; put quotes round it if it is a text",
            )
        return number
    if _NO_NUMBER.fullmatch(word):
        return Refused(
            Code.NUMBER,
            f"{word} is not a number that can be compared or stored.",
            "leave the field out, or put quotes round it if it is a text",
        )
    return word


def _integer(digits: str, base: int) -> Json | Refused:
    # The length first: turning a million digits into a number takes seconds.
    if len(digits) <= 70:
        number = int(digits, base)
        if -(2**63) <= number < 2**63:
            return number
    return Refused(
        Code.NUMBER,
        f"The whole number {_short(digits)} does not fit into 64 bits.",
        "put quotes round it if it is a text, such as an account number",
    )


def _leading_zero(word: str) -> Refused:
    return Refused(
        Code.LEADING_ZERO,
        f"The number {_short(word)} begins with a zero: some read it as octal, some as decimal.",
        f'write "{_short(word)}" in quotes for a text, 0o… for octal, or drop the zero',
    )


def _short(word: str) -> str:
    return word if len(word) <= 24 else word[:20] + "…"
