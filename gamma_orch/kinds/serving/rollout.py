"""From the bundle that runs to another one, with no request lost, and back if the new one does not do well.

A policy is swapped in the running workers: the first one tries it, is watched while requests come, and the
others follow. What a running process cannot change (address, version of the code, secrets of the process)
restarts them one by one: supervisord holds the listening socket, a worker that stops drains, and the next
one stops only when this one answers again. Always:

- Whatever fails, every worker ends with the bundle of before, and the error says what failed.
- `current` names a bundle only after every worker has run it.
"""

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gamma_orch.app import control
from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent, Tell, Temporary
from gamma_orch.kinds.serving.house import House
from gamma_orch.targets.supervised import Program, Supervised

LOADING = 300.0  # seconds for a worker to load and warm up its models
WATCHED = 20  # answers without which a share of errors says nothing
ERRORS = 0.05  # the share of answers 5xx at which a bundle goes back


@dataclass(frozen=True, slots=True)
class Rollout:
    house: House
    supervised: Supervised
    program: Program
    tell: Tell
    watch: float  # seconds that the first worker is watched

    async def run(self, digest: str, before: str) -> None:
        """Raises Permanent where the bundle does not do well, and Temporary where a worker was lost
        meanwhile; in both cases `before` runs again."""
        here = await asyncio.to_thread(self.supervised.declared, self.program.name)
        slots = await self._slots()
        if here is None or not slots:
            await self._returning(here, before, self._first(digest))
        elif await self._is_current(here, slots):
            await self._swap(digest, before)
            await self._returning(here, before, self._resize(digest))
        else:
            await self._returning(here, before, self._replace(digest))
        self.house.settle(digest)

    async def _is_current(self, here: Program, slots: list[int]) -> bool:
        """Whether what runs is this program. What was declared says nothing of the workers: an attempt may
        have ended between the two."""
        same_place = (here.host, here.port) == (self.program.host, self.program.port)
        return same_place and all([await self._runs_program(slot) for slot in slots])

    async def _returning(self, here: Program | None, before: str, work: Coroutine[Any, Any, None]) -> None:
        """Do it; where it fails, have the processes and the bundle of before again."""
        try:
            await work
        except (Permanent, Temporary, control.Silent) as error:
            if here is None or not before:
                raise _told(error, "") from None
            self.house.settle(before)
            await asyncio.to_thread(self.supervised.put, here)
            for slot in await self._slots():
                if not await self._runs(slot, before):
                    await self._restart(slot)
            raise _told(error, " The bundle of before answers again.") from None

    # --- the ways ---------------------------------------------------------------------------------

    async def _first(self, digest: str) -> None:
        self.house.settle(digest)  # what workers start with
        await self._put()
        await self._all_ready(digest)

    async def _swap(self, digest: str, before: str) -> None:
        swapped: list[int] = []
        try:
            for slot in await self._slots():
                swapped.append(slot)
                await self._take(slot, digest, watched=len(swapped) == 1)
        except (Permanent, control.Silent) as error:
            for slot in swapped:
                with suppress(control.Silent):  # it starts with the bundle of before
                    await control.ask(self.house.folder, slot, "swap", LOADING, digest=before)
            raise _told(error, " The bundle of before answers again.") from None

    async def _take(self, slot: int, digest: str, watched: bool) -> None:
        self.tell(f"worker {slot}: taking the bundle", None)
        answer = await control.ask(self.house.folder, slot, "swap", LOADING, digest=digest)
        if "error" in answer:
            raise Permanent(f"Worker {slot} refuses the bundle: {answer['error']}")
        if watched and (why := await self._unwell(slot)):
            raise Permanent(why)

    async def _replace(self, digest: str) -> None:
        """Another process: each is stopped (it drains) and started, and answers before the next one stops."""
        self.house.settle(digest)
        await self._put()
        for slot in await self._slots():
            if not (await self._runs_program(slot) and await self._runs(slot, digest)):
                self.tell(f"worker {slot}: draining", None)
                await self._restart(slot)
            await self._ready(slot, digest)

    async def _resize(self, digest: str) -> None:
        """As many workers as wanted: new ones start with the bundle, those too many drain."""
        self.house.settle(digest)
        here = await asyncio.to_thread(self.supervised.declared, self.program.name)
        slots = await self._slots()
        if here is None or here.workers != self.program.workers or len(slots) != here.workers:
            await self._put()
            await self._all_ready(digest)

    # --- parts ------------------------------------------------------------------------------------

    async def _put(self) -> None:
        self.tell("starting workers", None)
        await asyncio.to_thread(self.supervised.put, self.program)

    async def _restart(self, slot: int) -> None:
        await asyncio.to_thread(self.supervised.stop, self.program.name, slot)
        await asyncio.to_thread(self.supervised.start, self.program.name, slot)

    async def _slots(self) -> list[int]:
        found = await asyncio.to_thread(self.supervised.slots, self.program.name)
        return [slot.number for slot in found if slot.runs]

    async def _all_ready(self, digest: str) -> None:
        for slot in range(1, self.program.workers + 1):
            await self._ready(slot, digest)

    async def _ready(self, slot: int, digest: str) -> None:
        """Wait until the worker answers by this bundle. Raises Permanent where it refuses it, or is late."""
        self.tell(f"worker {slot}: loading", None)
        end = time.monotonic() + LOADING
        while True:
            now = await self._state(slot)
            if now.get("ready") and now.get("bundle") == digest:
                return
            if now.get("fault"):
                raise Permanent(f"Worker {slot} refuses the bundle: {now['fault']}")
            if time.monotonic() > end:
                raise Permanent(f"Worker {slot} did not answer within {LOADING:.0f} s. Its log says why.")
            await asyncio.sleep(0.1)

    async def _state(self, slot: int) -> Json:
        try:
            return await control.ask(self.house.folder, slot, "state")
        except control.Silent:
            return {}

    async def _runs(self, slot: int, digest: str) -> bool:
        return bool((await self._state(slot)).get("bundle") == digest)

    async def _runs_program(self, slot: int) -> bool:
        found = await asyncio.to_thread(self.supervised.slots, self.program.name)
        return any(one.number == slot and one.digest == self.program.digest for one in found)

    async def _unwell(self, slot: int) -> str:
        """Why the bundle goes back, after it has been watched; "" where it does well."""
        start = await control.ask(self.house.folder, slot, "state")
        end = time.monotonic() + self.watch
        while time.monotonic() < end:
            await asyncio.sleep(min(0.25, self.watch))
            now = await control.ask(self.house.folder, slot, "state")
            if now["pid"] != start["pid"]:
                return f"Worker {slot} ended while it answered by the bundle."
            answers = now["answers"] - start["answers"]
            faults = now["faults"] - start["faults"]
            if answers >= WATCHED and faults > ERRORS * answers:
                return f"Worker {slot} answered {faults} of {answers} requests with an error of its own."
        return ""


def _told(error: Exception, more: str) -> Exception:
    if isinstance(error, control.Silent):
        return Temporary(f"A worker was lost meanwhile: {error}.{more}")
    return type(error)(f"{error}{more}")
