"""The live stream: everybody hears everything in order, and the slow hurt nobody but themselves."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gamma_orch.app import live as module
from gamma_orch.app.bundle import Live
from gamma_orch.app.errors import Unavailable
from gamma_orch.app.live import GOING_AWAY, LATER, RESTARTING, Hub, serve


async def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.005)


class Client:
    """The server's end of a WebSocket, with the client behind it."""

    def __init__(self, hub: Hub) -> None:
        self.sent: list[MutableMapping[str, Any]] = []
        self.said: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self.reading = asyncio.Event()
        self.reading.set()
        self.error: Exception | None = None
        self.said.put_nowait({"type": "websocket.connect"})
        scope = {"type": "websocket"}
        self.task = asyncio.create_task(serve(scope, self.said.get, self._send, hub))

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        await self.reading.wait()
        if self.error is not None:
            raise self.error
        self.sent.append(message)

    @property
    def heard(self) -> list[Any]:
        return [json.loads(one["text"]) for one in self.sent if one["type"] == "websocket.send"]

    @property
    def closed(self) -> tuple[int, str] | None:
        last = self.sent[-1]
        return (last["code"], last["reason"]) if last["type"] == "websocket.close" else None


def test_everybody_hears_everything_in_order_and_it_is_packed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = 0
    dumps = orjson.dumps

    def counted(message: object) -> bytes:
        nonlocal packed
        packed += 1
        return dumps(message)

    monkeypatch.setattr(orjson, "dumps", counted)

    async def run() -> None:
        hub = Hub(Live())
        hub.publish({"n": -1})
        assert packed == 0  # nobody listens
        many = 3 * module.WOKEN + 7
        clients = [Client(hub) for _ in range(many)]
        await until(lambda: hub.clients == many)
        for number in range(20):
            hub.publish({"n": number})
            if number % 3 == 0:
                await asyncio.sleep(0)
        await until(lambda: all(len(client.heard) == 20 for client in clients))
        assert packed == 20
        assert all(client.heard == [{"n": number} for number in range(20)] for client in clients)
        hub.close()
        await asyncio.gather(*(client.task for client in clients))
        assert hub.clients == 0

    asyncio.run(run())


def test_a_slow_client_misses_the_oldest() -> None:
    async def run() -> None:
        hub = Hub(Live(waiting=4))
        subscription = hub.subscribe()
        for number in range(10):
            hub.publish({"n": number})
        assert [json.loads(await anext(subscription))["n"] for _ in range(4)] == [6, 7, 8, 9]
        assert subscription.missed == 6
        subscription.close()
        assert [text async for text in subscription] == []

    asyncio.run(run())


def test_a_client_that_stays_slow_is_closed_with_the_reason_and_no_other() -> None:
    async def run() -> None:
        hub = Hub(Live(waiting=2), slow=0.1)
        slow, stuck, quick = Client(hub), Client(hub), Client(hub)
        await until(lambda: hub.clients == 3)
        slow.reading.clear()
        stuck.reading.clear()
        end = time.monotonic() + 5
        while hub.clients > 1 and time.monotonic() < end:
            hub.publish({"n": 1})
            await asyncio.sleep(0.01)
        assert hub.clients == 1
        slow.reading.set()
        await slow.task
        assert slow.closed is not None
        assert slow.closed[0] == LATER
        assert slow.closed[1].startswith("Too slow: ")
        began = time.monotonic()
        await stuck.task  # which takes not even the word that it is closed
        assert time.monotonic() - began < module.FAREWELL + 1
        assert stuck.closed is None
        assert not quick.task.done()
        hub.close()
        await quick.task

    asyncio.run(run())


def test_a_client_that_catches_up_is_forgiven() -> None:
    async def run() -> None:
        hub = Hub(Live(waiting=2), slow=0.05)
        subscription = hub.subscribe()
        for _ in range(5):
            for number in range(4):
                hub.publish({"n": number})
            await asyncio.sleep(0.06)
            await anext(subscription)
            await anext(subscription)
        assert not subscription.ended
        assert subscription.missed == 10

    asyncio.run(run())


def test_more_clients_than_are_taken() -> None:
    async def run() -> None:
        hub = Hub(Live(clients=2))
        clients = [Client(hub) for _ in range(2)]
        await until(lambda: hub.clients == 2)
        with pytest.raises(Unavailable):
            hub.subscribe()
        third = Client(hub)
        await third.task
        assert [one["type"] for one in third.sent] == ["websocket.accept", "websocket.close"]
        assert third.closed == (LATER, "There are 2 clients, and more are not taken here.")
        clients[0].said.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await clients[0].task
        assert hub.clients == 1
        assert clients[0].closed is None  # it is gone: nothing is sent to it
        hub.subscribe().close()
        hub.close(RESTARTING)
        await clients[1].task
        assert clients[1].closed == (RESTARTING, "The service restarts: connect again.")
        with pytest.raises(Unavailable, match="The service restarts"):
            hub.subscribe()

    asyncio.run(run())


