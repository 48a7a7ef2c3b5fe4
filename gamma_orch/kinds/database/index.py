"""The kind Index: one index of a table, built and replaced while the table is in use.

How it is built is in `index_build`. A changed definition is built beside the old one and swapped in;
a changed name is a rename. An index that is there and does not work (a build that was cut off) is
seen as unhealthy, and the next apply builds it anew.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Of, Traits
from gamma_orch.core.observation import ABSENT, Observation, Seen
from gamma_orch.core.provider import Asked, Permanent, Task
from gamma_orch.core.resource import Replace
from gamma_orch.kinds.database import agreement, catalog, describing, index_build, index_fields, marks, sql
from gamma_orch.kinds.database.catalog import Catalog, IndexRow
from gamma_orch.kinds.database.passing import (
    Place,
    World,
    asked,
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

if TYPE_CHECKING:
    from gamma_orch.targets.postgres import Postgres

# CREATE INDEX CONCURRENTLY waits for every other one in its database, so they are built one by one.
BUILDS = "index builds"
IMMUTABLE = frozenset({"server", "database", "schema", "table", *index_fields.DEFINITION})


class Key(WrittenOut):
    column: str | None = None
    """A column of the table."""
    expression: str | None = None
    """An expression over its columns, in SQL: lower(email)."""
    order: Literal["asc", "desc"] | None = None
    """Default: asc."""
    nulls: Literal["first", "last"] | None = None
    """Where empty values go. Default: last for asc, first for desc."""
    opclass: str | None = None
    """The operator class, where it is not the type's own: text_pattern_ops, vector_cosine_ops."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.column is None) == (self.expression is None):
            raise ValueError("a key has either a `column` or an `expression`")
        return self


class IndexSpec(WrittenOut):
    table: Annotated[str, Names("Table")]
    """The table it is for."""
    name: str | None = None
    """The name in PostgreSQL. Default: the resource's name, with - and . as _."""
    columns: list[str | Key] = Field(min_length=1)
    """Its keys, in order: names of columns, or column/expression with order, nulls and opclass."""
    include: list[str] = Field(default_factory=list)
    """Columns that are stored in the index and are no keys."""
    unique: bool = False
    """Whether no two rows may share their keys."""
    nulls_not_distinct: bool = Field(default=False, alias="nullsNotDistinct")
    """Whether, for `unique`, two empty values count as the same."""
    where: str | None = None
    """A condition in SQL: only rows that keep it are in the index."""
    method: str = "btree"
    """btree, hash, gin, gist, brin, or that of an extension: hnsw."""
    options: dict[str, str | int | float | bool] = Field(default_factory=dict, alias="with")
    """Storage parameters: fillfactor: 90, m: 16."""


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    table = of(Address("Table", spec["table"]))
    return {
        "mark": str(address),
        "server": table["server"],
        "database": table["database"],
        "schema": table["schema"],
        "table": table["name"],
        "name": spec.get("name") or plain(address.name),
        "method": spec.get("method") or "btree",
        "unique": spec.get("unique") or False,
        "nullsNotDistinct": spec.get("nullsNotDistinct") or False,
        "columns": [index_fields.plain_key(key) for key in spec["columns"]],
        "include": list(spec.get("include") or ()),
        "where": spec.get("where"),
        "with": {name: _option(value) for name, value in (spec.get("with") or {}).items()},
    }


def _option(value: Json) -> Json:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) else value


def foresee(fields: Fields) -> Mapping[str, Json]:
    return {key: fields[key] for key in ("name", "table", "schema", "database", "server")}


def places(fields: Fields) -> list[Place]:
    return [(fields["server"], fields["database"])]


