"""Quoting: the only way by which a name or a text from a spec gets into a statement.

PostgreSQL takes no parameters in DDL, so everything there is quoted here.
"""

from collections.abc import Iterable

MAX_NAME = 63  # bytes; PostgreSQL cuts longer names silently


def ident(name: str) -> str:
    """A name, always quoted. Raises ValueError on a NUL, which PostgreSQL cannot hold."""
    if "\0" in name:
        raise ValueError("a name in PostgreSQL cannot contain a NUL character")
    return '"' + name.replace('"', '""') + '"'


def idents(names: Iterable[str]) -> str:
    return ", ".join(ident(name) for name in names)


def qualified(schema: str, name: str) -> str:
    return f"{ident(schema)}.{ident(name)}"


def literal(text: str) -> str:
    """A text, safe whatever `standard_conforming_strings` says."""
    if "\0" in text:
        raise ValueError("a text in PostgreSQL cannot contain a NUL character")
    quoted = "'" + text.replace("'", "''").replace("\\", "\\\\") + "'"
    return f" E{quoted}" if "\\" in text else quoted


def comment(kind: str, target: str, text: str) -> str:
    """COMMENT ON; `target` is quoted already. An empty text takes the comment away."""
    return f"COMMENT ON {kind} {target} IS {literal(text) if text else 'NULL'}"


def fits(name: str, suffix: str) -> str:
    """`name` + `suffix` within PostgreSQL's length of a name; what is cut is told apart by a digest."""
    whole = name + suffix
    if len(whole.encode()) <= MAX_NAME:
        return whole
    import hashlib

    told = "_" + hashlib.sha256(name.encode()).hexdigest()[:8] + suffix
    return name.encode()[: MAX_NAME - len(told)].decode(errors="ignore") + told
