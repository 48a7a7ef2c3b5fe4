"""Bringing the nginx in front of a service's replicas to its configuration, with no request lost.

The configuration is in force when nginx says so and those of its workers that knew another one have drained.
Whatever fails, the one of before is in the file again, and nginx has been told to read it.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from gamma_orch.core.provider import Permanent, ProviderError, Tell, Temporary
from gamma_orch.targets.nginx import Nginx
from gamma_orch.targets.supervised import Program, Slot, Supervised

SLOT = 1  # the one of its program that nginx has
PATIENCE = 15.0  # seconds in which nginx has another configuration
ENDING = 5.0  # seconds that its workers may take longer than the drain


@dataclass(frozen=True, slots=True)
class Front:
    nginx: Nginx
    supervised: Supervised
    program: Program
    text: str
    digest: str  # what nginx says when the text is in force
    drain: float
    tell: Tell

    async def check(self) -> None:
        """Raises Permanent where nginx is missing or does not take the configuration."""
        await asyncio.to_thread(self.nginx.check, self.text)

    async def bring(self) -> None:
        """Raises Temporary or Permanent."""
        before = self.nginx.text()
        try:
            await self._bring(before)
        except ProviderError:
            if before:
                self.nginx.install(before)
                with suppress(ProviderError):
                    await self._renew()
            raise

    async def faults(self) -> AsyncIterator[str]:
        """What is not as it should be."""
        slot = await self._slot()
        if slot is None:
            yield "nginx does not run"
            return
        if slot.digest != self.program.digest:
            yield "what runs on the port is not the nginx that is wanted"
            return
        if self.nginx.text() != self.text:
            yield f"{self.nginx.folder / 'nginx.conf'} is not what the specs come to"
        says = await asyncio.to_thread(self.nginx.says)
        if says != self.digest:
            yield f"nginx has the configuration {says[:12] or 'that nobody knows'}, not {self.digest[:12]}"

    async def _bring(self, before: str) -> None:
        if before != self.text:
            await self.check()
            self.nginx.install(self.text)
        old = now = await self._slot()
        declared = await asyncio.to_thread(self.supervised.declared, self.program.name)
        if old is None or declared != self.program:
            self.tell("nginx: starting", None)
            await asyncio.to_thread(self.supervised.put, self.program)
            now = await self._slot()
        if now is None or now.digest != self.program.digest:
            # Something else has the port: it drains, and connections wait until nginx is there.
            self.tell("nginx: taking the port", None)
            await self._restart()
        elif old is not None and old.pid == now.pid and (before != self.text or await self._differs()):
            self.tell("nginx: taking the configuration", None)
            workers = await self._workers()
            await self._renew()

            async def others() -> bool:
                return await self._agrees() and workers.keys().isdisjoint(await self._answering())

            if not await self._within(PATIENCE, others):
                await self._restart()  # it runs, and does not say what
        if not await self._within(PATIENCE, self._agrees):
            raise Permanent(
                f"nginx did not take the configuration within {PATIENCE:.0f} s. Its log says why: "
                f"{self.program.name}-{SLOT}.log of the supervisor."
            )
        if not await self._within(self.drain + ENDING, self._drained):
            raise Temporary("Workers of nginx with the configuration of before do not end. Apply again.")

    async def _restart(self) -> None:
        await asyncio.to_thread(self.supervised.stop, self.program.name, SLOT)
        await asyncio.to_thread(self.supervised.start, self.program.name, SLOT)

    async def _renew(self) -> None:
        await asyncio.to_thread(self.supervised.signal, self.program.name, SLOT, signal.SIGHUP)

    async def _slot(self) -> Slot | None:
        found = await asyncio.to_thread(self.supervised.slots, self.program.name)
        return next((slot for slot in found if slot.number == SLOT and slot.pid), None)

    async def _agrees(self) -> bool:
        return await asyncio.to_thread(self.nginx.says) == self.digest

    async def _differs(self) -> bool:
        return not await self._agrees()

    async def _workers(self) -> dict[int, bool]:
        slot = await self._slot()
        return {} if slot is None else await asyncio.to_thread(self.nginx.workers, slot.pid)

    async def _answering(self) -> list[int]:
        return [pid for pid, ends in (await self._workers()).items() if not ends]

    async def _drained(self) -> bool:
        return not any((await self._workers()).values())

    async def _within(self, seconds: float, true: Callable[[], Awaitable[bool]]) -> bool:
        end = time.monotonic() + seconds
        while not await true():
            if time.monotonic() > end:
                return False
            await asyncio.sleep(0.05)
        return True
