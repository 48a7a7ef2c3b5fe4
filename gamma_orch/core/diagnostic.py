"""What is wrong with the specs, said so that it can be mended: code, place, reason, hint.

Every check of the language and of the planner yields these; none stops at the first.
The codes are stable (`docs/diagnostics.md` lists them), so a CI can filter on one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from gamma_orch.core.address import Address

Path = tuple[str | int, ...]


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A place in a file; line and column count from 1. Line 0 means the file as a whole."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Diagnostic:
    code: str  # for example GAM201; stable
    message: str
    span: Span | None = None
    path: Path = ()  # inside the document, for example ("spec", "columns", 0)
    address: Address | None = None
    hint: str = ""
    severity: Severity = field(default=Severity.ERROR)


def written(path: Sequence[str | int]) -> str:
    """A path as people write it: `spec.columns[0].name`, odd keys quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.replace("_", "").replace("-", "").isalnum():
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate a person most likely meant, or None when none is close.

    Letter case never counts as a difference. The cut-off 0.6 is difflib's own default.
    """
    import difflib

    by_folded = {candidate.casefold(): candidate for candidate in candidates}
    found = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else None


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """A hint naming the nearest candidate, else the few there are, else nothing."""
    names = sorted(set(candidates))
    if (near := nearest(word, names)) is not None:
        return f"did you mean {near!r}?"
    if names and len(names) <= 12:
        return "one of: " + ", ".join(names)
    return ""
