"""HTTP on the wire, ahead of `edge`: uvicorn's reading by httptools, with the bounds that it has not.

`worker` names `Wire` as uvicorn's protocol, and runs `watch` over the open connections. An answer that is
whole may come as one message (`edge.WHOLE`) rather than as two. Always:

- The head of a request has `HEAD` bytes at most, and is whole `WAIT` seconds after it began. What may follow
  a body in chunks (trailers) has `HEAD` bytes at most, too.
- A connection on which nobody waits for an answer is closed in the end, whether nothing comes or something
  that never becomes a request.
- A handshake of a WebSocket that cannot be read is refused, and not held open.
- A Host is there once: a proxy may go by one of two, and we by the other.
- A trailer is no header. A proxy that strikes out or overwrites headers looks at the head alone, so a key or
  an address that came behind the body would go around it.
- What is no HTTP is answered with a problem, as everything else is.
- An answer that is short is one write.
- No header of an answer has a line break in it.
"""

import asyncio
import time
from collections.abc import Set as AbstractSet
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gamma_orch.app import ids
from gamma_orch.app.edge import ALWAYS, BODY, CLOSE, HERE, WHOLE, Edge
from gamma_orch.app.errors import MEDIA, HeadTooLarge, Malformed, Problem
from gamma_orch.app.security import Sign

HEAD = 32_768  # bytes: a credential has at most 8192, and proxies ahead allow no more either
WAIT = BODY  # seconds
EVERY = 1.0  # seconds between two looks at the connections
TOGETHER = 0.002  # seconds: connections less apart come together
TURN = 50e-6  # seconds that a worker sleeps then
# What a scope says of us, for `edge`. Shared by all requests: nobody changes it.
TAKES: dict[str, dict[object, object]] = {WHOLE: {}}
TAKES_AND_HAS: dict[str, dict[object, object]] = {WHOLE: {}, HERE: {}}


class Joined:
    """The transport of one answer. Its head waits for what follows, to the next tick at most: a short answer
    is one write, and one packet, and not two."""

    __slots__ = ("_head", "_loop", "_to")

    def __init__(self, loop: asyncio.AbstractEventLoop, to: asyncio.Transport) -> None:
        self._loop, self._to = loop, to
        self._head: bytes | None = None  # None: nothing came yet; empty: it is written

    def write(self, data: bytes) -> None:
        if self._head is None:
            self._head = data
            self._loop.call_soon(self._flush)
            return
        head, self._head = self._head, b""
        self._to.write(head + data if head else data)

    def whole(self, data: bytes) -> None:
        """Nothing follows. What is held already is the word that a body may come (100)."""
        self._head = self._head or b""
        self.write(data)

    def close(self) -> None:
        self._flush()
        self._to.close()

    def is_closing(self) -> bool:
        return self._to.is_closing()

    def _flush(self) -> None:
        if self._head and not self._to.is_closing():
            head, self._head = self._head, b""
            self._to.write(head)


class Cycle(RequestResponseCycle):
    """One request with its answer; what is whole goes out at once.

    uvicorn takes a head and a body, and looks at each header by itself, which is a tenth of what a short
    answer costs."""

    async def send(self, message: Any) -> None:
        if message["type"] != WHOLE:
            await super().send(message)
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        headers: list[tuple[bytes, bytes]] = message["headers"]
        if CLOSE in headers:
            self.keep_alive = False
        elif not self.keep_alive:
            headers = [*headers, CLOSE]
        lines = [*map(b": ".join, self.default_headers), *map(b": ".join, headers)]
        head = STATUS_LINE[message["status"]] + b"\r\n".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
            raise RuntimeError("There is a line break in a header.")
        body = b"" if self.scope["method"] == "HEAD" else message["body"]
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        cast(Joined, self.transport).whole(b"%b\r\n\r\n%b" % (head, body))
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


