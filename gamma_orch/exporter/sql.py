"""Rows of PostgreSQL as metrics. Always: nothing is written, the connection is kept between scrapes and
opened again where it was lost, and a query that fails keeps no other from being shown."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote, urlsplit

import asyncpg
from prometheus_client import Metric

from gamma_orch.exporter.contract import Query, Sql
from gamma_orch.exporter.source import Failed, Parts, family, reason
from gamma_orch.targets.embedded_postgres import EmbeddedPostgres

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]

ROWS = 1000  # of one query, at most: each is a series for each of its columns
SHARE = 0.9  # of the time that is left: the server ends the query itself, and its connection stays whole
# Where a server's words are about the query, the server or the database, and not about what is in a row.
TOLD = ("25", "3D", "42", "53", "57")


class SqlSource:
    def __init__(self, sql: Sql) -> None:
        self._sql = sql
        self._connection: Connection | None = None

    async def collect(self, seconds: float) -> Parts:
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        connection = await self._open(seconds)
        faults: list[Failed] = []
        try:
            for query in self._sql.queries:
                try:
                    columns, rows = await _run(connection, query, end - clock())
                    families = list(_families(query, columns, rows))
                except (asyncpg.PostgresError, Failed) as error:
                    faults.append(_fault(query, error))
                    if connection.is_closed():
                        break
                    continue
                for each in families:
                    yield each
        except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            self.close()
            raise Failed(f"The connection to {self._sql.postgres.where} was lost: {reason(error)}.") from None
        except BaseException:  # it was broken off in the middle of an answer
            self.close()
            raise
        if faults:
            raise Failed(" ".join(map(str, faults)), late=any(fault.late for fault in faults))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _open(self, seconds: float) -> "Connection":
        if self._connection is None or self._connection.is_closed():
            where = self._sql.postgres.where
            url = _url(self._sql)
            try:
                self._connection = await asyncpg.connect(
                    url,
                    database=self._sql.database or urlsplit(url).path.lstrip("/") or "postgres",
                    timeout=seconds,
                    statement_cache_size=0,  # a pgbouncer in between has none
                    server_settings={"application_name": "gamma-exporter"},
                )
            except TimeoutError:
                raise Failed(f"{where} takes no connection in {seconds:.3g} seconds.", late=True) from None
            except asyncpg.InvalidAuthorizationSpecificationError:  # its words name the user
                raise Failed(f"{where} does not let this user in.") from None
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
                raise Failed(f"{where} takes no connection: {_said(error)}.") from None
        return self._connection


def _url(sql: Sql) -> str:
    if sql.postgres.url is not None:
        return sql.postgres.url.get_secret_value()
    assert sql.postgres.home is not None
    at = EmbeddedPostgres(Path(sql.postgres.home)).server()
    return f"postgresql://{at.user}:{quote(at.password)}@{at.host}:{at.port}/postgres"


async def _run(
    connection: "Connection", query: Query, seconds: float
) -> tuple[set[str], list[asyncpg.Record]]:
    # Not asyncpg's own block: where this is broken off, it would wait for the server to roll back.
    await connection.execute(
        f"BEGIN READ ONLY; SET LOCAL statement_timeout = {max(1, int(seconds * SHARE * 1000))}"
    )
    try:
        statement = await connection.prepare(query.query)
        rows = await (await statement.cursor()).fetch(ROWS + 1)
        columns = {column.name for column in statement.get_attributes()}
    except asyncpg.PostgresError:
        await connection.execute("ROLLBACK")
        raise
    await connection.execute("ROLLBACK")
    return columns, rows


def _families(query: Query, columns: set[str], rows: Sequence[asyncpg.Record]) -> Iterator[Metric]:
    if len(rows) > ROWS:
        raise Failed(f"it gives more than {ROWS:,} rows. Aggregate them")
    for column in (*query.labels, *query.gauges, *query.counters):
        if column not in columns:
            raise Failed(f"it has no column {column}")
    labels = [{name: _text(row[name]) for name in query.labels} for row in rows]
    if len({tuple(each.values()) for each in labels}) < len(rows):
        shown = ", ".join(query.labels) or "it has none"
        raise Failed(f"two rows have the same labels ({shown})")
    for metric, column in query.metrics():
        numbers = [_number(column, row[column]) for row in rows]
        series = [(each, number) for each, number in zip(labels, numbers, strict=True) if number is not None]
        kind = "counter" if column in query.counters else "gauge"
        yield family(metric, query.help or f"{column} of {query.name}.", series, kind)


def _number(column: str, value: object) -> float | None:
    match value:
        case None:
            return None
        case int() | float() | Decimal():  # True is 1
            return float(value)
        case timedelta():
            return value.total_seconds()
        case datetime():
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    raise Failed(f"its column {column} is no number, but a {type(value).__name__}")


def _text(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _fault(query: Query, error: Exception) -> Failed:
    late = isinstance(error, asyncpg.QueryCanceledError)
    return Failed(f"The query {query.name} failed: {_said(error)}.", late)


def _said(error: Exception) -> str:
    if isinstance(error, Failed):
        return str(error)
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate:
        words = str(error.args[0]) if error.sqlstate.startswith(TOLD) else type(error).__name__
        return f"{words} ({error.sqlstate})"
    return reason(error)
