"""The request log, predictions and security events: rows in PostgreSQL, written behind the requests.

A policy has one `Records`, adds a `Record` for each request, and closes it at its end; `worker` adds the
events that `security` tells. Always:

- `add` and `event` neither wait nor raise. Rows wait in memory, as many as `log.waiting` and `TEXTS` allow,
  and `EVENTS` beside them, so that requests drive no event out; beyond that they are counted and dropped.
- Rows go in batches, each in one transaction. While the database cannot be had they wait, and it is tried
  again with growing pauses. A row that PostgreSQL takes in no company is dropped and counted.
- An orderly close writes what is left, within a time limit.
- A row may be there twice, where the connection broke between the commit and the word of it; never in part.
- A text leaves the process sealed or as a digest, as `log.predictions` says; never as it is.

The role that writes needs USAGE on the schema, INSERT and SELECT on the tables (the columns are asked for
before a COPY), and CREATE only where they are not there yet. Where the table of events is missing and it may
not make it, as after an upgrade, events are dropped and counted, and the others are written.
"""

import asyncio
import contextlib
import hashlib
import ipaddress
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, NamedTuple

import asyncpg
import structlog

from gamma_orch.app.bundle import Log
from gamma_orch.app.security import Event

CONNECTING = 5.0  # seconds
WRITING = 30.0  # seconds for one batch
PAUSES = (0.5, 30.0)  # seconds, the first and the longest
TEXTS = 64_000_000  # characters of texts that wait, at most
EVENTS = 5_000  # events that wait, at most
NAME = 256  # characters of a name

Kind = Literal["requests", "predictions", "security"]
Seal = Callable[[str], bytes]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Values = tuple[object, ...]
Row = tuple[str, Values]  # of which table, and its values

REQUESTS = {
    "at": "timestamptz not null",
    "request": "uuid not null",
    "service": "text not null",
    "route": "text not null",
    "model": "text not null",
    "digest": "text not null",  # of the model's artifact
    "principal": "text not null",
    "tenant": "text not null",
    "address": "inet",
    "status": "integer not null",
    "milliseconds": "double precision not null",
    "cache": "text not null",
    "tokens_in": "integer not null",
    "tokens_out": "integer not null",
}
PREDICTIONS = {
    "at": "timestamptz not null",
    "request": "uuid not null",
    "service": "text not null",
    "model": "text not null",
    "digest": "text not null",
    "input_sha256": "bytea",
    "answer_sha256": "bytea",
    "input_sealed": "bytea",
    "answer_sealed": "bytea",
}
SECURITY = {
    "at": "timestamptz not null",  # of the first, where there are several
    "until": "timestamptz not null",  # of the last
    "count": "bigint not null",  # several are one row: sum(count) is how many there were
    "service": "text not null",
    "kind": "text not null",
    "reason": "text not null",
    "detail": "text not null",  # the name of the limit
    "route": "text not null",
    "method": "text not null",
    "principal": "text not null",
    "address": "inet",
    "fingerprint": "text not null",  # of the key, the token, the name of a login
    "request": "uuid",
}
TABLES = {"gamma_requests": REQUESTS, "gamma_predictions": PREDICTIONS, "gamma_security_events": SECURITY}
OF: dict[str, Kind] = dict(zip(TABLES, ("requests", "predictions", "security"), strict=True))
INDEXES = {
    "gamma_security_events": {"gamma_security_events_at": "at", "gamma_security_events_kind_at": "kind, at"}
}


class Record(NamedTuple):
    """One request that was answered."""

    request: str  # its id, a UUID
    service: str
    route: str
    status: int
    seconds: float
    model: str = ""
    digest: str = ""
    principal: str = ""
    tenant: str = ""
    address: str = ""
    cache: str = ""
    tokens_in: int = 0
    tokens_out: int = 0


class Prediction(NamedTuple):
    """What a model was given and what it answered, as they are."""

    given: str
    answer: str


class _Waiting(NamedTuple):
    at: float  # when it was added, which is when the request ended
    record: Record | Event
    said: Prediction | tuple[bytes, bytes] | None  # or the digests of both


