"""A PostgreSQL server as the database kinds see it: connections by database, a lock, a restart.

One `Postgres` a target, made by `targets.Targets`. What always holds: trouble that may pass is
`Temporary` and all else `Permanent`, with the target's name and never its password; prepared
statements are never kept, so that a pgbouncer in between does no harm (except to `lock`, which needs
a session of its own).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qs, quote, urlsplit

from gamma_orch.core.provider import Permanent, Temporary
from gamma_orch.targets.joined import Joined
from gamma_orch.targets.postgres_errors import MissingDatabase, said, translated

if TYPE_CHECKING:
    import asyncpg
    import asyncpg.pool

    from gamma_orch.targets.embedded_postgres import EmbeddedPostgres

    Connection: TypeAlias = (
        asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    )

__all__ = ["MissingDatabase", "Postgres", "said"]

CONNECT_TIMEOUT = 10.0  # seconds
MAINTENANCE = "postgres"  # the database that every server has
POLL = 0.25  # seconds between two tries for the lock


class Postgres:
    def __init__(self, name: str, server: "EmbeddedPostgres | Callable[[], str]", parallel: int = 4) -> None:
        """`server` is the embedded server, or a function that reveals the URL."""
        self.name = name
        self.joined = Joined()
        self._server = server
        self._parallel = parallel
        self._dsn: str | None = None  # None: not asked yet, or lost
        self._pooled: str | None = None  # the one that the pools connect to
        self._pools: dict[str, asyncpg.Pool[asyncpg.Record]] = {}
        self._opening = asyncio.Lock()
        self._locks: dict[str, asyncio.Lock] = {}

    @property
    def embedded(self) -> bool:
        return not callable(self._server)

    @property
    def host_port(self) -> tuple[str, int]:
        """Where it listens. Permanent for an embedded server that was never started."""
        parts = urlsplit(self._dsn or self._known_dsn())
        socket_folder = parse_qs(parts.query).get("host", [""])[0]
        return parts.hostname or socket_folder or "localhost", parts.port or 5432

    @property
    def address(self) -> str:
        """`host:port`, for people."""
        try:
            host, port = self.host_port
        except Permanent:  # never started, or no URL
            return "no address"
        return f"{host}:{port}"

    @property
    def maintenance(self) -> str:
        """The database to connect to for what belongs to no database."""
        return urlsplit(self._dsn or self._known_dsn()).path.lstrip("/") or MAINTENANCE

    @asynccontextmanager
    async def connection(self, database: str | None = None) -> AsyncIterator["Connection"]:
        """A connection for the duration of the block; None is the maintenance database.

        Errors of the server inside the block become Temporary or Permanent too, `MissingDatabase` among
        them. A block must not ask for a second connection: it may wait for itself for ever. It leaves
        no settings behind (SET LOCAL in a transaction, or a `session`): nothing is reset after it, which
        would cost a round trip each time.
        """
        with self._speaking(database):
            pool = await self._pool(database)
            async with pool.acquire(timeout=CONNECT_TIMEOUT * 3) as connection:
                yield connection

    @asynccontextmanager
    async def session(self, database: str | None = None) -> AsyncIterator["Connection"]:
        """A connection of its own, kept out of the pool: for session locks and settings."""
        import asyncpg

        with self._speaking(database):
            connection = await asyncpg.connect(await self._url(), **self._options(database))
            try:
                yield connection
            finally:
                # The session's end releases its locks and settings, whatever state it is in.
                connection.terminate()

    @asynccontextmanager
    async def lock(
        self, what: str, database: str | None = None, patience: float = 30.0
    ) -> AsyncIterator[None]:
        """Nobody else does `what` in this database meanwhile: a session advisory lock.

        Within this process callers queue; another process is waited for `patience` seconds, then
        Temporary is raised. It polls, because a session that blocks on an advisory lock deadlocks with a
        CREATE INDEX CONCURRENTLY of the holder, which waits for all older transactions.
        """
        key = f"gamma {database} {what}"
        async with self._locks.setdefault(key, asyncio.Lock()), self.session(database) as connection:
            deadline = asyncio.get_running_loop().time() + patience
            while not await connection.fetchval("select pg_try_advisory_lock(hashtextextended($1, 0))", key):
                if asyncio.get_running_loop().time() > deadline:
                    raise Temporary(
                        f"Another process is doing the same on {self.title} ({what}); "
                        f"it was waited for {patience:.0f} seconds."
                    )
                await asyncio.sleep(POLL)
            yield

    async def restart(self) -> None:
        """Restart the server, for settings that are read at start only.

        Permanent where it is not Gamma's to restart, or does not come up.
        """
        if callable(self._server):
            raise Permanent(f"Gamma does not run {self.title} and cannot restart it; its operator must.")
        await self.close()
        await asyncio.to_thread(self._server.restart)

    def forget(self, database: str) -> None:
        """Close all connections to a database, which is about to be dropped."""
        pool = self._pools.pop(database, None)
        if pool is not None:
            pool.terminate()

    async def close(self) -> None:
        self._drop_pools()
        self._dsn = None
        await asyncio.sleep(0)  # lets the closed sockets go

    @property
    def title(self) -> str:
        return f"PostgreSQL server {self.name!r} ({self.address})"

    # Inside

    def _known_dsn(self) -> str:
        if callable(self._server):
            return _checked(self._server(), self.name)
        at = self._server.server()
        return f"postgresql://{at.user}:{quote(at.password)}@{at.host}:{at.port}/{MAINTENANCE}"

    async def _url(self) -> str:
        if self._dsn is None:
            if not callable(self._server):
                await asyncio.to_thread(self._server.start)
            self._dsn = self._known_dsn()
            if self._dsn != self._pooled:  # at first, or because it came up again on another port
                self._drop_pools()
                self._pooled = self._dsn
        return self._dsn

    def _drop_pools(self) -> None:
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.terminate()

    def _options(self, database: str | None) -> dict[str, Any]:
        return {
            "database": database or self.maintenance,
            "timeout": CONNECT_TIMEOUT,
            "statement_cache_size": 0,
            "server_settings": {"application_name": "gamma"},
        }

    async def _pool(self, database: str | None) -> "asyncpg.Pool[asyncpg.Record]":
        import asyncpg

        async with self._opening:
            url = await self._url()
            name = database or self.maintenance
            if name not in self._pools:
                # Opens nothing yet: connections are made when they are first needed.
                self._pools[name] = await asyncpg.create_pool(
                    url,
                    min_size=0,
                    max_size=self._parallel + 2,
                    init=_prepared,
                    reset=_left_clean,
                    **self._options(database),
                )
            return self._pools[name]

    @contextmanager
    def _speaking(self, database: str | None) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            known = translated(error, self.title, database or MAINTENANCE)
            if known is None:
                raise
            if isinstance(known, Temporary) and self.embedded:
                self._dsn = None  # perhaps it was killed: the next connection starts it
            raise known from None


async def _prepared(connection: "Connection") -> None:
    # Compiling a query over the catalogs of a big database takes seconds, running it milliseconds.
    await connection.execute("SET jit = off")


async def _left_clean(connection: "Connection") -> None:
    """See `Postgres.connection`. An open transaction is rolled back by asyncpg before this."""


def _checked(url: str, name: str) -> str:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("postgres", "postgresql") and (parts.port is None or parts.port > 0)
    except ValueError:
        known = False
    if not known:
        raise Permanent(
            f"The `url` of target {name!r} is not one of PostgreSQL's. "
            "Write postgresql://user:password@host:5432/database."
        )
    return url
