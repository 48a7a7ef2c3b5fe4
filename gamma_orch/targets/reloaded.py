"""A server that reads its configuration anew when it is asked to: Prometheus and Alertmanager, over HTTP.

What always holds: several who ask for it at one moment are one reload; what `web_api` says.
"""

import asyncio
from typing import TYPE_CHECKING

from gamma_orch.core.provider import Permanent, ProviderError
from gamma_orch.targets.web_api import WebApi

if TYPE_CHECKING:
    from gamma_orch.targets.local_server import LocalServer

RELOAD = "/-/reload"
READING = "Loading configuration file"  # what its log says when it begins


class Reloaded(WebApi):
    def __init__(self, title: str, server: "LocalServer | None", url: str = "") -> None:
        """As a WebApi."""
        super().__init__(title, server, url)
        self._lock = asyncio.Lock()
        self._wanted = self._loaded = 0

    async def reload(self) -> None:
        """Of one that is ready. Raises Permanent where it refuses what it reads; then it goes on with what it
        had."""
        self._wanted += 1
        mine = self._wanted
        async with self._lock:
            if self._loaded >= mine:
                return
            upto = self._wanted  # all of these have written their files
            await asyncio.to_thread(self._compose)
            await asyncio.to_thread(self.asked, "POST", RELOAD)
            self._loaded = upto

    def _compose(self) -> None:
        """Make of the files that were written what it reads, where that is not the files themselves."""

    def _answered(self, code: int, method: str, path: str, said: str) -> ProviderError:
        if path == RELOAD and code == 500:
            return Permanent(
                f"{self.title} refuses its configuration, and goes on with that of before: "
                f"{self.why() or said}"
            )
        return super()._answered(code, method, path, said)

    def why(self) -> str:
        """What it has written of its last error, where it is on this machine: over HTTP it says that there
        was one. The first since it began to read is the cause of the others."""
        from gamma_orch.targets.home import tail

        said = tail(self._local.log).rpartition(READING)[2] if self._local is not None else ""
        errors = (line for line in said.splitlines() if "level=error" in line)
        return next(errors, "").partition(" msg=")[2]
