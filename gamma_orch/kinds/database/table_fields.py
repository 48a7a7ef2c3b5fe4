"""A table as fields: from the catalog's rows, in the spelling of the spec where both mean the same.

The spec says `default: now()` or `check: price > 0`, PostgreSQL says `(price > (0)::numeric)`. `read`
answers in the words of the spec as long as the sense is the same, so that a difference in the fields is
a difference in the table.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.kinds.database import marks
from gamma_orch.kinds.database.catalog import ColumnRow, ConstraintRow, TableRow
from gamma_orch.kinds.database.probe import Probe, probing

if TYPE_CHECKING:
    from gamma_orch.targets.postgres import Postgres

ACTIONS = {"a": "noAction", "r": "restrict", "c": "cascade", "n": "setNull", "d": "setDefault"}
IDENTITIES = {"a": "always", "d": "byDefault"}
PARTS = ("columns", "primaryKey", "unique", "foreignKeys", "checks")


@dataclass(frozen=True, slots=True)
class Reading:
    fields: dict[str, Json]  # PARTS, in the words of the spec where the sense is the same
    sense: str  # for the mark; empty where every text is the same letter for letter


def together(columns: "tuple[str, ...] | list[str]") -> str:
    """The key under which a constraint on these columns is kept."""
    return ", ".join(columns)


def plain_read(row: TableRow, named: "list[Fields]") -> dict[str, Json]:
    """The parts of a table that specs name, in PostgreSQL's words. What no spec names is left out."""
    columns = {name: _column(row.columns[name]) for name in _names(named, "columns") if name in row.columns}
    fields: dict[str, Json] = {"columns": columns}
    by_columns = {
        kind: {together(one.columns): one for one in row.constraints if one.type == kind} for kind in "puf"
    }
    if any("primaryKey" in fields for fields in named) and by_columns["p"]:
        fields["primaryKey"] = list(next(iter(by_columns["p"].values())).columns)
    fields["unique"] = {key: True for key in _names(named, "unique") if key in by_columns["u"]}
    foreign = by_columns["f"]
    fields["foreignKeys"] = {
        key: _foreign_key(foreign[key]) for key in _names(named, "foreignKeys") if key in foreign
    }
    checks = {one.name: one.check for one in row.constraints if one.type == "c"}
    fields["checks"] = {name: checks[name] for name in _names(named, "checks") if name in checks}
    return fields


def unvalidated(row: TableRow, fields: Fields) -> list[ConstraintRow]:
    """Constraints of ours that were added and never checked against the rows that were there."""
    return [
        one
        for one in row.constraints
        if not one.valid
        and (
            (one.type == "f" and together(one.columns) in fields.get("foreignKeys", {}))
            or (one.type == "c" and one.name in fields.get("checks", {}))
        )
    ]


async def read(
    postgres: "Postgres", database: str, row: TableRow, wanted: Fields | None, recorded: Fields | None
) -> Reading:
    """The table as fields. Asks PostgreSQL about texts only where it must: see `probe`."""
    named = [fields for fields in (wanted, recorded) if fields]
    found = plain_read(row, named)
    spoken = [fields for fields in named if _doubts(found, fields)]
    if not spoken:
        return Reading(found, "")
    sense = marks.sense(_parts(wanted or {}), plain_read(row, [wanted])) if wanted else ""
    _, mark = marks.split(row.comment)
    if sense and mark is not None and mark.sense == sense:
        for path in _doubts(found, wanted or {}):
            _put(found, path, _get(wanted or {}, path))
        spoken = [fields for fields in named if fields is not wanted and _doubts(found, fields)]
        settled = set(_texts(wanted or {}))
    else:
        settled = set()
    if spoken:
        async with probing(postgres, database) as probe:
            for fields in spoken:
                for path in _doubts(found, fields):
                    if path not in settled and await _same(probe, row, path, fields):
                        _put(found, path, _get(fields, path))
                        settled.add(path)
    return Reading(found, sense)


def _parts(fields: Fields) -> dict[str, Json]:
    return {part: fields[part] for part in PARTS if part in fields}


def _names(named: "list[Fields]", part: str) -> list[str]:
    return list(dict.fromkeys(name for fields in named for name in fields.get(part, {})))


def _column(row: ColumnRow) -> dict[str, Json]:
    default = row.default
    if row.generated:
        default = f"generated always as {row.default}"
    return {
        "type": row.type,
        "nullable": row.nullable,
        "default": default,
        "identity": IDENTITIES.get(row.identity),
    }


def _foreign_key(row: ConstraintRow) -> dict[str, Json]:
    references: Mapping[str, Json] = row.references or {}
    return {
        "schema": references["schema"],
        "table": references["table"],
        "columns": references["columns"],
        "onDelete": ACTIONS[references["onDelete"]],
    }


# The texts of which two may have one sense

Path = tuple[str, ...]


def _texts(fields: Fields) -> Iterator[Path]:
    for name, column in fields.get("columns", {}).items():
        for part in ("type", "default"):
            if isinstance(column.get(part), str):
                yield "columns", name, part
    for name, expression in fields.get("checks", {}).items():
        if isinstance(expression, str):
            yield "checks", name


def _doubts(found: Fields, fields: Fields) -> list[Path]:
    """Where the table has a text, the spec has one, and they are not the same letters."""
    return [
        path
        for path in _texts(fields)
        if isinstance(_get(found, path), str) and _get(found, path) != _get(fields, path)
    ]


async def _same(probe: Probe, row: TableRow, path: Path, fields: Fields) -> bool:
    if path[0] == "checks":
        live = next((one.check for one in row.constraints if one.type == "c" and one.name == path[1]), None)
        return live is not None and await probe.check(row.schema, row.name, _get(fields, path)) == live
    column = row.columns[path[1]]
    if path[2] == "type":
        asked = await probe.column(_get(fields, path), None)
        return asked is not None and asked[0] == column.type
    asked = await probe.column(column.type, _get(fields, path))
    return asked is not None and asked[1] == column.default and not column.generated


def _get(tree: Fields, path: Path) -> Json:
    here: Json = tree
    for part in path:
        here = here.get(part) if isinstance(here, Mapping) else None
    return here


def _put(tree: dict[str, Json], path: Path, value: Json) -> None:
    here = tree
    for part in path[:-1]:
        here = here[part]
    here[path[-1]] = value
