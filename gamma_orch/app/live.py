"""The live streams: one message to all who listen at /v1/live, and others at /v1/security.

Nobody waits for the slowest. A worker has a `Hub` for each stream and publishes to it; `edge` hands each
WebSocket that it has let in to `serve`. Always:

- A message is made into JSON once, however many listen, and not at all where nobody does. It is kept once,
  too: a client has no queue of its own, only the number of the message that it hears next.
- `publish` never waits. The last few messages are kept (`Live.waiting`); a client that does not keep up
  misses the oldest, and one that did not keep up for `SLOW` seconds is closed, with the reason.
- What clients send is read and thrown away.
- A connection ends with a code: 1001 the server goes away, 1012 it restarts, 1013 there are too many clients
  or this one is too slow: try again later.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import orjson
import structlog

from gamma_orch.app import control
from gamma_orch.app.bundle import Live
from gamma_orch.app.errors import Unavailable

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

GOING_AWAY, RESTARTING, LATER = 1001, 1012, 1013
REASONS = {GOING_AWAY: "The server goes away.", RESTARTING: "The service restarts: connect again."}
SLOW = 10.0  # seconds
FAREWELL = 1.0  # seconds that a client has to take the word that it is closed
WOKEN = 50  # clients that are woken before other work of the loop has its turn, some milliseconds later


class Subscription:
    """What one client hears: `async for text in subscription`. Ends when it is closed."""

    __slots__ = ("_hub", "_next", "_slow_since", "_waiter", "code", "ended", "missed", "reason", "sending")

    def __init__(self, hub: "Hub") -> None:
        self.missed = 0
        self.ended = False
        self.code, self.reason = 0, ""  # what the client is told at its end; 0: nothing, it has gone
        self.sending: asyncio.Timeout | None = None  # around what is done with each message
        self._hub = hub
        self._next = hub.published
        self._waiter: asyncio.Future[None] | None = None
        self._slow_since = 0.0

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> str:
        while not self.ended:
            behind = self._hub.published - self._next
            if behind:
                self._next += 1
                if behind == 1:
                    self._slow_since = 0.0
                return self._hub.messages[-behind]
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        raise StopAsyncIteration

    def close(self, code: int = 0, reason: str = "") -> None:
        """Nothing is heard any more, what waits included."""
        if self.ended:
            return
        self.ended, self.code, self.reason = True, code, reason
        self._hub.forget(self)
        if self._waiter is None and self.sending is not None:
            self.sending.reschedule(0)  # its time is up
        self.wake()

    def published(self, now: float) -> bool:
        """Whether the client has to be woken. The hub calls it, after each message."""
        if self._hub.published - self._next > self._hub.waiting:
            self._next += 1
            self.missed += 1
            if not self._slow_since:
                self._slow_since = now
            elif now - self._slow_since > self._hub.slow:
                self.close(LATER, f"Too slow: {self.missed} messages were missed.")
        return self._waiter is not None

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Hub:
    """Used by one thread, the event loop's."""

    def __init__(self, live: Live, slow: float = SLOW) -> None:
        self.slow, self.waiting = slow, live.waiting
        self.messages: deque[str] = deque(maxlen=live.waiting)
        self.published = 0  # messages so far; `messages` are the last of them
        self._most = live.clients
        self._subscriptions: set[Subscription] = set()
        self._closed = 0

    @property
    def clients(self) -> int:
        return len(self._subscriptions)

    def subscribe(self) -> Subscription:
        """Raises Unavailable where there are too many, or the hub is closed."""
        if self._closed:
            raise Unavailable(REASONS.get(self._closed, "The stream is closed."), 1)
        if self.clients >= self._most:
            raise Unavailable(f"There are {self.clients:,} clients, and more are not taken here.", 10)
        subscription = Subscription(self)
        self._subscriptions.add(subscription)
        return subscription

    def forget(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    def publish(self, message: MutableMapping[str, Any]) -> None:
        if not self._subscriptions:
            return
        self.messages.append(orjson.dumps(message).decode())
        self.published += 1
        now = time.monotonic()
        # All have it now, so that no message overtakes another; they are woken little by little.
        self._wake([one for one in tuple(self._subscriptions) if one.published(now)])

    def close(self, code: int = GOING_AWAY) -> None:
        """Everybody is closed with this code, and nobody taken any more."""
        self._closed = code
        for subscription in tuple(self._subscriptions):
            subscription.close(code, REASONS.get(code, ""))

    async def pulse(self, source: Callable[[], MutableMapping[str, Any]], every: float) -> None:
        """Publish what `source` says, as long as somebody listens; until closed or cancelled.

        It is asked in a thread, because a snapshot of all metrics takes milliseconds."""
        while not self._closed:
            await asyncio.sleep(every)
            if not self._subscriptions:
                continue
            try:
                self.publish(await asyncio.to_thread(source))
            except Exception:  # noqa: BLE001 - one snapshot that fails must not end the stream
                structlog.get_logger().exception("live snapshot failed")

    async def relay(self, home: Path, every: float) -> None:
        """Publish the security events of all workers of this machine, for as long as somebody listens. Each
        worker keeps its last ones, and is asked only then."""
        began, seen = time.time(), dict[int, tuple[float, int]]()
        while not self._closed:
            await asyncio.sleep(every)
            if not self._subscriptions:
                began = time.time()
                continue
            slots = [int(path.stem) for path in (home / "slots").glob("*.sock")]
            answers = await asyncio.gather(
                *(_events(home, slot, *seen.get(slot, (0.0, 0))) for slot in slots)
            )
            new = []
            for slot, said in zip(slots, answers, strict=True):
                if said is not None:
                    seen[slot] = said["began"], said["last"]
                    new += said["events"]
            for event in sorted(new, key=itemgetter("told")):
                if event.pop("told") >= began:
                    self.publish({"event": "security", **event})
                    await asyncio.sleep(0)  # many at once would be more than are kept for a client

    def _wake(self, sleepers: Sequence[Subscription], start: int = 0) -> None:
        for subscription in sleepers[start : start + WOKEN]:
            subscription.wake()
        if start + WOKEN < len(sleepers):
            asyncio.get_running_loop().call_soon(self._wake, sleepers, start + WOKEN)


async def serve(scope: Scope, receive: Receive, send: Send, hub: Hub, subprotocol: str | None = None) -> None:
    """One WebSocket that may listen, from its acceptance to its end."""
    await receive()  # websocket.connect
    # A refusal before the acceptance would reach a browser without its code.
    await send({"type": "websocket.accept", "subprotocol": subprotocol})
    try:
        subscription = hub.subscribe()
    except Unavailable as refusal:
        await _close(send, LATER, refusal.detail)
        return
    listening = asyncio.create_task(_listen(receive, subscription))
    try:
        # Without a limit, until one that is stuck in a send is closed.
        async with asyncio.timeout(None) as subscription.sending:
            async for text in subscription:
                await send({"type": "websocket.send", "text": text})
    except TimeoutError:
        pass
    except OSError:
        return  # it has gone
    finally:
        hub.forget(subscription)
        listening.cancel()
    if subscription.code:
        await _close(send, subscription.code, subscription.reason)


async def _events(home: Path, slot: int, began: float, after: int) -> Any:
    """What a worker has told since; None: it is gone, starting or stuck."""
    try:
        said = await control.ask(home, slot, "security", 2.0, began=began, after=after)
    except control.Silent:
        return None
    return said if "events" in said else None  # one of a version before knows no such order


async def _listen(receive: Receive, subscription: Subscription) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass
    subscription.close()


async def _close(send: Send, code: int, reason: str) -> None:
    """A client that takes nothing does not take this either, and one that is gone needs it no more."""
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(FAREWELL):
            await send({"type": "websocket.close", "code": code, "reason": reason[:120]})
