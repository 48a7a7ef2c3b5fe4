"""Paths inside a spec as people write them: `columns[0].name`, `labels["a.b"]`.

The inverse of `core.diagnostic.written`. Used for lifecycle.ignore and for `gamma explain`.
"""

import re

from gamma_orch.core.diagnostic import Path
from gamma_orch.spec.words import quoted

_PART = re.compile(r"""(?:^|(?<=.)\.)([A-Za-z_$][A-Za-z0-9_$-]*)|\[([0-9]+)\]|\["([^"]+)"\]""")


def parse_path(text: str) -> Path:
    """Read a path; raises ValueError, whose text says what is wrong with it."""
    parts: list[str | int] = []
    at = 0
    while at < len(text):
        found = _PART.match(text, at)
        if found is None:
            raise ValueError(f"The path {quoted(text)} cannot be read from {quoted(text[at:])} on.")
        name, index, odd = found.groups()
        parts.append(int(index) if index is not None else name or odd)
        at = found.end()
    if not parts:
        raise ValueError("The path is empty.")
    return tuple(parts)


def inside_spec(path: Path) -> Path:
    """A path relative to `spec`, whether or not it was written with `spec.` in front."""
    return path[1:] if len(path) > 1 and path[0] == "spec" else path
