"""From the bundle that runs to another one, with no request lost, and back if the new one does not do well.

A policy is swapped in the running workers: the first one tries it, is watched while requests come, and the
others follow. What a running process cannot change (address, version of the code, secrets of the process)
restarts them one by one: supervisord holds the listening socket, a worker that stops drains, and the next
one stops only when this one answers again. Replicas are gone through one after the other; nginx is told of a
new one when its workers answer, and of one that goes before they drain. Always:

- Whatever fails, every worker ends with the bundle of before, and the error says what failed.
- `current` names a bundle only after every worker has run it.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gamma_orch.app import control
from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent, Tell, Temporary
from gamma_orch.kinds.serving import programs
from gamma_orch.kinds.serving.front import Front
from gamma_orch.kinds.serving.house import House
from gamma_orch.targets.supervised import Program, Slot, Supervised

LOADING = 300.0  # seconds for a worker to load and warm up its models
WATCHED = 20  # answers without which a share of errors says nothing
ERRORS = 0.05  # the share of answers 5xx at which a bundle goes back


Here = Mapping[str, Program]  # what is declared of a service, by name


@dataclass(frozen=True, slots=True)
class Seat:
    """The place of a worker."""

    program: Program
    slot: int

    @property
    def number(self) -> int:
        return self.program.first + self.slot


@dataclass(frozen=True, slots=True)
class Rollout:
    house: House
    supervised: Supervised
    is_of: Callable[[str], bool]  # whether a program of this name is the service's
    wanted: tuple[Program, ...]  # of workers
    front: Front | None
    tell: Tell
    watch: float  # seconds that the first worker is watched

    async def run(self, digest: str, before: str) -> None:
        """Raises Permanent where the bundle does not do well, and Temporary where a worker was lost
        meanwhile; in both cases `before` runs again."""
        here = await self._here()
        if not await self._seats(here.values()):
            await self._returning(here, before, self._first(digest))
        elif await self._is_current(here):
            await self._swap(digest, before)
            await self._returning(here, before, self._resize(digest))
        else:
            await self._returning(here, before, self._replace(digest))
        self.house.settle(digest)

    async def _is_current(self, here: Here) -> bool:
        """Whether what runs is what is wanted, but for how many there are. What was declared says nothing of
        the workers: an attempt may have ended between the two."""
        kept = [(here[one.name], one) for one in self.wanted if one.name in here]
        if any(programs.is_proxy(old) or old.place != new.place for old, new in kept):
            return False
        return all([await self._runs_program(seat) for seat in await self._seats(new for _, new in kept)])

    async def _returning(self, here: Here, before: str, work: Coroutine[Any, Any, None]) -> None:
        """Do it; where it fails, have the processes and the bundle of before again."""
        try:
            await work
        except (Permanent, Temporary, control.Silent) as error:
            if not here or not before:
                raise _told(error, "") from None
            self.house.settle(before)
            for program in here.values():
                await asyncio.to_thread(self.supervised.put, program)
            for program in here.values():
                for slot in await self._slots(program.name):
                    seat = Seat(program, slot.number)
                    if slot.digest != program.digest or not (
                        programs.is_proxy(program) or await self._runs(seat, before)
                    ):
                        await self._restart(seat)
            for name in (await self._here()).keys() - here.keys():
                await asyncio.to_thread(self.supervised.remove, name)
            raise _told(error, " The bundle of before answers again.") from None

    # --- the ways ---------------------------------------------------------------------------------

    async def _first(self, digest: str) -> None:
        self.house.settle(digest)  # what workers start with
        for name in await self._here():  # or a supervisord that starts now would start what it had first
            await asyncio.to_thread(self.supervised.remove, name)
        for program in self.wanted:
            await self._put(program)
        for program in self.wanted:
            await self._all_ready(program, digest)
        await self._finish()

    async def _swap(self, digest: str, before: str) -> None:
        swapped: list[Seat] = []
        try:
            for seat in await self._seats(self.wanted):
                swapped.append(seat)
                # One that is there already is taken only by workers that have another, for whatever reason.
                await self._take(seat.number, digest, watched=len(swapped) == 1 and digest != before)
        except (Permanent, control.Silent) as error:
            for seat in swapped:
                with suppress(control.Silent):  # it starts with the bundle of before
                    await control.ask(self.house.folder, seat.number, "swap", LOADING, digest=before)
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
        for program in self.wanted:
            await self._put(program)
            seats = [(await self._runs_program(seat), seat) for seat in await self._seats([program])]
            # First those that are new: they answer while the others are restarted.
            for is_new, seat in sorted(seats, key=lambda one: not one[0]):
                if not (is_new and await self._runs(seat, digest)):
                    self.tell(f"worker {seat.number}: draining", None)
                    await self._restart(seat)
                await self._ready(seat.number, digest)
        await self._finish()

    async def _resize(self, digest: str) -> None:
        """As many workers and replicas as wanted: new ones start with the bundle, those too many drain."""
        self.house.settle(digest)
        here = await self._here()
        for program in self.wanted:
            count = len(await self._slots(program.name))
            if here.get(program.name) != program or count != program.workers or await self._is_deaf(program):
                await self._put(program)
                await self._all_ready(program, digest)
        await self._finish()

    async def _finish(self) -> None:
        """All that is wanted answers: nginx is told of it, and what is wanted no more drains."""
        if self.front is not None:
            await self.front.bring()
        wanted = {program.name for program in (*self.wanted, *((self.front.program,) if self.front else ()))}
        for name in sorted((await self._here()).keys() - wanted):
            self.tell(f"{name}: draining", None)
            await asyncio.to_thread(self.supervised.remove, name)

    # --- parts ------------------------------------------------------------------------------------

    async def _here(self) -> Here:
        found = await asyncio.to_thread(self.supervised.programs)
        return {program.name: program for program in found if self.is_of(program.name)}

    async def _is_deaf(self, program: Program) -> bool:
        """Whether its socket was taken away, so that nobody can reach it any more."""
        return bool(program.unix) and not await asyncio.to_thread(Path(program.unix).is_socket)

    async def _put(self, program: Program) -> None:
        self.tell(f"{program.name}: starting workers", None)
        await asyncio.to_thread(self.supervised.put, program)

    async def _all_ready(self, program: Program, digest: str) -> None:
        for slot in range(1, program.workers + 1):
            await self._ready(program.first + slot, digest)

    async def _restart(self, seat: Seat) -> None:
        await asyncio.to_thread(self.supervised.stop, seat.program.name, seat.slot)
        await asyncio.to_thread(self.supervised.start, seat.program.name, seat.slot)

    async def _slots(self, name: str) -> list[Slot]:
        return [slot for slot in await asyncio.to_thread(self.supervised.slots, name) if slot.runs]

    async def _seats(self, of: Iterable[Program]) -> list[Seat]:
        """Those with a worker, the first replica's first."""
        found = [(one, await self._slots(one.name)) for one in of if not programs.is_proxy(one)]
        seats = [Seat(program, slot.number) for program, slots in found for slot in slots]
        return sorted(seats, key=lambda seat: seat.number)

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

    async def _runs(self, seat: Seat, digest: str) -> bool:
        return bool((await self._state(seat.number)).get("bundle") == digest)

    async def _runs_program(self, seat: Seat) -> bool:
        found = await asyncio.to_thread(self.supervised.slots, seat.program.name)
        return any(one.number == seat.slot and one.digest == seat.program.digest for one in found)

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
