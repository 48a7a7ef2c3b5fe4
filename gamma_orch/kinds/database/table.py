"""The kind Table: columns, keys and checks of one table. It grows in place and never loses a row.

What always holds: no change drops a table or a column that holds something, and no value is
converted unless every value survives. The rest is a migration, and refused with that word before
anything is touched. Columns and constraints that no spec ever named are nobody's business here.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Of, Traits
from gamma_orch.core.observation import ABSENT, Observation, Seen
from gamma_orch.core.provider import Asked, Permanent, Task
from gamma_orch.kinds.database import agreement, catalog, describing, marks, sql, table_changes, table_fields
from gamma_orch.kinds.database.catalog import Catalog, TableRow
from gamma_orch.kinds.database.column_types import SERIAL, canonical
from gamma_orch.kinds.database.passing import (
    Place,
    World,
    asked,
    check_stays,
    find,
    locate,
    marked_extras,
    passing,
    plain,
)
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.model import Names
from gamma_orch.spec.written_out import WrittenOut
from gamma_orch.targets import MissingDatabase, Targets
from gamma_orch.targets.postgres_errors import said

if TYPE_CHECKING:
    from gamma_orch.targets.postgres import Postgres

LOCK_TIMEOUT = "2s"  # how long readers and writers may queue behind us; the engine tries again later


class Column(WrittenOut):
    type: str
    """A type of PostgreSQL's: text, bigint, numeric(10,2), timestamptz, uuid, vector(384)."""
    nullable: bool = False
    """Whether the column may be empty."""
    default: str | int | float | bool | None = None
    """An expression of SQL: now(), 0, 'free' (with its quotes), gen_random_uuid()."""
    identity: Literal["always", "byDefault"] | None = None
    """Whether PostgreSQL numbers the rows itself."""

    @field_validator("type")
    @classmethod
    def _no_serial(cls, value: str) -> str:
        if value.lower() in SERIAL:
            raise ValueError(
                f"{value} is no type; say `type: {SERIAL[value.lower()]}` and `identity: always`"
            )
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.identity and self.default is not None:
            raise ValueError("a column has an identity or a default, not both")
        if self.identity and self.nullable is True:
            raise ValueError("a column with an identity is never empty; take `nullable` out")
        return self


class ForeignKey(WrittenOut):
    columns: list[str] = Field(min_length=1)
    """The columns of this table."""
    references: Annotated[str, Names("Table")]
    """The table they lead to."""
    to: list[str] = Field(default_factory=list)
    """The columns there. Default: its primary key."""
    on_delete: Literal["noAction", "restrict", "cascade", "setNull", "setDefault"] = Field(
        default="noAction", alias="onDelete"
    )
    """What becomes of rows here when the row there is deleted."""


class TableSpec(WrittenOut):
    database: Annotated[str, Names("Database")]
    """The database it is in."""
    schema_: Annotated[str, Names("Schema")] | None = Field(default=None, alias="schema")
    """The schema it is in. Default: public."""
    name: str | None = None
    """The name in PostgreSQL. Default: the resource's name, with - and . as _."""
    columns: dict[str, Column] = Field(min_length=1)
    """The columns by name, in the order in which a new table gets them."""
    primary_key: list[str] = Field(default_factory=list, alias="primaryKey")
    """The columns that tell a row from all others."""
    unique: list[list[str]] = Field(default_factory=list)
    """Sets of columns that no two rows share. For a big table in use, make an Index instead."""
    foreign_keys: list[ForeignKey] = Field(default_factory=list, alias="foreignKeys")
    """Columns that lead to rows of other tables."""
    checks: dict[str, str] = Field(default_factory=dict)
    """Conditions that every row keeps, by the name of the constraint."""

    @model_validator(mode="after")
    def _known_columns(self) -> Self:
        used = [("primaryKey", self.primary_key), *(("unique", one) for one in self.unique)]
        used += [("foreignKeys", one.columns) for one in self.foreign_keys]
        for where, names in used:
            unknown = [name for name in names if name not in self.columns]
            if unknown:
                raise ValueError(f"{where} names {', '.join(unknown)}, which is none of the columns")
        odd = [name for _, names in used for name in names if ", " in name]
        if odd:
            raise ValueError(f"{odd[0]!r} has a comma and a blank in it and cannot be part of a key here")
        empty = [name for name in self.primary_key if self.columns[name].nullable is True]
        if empty:
            raise ValueError(f"{', '.join(empty)} is in the primary key and cannot be nullable")
        return self


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    database = of(Address("Database", spec["database"]))
    schema = spec.get("schema")
    fields: dict[str, Json] = {
        "mark": str(address),
        "server": database["server"],
        "database": database["name"],
        "schema": of(Address("Schema", schema))["name"] if schema else "public",
        "name": spec.get("name") or plain(address.name),
        "columns": {name: _column(column) for name, column in spec["columns"].items()},
        "unique": {table_fields.together(columns): True for columns in spec.get("unique") or ()},
        "foreignKeys": {
            table_fields.together(one["columns"]): _foreign_key(one, of)
            for one in spec.get("foreignKeys") or ()
        },
        "checks": dict(spec.get("checks") or {}),
    }
    if spec.get("primaryKey"):
        fields["primaryKey"] = list(spec["primaryKey"])
    return fields


