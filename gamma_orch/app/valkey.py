"""The connection of a worker to Valkey. Called by `limits` and `cache`; the worker starts and closes it.

One connection carries all: commands that are sent in one tick of the event loop leave in one write, replies
come in their order, and between them Valkey pushes which keys others have changed (RESP3). Always:

- `send` answers or raises `Gone`, and nothing else, within its time-out and a fifth of it. While Valkey is
  gone it raises at once: a server that is dead or hangs costs one time-out, not one for each request.
- A reply belongs to its command, whoever was cancelled meanwhile: what is late ends the connection, and with
  it everything that waits on it, so no reply ever meets another connection's commands.
- It is made anew behind the scenes, sooner or later: first after 50 ms, then ever more rarely, each second
  at last. One that is silent is told from one that is idle by a PING a second.
- Who tracks keys is told of every change by others, in the order in which it happened among the replies, and
  that anything may have changed whenever the connection was lost or is there again.
"""

import asyncio
import hashlib
import logging
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

# Of redis-py only the reading of the URL and of its TLS options is used; packing and parsing are hiredis',
# which redis-py packs and parses by too. Measured, 64 at once, microseconds of CPU for one EVALSHA: 14.8 by a
# pipeline for each tick, 6.7 with a redis-py connection packed directly, 2.8 so. And redis-py's asyncio
# connection drops an invalidation, unless a handler is put into its parser, which is private; here it is
# a reply of another type.

TIMEOUT = 0.25
WAITING = 10_000
_TICKS = 5  # in a time-out
_BEAT = 1.0  # seconds between two PINGs
_CONNECT = 1.0  # seconds for a connection to be made
_FIRST, _LONGEST = 0.05, 1.0  # seconds between two tries
_MORE = object()

Word = bytes | str | int | float
Heard = Callable[[list[bytes] | None], None]

_log = logging.getLogger(__name__)


class Gone(Exception):
    """Valkey gives no answer: it is not there, it is late, or too much waits for it already. Whether the
    command was carried out is not known."""


class Refused(Gone):
    """Valkey answered with an error. Its first word says which: NOSCRIPT, OOM, NOPERM, ..."""


class Script:
    """A Lua script, which Valkey is sent once and knows by its hash from then on."""

    def __init__(self, text: str) -> None:
        self.text = text.encode()

    @cached_property
    def sha(self) -> bytes:
        return hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