def test_what_clients_say_is_thrown_away() -> None:
    async def run() -> None:
        hub = Hub(Live())
        client = Client(hub)
        for _ in range(3):
            client.said.put_nowait({"type": "websocket.receive", "text": '{"n": 1}'})
        await until(lambda: client.said.empty() and hub.clients == 1)
        hub.publish({"n": 2})
        await until(lambda: client.heard == [{"n": 2}])
        hub.close()
        await client.task
        assert client.closed == (GOING_AWAY, "The server goes away.")

    asyncio.run(run())


@pytest.mark.parametrize("error", [ConnectionResetError(), RuntimeError("a fault of ours")], ids=repr)
def test_a_connection_that_breaks_while_something_is_sent(error: Exception) -> None:
    async def run() -> None:
        hub = Hub(Live())
        client = Client(hub)
        await until(lambda: hub.clients == 1)
        client.error = error
        hub.publish({"n": 1})
        (end,) = await asyncio.gather(client.task, return_exceptions=True)
        assert hub.clients == 0
        # That a client goes is no fault; anything else must be seen.
        assert end is (None if isinstance(error, OSError) else error)

    asyncio.run(run())


def test_a_server_that_ends_leaves_no_subscription() -> None:
    async def run() -> None:
        hub = Hub(Live())
        client = Client(hub)
        await until(lambda: hub.clients == 1)
        client.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client.task
        assert hub.clients == 0
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_the_pulse_asks_only_where_somebody_listens_and_outlives_a_fault() -> None:
    asked = 0

    def source() -> dict[str, int]:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise LookupError
        return {"asked": asked}

    async def run() -> None:
        hub = Hub(Live())
        pulse = asyncio.create_task(hub.pulse(source, 0.01))
        await asyncio.sleep(0.05)
        assert asked == 0
        subscription = hub.subscribe()
        heard = [json.loads(await anext(subscription))["asked"] for _ in range(3)]
        assert heard == [1, 3, 4]
        subscription.close()
        await asyncio.sleep(0.02)
        before = asked
        await asyncio.sleep(0.05)
        assert asked == before
        pulse.cancel()

    asyncio.run(run())


def test_ten_thousand_hear_a_message_in_less_than_a_second() -> None:
    async def run() -> float:
        hub = Hub(Live())
        clients = [Client(hub) for _ in range(10_000)]
        await until(lambda: hub.clients == 10_000)
        await asyncio.sleep(0.2)  # until all wait
        began = time.process_time()
        hub.publish({"n": 1})
        await until(lambda: all(len(client.sent) == 2 for client in clients))
        took = time.process_time() - began
        hub.close()
        await asyncio.gather(*(client.task for client in clients))
        return took

    assert asyncio.run(run()) < 1


@asynccontextmanager
async def served(hub: Hub) -> AsyncIterator[str]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        offered = scope["subprotocols"]
        await serve(scope, receive, send, hub, offered[0] if offered else None)

    config = uvicorn.Config(
        app, port=0, ws="websockets-sansio", lifespan="off", log_config=None, ws_per_message_deflate=False
    )
    server = uvicorn.Server(config)
    server.config.load()
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1/live"
    finally:
        server.should_exit = True
        await task


def test_over_a_real_socket() -> None:
    async def run() -> None:
        hub = Hub(Live(clients=2))
        async with served(hub) as url, connect(url, subprotocols=["gamma"]) as one, connect(url) as other:  # type: ignore[list-item]
            assert one.subprotocol == "gamma"
            await until(lambda: hub.clients == 2)
            hub.publish({"text": "grüß"})
            for client in (one, other):
                assert json.loads(await client.recv()) == {"text": "grüß"}
            async with connect(url) as third:
                with pytest.raises(ConnectionClosed) as refused:
                    await third.recv()
            assert refused.value.rcvd is not None
            assert refused.value.rcvd.code == LATER
            await other.close()
            await until(lambda: hub.clients == 1)
            hub.close(RESTARTING)
            with pytest.raises(ConnectionClosed) as closed:
                await one.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == RESTARTING

    asyncio.run(run())


def test_a_real_client_that_does_not_read_is_closed() -> None:
    async def run() -> None:
        hub = Hub(Live(waiting=4), slow=0.2)
        async with served(hub) as url, connect(url, max_queue=1) as client:
            await until(lambda: hub.clients == 1)
            end = time.monotonic() + 20
            while hub.clients and time.monotonic() < end:
                hub.publish({"blob": "x" * 200_000})
                await asyncio.sleep(0.01)
            assert hub.clients == 0
            client.transport.abort()

    asyncio.run(run())
