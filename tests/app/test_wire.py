"""An answer on the wire: its head and its body in one write, and in one message or in two."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from gamma_orch.app.edge import CLOSE, HERE, WHOLE
from gamma_orch.app.wire import Joined, Wire


class Transport:
    def __init__(self) -> None:
        self.said: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        assert not self.is_closing()
        self.said.append(data)

    def close(self) -> None:
        self.said.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.said


def played(*deeds: bytes | str) -> list[bytes | str]:
    """What reaches the transport; "tick" lets the loop go on."""

    async def play() -> list[bytes | str]:
        transport = Transport()
        joined = Joined(asyncio.get_running_loop(), transport)  # type: ignore[arg-type]
        for deed in deeds:
            if isinstance(deed, bytes):
                joined.write(deed)
            elif deed == "close":
                joined.close()
            else:
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return transport.said

    return asyncio.run(play())


def test_head_and_body_are_one_write_and_what_follows_is_not_held() -> None:
    assert played(b"head", b"body", b"more", b"still") == [b"headbody", b"more", b"still"]


def test_a_head_alone_is_out_with_the_next_tick() -> None:
    assert played(b"head") == [b"head"]
    assert played(b"head", "tick", b"first", b"second") == [b"head", b"first", b"second"]


def test_what_is_closed_has_said_all_before() -> None:
    assert played(b"head", "close") == [b"head", "closed"]
    assert played(b"head", b"body", "close") == [b"headbody", "closed"]
    assert played("close") == ["closed"]


# --- an answer as one message ---------------------------------------------------------------------

ASKED = {
    "GET": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HEAD": b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
    "an old client": b"GET / HTTP/1.0\r\n\r\n",
    "an old client that stays": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "one that goes": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "two at once": b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n",
    "one that waits": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody",
}
BACK = [(b"x-one", b"1"), (b"x-two", b"2")]


def over_http(asked: bytes, app: Any) -> tuple[bytes, bool]:
    """What comes back on a real socket, and whether the server has closed it then."""

    async def run() -> tuple[bytes, bool]:
        state = ServerState()
        config = uvicorn.Config(app, http=Wire, lifespan="off", log_config=None)
        server = await asyncio.get_running_loop().create_server(
            lambda: Wire(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(asked)
        said, closed = b"", False
        with contextlib.suppress(TimeoutError):
            while not closed:
                part = await asyncio.wait_for(reader.read(65_536), 0.2)
                said, closed = said + part, not part
        writer.close()
        server.close()
        return said, closed

    return asyncio.run(run())


def answering(at_once: bool, headers: Sequence[tuple[bytes, bytes]], seen: list[bool] | None = None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if seen is not None:
            seen.append(HERE in scope["extensions"])
        body = scope["path"].encode()
        head = {"status": 200, "headers": [*headers, (b"content-length", b"%d" % len(body))]}
        assert WHOLE in scope["extensions"]
        if scope["method"] == "POST":
            assert (await receive())["body"] == b"body"
        if at_once:
            await send({"type": WHOLE, **head, "body": body})
        else:
            await send({"type": "http.response.start", **head})
            await send({"type": "http.response.body", "body": body})

    return app


@pytest.mark.parametrize("headers", [BACK, [*BACK, CLOSE]], ids=["stays", "closes"])
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
def test_one_message_says_what_two_do(asked: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    one, two = (over_http(asked, answering(at_once, headers)) for at_once in (True, False))
    assert one == two
    assert one[0].count(b"HTTP/1.1 200 OK\r\n") == (
        2 if asked.count(b"GET") == 2 and CLOSE not in headers else 1
    )


@pytest.mark.parametrize("bad", [b"1\r\nx-evil: 2", b"1\n", b"1\r"])
def test_a_header_with_a_line_break_is_never_said(bad: bytes) -> None:
    said, _ = over_http(ASKED["GET"], answering(True, [(b"x-one", bad)]))
    assert said.startswith(b"HTTP/1.1 500 ")
    assert b"evil" not in said


def test_a_body_is_here_when_all_of_it_is() -> None:
    seen: list[bool] = []
    app = answering(True, BACK, seen)
    for asked in (ASKED["GET"], ASKED["POST"], ASKED["two at once"]):
        over_http(asked, app)
    assert seen == [True, True, True, True]
    seen.clear()
    over_http(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nbody", app)
    over_http(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n", app)
    assert seen == [False, False]