class Valkey:
    def __init__(self, url: str, timeout: float = TIMEOUT, waiting: int = WAITING) -> None:
        """`url`: redis://, rediss:// (with redis-py's ssl_* options) or unix://, with user and password.
        `waiting`: commands without an answer, at most. Raises ValueError for what is no such URL."""
        try:
            options = _options(url)
            self._tls = _tls(options)
        except (ValueError, TypeError, OSError) as error:
            # Neither the URL nor the library's words for what is wrong with it: there is a password in it.
            raise ValueError(
                "The URL of Valkey cannot be used. Write redis://, rediss:// or unix://, percent-encode the "
                f"password, and name certificates by files that are there ({type(error).__name__})."
            ) from None
        self._options = options
        self._timeout, self._waiting = timeout, waiting
        self._heard: list[tuple[bytes, Heard]] = []
        self._wire: _Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self.losses = 0
        """Connections that ended, for metrics."""

    @property
    def up(self) -> bool:
        return self._wire is not None

    @property
    def where(self) -> str:
        """Where it is, without who asks."""
        host, port = self._options.get("host", "localhost"), self._options.get("port", 6379)
        return str(self._options.get("path") or f"{host}:{port}")

    async def start(self) -> None:
        """Returns when Valkey is there, or was not at the first try."""
        tried = asyncio.Event()
        self._task = asyncio.create_task(self._stay(tried), name="valkey")
        self._task.add_done_callback(lambda _: tried.set())
        await tried.wait()

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def send(self, *command: Word) -> asyncio.Future[Any]:
        """The reply, as bytes, int, None, list or dict. It is sent in this tick, whenever it is awaited.
        Raises Gone on awaiting."""
        wire = self._wire
        if wire is None:
            return _failed("Valkey is not there.")
        if wire.waiting >= self._waiting:
            return _failed(f"{self._waiting:,} commands wait for Valkey already.")
        return wire.send(command)

    def tell(self, *command: Word) -> None:
        """As `send`, and nobody wants to know what came of it."""
        if self._wire is not None and self._wire.waiting < self._waiting:
            self._wire.tell(command)

    def call(self, script: Script, keys: Sequence[Word], *arguments: Word) -> Awaitable[Any]:
        """Run a script; sent in this tick, like `send`."""
        rest = (len(keys), *keys, *arguments)
        return self._called(self.send(b"EVALSHA", script.sha, *rest), script, rest)

    async def _called(self, reply: asyncio.Future[Any], script: Script, rest: tuple[Word, ...]) -> Any:
        try:
            return await reply
        except Refused as refused:
            if not str(refused).startswith("NOSCRIPT"):
                raise
        return await self.send(b"EVAL", script.text, *rest)

    def track(self, prefix: bytes, heard: Heard) -> Callable[[], None]:
        """From now on `heard` is called with the keys under `prefix` that others change or that expire, and
        with None whenever anything may have changed unheard. What is changed through this very object is not
        told, but for what a script changes. Prefixes must not overlap, unless they are the same.

        `heard` must be quick and not raise. Returns what ends it.
        """
        # Not a connection of its own, for two reasons. Here a push and a reply come in the order in which
        # Valkey saw the commands; and NOLOOP, which spares a worker the news of its own writes, and with it
        # the loss of what it has just cached, goes by connection.
        one = (prefix, heard)
        self._heard.append(one)
        if self._wire is not None:
            self._wire.track(self._prefixes())
        return lambda: self._heard.remove(one) if one in self._heard else None

    async def _stay(self, tried: asyncio.Event) -> None:
        """Have a connection, always."""
        loop = asyncio.get_running_loop()
        delay, said = _FIRST, ""
        while True:
            try:
                wire = await self._open()
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not be the last try
                why = str(error) or "There was no answer."
                tried.set()
            else:
                began = loop.time()
                self._everything()
                self._wire = wire
                tried.set()
                if said:
                    _log.warning("Valkey at %s is there again.", self.where)
                    said = ""
                wire.track(self._prefixes())  # of those who came while it was being made
                try:
                    why = await asyncio.shield(wire.ended)  # its being cancelled would not be its end
                finally:
                    wire.end("The connection to Valkey was closed.")
                if loop.time() - began > _LONGEST:
                    delay = _FIRST
            if why != said:
                _log.warning("Valkey at %s is gone. %s", self.where, why)
                said = why
            # Not all workers at once: they all lost it in one moment.
            await asyncio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - nothing to guess
            delay = min(2 * delay, _LONGEST)

    async def _open(self) -> "_Wire":
        """A connection that has said who it is and has seen Valkey answer. Raises OSError or Gone."""
        loop, options = asyncio.get_running_loop(), self._options
        wire = _Wire(self._timeout, self._pushed, self._lost)
        try:
            async with asyncio.timeout(_CONNECT):
                if "path" in options:
                    await loop.create_unix_connection(lambda: wire, options["path"])
                else:
                    host, port = options.get("host", "localhost"), options.get("port", 6379)
                    await loop.create_connection(lambda: wire, host, port, ssl=self._tls)
            who = (options.get("username") or "default", options["password"]) if "password" in options else ()
            await wire.send(("HELLO", 3, *(("AUTH", *who) if who else ())))
            if options.get("db"):
                await wire.send(("SELECT", options["db"]))
            for told in wire.track(self._prefixes()):
                await told
            await wire.send(("PING",))  # it may be up and still read its file: then it says LOADING
            if wire.ended.done():  # since it answered
                raise Gone(wire.ended.result())  # noqa: TRY301 - it ends as the others do
        except BaseException:
            wire.end("The connection to Valkey was not made.")
            raise
        return wire

    def _prefixes(self) -> frozenset[bytes]:
        return frozenset(prefix for prefix, _ in self._heard)

    def _lost(self, wire: "_Wire") -> None:
        if self._wire is wire:
            self._wire = None
            self.losses += 1
            self._everything()

    def _pushed(self, push: list[Any]) -> None:
        if push[0] != b"invalidate":
            return
        if push[1] is None:  # FLUSHALL
            self._everything()
            return
        for prefix, heard in tuple(self._heard):
            if keys := [key for key in push[1] if key.startswith(prefix)]:
                heard(keys)

    def _everything(self) -> None:
        for _, heard in tuple(self._heard):
            heard(None)


