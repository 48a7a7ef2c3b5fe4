"""The kind Schema: a namespace for tables inside a database. Created, marked, dropped when empty."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Of, Traits
from gamma_orch.core.observation import ABSENT, Observation, Seen
from gamma_orch.core.provider import Asked, Permanent, Task
from gamma_orch.kinds.database import catalog, describing, marks, sql
from gamma_orch.kinds.database.catalog import Catalog, SchemaRow
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


class SchemaSpec(WrittenOut):
    database: Annotated[str, Names("Database")]
    """The database it is in."""
    name: str | None = None
    """The name in PostgreSQL. Default: the resource's name, with - and . as _."""


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    database = of(Address("Database", spec["database"]))
    return {
        "mark": str(address),
        "server": database["server"],
        "database": database["name"],
        "name": spec.get("name") or plain(address.name),
    }


def foresee(fields: Fields) -> Mapping[str, Json]:
    return {key: fields[key] for key in ("name", "database", "server")}


def places(fields: Fields) -> list[Place]:
    return [(fields["server"], fields["database"])]


class SchemaProvider:
    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        return await passing(self._targets, asked, places, self._look, self._extras)

    async def apply(self, task: Task) -> None:
        """Raises Temporary or Permanent."""
        fields = task.fields
        here = await catalog.read(self._targets.postgres(fields["server"]), fields["database"])
        row = self._find(asked(task), here)
        name, comment = sql.ident(fields["name"]), row.comment if row else None
        marks.check_ours(comment, task, self._targets.environment, f"Schema {fields['name']!r}")
        human, _ = marks.split(comment)
        text = marks.joined(human, marks.Mark(str(task.address), self._targets.environment))
        statements = [] if row else [f"CREATE SCHEMA {name}"]
        if text != comment:
            statements.append(sql.comment("SCHEMA", name, text))
        postgres = self._targets.postgres(fields["server"])
        async with postgres.connection(fields["database"]) as connection, connection.transaction():
            for statement in statements:
                await connection.execute(statement)

    async def delete(self, task: Task) -> None:
        """Drop it if it is empty and carries our mark; `public` only loses the mark."""
        fields = task.recorded or task.live or {}
        postgres = self._targets.postgres(fields["server"])
        try:
            here = await catalog.read(postgres, fields["database"])
        except MissingDatabase:
            return
        row = self._find(asked(task), here)
        if row is None:
            return
        what = f"Schema {row.name!r} of database {fields['database']!r}"
        if row.name == "public":
            # It was there before us and belongs to nobody.
            marks.check_ours(row.comment, task, self._targets.environment, what)
            human, _ = marks.split(row.comment)
            statement = sql.comment("SCHEMA", sql.ident(row.name), human)
        else:
            marks.check_deletable(row.comment, task, self._targets.environment, what)
            inside = sorted(one.name for one in here.relations if one.schema == row.name)
            if inside:
                some = ", ".join(inside[:5]) + (" and more" if len(inside) > 5 else "")
                raise Permanent(
                    f"{what} still has {some} in it. "
                    "Move or drop what is in it; Gamma does not drop what it did not make."
                )
            statement = f"DROP SCHEMA {sql.ident(row.name)}"
        async with postgres.connection(fields["database"]) as connection:
            await connection.execute(statement)

    async def describe(self, server: str, database: str, name: str) -> Json | None:
        """The spec under which the schema as it is would be kept; None where there is none."""
        here = await catalog.read(self._targets.postgres(server), database)
        if name not in here.schemas:
            return None
        return {"database": describing.database(here, self._targets.environment), "name": name}

    async def _look(self, one: Asked, world: World) -> Observation:
        found = locate(one, world, places, lambda here: self._find(one, here))
        if found is None:
            return ABSENT
        (server, database), row = found
        seen = {
            "mark": marks.shown(row.comment, self._targets.environment),
            "server": server,
            "database": database,
            "name": row.name,
        }
        instead = f"Run ALTER SCHEMA {sql.ident(row.name)} RENAME TO ..., or take the spec back."
        check_stays(one, seen, ("server", "database", "name"), instead)
        return Seen(seen, foresee(seen))

    def _find(self, one: Asked, here: Catalog) -> SchemaRow | None:
        return find(here.schemas, one, self._targets.environment, lambda fields: str(fields["name"]))

    def _extras(self, place: Place, found: Catalog) -> dict[Address, Seen]:
        def fields(row: SchemaRow) -> Fields:
            return {"server": place[0], "database": found.database, "name": row.name}

        return marked_extras(found.schemas, "Schema", self._targets.environment, fields)


KIND = Kind(
    name="Schema",
    family="database",
    summary="A schema of a PostgreSQL database.",
    spec=SchemaSpec,
    provider=SchemaProvider,
    traits=Traits(
        normalise=normalise,
        convergent=True,
        foresee=foresee,
        target=lambda fields: f"postgres/{fields['server']}",
    ),
    outputs={"name": "its name", "database": "the database it is in", "server": "the target it is on"},
)
