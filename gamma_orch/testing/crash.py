"""Death at a chosen call: for crash tests of projects, in processes of their own.

Name this module in GAMMA_PLUGINS beside the kinds, and every call of a command on the ledger and on
a provider becomes a counted point. GAMMA_CRASH_AT=12 kills the process, by SIGKILL, at the twelfth;
`GAMMA_CRASH_AT=after create Table/orders` at the first whose name begins so. GAMMA_CRASH_LOG=FILE
writes each point's name on a line of its own, the last one included. Without either variable nothing
is touched.

    store      read the ledger              | before
               a transaction                | its statements are sent; committed
               making the tables            | before, each statement, after
    provider   observe, apply, delete       | before, after
    PostgreSQL each statement with an effect| before, after; CONCURRENTLY ones also while they run
               an embedded server's stop    | before, after

What is killed is what a power cut leaves: nothing runs at exit, nothing is flushed, no lease is
given back. Which number a point gets may differ from run to run where steps run side by side, so a
suite goes on to greater numbers until a run ends by itself.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from gamma_orch.core.address import Address
from gamma_orch.core.observation import Observation
from gamma_orch.core.provider import Asked, Provider, Task
from gamma_orch.engine.world import World
from gamma_orch.spec.kind import Kind
from gamma_orch.store.database import Database, Row, Writing

SENT = 0.003  # seconds until a statement has reached a server nearby, and is not yet done
# Statements that leave nothing behind: of a session, of a transaction before its end, of a pool.
HARMLESS = ("BEGIN", "CREATE TEMP", "ROLLBACK", "SAVEPOINT", "SELECT pg_advisory_unlock_all", "SET ")

AT = "GAMMA_CRASH_AT"
LOG = "GAMMA_CRASH_LOG"

KINDS: list[Kind] = []


class Points:
    """The count. Calls come from the event loop and from the journal's thread."""

    def __init__(self, at: str, log: str) -> None:
        """`at` is a number or the beginning of a name; empty for a process that is only watched."""
        self._number = int(at) if at.isdecimal() else 0
        self._name = "" if at.isdecimal() else at
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if log else None
        self._lock = threading.Lock()
        self._count = 0

    def here(self, name: str) -> None:
        with self._lock:
            self._count += 1
            if self._log is not None:
                os.write(self._log, f"{name}\n".encode())
            if self._count == self._number or (self._name and name.startswith(self._name)):
                os.kill(os.getpid(), signal.SIGKILL)


class Watched:
    """A provider with a point before and after each call."""

    def __init__(self, inner: Provider, kind: str, points: Points) -> None:
        self._inner, self._kind, self._points = inner, kind, points

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        self._points.here(f"before observe {self._kind}")
        found = await self._inner.observe(asked)
        self._points.here(f"after observe {self._kind}")
        return found

    async def apply(self, task: Task) -> None:
        self._points.here(f"before {task.opcode} {task.address} {task.key}")
        await self._inner.apply(task)
        self._points.here(f"after {task.opcode} {task.address} {task.key}")

    async def delete(self, task: Task) -> None:
        self._points.here(f"before {task.opcode} {task.address} {task.key}")
        await self._inner.delete(task)
        self._points.here(f"after {task.opcode} {task.address} {task.key}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def install(points: Points) -> None:
    """Put the points in, for the rest of this process."""
    _watch_providers(points)
    _watch_ledger(points)
    _watch_migrations(points)
    _watch_servers(points)
    _watch_statements(points)


def _watch_providers(points: Points) -> None:
    opened = World.provider

    def provider(self: World, kind: str) -> Provider:
        return Watched(opened(self, kind), kind, points)

    _put(World, "provider", provider)


def _watch_ledger(points: Points) -> None:
    read, transaction = Database.read, Database.transaction

    def reading(self: Database, statement: str, **parameters: Any) -> list[Row]:
        points.here("ledger: before a read")
        return read(self, statement, **parameters)

    @contextmanager
    def writing(self: Database) -> Iterator[Writing]:
        with transaction(self) as open_transaction:
            yield open_transaction
            points.here("ledger: before a commit")
        points.here("ledger: after a commit")

    _put(Database, "read", reading)
    _put(Database, "transaction", writing)


def _watch_migrations(points: Points) -> None:
    from sqlalchemy import Engine, event

    from gamma_orch.store import migrate

    upgrade = migrate.upgrade

    def statement(*_: object) -> None:
        points.here("ledger: before a statement that makes the tables")

    def upgrading(engine: Engine, *rest: Any) -> None:
        points.here("ledger: before making the tables")
        event.listen(engine, "before_cursor_execute", statement)
        try:
            upgrade(engine, *rest)
        finally:
            event.remove(engine, "before_cursor_execute", statement)
        points.here("ledger: after making the tables")

    _put(migrate, "upgrade", upgrading)


def _watch_servers(points: Points) -> None:
    from gamma_orch.targets.embedded_postgres import EmbeddedPostgres

    stop = EmbeddedPostgres._stop

    def stopping(self: EmbeddedPostgres) -> None:
        points.here("server: before it stops")
        stop(self)
        points.here("server: stopped")

    _put(EmbeddedPostgres, "_stop", stopping)


def _watch_statements(points: Points) -> None:
    """`execute` is what effects are made with; what only reads goes through `fetch`."""
    from asyncpg import Connection

    execute = Connection.execute

    async def executing(self: Any, query: str, *arguments: Any, **options: Any) -> Any:
        if query.startswith(HARMLESS):
            return await execute(self, query, *arguments, **options)
        told = " ".join(query.split()[:4])  # never more: the rest of a statement may hold a password
        points.here(f"before sql: {told}")
        running = asyncio.ensure_future(execute(self, query, *arguments, **options))
        if "CONCURRENTLY" in query:
            await asyncio.wait([running], timeout=SENT)
            points.here(f"during sql: {told}")
        answer = await running
        points.here(f"after sql: {told}")
        return answer

    _put(Connection, "execute", executing)


def _put(owner: object, name: str, replacement: Callable[..., Any]) -> None:
    setattr(owner, name, replacement)


if os.environ.get(AT) or os.environ.get(LOG):
    install(Points(os.environ.get(AT, ""), os.environ.get(LOG, "")))