class _Wire(asyncio.Protocol):
    """One connection, from its beginning to its end."""

    def __init__(
        self,
        timeout: float,
        pushed: Callable[[list[Any]], None],
        lost: Callable[["_Wire"], None],
    ) -> None:
        self._tracked: frozenset[bytes] = frozenset()
        self._pushed, self._lost = pushed, lost
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reader = hiredis.Reader(replyError=Refused, notEnoughData=_MORE)
        self._out: list[bytes] = []
        self._asked: deque[asyncio.Future[Any] | None] = deque()  # None: nobody waits for this reply
        # Late is what is not answered after so many ticks, not after so many seconds: a loop that stood still
        # for a second has its replies waiting in the socket, and not one tick more.
        self._tick = timeout / _TICKS
        self._marks = deque([0] * _TICKS, maxlen=_TICKS)  # what had been sent at each of the last ticks
        self._sent = 0
        self._rhythm, self._ticks = max(1, round(_BEAT / self._tick)), 0

    @property
    def waiting(self) -> int:
        return len(self._asked)

    def send(self, command: tuple[Word, ...]) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        if self.ended.done():
            future.set_exception(Gone(self.ended.result()))
        else:
            self._put(command, future)
        return future

    def tell(self, command: tuple[Word, ...]) -> None:
        self._put(command, None)

    def track(self, prefixes: frozenset[bytes]) -> list[asyncio.Future[Any]]:
        """From here on, in the order of the commands. Not to be allowed to is the end of the connection:
        better to have none than to answer from what nobody can call back."""
        told = [
            self.send(("CLIENT", "TRACKING", "ON", "BCAST", "NOLOOP", "PREFIX", prefix))
            for prefix in sorted(prefixes - self._tracked)
        ]
        self._tracked |= prefixes
        for one in told:
            one.add_done_callback(self._needed)
        return told

    def _needed(self, reply: asyncio.Future[Any]) -> None:
        if not reply.cancelled() and (error := reply.exception()) is not None:
            self.end(str(error))

    def _put(self, command: tuple[Word, ...], future: asyncio.Future[Any] | None) -> None:
        packed = hiredis.pack_command(command)  # type: ignore[arg-type] # its stub says one word, and means many
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        self._asked.append(future)
        self._sent += 1

    def _flush(self) -> None:
        if self._transport is not None and not self.ended.done():
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def end(self, why: str) -> None:
        """Nothing is sent or heard from here on, and who waits is told. Again, it does nothing."""
        if self.ended.done():
            return
        self.ended.set_result(why)
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        asked, self._asked = self._asked, deque()
        for future in asked:
            if future is not None and not future.done():
                future.set_exception(Gone(why))
        self._lost(self)

    def _watch(self) -> None:
        if self._sent - len(self._asked) < self._marks[0]:
            self.end("Valkey did not answer in time.")
            return
        self._marks.append(self._sent)
        self._ticks += 1
        if self._ticks % self._rhythm == 0:
            self.tell((b"PING",))
        self._timer = self._loop.call_later(self._tick, self._watch)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, and does not say so
        if self.ended.done():
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(self._tick, self._watch)

    def data_received(self, data: bytes) -> None:
        if self.ended.done():
            return
        asked = self._asked
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _MORE:
                if isinstance(reply, hiredis.PushNotification):
                    self._pushed(reply)
                    continue
                future = asked.popleft()
                if future is None or future.done():
                    continue
                if isinstance(reply, Refused):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
        except (hiredis.HiredisError, IndexError):
            self.end("What answers there does not speak as Valkey does.")

    def connection_lost(self, error: Exception | None) -> None:
        self.end("The connection to Valkey was cut off.")


def _options(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme != "unix":
        from redis.asyncio.connection import parse_url

        return {**parse_url(url)}
    # A server on this machine, as Gamma runs one: redis-py would be 8 MB of each worker, for this line.
    found: dict[str, Any] = {"path": unquote(parts.path)}
    for name, value in (("username", parts.username), ("password", parts.password)):
        if value:
            found[name] = unquote(value)
    if db := parse_qs(parts.query).get("db"):
        found["db"] = int(db[0])
    return found


def _tls(options: dict[str, Any]) -> ssl.SSLContext | None:
    if "connection_class" not in options:
        return None
    from redis.asyncio.connection import SSLConnection

    if options.get("connection_class") is not SSLConnection:
        return None
    named = {name: value for name, value in options.items() if name.startswith("ssl_")}
    return SSLConnection(**named).ssl_context.get()


def _failed(why: str) -> asyncio.Future[Any]:
    future = asyncio.get_running_loop().create_future()
    future.set_exception(Gone(why))
    return future
