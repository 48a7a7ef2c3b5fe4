"""Many callers, one read: who asks for the same thing before its reading has begun gets the same answer.

The providers of one family are asked side by side, each about its own kind, and all of them need the
same catalog. Nobody is ever given a read that began before they asked, so what is read after an
effect always shows that effect.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

# Turns of the event loop in which callers that were started together may come in.
GATHERING = 5


class Joined:
    def __init__(self) -> None:
        self._open: dict[Hashable, asyncio.Task[Any]] = {}

    async def ask(self, key: Hashable, read: Callable[[Callable[[], None]], Awaitable[T]]) -> T:
        """What `read` gives. It is handed a function to call just before it really reads: from then on
        nobody joins it any more."""
        task = self._open.get(key)
        if task is None:
            task = asyncio.ensure_future(self._run(key, read))
            task.add_done_callback(_looked_at)
            self._open[key] = task
        # One caller that gives up must not take the answer from the others.
        answer: T = await asyncio.shield(task)
        return answer

    async def _run(self, key: Hashable, read: Callable[[Callable[[], None]], Awaitable[T]]) -> T:
        me = asyncio.current_task()

        def begun() -> None:
            if self._open.get(key) is me:
                del self._open[key]

        try:
            for _ in range(GATHERING):
                await asyncio.sleep(0)
            return await read(begun)
        finally:
            begun()


def _looked_at(task: "asyncio.Task[Any]") -> None:
    """An error that nobody waited for is not worth a warning at exit."""
    if not task.cancelled():
        task.exception()
