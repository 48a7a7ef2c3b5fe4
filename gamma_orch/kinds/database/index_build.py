"""Building an index while the table is in use, so that whatever happens can be told afterwards.

The state is read from the catalog, never assumed with IF NOT EXISTS, which calls an invalid index a
success. An index is always built under the name `<name>__new` and takes its own name in the same
transaction as its mark: whatever has the name and no mark is not ours, whatever ends in `__new` or
`__old` is what a cut-off build of ours left behind. An index that is replaced serves queries until
the moment its successor does.

Called by `index`, with the lock of the database's index builds held.
"""

import contextlib
import re
from typing import TYPE_CHECKING

from gamma_orch.core.kind import Fields
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.database import index_fields, marks, sql
from gamma_orch.kinds.database.catalog import Catalog, IndexRow

if TYPE_CHECKING:
    from gamma_orch.targets.postgres import Connection, Postgres

LOCK_TIMEOUT = "2s"  # writers queue behind us for as long; then we let them go and try again later
NEW, OLD = "__new", "__old"


def leftovers(here: Catalog, schema: str, table: str, name: str) -> list[IndexRow]:
    """What cut-off builds of the index `name` left: ours, and those of a REINDEX CONCURRENTLY of it."""
    ours = {sql.fits(name, NEW), sql.fits(name, OLD)}
    reindexed = re.compile(re.escape(name) + r"_cc(new|old)\d*")
    return [
        row
        for row in here.indexes.values()
        if (row.schema, row.table) == (schema, table)
        and (row.name in ours or (not row.valid and reindexed.fullmatch(row.name)))
    ]


async def drop(postgres: "Postgres", database: str, schema: str, name: str) -> None:
    """Drop an index without stopping anybody; its absence is success."""
    async with postgres.session(database) as connection:
        await _prepare(connection)
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {sql.qualified(schema, name)}")


async def build(postgres: "Postgres", fields: Fields) -> None:
    """Build it beside, under its temporary name. What does not come to be leaves nothing behind, or, where
    somebody holds a lock, an invalid index that the next apply removes."""
    import asyncpg

    name = sql.fits(fields["name"], NEW)
    async with postgres.session(fields["database"]) as connection:
        await _prepare(connection)
        try:
            await connection.execute(index_fields.create(fields, name))
        except asyncpg.UniqueViolationError:
            found = await connection.fetchrow(index_fields.duplicates(fields))
            await _clear(connection, fields["schema"], name)
            groups, rows = (found["groups"], found["rows"]) if found else (0, 0)
            raise Permanent(
                f"Index {fields['name']} cannot be unique: in table {fields['schema']}.{fields['table']} "
                f"{rows} rows share their key with another, in {groups} groups. Remove the duplicates, or "
                "take `unique` out; nothing was changed."
            ) from None
        except asyncpg.PostgresError:
            await _clear(connection, fields["schema"], name)
            raise


async def swap(postgres: "Postgres", fields: Fields, old: IndexRow | None, comment: str) -> None:
    """Give the new index its name and its mark, and the old one another name, in one short transaction."""
    schema, name = fields["schema"], fields["name"]
    async with postgres.connection(fields["database"]) as connection, connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        if old is not None:
            aside = sql.ident(sql.fits(name, OLD))
            await connection.execute(f"ALTER INDEX {sql.qualified(old.schema, old.name)} RENAME TO {aside}")
        new = sql.qualified(schema, sql.fits(name, NEW))
        await connection.execute(f"ALTER INDEX {new} RENAME TO {sql.ident(name)}")
        await connection.execute(sql.comment("INDEX", sql.qualified(schema, name), comment))


async def rename(postgres: "Postgres", fields: Fields, row: IndexRow) -> None:
    async with postgres.connection(fields["database"]) as connection, connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        await connection.execute(
            f"ALTER INDEX {sql.qualified(row.schema, row.name)} RENAME TO {sql.ident(fields['name'])}"
        )


async def note(postgres: "Postgres", fields: Fields, comment: str) -> None:
    async with postgres.connection(fields["database"]) as connection:
        await connection.execute(
            sql.comment("INDEX", sql.qualified(fields["schema"], fields["name"]), comment)
        )


def with_mark(row: IndexRow | None, mark: marks.Mark) -> str:
    human, _ = marks.split(row.comment if row else None)
    return marks.joined(human, mark)


async def _prepare(connection: "Connection") -> None:
    await connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
    await connection.execute("SET statement_timeout = 0")


async def _clear(connection: "Connection", schema: str, name: str) -> None:
    import asyncpg

    # Where this is locked out too, the leftover is seen and removed by the next apply.
    with contextlib.suppress(asyncpg.PostgresError):
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {sql.qualified(schema, name)}")
