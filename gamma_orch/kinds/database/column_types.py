"""Types of columns: one spelling for each, as PostgreSQL prints it, and which may become which.

Pure. Types that are not in the standard's long list of synonyms (those of extensions, enums) pass
through; whether such a text means the same as another is asked of PostgreSQL (`probe`).
"""

import re

SYNONYMS = {
    "int": "integer",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "float4": "real",
    "float8": "double precision",
    "float": "double precision",
    "bool": "boolean",
    "decimal": "numeric",
    "dec": "numeric",
    "varchar": "character varying",
    "char varying": "character varying",
    "char": "character",
    "nchar": "character",
    "varbit": "bit varying",
    "timestamptz": "timestamp with time zone",
    "timestamp": "timestamp without time zone",
    "timetz": "time with time zone",
    "time": "time without time zone",
}
SERIAL = {"serial": "integer", "bigserial": "bigint", "smallserial": "smallint"}
INTEGERS = ("smallint", "integer", "bigint")

_SHAPE = re.compile(
    r"(?P<base>[a-z_][\w. ]*?)\s*(?:\((?P<size>[^()]*)\))?(?P<zone>\s+with(?:out)?\s+time\s+zone)?"
)


def canonical(text: str) -> str:
    """The type as PostgreSQL prints it, where it is a standard one. Idempotent."""
    if '"' in text:
        return text
    word = " ".join(text.lower().split())
    bare = re.sub(r"(\s*\[\s*\d*\s*\]| array(\[\d+\])?)+$", "", word)
    array = "[]" if bare != word else ""
    match = _SHAPE.fullmatch(bare)
    if match is None:
        return text.strip()
    size = re.sub(r"\s+", "", match["size"] or "")
    return _one(match["base"], size, match["zone"] or "") + array


def _one(base: str, size: str, zone: str) -> str:
    if base in ("timestamp", "time") and zone:
        name = f"{base}{' '.join(['', *zone.split()])}"
    elif base == "float" and size:
        return "real" if int(size) <= 24 else "double precision"
    else:
        name = SYNONYMS.get(base, base) + zone
    if name in ("character", "bit") and not size:
        size = "1"
    if name == "numeric" and size and "," not in size:
        size += ",0"
    if not size:
        return name
    head, with_zone, tail = name.partition(" with")  # the size stands before "with time zone"
    return f"{head}({size}){with_zone}{tail}" if base.startswith("time") else f"{name}({size})"


def widens(old: str, new: str) -> bool:
    """Whether a column of type `old` can become `new` in place, with every value kept as it is."""
    if old in INTEGERS and new in INTEGERS:
        return INTEGERS.index(old) < INTEGERS.index(new)
    if old == "real" and new == "double precision":
        return True
    from_name, from_size = _sized(old)
    to_name, to_size = _sized(new)
    if from_name == "character varying":
        if new == "text" or (to_name == from_name and not to_size):
            return True
        return to_name == from_name and bool(from_size) and from_size[0] <= to_size[0]
    if from_name == to_name == "numeric":
        if not to_size:
            return True
        return (
            len(from_size) == len(to_size) == 2 and from_size[1] == to_size[1] and from_size[0] <= to_size[0]
        )
    return False


def _sized(text: str) -> tuple[str, list[int]]:
    match = re.fullmatch(r"([a-z ]+?)(?:\((\d+(?:,\d+)*)\))?", text)
    if match is None:
        return text, []
    return match[1], [int(part) for part in match[2].split(",")] if match[2] else []