class IndexProvider:
    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        return await passing(self._targets, asked, places, self._look, self._extras)

    async def apply(self, task: Task) -> None:
        """Raises Temporary where somebody holds a lock for longer than two seconds, else Permanent."""
        fields = task.fields
        postgres = self._targets.postgres(fields["server"])
        async with postgres.lock(BUILDS, fields["database"]):
            await self._converge(postgres, task)
        await self._leave_former_place(task)

    async def delete(self, task: Task) -> None:
        """Drop it without stopping anybody. It must carry our mark."""
        await self._drop_at(task, task.recorded or task.live or {})

    async def describe(self, server: str, database: str, name: str) -> Json | None:
        """The spec under which the index as it is would be kept; `name` may be `schema.name`."""
        here = await catalog.read(self._targets.postgres(server), database)
        schema, _, index = name.rpartition(".")
        row = here.indexes.get((schema or "public", index))
        return describing.index(row, here, self._targets.environment) if row else None

    async def _look(self, one: Asked, world: World) -> Observation:
        found = locate(one, world, places, lambda here: self._find(one, here))
        if found is None:
            return ABSENT
        (server, database), row = found
        here = world.at(server, database)
        postgres = self._targets.postgres(server)
        reading = await index_fields.read(postgres, database or "", row, one.wanted, one.recorded)
        seen: dict[str, Json] = {
            "mark": marks.shown(row.comment, self._targets.environment),
            "server": server,
            "database": database,
            "schema": row.schema,
            "table": row.table,
            "name": row.name,
            **reading.fields,
        }
        why = "" if row.valid else "it is invalid: its build was cut off, and no query uses it"
        left = index_build.leftovers(here, row.schema, row.table, row.name) if here else []
        if left:
            names = ", ".join(one.name for one in left)
            why = f"{why}; " * bool(why) + f"a build that was cut off left {names} behind"
        return Seen(seen, foresee(seen), healthy=not why, why=why)

    async def _converge(self, postgres: "Postgres", task: Task) -> None:
        fields = task.fields
        here = await catalog.read(postgres, fields["database"])
        row = self._find(asked(task), here)
        mark = marks.Mark(str(task.address), self._targets.environment)
        if row is not None:
            self._check(row, task)
        for left in index_build.leftovers(here, fields["schema"], fields["table"], fields["name"]):
            await index_build.drop(postgres, fields["database"], left.schema, left.name)
        if row is None or not await self._is_as_wanted(postgres, row, fields):
            if row is not None:
                marks.check_deletable(row.comment, task, self._targets.environment, f"Index {row.name!r}")
            await index_build.build(postgres, fields)
            await index_build.swap(postgres, fields, row, index_build.with_mark(row, mark))
            if row is not None:
                old = sql.fits(fields["name"], index_build.OLD)
                await index_build.drop(postgres, fields["database"], row.schema, old)
        elif row.name != fields["name"]:
            await index_build.rename(postgres, fields, row)
        await self._note_sense(postgres, task, mark)

    async def _is_as_wanted(self, postgres: "Postgres", row: IndexRow, fields: Fields) -> bool:
        if not row.valid or (row.schema, row.table) != (fields["schema"], fields["table"]):
            return False
        reading = await index_fields.read(postgres, fields["database"], row, fields, None)
        return all(reading.fields[part] == fields[part] for part in index_fields.DEFINITION)

    async def _note_sense(self, postgres: "Postgres", task: Task, mark: marks.Mark) -> None:
        """Note in the mark in which words PostgreSQL says what the spec says."""
        fields = task.fields
        here = await catalog.read(postgres, fields["database"])
        row = here.indexes.get((fields["schema"], fields["name"]))
        if row is None:
            raise Permanent(f"{task.address} was built, and somebody dropped it at once.")
        reading = await index_fields.read(postgres, fields["database"], row, fields, None)
        noted = marks.Mark(mark.owner, mark.environment, reading.sense)
        comment = index_build.with_mark(row, noted)
        if comment != row.comment:
            await index_build.note(postgres, fields, comment)

    async def _leave_former_place(self, task: Task) -> None:
        """Once it stands in another database, the one it was in needs it no more."""
        former = task.recorded or {}
        if former and places(former) != places(task.fields):
            await self._drop_at(task, former)

    async def _drop_at(self, task: Task, fields: Fields) -> None:
        postgres = self._targets.postgres(fields["server"])
        database = fields["database"]
        try:
            async with postgres.lock(BUILDS, database):
                here = await catalog.read(postgres, database)
                row = self._find(Asked(task.address, None, fields), here)
                if row is not None:
                    self._check(row, task)
                    what = f"Index {row.name!r} of database {database!r}"
                    marks.check_deletable(row.comment, task, self._targets.environment, what)
                    await index_build.drop(postgres, database, row.schema, row.name)
                for left in index_build.leftovers(here, fields["schema"], fields["table"], fields["name"]):
                    await index_build.drop(postgres, database, left.schema, left.name)
        except MissingDatabase:
            return

    def _check(self, row: IndexRow, task: Task) -> None:
        marks.check_ours(row.comment, task, self._targets.environment, f"Index {row.name!r}")
        if row.constraint:
            raise Permanent(
                f"Index {row.name!r} of table {row.schema}.{row.table} is the means of constraint "
                f"{row.constraint}, so {task.address} does not touch it. Say the constraint in the Table, or "
                "give the index another name."
            )

    def _find(self, one: Asked, here: Catalog) -> IndexRow | None:
        return find(here.indexes, one, self._targets.environment, lambda f: (f["schema"], f["name"]))

    def _extras(self, place: Place, found: Catalog) -> dict[Address, Seen]:
        def fields(row: IndexRow) -> Fields:
            return {"server": place[0], "database": found.database, "schema": row.schema, "name": row.name}

        return marked_extras(found.indexes, "Index", self._targets.environment, fields)


KIND = Kind(
    name="Index",
    family="database",
    summary="An index of a table, built and replaced while the table is in use.",
    spec=IndexSpec,
    provider=IndexProvider,
    traits=Traits(
        normalise=normalise,
        immutable=IMMUTABLE,
        replace=Replace.CREATE_FIRST,
        convergent=True,
        foresee=foresee,
        target=lambda fields: f"postgres/{fields['server']}",
    ),
    outputs={
        "name": "its name",
        "table": "the table it is for",
        "schema": "the schema it is in",
        "database": "the database it is in",
        "server": "the target it is on",
    },
    check=agreement.indexes,
)
