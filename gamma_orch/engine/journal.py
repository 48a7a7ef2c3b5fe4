"""Group commit: many steps write to the log at once, and one transaction carries them all.

Each `append` returns when its events are on the disk, and not before: a step's effect waits for its
Begun, its dependents for its Done (laws 1 and 2). While one transaction is under way the next
batch collects, so a wide plan pays for few fsyncs and a single step for no delay.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Self

from gamma_orch.core.event import Event
from gamma_orch.core.ledger import Ledger
from gamma_orch.store.errors import StoreError
from gamma_orch.store.ledger import Log

_Done = asyncio.Future[list[Event]]
_Append = tuple[Sequence[Event], _Done]


class Journal:
    """Used as `async with`; leaving it waits for what was appended."""

    def __init__(self, log: Log, now: Callable[[], datetime]) -> None:
        self._log = log
        self._now = now
        self._waiting: list[_Append] = []
        self._writer: asyncio.Task[None] | None = None
        self._broken: StoreError | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")

    @property
    def ledger(self) -> Ledger:
        return self._log.ledger

    async def append(self, *events: Event) -> list[Event]:
        """Durable when it returns. Raises LeaseLost, Conflict or StoreError, and then all later
        appends raise too: nothing may go on that cannot be recorded."""
        done: _Done = asyncio.get_running_loop().create_future()
        self._waiting.append((events, done))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await done

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await self._store(batch)
        self._writer = None

    async def _store(self, batch: Sequence[_Append]) -> None:
        if self._broken is not None:
            _fail(batch, self._broken)
            return
        loop = asyncio.get_running_loop()
        events = [event for some, _ in batch for event in some]
        try:
            stored = await loop.run_in_executor(self._thread, self._log.append, events, self._now())
        except StoreError as error:
            self._broken = error
            _fail(batch, error)
        except Exception as error:  # noqa: BLE001 - an event that cannot be written down; its waiter raises it
            if len(batch) == 1:
                _fail(batch, error)
                return
            for one in batch:
                await self._store([one])
        else:
            position = 0
            for some, done in batch:
                if not done.done():
                    done.set_result(stored[position : position + len(some)])
                position += len(some)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writer is not None:
            await self._writer
        self._thread.shutdown()


def _fail(batch: Sequence[_Append], error: Exception) -> None:
    for _, done in batch:
        if not done.done():
            done.set_exception(error)
