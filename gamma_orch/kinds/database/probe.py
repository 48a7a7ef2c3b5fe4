"""What PostgreSQL makes of an expression, asked of PostgreSQL: tried on an empty temporary table in a
transaction that is rolled back.

Only asked where two texts differ and may still mean the same (`'x'` and `'x'::text`), and only until
the next apply notes their sense in the mark (`marks.sense`). Every text is tried by itself, so one that
is wrong spoils no other; what PostgreSQL does not accept is None.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from gamma_orch.kinds.database import sql

if TYPE_CHECKING:
    from gamma_orch.targets.postgres import Connection, Postgres

TEMPORARY = "gamma_probe"


@asynccontextmanager
async def probing(postgres: "Postgres", database: str) -> AsyncIterator["Probe"]:
    async with postgres.connection(database) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            yield Probe(connection)
        finally:
            await transaction.rollback()


class Probe:
    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    async def column(self, kind: str, default: str | None) -> tuple[str, str | None] | None:
        """The type and default of a column that is made so, as PostgreSQL reads them back."""
        given = f" DEFAULT {default}" if default is not None else ""
        found = await self._try(
            [f"CREATE TEMP TABLE {TEMPORARY} (c {kind}{given})"],
            """select format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid)
               from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
               where a.attrelid = 'pg_temp.gamma_probe'::regclass and a.attnum = 1""",
        )
        return (found[0][0], found[0][1]) if found else None

    async def check(self, schema: str, table: str, expression: str) -> str | None:
        """A check of a table, as PostgreSQL reads it back."""
        found = await self._try(
            [
                f"CREATE TEMP TABLE {TEMPORARY} (LIKE {sql.qualified(schema, table)})",
                f"ALTER TABLE {TEMPORARY} ADD CONSTRAINT probe CHECK ({expression})",
            ],
            """select pg_get_expr(conbin, conrelid) from pg_constraint
               where conrelid = 'pg_temp.gamma_probe'::regclass and conname = 'probe'""",
        )
        return str(found[0][0]) if found else None

    async def index(self, schema: str, table: str, body: str) -> tuple[list[str], str | None] | None:
        """The keys and the predicate of an index, as PostgreSQL reads them back.

        `body` is what follows the table's name in CREATE INDEX.
        """
        found = await self._try(
            [
                f"CREATE TEMP TABLE {TEMPORARY} (LIKE {sql.qualified(schema, table)})",
                f"CREATE INDEX {TEMPORARY}_i ON {TEMPORARY} {body}",
            ],
            """select (select array_agg(pg_get_indexdef(indexrelid, n, false) order by n)
                       from generate_series(1, indnkeyatts) n),
                      pg_get_expr(indpred, indrelid)
               from pg_index where indrelid = 'pg_temp.gamma_probe'::regclass""",
        )
        return (list(found[0][0]), found[0][1]) if found else None

    async def _try(self, statements: Sequence[str], query: str) -> list[Any] | None:
        import asyncpg

        savepoint = self._connection.transaction()
        await savepoint.start()
        try:
            for statement in statements:
                await self._connection.execute(statement)
            rows: list[Any] = await self._connection.fetch(query)
        except (asyncpg.SyntaxOrAccessError, asyncpg.DataError, asyncpg.FeatureNotSupportedError):
            return None
        else:
            return rows
        finally:
            await savepoint.rollback()
