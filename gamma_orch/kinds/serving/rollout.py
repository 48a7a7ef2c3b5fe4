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
from dataclasses import dataclass

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
        """Raises Permanent where the bundle does not do well; then `before` runs again."""
        here = await asyncio.to_thread(self.supervised.declared, self.program.name)
        try:
            slots = await self._slots()
            if here is None or not slots:
                await self._first(digest)
            elif (here.host, here.port) != (self.program.host, self.program.port) or not all(
                [await self._runs_program(slot) for slot in slots]
            ):
                await self._replace(digest, before)
            else:
                await self._swap(digest, before)
                self.house.settle(digest)  # new workers start with it
                await self._resize(digest)
        except control.Silent as error:
            raise Temporary(f"A worker of {self.program.name} was lost meanwhile: {error}.") from None
        self.house.settle(digest)

    # --- the three ways ---------------------------------------------------------------------------

    async def _first(self, digest: str) -> None:
        self.house.settle(digest)
        await self._put()
        await self._all_ready(digest)

    async def _swap(self, digest: str, before: str) -> None:
        swapped: list[int] = []
        for slot in await self._slots():
            self.tell(f"worker {slot}: taking the bundle", None)
            answer = await control.ask(self.house.folder, slot, "swap", LOADING, digest=digest)
            if "error" in answer:
                await self._return(swapped, before)
                raise Permanent(f"Worker {slot} refuses the bundle: {answer['error']}")
            swapped.append(slot)
            if len(swapped) == 1 and (why := await self._unwell(slot)):
                await self._return(swapped, before)
                raise Permanent(f"{why} The bundle of before answers again.")

    async def _replace(self, digest: str, before: str) -> None:
        """Another process: each is stopped (it drains) and started, and answers before the next one stops."""
        self.house.settle(digest)
        old = await asyncio.to_thread(self.supervised.declared, self.program.name)
        try:
            await self._put()
            for slot in await self._slots():
                # What declares the program says nothing: an attempt may have ended between that and this.
                if await self._runs_program(slot) and await self._runs(slot, digest):
                    continue
                self.tell(f"worker {slot}: draining", None)
                await asyncio.to_thread(self.supervised.stop, self.program.name, slot)
                await asyncio.to_thread(self.supervised.start, self.program.name, slot)
                await self._ready(slot, digest)
        except (Permanent, control.Silent) as error:
            self.house.settle(before)
            if old is not None:
                await asyncio.to_thread(self.supervised.put, old)
                for slot in await self._slots():
                    if not await self._runs(slot, before):
                        await asyncio.to_thread(self.supervised.stop, self.program.name, slot)
                        await asyncio.to_thread(self.supervised.start, self.program.name, slot)
            raise Permanent(f"{error} The processes of before answer again.") from None

    async def _resize(self, digest: str) -> None:
        """As many workers as wanted: new ones start with the bundle, those too many drain."""
        here = await asyncio.to_thread(self.supervised.declared, self.program.name)
        slots = await self._slots()
        if here is None or here.workers != self.program.workers or len(slots) != here.workers:
            await self._put()
            await self._all_ready(digest)

    # --- parts ------------------------------------------------------------------------------------

    async def _put(self) -> None:
        self.tell("starting workers", None)
        await asyncio.to_thread(self.supervised.put, self.program)

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

    async def _return(self, slots: list[int], before: str) -> None:
        for slot in slots:
            if before:
                await control.ask(self.house.folder, slot, "swap", LOADING, digest=before)

    async def _unwell(self, slot: int) -> str:
        """Why the bundle goes back, after it has been watched; "" where it does well."""
        start = await control.ask(self.house.folder, slot, "state")
        end = time.monotonic() + self.watch
        while time.monotonic() < end:
            await asyncio.sleep(min(0.25, self.watch))
            now = await control.ask(self.house.folder, slot, "state")
            answers = now["answers"] - start["answers"]
            faults = now["faults"] - start["faults"]
            if answers >= WATCHED and faults > ERRORS * answers:
                return f"Worker {slot} answered {faults} of {answers} requests with an error of its own."
        return ""
