"""What all kinds of monitoring have in common: their resources lie on servers that the environment names, and
each server is asked once for all of them. A kind says how one is looked at (`_seen`), and puts (`_put`)."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from gamma_orch.core.address import Address
from gamma_orch.core.observation import ABSENT, Observation, Unreadable
from gamma_orch.core.provider import Asked, ProviderError, Task
from gamma_orch.targets import Targets
from gamma_orch.targets.joined import Joined


class HasServer(Protocol):
    @property
    def exists(self) -> bool:
        """False where there is nothing to ask: it never was started."""


Server = TypeVar("Server", bound=HasServer)
Looked = dict[Address, Observation] | Unreadable


class ServerProvider(ABC, Generic[Server]):
    KIND: ClassVar[str]
    PLACE: ClassVar[str]  # the field that names the server

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._joined = Joined()  # steps that are carried out together read back together

    @abstractmethod
    def _server(self, name: str) -> Server:
        """Raises Permanent where the environment has none of that name."""

    @abstractmethod
    async def _seen(self, name: str, server: Server) -> dict[Address, Observation]:
        """All of this kind and environment that it runs. Raises Temporary or Permanent."""

    @abstractmethod
    async def _put(self, server: Server, name: str, content: Any) -> None:
        """Have this of a resource, or with None have it no more. Raises Temporary or Permanent."""

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        places = {one.address: self._places(one) for one in asked}
        names = sorted({name for found in places.values() for name in found})
        looked = dict(zip(names, await asyncio.gather(*map(self._look, names)), strict=True))
        found = {one.address: _found(one.address, [looked[n] for n in places[one.address]]) for one in asked}
        for one in looked.values():  # those that no spec names any more
            if isinstance(one, dict):
                found |= {address: seen for address, seen in one.items() if address not in found}
        return found

    async def delete(self, task: Task) -> None:
        for place in {one[self.PLACE] for one in (task.recorded, task.live) if one}:
            server = self._server(place)
            if server.exists:
                await self._put(server, task.address.name, None)

    async def _have(self, task: Task, content: Any) -> None:
        """Put it where it is wanted, and nowhere else: it may have moved from another server."""
        name, place = task.address.name, task.fields[self.PLACE]
        await self._put(self._server(place), name, content)
        for before in (task.recorded, task.live):
            if before and before[self.PLACE] != place:
                await self._put(self._server(before[self.PLACE]), name, None)

    async def _look(self, name: str) -> Looked:
        try:
            server = self._server(name)
            if not await asyncio.to_thread(lambda: server.exists):
                return {}
            return await self._joined.ask(name, lambda begun: self._read(name, server, begun))
        except ProviderError as error:
            return Unreadable(str(error))

    async def _read(self, name: str, server: Server, begun: Callable[[], None]) -> dict[Address, Observation]:
        begun()
        return await self._seen(name, server)

    def _places(self, one: Asked) -> list[str]:
        """The servers that it may be on: that of the record first."""
        known = (fields[self.PLACE] for fields in (one.recorded, one.wanted) if fields)
        return list(dict.fromkeys(known))


def _found(address: Address, looked: Sequence[Looked]) -> Observation:
    for one in looked:
        if isinstance(one, Unreadable):
            return one
        if address in one:
            return one[address]
    return ABSENT
