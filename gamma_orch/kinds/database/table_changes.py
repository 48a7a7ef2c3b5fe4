"""From a table as it is to the table that is wanted: the statements, or why there are none.

Pure. What would lose data, or rewrite values in a way that only a person can judge, is refused: that
is a migration. Called by `table`, which sends the statements in one transaction.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.kinds.database import sql
from gamma_orch.kinds.database.catalog import TableRow
from gamma_orch.kinds.database.column_types import widens
from gamma_orch.kinds.database.table_fields import together

ACTIONS = {
    "noAction": "NO ACTION",
    "restrict": "RESTRICT",
    "cascade": "CASCADE",
    "setNull": "SET NULL",
    "setDefault": "SET DEFAULT",
}
IDENTITIES = {"always": "ALWAYS", "byDefault": "BY DEFAULT"}


@dataclass(frozen=True, slots=True)
class Changes:
    statements: list[str] = field(default_factory=list)
    # Constraints that the statements add unchecked, so that writers wait only for a moment; they are
    # checked against the rows afterwards.
    unchecked: list[str] = field(default_factory=list)
    # Columns that go, if they hold nothing.
    dropped: list[str] = field(default_factory=list)


def create(fields: Fields) -> str:
    parts = [_column(name, column) for name, column in fields["columns"].items()]
    if fields.get("primaryKey"):
        parts.append(f"PRIMARY KEY ({sql.idents(fields['primaryKey'])})")
    parts += [f"UNIQUE ({_columns(key)})" for key in fields.get("unique", {})]
    parts += [
        f"CONSTRAINT {sql.ident(name)} CHECK ({text})" for name, text in fields.get("checks", {}).items()
    ]
    parts += [_foreign_key(fields["name"], key, one) for key, one in fields.get("foreignKeys", {}).items()]
    body = ",\n  ".join(parts)
    return f"CREATE TABLE {sql.qualified(fields['schema'], fields['name'])} (\n  {body}\n)"


def refusals(row: TableRow, seen: Fields, wanted: Fields) -> Iterator[str]:
    """What is not done, each as a sentence."""
    for name, column in wanted["columns"].items():
        live = seen["columns"].get(name)
        if live is None:
            continue
        old, new = row.columns[name].type, column["type"]
        if live["type"] != new and isinstance(new, str) and not widens(old, new):
            yield (
                f"Column {name} is {old} and would have to become {new}, which may lose or reject values; "
                "write a migration that converts it, or take the type back."
            )
        if row.columns[name].generated and live["default"] != column["default"]:
            yield f"Column {name} is generated from others; write a migration that makes it an ordinary one."
    live_key, key = seen.get("primaryKey"), wanted.get("primaryKey")
    if live_key and key and live_key != key:
        yield (
            f"The primary key is ({together(live_key)}) and would have to become ({together(key)}); "
            "other tables and readers may rest on it, so write a migration."
        )


def changes(row: TableRow, seen: Fields, wanted: Fields, recorded: Fields) -> Changes:
    """`seen` is the table in the words of `wanted` where both mean the same."""
    made = Changes()
    table = f"ALTER TABLE {sql.qualified(row.schema, row.name)}"
    # What goes first makes room: a constraint that is replaced, a column that a constraint held.
    for name in _gone(row, seen, wanted, recorded):
        made.statements.append(f"{table} DROP CONSTRAINT {sql.ident(name)}")
    for name, column in wanted["columns"].items():
        live = seen["columns"].get(name)
        if live is None:
            made.statements.append(f"{table} ADD COLUMN {_column(name, column)}")
        else:
            made.statements.extend(
                f"{table} ALTER COLUMN {sql.ident(name)} {change}" for change in _altered(live, column)
            )
    for name, column in recorded.get("columns", {}).items():
        # Only as we left it: a column that somebody changed since is somebody's.
        if name not in wanted["columns"] and seen["columns"].get(name) == column:
            made.dropped.append(name)
    _constraints(made, table, seen, wanted)
    return made


def _constraints(made: Changes, table: str, seen: Fields, wanted: Fields) -> None:
    if wanted.get("primaryKey") and not seen.get("primaryKey"):
        made.statements.append(f"{table} ADD PRIMARY KEY ({sql.idents(wanted['primaryKey'])})")
    for key in wanted.get("unique", {}):
        if key not in seen.get("unique", {}):
            made.statements.append(f"{table} ADD UNIQUE ({_columns(key)})")
    for name, text in wanted.get("checks", {}).items():
        if seen.get("checks", {}).get(name) != text:
            made.statements.append(f"{table} ADD CONSTRAINT {sql.ident(name)} CHECK ({text}) NOT VALID")
            made.unchecked.append(name)
    for key, one in wanted.get("foreignKeys", {}).items():
        if seen.get("foreignKeys", {}).get(key) != one:
            made.statements.append(f"{table} ADD {_foreign_key(wanted['name'], key, one)} NOT VALID")
            made.unchecked.append(foreign_key_name(wanted["name"], key))


def _gone(row: TableRow, seen: Fields, wanted: Fields, recorded: Fields) -> Iterator[str]:
    """The names of constraints that are replaced by a changed one, or that we made and nobody wants."""
    for one in row.constraints:
        part, key = {
            "p": ("primaryKey", ""),
            "u": ("unique", together(one.columns)),
            "f": ("foreignKeys", together(one.columns)),
            "c": ("checks", one.name),
        }[one.type]
        if part == "primaryKey":
            live, want, was = seen.get(part), wanted.get(part), recorded.get(part)
        else:
            live, want, was = (tree.get(part, {}).get(key) for tree in (seen, wanted, recorded))
        released = want is None and was is not None and live == was
        replaced = want is not None and live != want and part != "primaryKey"
        if released or replaced:
            yield one.name


def _altered(live: Fields, wanted: Fields) -> Iterator[str]:
    if live["type"] != wanted["type"]:
        yield f"TYPE {wanted['type']}"
    if live["identity"] != wanted["identity"]:
        if wanted["identity"] is None:
            yield "DROP IDENTITY"
        elif live["identity"] is None:
            if not live["nullable"]:
                yield f"ADD GENERATED {IDENTITIES[wanted['identity']]} AS IDENTITY"
        else:
            yield f"SET GENERATED {IDENTITIES[wanted['identity']]}"
    if live["default"] != wanted["default"]:
        yield "DROP DEFAULT" if wanted["default"] is None else f"SET DEFAULT {_expression(wanted['default'])}"
    if live["nullable"] != wanted["nullable"]:
        yield "DROP NOT NULL" if wanted["nullable"] else "SET NOT NULL"
        if live["identity"] is None and wanted["identity"] is not None:
            yield f"ADD GENERATED {IDENTITIES[wanted['identity']]} AS IDENTITY"


def _column(name: str, column: Fields) -> str:
    text = f"{sql.ident(name)} {column['type']}"
    if column.get("identity"):
        text += f" GENERATED {IDENTITIES[column['identity']]} AS IDENTITY"
    if column.get("default") is not None:
        text += f" DEFAULT {_expression(column['default'])}"
    return text if column["nullable"] else f"{text} NOT NULL"


def _expression(value: Json) -> str:
    return str(value)


def _columns(key: str) -> str:
    return sql.idents(key.split(", "))


def foreign_key_name(table: str, key: str) -> str:
    return sql.fits(f"{table}_{key.replace(', ', '_')}", "_fkey")


def _foreign_key(table: str, key: str, one: Fields) -> str:
    return (
        f"CONSTRAINT {sql.ident(foreign_key_name(table, key))} FOREIGN KEY ({_columns(key)}) "
        f"REFERENCES {sql.qualified(one['schema'], one['table'])} ({sql.idents(one['columns'])}) "
        f"ON DELETE {ACTIONS[one['onDelete']]}"
    )