class Wire(HttpToolsProtocol):
    _came = 0.0
    """When the last connection did, of all."""
    _since = 0.0
    """Since when a request, or the rest of its head, is awaited. 0: none is."""
    _heading = False
    """A head has begun, and is not whole."""
    _trailing = False
    """A chunk has begun of which nothing was content yet: it may be the last one, which trailers follow."""
    _size = 0
    """Bytes of either that came before the last piece."""
    _piece = 0
    _problem: Problem | None = None
    _over = False
    """What still comes is not looked at."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._take_turns()
        self._since = time.monotonic()

    @classmethod
    def _take_turns(cls) -> None:
        """Let the other workers have some of the connections that come together. The one that happens to run
        would take nearly all of them before the system lets another one run, and would be late with their
        requests for as long as they are kept, while the others wait."""
        now = time.monotonic()
        if now - cls._came < TOGETHER:
            time.sleep(TURN)
            now = time.monotonic()
        cls._came = now

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        self._piece = len(data)
        super().data_received(data)
        if self._heading or self._trailing:
            self._size += len(data)
            if self._size > HEAD:
                self._refuse(_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = TAKES
        self._heading, self._size, self._since = True, 0, time.monotonic()

    def on_headers_complete(self) -> None:
        self._heading, self._since = False, 0.0
        if self._size + self._piece > HEAD:  # perhaps: a body may be in the same piece
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > HEAD:
                self._problem = _too_large()
                raise self._problem  # the parser stops, and `send_400_response` is called
        if sum(name == b"host" for name, _ in self.headers) > 1:
            twice = Malformed("The header Host is there twice. Send it once.")
            self._problem = twice.noted(Sign("wire", "host"))
            raise self._problem
        # A copy: the parser goes on to put trailers into the list that it has.
        self.scope["headers"] = self.headers.copy()
        super().on_headers_complete()
        last = cast(Any, self._last())
        if last is not None and type(last) is not Cycle:
            # uvicorn has made it, and lets nobody say of which class. It runs in the next tick.
            last.__class__ = Cycle
            last.transport = Joined(self.loop, last.transport)

    def on_chunk_header(self) -> None:
        self._trailing, self._size = True, 0

    def on_body(self, body: bytes) -> None:
        self._trailing = False
        super().on_body(body)

    def on_chunk_complete(self) -> None:
        self._trailing = False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.scope["extensions"] = TAKES_AND_HAS

    def on_response_complete(self) -> None:
        """As uvicorn's, but that `watch` looks for connections that idle: its timer costs each request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif not self._heading:
            self._since = time.monotonic()

    def handle_websocket_upgrade(self) -> None:
        """The library says nothing to a handshake that it cannot read, and waits for ever."""
        last = self._last()
        if last is None or last.response_complete:
            super().handle_websocket_upgrade()
            if cast(Any, self.transport.get_protocol()).handshake_initiated:
                return
        self._heading = True
        self._refuse(Malformed("This is no handshake of a WebSocket.").noted(Sign("wire", "handshake")))

    def send_400_response(self, msg: str) -> None:
        problem = self._problem or Malformed("This is no HTTP request.").noted(Sign("wire", "http"))
        self._refuse(problem)

    def overdue(self, now: float) -> bool:
        longest = WAIT if self._heading else self.timeout_keep_alive
        return bool(self._since) and now - self._since > longest

    def give_up(self) -> None:
        if self._heading:
            late = Malformed(f"The head was not here within {WAIT:g} seconds.")
            self._refuse(late.noted(Sign("wire", "slow")))
        else:
            self.transport.close()

    def _last(self) -> RequestResponseCycle | None:
        """The request that came last, with its answer. None: there was none, whatever its type says."""
        return cast("RequestResponseCycle | None", self.cycle)

    def _refuse(self, problem: Problem) -> None:
        """The last that is said on this connection. Where earlier requests wait for their answers it is not
        said, for it would be taken for one of them: they are answered, and then the connection ends."""
        made = ids.made()
        if isinstance(self.app, Edge):
            self.app.refused(problem, made, self.client[0] if self.client else "")
        last = self._last()
        # Of a request that begins; or else it is in the middle of the body of the last one.
        begins = last is None or self._heading or not last.more_body
        self._heading, self._trailing, self._over = False, False, True
        waits = last is not None and not last.response_complete
        if last is not None and waits and (begins or last.response_started or self.pipeline):
            last.keep_alive = False
            return
        if not self.transport.is_closing() and (begins or waits):
            body = problem.body(made)
            headers = [
                *self.server_state.default_headers,
                *((b"content-type", MEDIA), (b"content-length", b"%d" % len(body))),
                *((b"x-request-id", made.encode()), (b"connection", b"close"), *ALWAYS),
            ]
            lines = [b"HTTP/1.1 %d %s" % (problem.status.value, problem.status.phrase.encode())]
            lines += [name + b": " + value for name, value in headers]
            self.transport.write(b"\r\n".join([*lines, b"", body]))
        self.transport.close()


async def watch(connections: AbstractSet[Any]) -> None:
    """Give up who does not come to the end of a head. One look at all of them in a second, rather than a
    timer for each: a request costs nothing by it."""
    while True:
        await asyncio.sleep(EVERY)
        now = time.monotonic()
        for one in tuple(connections):
            if isinstance(one, Wire) and one.overdue(now):
                one.give_up()


def _too_large() -> HeadTooLarge:
    problem = HeadTooLarge(f"The head of the request is larger than the {HEAD:,} bytes that are taken.")
    return problem.noted(Sign("wire", "head"))
