"""The line before a model: what waits for the one thread that runs it.

`batching.Batcher` and `writing.Writer` are lines. What always holds:

- At most `queue` things wait; beyond them a request is refused at once, with the time after which another
  try is worth it, from the pace measured. What runs does not count as waiting.
- Whoever asked is answered once: with what the model said, with a Problem, or with Late at the deadline,
  whether the thing still waits or runs. What nobody waits for any more does not begin to run.
- Requests live in the event loop's thread, the model in the line's own. A queue leads there, and
  `call_soon_threadsafe` back; the two counters have one writer each. So there is no lock.
"""

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from gamma_orch.app.errors import Internal, Late, Problem, Unavailable

SMOOTH = 0.2  # of the pace: the weight of what was measured last


class Request:
    """What somebody waits for. Its future belongs to the loop; the thread only looks whether it is over."""

    __slots__ = ("future", "since", "until")

    def __init__(self, until: float) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.since = time.monotonic()
        self.until = until

    @property
    def over(self) -> bool:
        return self.future.done() or time.monotonic() >= self.until

    def fail(self, problem: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(problem)


class Item(ABC):
    """What waits in the line: a part of a request, or all of it."""

    __slots__ = ()

    @property
    @abstractmethod
    def over(self) -> bool:
        """Whether nobody waits for it any more."""


Waiting = TypeVar("Waiting", bound=Item)


class Line(ABC, Generic[Waiting]):
    def __init__(self, queue: int, name: str) -> None:
        """`name`: of the model, for its thread and for what is said of it."""
        self.name = name
        self._most = queue
        self._inbox: SimpleQueue[Waiting | None] = SimpleQueue()
        self._waiting: deque[Waiting] = deque()  # the thread's: what came out of the inbox
        self._entered = 0  # counted by the loop's thread alone
        self._left = 0  # counted by the line's thread alone
        self._pace = 0.0  # seconds for each thing that waits
        self._left_alone = False  # somebody went away, or it became too late for them
        self._open: set[Request] = set()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def waiting(self) -> int:
        return self._entered - self._left

    @property
    def busy(self) -> bool:
        """Whether anybody waits for an answer."""
        return bool(self._open)

    async def aclose(self, drain: float) -> None:
        """Take nothing more, finish what is here, give up after `drain` seconds what is not finished."""
        self._closed = True
        if self._open:
            await asyncio.wait([request.future for request in self._open], timeout=drain)
        for request in self._open:
            request.fail(self._going())
        self._inbox.put(None)
        if self._thread.is_alive():  # until the run that it is in has ended: it cannot be broken off
            await asyncio.to_thread(self._thread.join)

    # --- the loop's side ------------------------------------------------------------------------------

    @contextmanager
    def _asking(self, request: Request, items: Iterable[Waiting], count: int) -> Iterator[None]:
        """Raises Unavailable where there is no room for `count` items. At the end nobody waits for them."""
        if self._closed:
            raise self._going()
        if self.waiting + count > self._most:
            raise Unavailable(
                f"{self.name} has {self.waiting} texts waiting, and {count} more are too many. "
                "Ask again later, or ask for fewer at once.",
                self.waiting * self._pace,
            )
        self._loop = asyncio.get_running_loop()
        timer = self._loop.call_later(request.until - time.monotonic(), self._give_up, request)
        self._entered += count
        self._open.add(request)
        try:
            for item in items:
                self._inbox.put(item)
            yield
        finally:
            timer.cancel()
            self._open.discard(request)
            if not request.future.done():
                request.future.cancel()
            if request.future.cancelled() or request.future.exception() is not None:
                self._left_alone = True

    def _give_up(self, request: Request) -> None:
        request.fail(Late(f"{self.name} did not answer before the deadline. Ask again later."))
        self._left_alone = True

    def _going(self) -> Unavailable:
        return Unavailable(f"This copy of {self.name} is being taken away. Ask again.", 1)

    # --- the thread's side ----------------------------------------------------------------------------

    @abstractmethod
    def _work(self) -> None:
        """Until `_collect` says that it is over."""

    def _collect(self, block: bool) -> bool:
        """What came is in `_waiting`, and what nobody waits for is out of it. `block`: until something
        comes. False: nothing will come any more."""
        with suppress(Empty):
            while (item := self._inbox.get(block)) is not None:
                self._waiting.append(item)
                block = False
            return False
        if self._left_alone:
            self._left_alone = False
            kept = deque(item for item in self._waiting if not item.over)
            self._left += len(self._waiting) - len(kept)
            self._waiting = kept
        return True

    def _measured(self, seconds: float) -> None:
        self._pace += SMOOTH * (seconds - self._pace) if self._pace else seconds

    def _tell(self, do: Callable[..., object], *arguments: object) -> None:
        """In the loop's thread. Where the loop is gone, so is who asked."""
        assert self._loop is not None
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(do, *arguments)


def problem(error: BaseException) -> Problem:
    """What is said of anything that a model raised: its own words may hold the text it was given."""
    if isinstance(error, Problem):
        return error
    found = Internal("The model failed on this text. The log has the reason.")
    found.__cause__ = error
    return found
