"""An index as fields and as SQL: from the catalog's rows in the words of the spec, and back.

Expressions and predicates are compared in the sense that PostgreSQL gives them, as `table_fields` does
for defaults and checks; everything else is compared part by part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.kinds.database import marks, sql
from gamma_orch.kinds.database.catalog import IndexRow, KeyRow
from gamma_orch.kinds.database.probe import probing

if TYPE_CHECKING:
    from gamma_orch.targets.postgres import Postgres

DEFINITION = ("method", "unique", "nullsNotDistinct", "columns", "include", "where", "with")
DESCENDING, NULLS_FIRST = 1, 2


@dataclass(frozen=True, slots=True)
class Reading:
    fields: dict[str, Json]  # DEFINITION, in the words of the spec where the sense is the same
    sense: str  # for the mark; empty where every text is the same letter for letter


def plain_key(given: Json) -> Json:
    """One column of a spec with everything taken out that PostgreSQL does by itself."""
    if not isinstance(given, dict) or ("column" not in given and "expression" not in given):
        return given
    order = given.get("order") or "asc"
    usual = "first" if order == "desc" else "last"
    key = {name: given[name] for name in ("column", "expression", "opclass") if given.get(name) is not None}
    if order == "desc":
        key["order"] = order
    if given.get("nulls") not in (None, usual):
        key["nulls"] = given["nulls"]
    return key["column"] if set(key) == {"column"} else key


def plain_read(row: IndexRow, named: Sequence[Fields] = ()) -> dict[str, Json]:
    """The definition in PostgreSQL's words. Options that no spec names are left out."""
    options = {name for fields in named for name in fields.get("with", {})}
    return {
        "method": row.method,
        "unique": row.unique,
        "nullsNotDistinct": row.nulls_not_distinct,
        "columns": [_key(key) for key in row.keys if not key.included],
        "include": [key.column for key in row.keys if key.included],
        "where": row.where,
        "with": {name: value for name, value in row.options.items() if name in options},
    }


def _key(row: KeyRow) -> Json:
    return plain_key(
        {
            "column": row.column,
            "expression": row.expression,
            "opclass": None if row.opclass_default else row.opclass,
            "order": "desc" if row.option & DESCENDING else "asc",
            "nulls": "first" if row.option & NULLS_FIRST else "last",
        }
    )


async def read(
    postgres: "Postgres", database: str, row: IndexRow, wanted: Fields | None, recorded: Fields | None
) -> Reading:
    """The index as fields. Asks PostgreSQL about texts only where it must: see `probe`."""
    named = [fields for fields in (wanted, recorded) if fields]
    found = plain_read(row, named)
    found["columns"] = _usual_opclasses(row, found["columns"], named)
    sense = ""
    for fields in named:
        if not _only_texts_differ(found, fields):
            continue
        if fields is wanted:
            sense = marks.sense([fields["columns"], fields["where"]], _texts(row))
            _, mark = marks.split(row.comment)
            same = mark is not None and mark.sense == sense
        else:
            same = False
        if same or await _same(postgres, database, row, fields):
            found["columns"], found["where"] = fields["columns"], fields["where"]
            break
    return Reading(found, sense)


def _usual_opclasses(row: IndexRow, found: Sequence[Json], named: Sequence[Fields]) -> list[Json]:
    """A spec may name the operator class that the type has anyway: that is no difference."""
    keys = list(found)
    for fields in named:
        for position, given in enumerate(fields["columns"][: len(keys)]):
            live = row.keys[position]
            if isinstance(given, dict) and given.get("opclass") == live.opclass and live.opclass_default:
                bare = keys[position] if isinstance(keys[position], dict) else {"column": keys[position]}
                keys[position] = {**bare, "opclass": live.opclass}
    return keys


def _texts(row: IndexRow) -> Json:
    return [[key.expression for key in row.keys], row.where]


def _only_texts_differ(found: Fields, fields: Fields) -> bool:
    """Whether two definitions differ, and in expressions only."""
    pairs = list(zip(found["columns"], fields["columns"], strict=False))
    if len(found["columns"]) != len(fields["columns"]) or (found["where"] is None) != (
        fields["where"] is None
    ):
        return False
    if not all(_without_text(live) == _without_text(given) for live, given in pairs):
        return False
    return bool(found["columns"] != fields["columns"] or found["where"] != fields["where"])


def _without_text(key: Json) -> Json:
    return (
        {**key, "expression": ""} if isinstance(key, dict) and isinstance(key.get("expression"), str) else key
    )


async def _same(postgres: "Postgres", database: str, row: IndexRow, fields: Fields) -> bool:
    async with probing(postgres, database) as probe:
        asked = await probe.index(row.schema, row.table, body({**fields, "with": {}, "unique": False}))
    if asked is None:
        return False
    texts, where = asked
    live = [(key.expression, text) for key, text in zip(row.keys, texts, strict=False)]
    return where == row.where and all(mine is None or mine == text for mine, text in live)


def body(fields: Fields) -> str:
    """What follows the table's name in CREATE INDEX."""
    text = f"USING {sql.ident(fields['method'])} ({', '.join(key_sql(key) for key in fields['columns'])})"
    if fields["include"]:
        text += f" INCLUDE ({sql.idents(fields['include'])})"
    if fields["nullsNotDistinct"]:
        text += " NULLS NOT DISTINCT"
    if fields["with"]:
        options = (f"{sql.ident(name)} = {sql.literal(value)}" for name, value in fields["with"].items())
        text += f" WITH ({', '.join(options)})"
    if fields["where"] is not None:
        text += f" WHERE {fields['where']}"
    return text


def create(fields: Fields, name: str) -> str:
    unique = "UNIQUE " if fields["unique"] else ""
    table = sql.qualified(fields["schema"], fields["table"])
    return f"CREATE {unique}INDEX CONCURRENTLY {sql.ident(name)} ON {table} {body(fields)}"


def key_sql(key: Json) -> str:
    if not isinstance(key, dict):
        return sql.ident(key)
    text = bare_sql(key)
    if key.get("opclass"):
        text += f" {sql.ident(key['opclass'])}"
    if key.get("order") == "desc":
        text += " DESC"
    if key.get("nulls"):
        text += f" NULLS {'FIRST' if key['nulls'] == 'first' else 'LAST'}"
    return text


def bare_sql(key: Json) -> str:
    """A key as it stands in GROUP BY."""
    if not isinstance(key, dict):
        return sql.ident(key)
    return f"({key['expression']})" if "expression" in key else sql.ident(key["column"])


def duplicates(fields: Fields) -> str:
    """The query that counts what a unique index forbids: groups, and rows in them."""
    keys = [bare_sql(key) for key in fields["columns"]]
    conditions = [] if fields["nullsNotDistinct"] else [f"{key} IS NOT NULL" for key in keys]
    if fields["where"] is not None:
        conditions.append(f"({fields['where']})")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    table = sql.qualified(fields["schema"], fields["table"])
    groups = f"SELECT count(*) AS n FROM {table}{where} GROUP BY {', '.join(keys)} HAVING count(*) > 1"
    return f"SELECT count(*) AS groups, coalesce(sum(n), 0)::bigint AS rows FROM ({groups}) g"