def _column(column: Json) -> Fields:
    default = column.get("default")
    if isinstance(default, bool):
        default = "true" if default else "false"
    elif isinstance(default, (int, float)):
        default = str(default)
    kind = column["type"]
    return {
        "type": canonical(kind) if isinstance(kind, str) else kind,
        "nullable": column.get("nullable") or False,
        "default": default,
        "identity": column.get("identity"),
    }


def _foreign_key(one: Json, of: Of) -> Fields:
    there = of(Address("Table", one["references"]))
    return {
        "schema": there["schema"],
        "table": there["name"],
        "columns": list(one.get("to") or there.get("primaryKey") or ()),
        "onDelete": one.get("onDelete") or "noAction",
    }


def foresee(fields: Fields) -> Mapping[str, Json]:
    return {key: fields[key] for key in ("name", "schema", "database", "server")}


def places(fields: Fields) -> list[Place]:
    return [(fields["server"], fields["database"])]


class TableProvider:
    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        return await passing(self._targets, asked, places, self._look, self._extras)

    async def apply(self, task: Task) -> None:
        """Raises Temporary where somebody holds a lock for longer than two seconds, else Permanent."""
        fields = task.fields
        postgres = self._targets.postgres(fields["server"])
        row = self._find(asked(task), await catalog.read(postgres, fields["database"]))
        if row is None:
            text = marks.joined("", self._mark(task))
            await self._send(postgres, task, [table_changes.create(fields), _comment(fields, text)])
        else:
            await self._alter(postgres, task, row)
        await self._note_sense(postgres, task)

    async def delete(self, task: Task) -> None:
        """Drop the table with all it holds. It must carry our mark, and nothing may rest on it."""
        fields = task.recorded or task.live or {}
        postgres = self._targets.postgres(fields["server"])
        try:
            row = self._find(asked(task), await catalog.read(postgres, fields["database"]))
        except MissingDatabase:
            return
        if row is None:
            return
        what = f"Table {row.schema}.{row.name} of database {fields['database']!r}"
        marks.check_deletable(row.comment, task, self._targets.environment, what)
        await self._send(postgres, task, [f"DROP TABLE {sql.qualified(row.schema, row.name)}"])

    async def describe(self, server: str, database: str, name: str) -> Json | None:
        """The spec under which the table as it is would be kept; `name` may be `schema.name`."""
        here = await catalog.read(self._targets.postgres(server), database)
        schema, _, table = name.rpartition(".")
        row = here.tables.get((schema or "public", table))
        return describing.table(row, here, self._targets.environment) if row else None

    async def _look(self, one: Asked, world: World) -> Observation:
        found = locate(one, world, places, lambda here: self._find(one, here))
        if found is None:
            return ABSENT
        (server, database), row = found
        postgres = self._targets.postgres(server)
        reading = await table_fields.read(postgres, database or "", row, one.wanted, one.recorded)
        seen: dict[str, Json] = {
            "mark": marks.shown(row.comment, self._targets.environment),
            "server": server,
            "database": database,
            "schema": row.schema,
            "name": row.name,
            **reading.fields,
        }
        instead = (
            f"Run ALTER TABLE {sql.qualified(row.schema, row.name)} RENAME TO ... (or SET SCHEMA ...), "
            "or take the spec back."
        )
        check_stays(one, seen, ("server", "database", "schema", "name"), instead)
        if one.wanted:
            refused = list(table_changes.refusals(row, seen, one.wanted))
            if refused:
                raise Permanent(f"{one.address} cannot be changed so. {' '.join(refused)}")
        unchecked = table_fields.unvalidated(row, one.wanted or one.recorded or {})
        why = ", ".join(f"constraint {bad.name} was never checked against all rows" for bad in unchecked)
        return Seen(seen, foresee(seen), healthy=not unchecked, why=why)

    async def _alter(self, postgres: "Postgres", task: Task, row: TableRow) -> None:
        fields = task.fields
        marks.check_ours(row.comment, task, self._targets.environment, f"Table {row.schema}.{row.name}")
        reading = await table_fields.read(postgres, fields["database"], row, fields, task.recorded)
        refused = list(table_changes.refusals(row, reading.fields, fields))
        if refused:
            raise Permanent(f"{task.address} cannot be changed so. {' '.join(refused)}")
        made = table_changes.changes(row, reading.fields, fields, task.recorded or {})
        statements = list(made.statements)
        if marks.shown(row.comment, self._targets.environment) != str(task.address):
            human, _ = marks.split(row.comment)
            statements.append(_comment(fields, marks.joined(human, self._mark(task))))
        await self._send(postgres, task, statements, made.dropped)
        left = [one.name for one in table_fields.unvalidated(row, fields)]
        for name in dict.fromkeys([*made.unchecked, *left]):
            await self._validate(postgres, fields, name, fresh=name in made.unchecked)

    async def _send(
        self, postgres: "Postgres", task: Task, statements: Sequence[str], dropped: Sequence[str] = ()
    ) -> None:
        """All in one transaction: a change happens as a whole or not at all."""
        import asyncpg

        if not statements and not dropped:
            return
        fields = task.fields or task.recorded or {}
        table = sql.qualified(fields["schema"], fields["name"])
        async with postgres.connection(fields["database"]) as connection:
            try:
                async with connection.transaction():
                    await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                    if dropped:
                        # Nobody may write into a column between the look and its end.
                        await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
                    for name in dropped:
                        # count(column) counts what is not null
                        count = f"SELECT count({sql.ident(name)}) FROM {table}"
                        _check_empty(task, name, await connection.fetchval(count))
                        await connection.execute(f"ALTER TABLE {table} DROP COLUMN {sql.ident(name)}")
                    for statement in statements:
                        await connection.execute(statement)
            except asyncpg.NotNullViolationError as error:
                column = error.column_name
                raise Permanent(
                    f"Column {column} of {task.address} would be empty in rows that are there. "
                    "Give it a default, make it nullable, or fill it first; nothing was changed."
                ) from None
            except asyncpg.IntegrityConstraintViolationError as error:
                raise Permanent(
                    f"Rows of {task.address} break what is wanted: {said(error)}. "
                    "Mend the rows first; nothing was changed."
                ) from None

    async def _validate(self, postgres: "Postgres", fields: Fields, name: str, fresh: bool) -> None:
        """Check a constraint against the rows that are there, without stopping writers."""
        import asyncpg

        alter = f"ALTER TABLE {sql.qualified(fields['schema'], fields['name'])}"
        async with postgres.connection(fields["database"]) as connection:
            try:
                await connection.execute(f"{alter} VALIDATE CONSTRAINT {sql.ident(name)}")
            except asyncpg.IntegrityConstraintViolationError as error:
                if fresh:  # half a constraint would surprise writers
                    await connection.execute(f"{alter} DROP CONSTRAINT IF EXISTS {sql.ident(name)}")
                kept = "was not kept" if fresh else "was there before"
                raise Permanent(
                    f"Rows of table {fields['schema']}.{fields['name']} break constraint {name}: "
                    f"{said(error)}. Mend the rows first; the constraint {kept}."
                ) from None

    async def _note_sense(self, postgres: "Postgres", task: Task) -> None:
        """See that the table is as wanted, and note in its mark in which words PostgreSQL says so."""
        fields = task.fields
        row = self._find(asked(task), await catalog.read(postgres, fields["database"]))
        if row is None:
            raise Permanent(f"{task.address} was made, and somebody dropped it at once.")
        reading = await table_fields.read(postgres, fields["database"], row, fields, None)
        human, mark = marks.split(row.comment)
        noted = marks.Mark(str(task.address), self._targets.environment, reading.sense)
        if mark != noted:
            await self._send(postgres, task, [_comment(fields, marks.joined(human, noted))])

    def _mark(self, task: Task) -> marks.Mark:
        return marks.Mark(str(task.address), self._targets.environment)

    def _find(self, one: Asked, here: Catalog) -> TableRow | None:
        return find(here.tables, one, self._targets.environment, lambda f: (f["schema"], f["name"]))

    def _extras(self, place: Place, found: Catalog) -> dict[Address, Seen]:
        def fields(row: TableRow) -> Fields:
            return {"server": place[0], "database": found.database, "schema": row.schema, "name": row.name}

        return marked_extras(found.tables, "Table", self._targets.environment, fields)


def _check_empty(task: Task, column: str, used: int) -> None:
    if used:
        raise Permanent(
            f"Column {column} is no longer in the spec of {task.address}, and {used} rows have a value in "
            "it, so it is not dropped. Empty or drop it yourself, or write a migration; nothing was changed."
        )


def _comment(fields: Fields, text: str) -> str:
    return sql.comment("TABLE", sql.qualified(fields["schema"], fields["name"]), text)


KIND = Kind(
    name="Table",
    family="database",
    summary="A table of a PostgreSQL database; it grows in place and never loses a row.",
    spec=TableSpec,
    provider=TableProvider,
    traits=Traits(
        normalise=normalise,
        convergent=True,
        foresee=foresee,
        target=lambda fields: f"postgres/{fields['server']}",
    ),
    outputs={
        "name": "its name",
        "schema": "the schema it is in",
        "database": "the database it is in",
        "server": "the target it is on",
    },
    check=agreement.tables,
)