class Records:
    def __init__(
        self,
        log: Log,
        url: str | None,
        seal: Seal | None = None,
        *,
        schema: str = "public",
        dropped: Callable[[Kind, int], None] = lambda kind, rows: None,
    ) -> None:
        """`url` None: nothing is kept. `seal` encrypts a text, in a thread. `dropped` is told of lost rows.

        Raises ValueError where texts shall be kept and there is no seal.
        """
        if url is not None and log.predictions == "texts" and seal is None:
            raise ValueError("Predictions are kept as texts, and there is no key to seal them with.")
        self.dropped = 0
        self._log, self._url, self._seal = log, url, seal
        self._schema, self._tell = schema, dropped
        self._kept = url is not None and (log.requests or log.predictions != "none")
        self._kind: Kind = "requests" if log.requests else "predictions"
        self._rows: deque[_Waiting] = deque()
        self._characters = self._events = 0
        self._unmade = False  # there is no table for events, and we may not make it
        self._full, self._closing = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    @property
    def waiting(self) -> int:
        return len(self._rows)

    def add(self, record: Record, prediction: Prediction | None = None) -> None:
        if not self._kept:
            return
        if self._closing.is_set() or len(self._rows) - self._events >= self._log.waiting:
            self._lose(self._kind, 1)
            return
        said: Prediction | tuple[bytes, bytes] | None = None
        if prediction is not None and self._log.predictions == "digests":
            said = _sha256(prediction.given), _sha256(prediction.answer)
        elif prediction is not None and self._log.predictions == "texts":
            characters = len(prediction.given) + len(prediction.answer)
            if self._characters + characters > TEXTS:
                self._lose("predictions", 1)
            else:
                self._characters += characters
                said = prediction
        if said is None and not self._log.requests:
            return
        self._append(_Waiting(time.time(), record, said))

    def event(self, event: Event) -> None:
        if not self._kept:
            return
        if self._closing.is_set() or self._events >= EVENTS:
            self._lose("security", 1)
            return
        self._events += 1
        self._append(_Waiting(event.at, event, None))

    def _append(self, row: _Waiting) -> None:
        """The first one begins the writing, in the running loop."""
        self._rows.append(row)
        if len(self._rows) >= self._log.batch:
            self._full.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self, limit: float = 5.0) -> None:
        """Write what waits, within `limit` seconds; what is left then is counted as lost."""
        self._closing.set()
        self._full.set()
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit):
                    await self._task  # which is cancelled where the time is over
        if self._rows:
            self._lose(self._kind, len(self._rows) - self._events)
            self._lose("security", self._events)
            self._rows.clear()
            self._events = 0
        self._disconnect()

    # Writing

    async def _run(self) -> None:
        pause = 0.0
        while self._rows or not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause or self._log.every):
                    await (self._closing if pause else self._full).wait()
            self._full.clear()
            try:
                while self._rows:
                    await self._write_one_batch()
                    if pause:
                        structlog.get_logger().info("request log written again", waiting=len(self._rows))
                        pause = 0.0
            except Exception as error:  # noqa: BLE001 - whatever it is, the next rows must be written
                self._disconnect()
                if not pause:
                    why = f"{type(error).__name__}: {error}"
                    structlog.get_logger().warning("request log not written", why=why)
                first, longest = PAUSES
                pause = min(max(first, pause * 2), longest) * random.uniform(0.8, 1.2)  # noqa: S311
                if self._closing.is_set():  # then nothing above waits, and there is little time
                    await asyncio.sleep(first / 5)

    async def _write_one_batch(self) -> None:
        # They stay in the queue until they are written; only `add` touches it meanwhile, at the other end.
        waiting = list(islice(self._rows, self._log.batch))
        async with asyncio.timeout(WRITING):
            # In a thread: 500 rows take milliseconds, sealed ones tens of them, which the loop has not.
            rows, unsealed = await asyncio.to_thread(self._prepared, waiting)
            connection = await self._connected()
            taken = [row for row in rows if not (self._unmade and OF[row[0]] == "security")]
            await self._copy(connection, taken)
        self._lose("security", len(rows) - len(taken))
        if unsealed:
            self._lose("predictions", unsealed)
        for one in waiting:
            self._rows.popleft()
            self._characters -= _characters(one)
            self._events -= isinstance(one.record, Event)

    async def _copy(self, connection: Any, rows: Sequence[Row]) -> None:
        """All in one transaction; where a value is not taken, each half for itself."""
        try:
            async with connection.transaction():
                for table, columns in TABLES.items():
                    if values := [one for of, one in rows if of == table]:
                        await connection.copy_records_to_table(
                            table, records=values, columns=list(columns), schema_name=self._schema
                        )
        except (asyncpg.DataError, ValueError, TypeError, OverflowError) as error:
            if len(rows) == 1:
                structlog.get_logger().warning("row of the request log refused", why=type(error).__name__)
                self._lose(OF[rows[0][0]], 1)
                return
            half = len(rows) // 2
            await self._copy(connection, rows[:half])
            await self._copy(connection, rows[half:])

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._url,
                timeout=CONNECTING,
                statement_cache_size=0,  # so that a pgbouncer in between does no harm
                server_settings={"application_name": "gamma"},
            )
            await self._ensure_tables(self._connection)
        return self._connection

    async def _ensure_tables(self, connection: Any) -> None:
        schema, self._unmade = _quoted(self._schema), False
        # Looked for first: IF NOT EXISTS asks for the right to make what is there already.
        missing = [
            table
            for table in TABLES
            if await connection.fetchval("select to_regclass($1)", f"{schema}.{table}") is None
        ]
        if not missing:
            return
        async with connection.transaction():
            # Without the lock, IF NOT EXISTS fails where two workers start at once.
            await connection.execute(
                "select pg_advisory_xact_lock(hashtextextended($1, 0))", f"gamma.records.{self._schema}"
            )
            if await connection.fetchval("select to_regnamespace($1)", schema) is None:
                await connection.execute(f"create schema if not exists {schema}")
            for table in missing:
                try:
                    async with connection.transaction():
                        await self._make(connection, table)
                except asyncpg.InsufficientPrivilegeError as error:
                    if OF[table] != "security":
                        raise
                    self._unmade = True
                    structlog.get_logger().warning("security events not written", why=str(error))

    async def _make(self, connection: Any, table: str) -> None:
        schema = _quoted(self._schema)
        columns = ", ".join(f'"{name}" {kind}' for name, kind in TABLES[table].items())
        await connection.execute(f"create table if not exists {schema}.{table} ({columns})")
        for name, on in INDEXES.get(table, {}).items():
            await connection.execute(f"create index if not exists {name} on {schema}.{table} ({on})")

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    # Rows

    def _prepared(self, waiting: Sequence[_Waiting]) -> tuple[list[Row], int]:
        """And how many texts could not be sealed."""
        rows: list[Row] = []
        unsealed = 0
        for at, record, said in waiting:
            if isinstance(record, Event):
                rows.append(("gamma_security_events", _event(record)))
                continue
            if self._log.requests:
                rows.append(("gamma_requests", _request(at, record)))
            if said is None:
                continue
            try:
                rows.append(("gamma_predictions", self._prediction(at, record, said)))
            except Exception:  # noqa: BLE001 - one text must not keep the others waiting for ever
                unsealed += 1
        return rows, unsealed

    def _prediction(self, at: float, record: Record, said: Prediction | tuple[bytes, bytes]) -> Values:
        head = (
            datetime.fromtimestamp(at, UTC),
            record.request,
            record.service,
            _name(record.model),
            _name(record.digest),
        )
        if not isinstance(said, Prediction):
            return (*head, *said, None, None)
        assert self._seal is not None
        return (*head, None, None, self._seal(said.given), self._seal(said.answer))

    def _lose(self, kind: Kind, rows: int) -> None:
        if rows:
            self.dropped += rows
            self._tell(kind, rows)


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _characters(row: _Waiting) -> int:
    return len(row.said.given) + len(row.said.answer) if isinstance(row.said, Prediction) else 0


def _request(at: float, record: Record) -> Values:
    return (
        datetime.fromtimestamp(at, UTC),
        record.request,
        record.service,
        _name(record.route),
        _name(record.model),
        _name(record.digest),
        _name(record.principal),
        _name(record.tenant),
        _address(record.address),
        record.status,
        record.seconds * 1000,
        _name(record.cache),
        record.tokens_in,
        record.tokens_out,
    )


def _event(event: Event) -> Values:
    return (
        datetime.fromtimestamp(event.at, UTC),
        datetime.fromtimestamp(event.until, UTC),
        event.count,
        event.service,
        event.kind,
        event.reason,
        event.detail,
        event.route,
        event.method,
        _name(event.principal),
        _address(event.address),
        event.fingerprint,
        event.request or None,
    )


def _name(text: str) -> str:
    """What PostgreSQL takes for a text: a name may come from a token, and hold anything."""
    return text[:NAME].encode("utf-8", "replace").decode().replace("\0", "")


@lru_cache(maxsize=4096)
def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:  # a Unix socket has none
        return None


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
