"""A database as it is: one round trip, parsed into rows. All five kinds compare against this.

`read` is shared: the kinds of one pass of observation get the same reading. See `targets.joined` for
why a reading is never older than the question.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gamma_orch.kinds.database.catalog_query import QUERY

if TYPE_CHECKING:
    from gamma_orch.targets.postgres import Postgres

Key = tuple[str, str]  # schema, name


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A row of pg_settings. `shown` is the value as SHOW prints it, with a unit; `altered` tells that it
    comes from ALTER SYSTEM (or, where the user may not see that, from any configuration file)."""

    setting: str | None
    unit: str | None
    context: str
    vartype: str
    enumvals: list[str] | None
    min_val: str | None
    max_val: str | None
    source: str
    pending_restart: bool
    shown: str | None
    altered: bool


@dataclass(frozen=True, slots=True)
class RoleRow:
    name: str
    comment: str | None
    login: bool
    limit: int
    attributes: tuple[str, ...]  # sorted
    member_of: tuple[str, ...]  # sorted


@dataclass(frozen=True, slots=True)
class SchemaRow:
    name: str
    comment: str | None
    owner: str


@dataclass(frozen=True, slots=True)
class ColumnRow:
    name: str
    type: str
    nullable: bool
    default: str | None
    identity: str  # "a" always, "d" by default, ""
    generated: str  # "s" stored, "v" virtual, ""


@dataclass(frozen=True, slots=True)
class ConstraintRow:
    name: str
    type: str  # p, u, c, f
    valid: bool
    columns: tuple[str, ...]
    check: str | None
    references: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class TableRow:
    schema: str
    name: str
    comment: str | None
    columns: Mapping[str, ColumnRow]  # in the table's order
    constraints: tuple[ConstraintRow, ...]

    @property
    def key(self) -> Key:
        return self.schema, self.name


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One column of an index. `option` has bit 1 for descending, bit 2 for nulls first."""

    column: str | None
    expression: str | None
    option: int
    opclass: str | None  # None for a column that is only included
    opclass_default: bool  # whether it is the one that the type has anyway
    included: bool


@dataclass(frozen=True, slots=True)
class IndexRow:
    schema: str
    table: str
    name: str
    comment: str | None
    valid: bool
    unique: bool
    nulls_not_distinct: bool
    method: str
    where: str | None
    options: Mapping[str, str]
    constraint: str | None  # the constraint that it is the means of
    keys: tuple[KeyRow, ...]

    @property
    def key(self) -> Key:
        return self.schema, self.name


@dataclass(frozen=True, slots=True)
class RelationRow:
    kind: str  # "table" (views too) or "sequence"
    schema: str
    name: str
    owner: str


@dataclass(frozen=True, slots=True)
class GrantRow:
    kind: str  # table, sequence, schema, database
    schema: str
    name: str
    grantee: str
    privilege: str  # lower case
    grantable: bool


@dataclass(frozen=True, slots=True)
class DefaultRow:
    """One default privilege: what `grantee` gets on whatever `creator` makes in `schema`."""

    creator: str
    schema: str | None  # None: everywhere
    kind: str  # r tables, S sequences, f functions, T types, n schemas
    grantee: str
    privilege: str
    grantable: bool


@dataclass(frozen=True, slots=True)
class Catalog:
    version: str
    version_num: int
    database: str
    me: str
    settings: Mapping[str, SettingRow]
    databases: Mapping[str, str | None]  # name -> comment
    roles: Mapping[str, RoleRow]
    extensions: frozenset[str]
    schemas: Mapping[str, SchemaRow]
    relations: tuple[RelationRow, ...]
    tables: Mapping[Key, TableRow]
    indexes: Mapping[Key, IndexRow]
    grants: tuple[GrantRow, ...]
    defaults: tuple[DefaultRow, ...] = field(default=())


async def read(postgres: "Postgres", database: str | None) -> Catalog:
    """The catalog of a database; None is the maintenance database.

    Raises MissingDatabase, Temporary or Permanent.
    """

    async def run(begun: Callable[[], None]) -> Catalog:
        async with postgres.connection(database) as connection:
            begun()
            text = await connection.fetchval(QUERY)
        return parsed(json.loads(text))

    return await postgres.joined.ask(("catalog", database), run)


def parsed(body: Mapping[str, Any]) -> Catalog:
    tables = [_table(row) for row in body["tables"]]
    indexes = [_index(row) for row in body["indexes"]]
    return Catalog(
        version=body["version"],
        version_num=body["version_num"],
        database=body["database"],
        me=body["me"],
        settings={name: SettingRow(*row) for name, row in body["settings"].items()},
        databases=body["databases"],
        roles={name: _role(name, row) for name, row in (body["roles"] or {}).items()},
        extensions=frozenset(body["extensions"] or ()),
        schemas={
            name: SchemaRow(name, row["comment"], row["owner"]) for name, row in body["schemas"].items()
        },
        relations=tuple(RelationRow(*row) for row in body["relations"]),
        tables={row.key: row for row in tables},
        indexes={row.key: row for row in indexes},
        grants=tuple(GrantRow(*row) for row in body["grants"]),
        defaults=tuple(DefaultRow(*row) for row in body["defaults"]),
    )


def _role(name: str, row: Mapping[str, Any]) -> RoleRow:
    return RoleRow(
        name=name,
        comment=row["comment"],
        login=row["login"],
        limit=row["limit"],
        attributes=tuple(sorted(word for word, held in row["attributes"].items() if held)),
        member_of=tuple(sorted(row["memberOf"])),
    )


def _table(row: Mapping[str, Any]) -> TableRow:
    columns = [
        ColumnRow(
            name=column["name"],
            type=column["type"],
            nullable=not column["notNull"],
            default=column["default"],
            identity=column["identity"],
            generated=column["generated"],
        )
        for column in row["columns"]
    ]
    constraints = [
        ConstraintRow(
            name=constraint["name"],
            type=constraint["type"],
            valid=constraint["valid"],
            columns=tuple(constraint["columns"] or ()),
            check=constraint["check"],
            references=constraint["references"],
        )
        for constraint in row["constraints"]
    ]
    return TableRow(
        schema=row["schema"],
        name=row["name"],
        comment=row["comment"],
        columns={column.name: column for column in columns},
        constraints=tuple(constraints),
    )


def _index(row: Mapping[str, Any]) -> IndexRow:
    return IndexRow(
        schema=row["schema"],
        table=row["table"],
        name=row["name"],
        comment=row["comment"],
        valid=row["valid"],
        unique=row["unique"],
        nulls_not_distinct=row["nullsNotDistinct"],
        method=row["method"],
        where=row["where"],
        options=dict(option.split("=", 1) for option in row["with"]),
        constraint=row["constraint"],
        keys=tuple(
            KeyRow(
                key["column"],
                key["expression"],
                key["option"],
                (key["opclass"] or (None, True))[0],
                (key["opclass"] or (None, True))[1],
                key["included"],
            )
            for key in row["keys"]
        ),
    )
