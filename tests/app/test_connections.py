"""Many connections at once: each listener hears everything, who reads nothing goes, and nothing is left over.

`python -m benchmarks.connections` says how it is with ten thousand.
"""

import asyncio
import contextlib
import http.client
import json
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from gamma_orch.app import worker
from gamma_orch.app.bundle import Live
from gamma_orch.app.live import Hub, serve
from tests.app.running import KEYS, Running, bundle

MANY = 200
SLOW = 1.0
KEY = {"Authorization": f"Bearer {KEYS['all']}"}
HANDSHAKE = (
    b"GET /v1/live HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\n\r\n"
)


async def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.02)


def settles(holds: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


async def _closed(client: ClientConnection, enough: asyncio.Event) -> None:
    await enough.wait()
    await client.close()


class Kept:
    """An HTTP connection that is never opened a second time."""

    def __init__(self, port: int) -> None:
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self.http.connect()
        self.http.auto_open = 0

    def ask(self, path: str = "/v1/models") -> bytes:
        self.http.request("GET", path, headers=KEY)
        answer = self.http.getresponse()
        assert answer.status == 200
        return answer.read()

    def close(self) -> None:
        self.http.close()


@contextlib.contextmanager
def few(soft: int) -> Iterator[None]:
    """What is started within has this many descriptors at first."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_each_of_many_hears_every_message_once_and_in_order_and_all_are_forgotten(tmp_path: Path) -> None:
    served = bundle({}, live=Live(every=0.1))
    port = served.process.port

    async def listen(heard: list[str], enough: asyncio.Event) -> None:
        url = f"ws://127.0.0.1:{port}/v1/live"
        async with connect(url, additional_headers=KEY, compression=None, open_timeout=30) as client:
            closing = asyncio.create_task(_closed(client, enough))
            async for text in client:
                heard.append(str(text))  # noqa: PERF401 - they are looked at while more come
            await closing

    async def run(kept: list[Kept], clients: Callable[[], float]) -> list[list[str]]:
        heard: list[list[str]] = [[] for _ in range(MANY)]
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for one in heard:
                group.create_task(listen(one, enough))
            await until(lambda: all(len(one) >= 8 for one in heard), 60)
            assert json.loads(await asyncio.to_thread(kept[0].ask))["data"] == []
            await asyncio.to_thread(settles, lambda: clients() == MANY)
            enough.set()
        return heard

    with contextlib.ExitStack() as stack:
        running = Running(tmp_path, served)
        with few(128):
            stack.enter_context(running)
        process = psutil.Process(running.processes[1].pid)

        def clients() -> float:
            page = probe.ask("/metrics").decode().splitlines()
            (line,) = (one for one in page if one.startswith("gamma_live_clients "))
            return float(line.rpartition(" ")[2])

        def sockets() -> int:
            return len(process.net_connections("tcp"))

        probe = stack.enter_context(contextlib.closing(Kept(port)))
        assert clients() == 0
        before = sockets()
        kept = [stack.enter_context(contextlib.closing(Kept(port))) for _ in range(MANY)]
        for one in kept:
            one.ask()
        assert sockets() == before + MANY  # far more than it had descriptors at first
        heard = asyncio.run(run(kept, clients))
        for one in kept:
            one.ask()
            one.close()
        settles(lambda: clients() == 0)
        settles(lambda: sockets() == before)
    all_messages = sorted(
        {text for one in heard for text in one}, key=lambda text: float(json.loads(text)["at"])
    )
    for messages in heard:
        first = all_messages.index(messages[0])
        assert messages == all_messages[first : first + len(messages)]


def test_a_worker_with_few_descriptors_says_so_and_outlives_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nulimit -n 128\nexec {sys.executable} "$@"\n')
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    served = bundle({})
    port = served.process.port
    with Running(tmp_path, served) as running, contextlib.closing(Kept(port)) as first:
        (line,) = (line for line in running.log().splitlines() if "few descriptors" in line)
        told = json.loads(line)
        assert (told["level"], told["allowed"]) == ("warning", 128)
        first.ask()
        process = psutil.Process(running.processes[1].pid)
        with contextlib.ExitStack() as taken:
            for _ in range(200):
                taken.enter_context(socket.create_connection(("127.0.0.1", port)))
            settles(lambda: process.num_fds() >= 127)
            first.ask()
        end = time.monotonic() + 10
        while True:
            try:
                with contextlib.closing(Kept(port)) as another:
                    another.ask()
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.05)
        first.ask()


def test_who_reads_nothing_loses_the_connection_and_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "STUCK", 0.2)
    monkeypatch.setattr("gamma_orch.app.live.FAREWELL", 0.2)

    async def run() -> None:
        hub = Hub(Live(), slow=SLOW)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await serve(scope, receive, send, hub)

        config = uvicorn.Config(
            app, port=0, ws=worker.WebSocket, lifespan="off", log_config=None, ws_per_message_deflate=False
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        stuck = socket.socket()
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.setblocking(False)
        await loop.sock_connect(stuck, ("127.0.0.1", port))
        await loop.sock_sendall(stuck, HANDSHAKE)
        await until(lambda: hub.clients == 1)
        heard: list[tuple[int, float]] = []

        async def listen(client: ClientConnection) -> None:
            async for text in client:
                message = json.loads(text)
                heard.append((message["n"], time.monotonic() - message["at"]))

        async with connect(f"ws://127.0.0.1:{port}/") as quick:
            listening = asyncio.create_task(listen(quick))
            await until(lambda: hub.clients == 2)
            for one in server.server_state.connections:
                assert isinstance(one, worker.WebSocket)
                assert not one.request.headers  # they are not kept for as long as somebody listens
            number, end = 0, time.monotonic() + 10
            while hub.clients == 2:
                assert time.monotonic() < end
                hub.publish({"n": number, "at": time.monotonic(), "blob": "x" * 50_000})
                number += 1
                await asyncio.sleep(0.005)
            await until(lambda: len(heard) == number)
            assert [n for n, _ in heard] == list(range(number))
            assert max(late for _, late in heard) < SLOW
            # A transport that is closed waits for who reads nothing: this one does not.
            await until(lambda: len(server.server_state.connections) == 1)
        await listening
        await until(lambda: not hub.clients and not server.server_state.connections)
        stuck.close()
        server.should_exit = True
        await task

    asyncio.run(run())
