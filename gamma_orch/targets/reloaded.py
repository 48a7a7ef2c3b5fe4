"""A server that reads its configuration anew when it is asked to: Prometheus and Alertmanager, over HTTP.

What always holds: several who ask for it at one moment are one reload; a password is in no message; each call
ends in time.
"""

import asyncio
import base64
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent, Temporary

if TYPE_CHECKING:
    from gamma_orch.targets.local_server import LocalServer

TIMEOUT = 20.0  # seconds
WORDS = 1000  # characters of an answer that are told, at most
RELOAD = "/-/reload"
READING = "Loading configuration file"  # what its log says when it begins


class Reloaded:
    def __init__(self, title: str, server: "LocalServer | None", url: str = "") -> None:
        """`title`: for people. `server`: one that Gamma runs; else its `url`."""
        self.title = title
        self._local, self._url = server, url
        self._lock = asyncio.Lock()
        self._wanted = self._loaded = 0

    @property
    def exists(self) -> bool:
        """False for one of Gamma's own that never was started: then it runs nothing."""
        from gamma_orch.targets.embedded_postgres import State

        return self._local is None or self._local.state() is not State.ABSENT

    async def ready(self) -> None:
        """Raises Permanent, or Missing, where it cannot be started."""
        if self._local is not None:
            await asyncio.to_thread(self._local.ensure)

    async def ask(self, method: str, path: str, body: Json = None) -> bytes:
        """Raises Temporary or Permanent."""
        await self.ready()
        return await asyncio.to_thread(self.asked, method, path, body)

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

    def asked(self, method: str, path: str, body: Json = None) -> bytes:
        """As `ask`, of one that is ready; blocks. Bytes are a form that is encoded already."""
        place, headers = self._place()
        is_form = isinstance(body, bytes)
        data = body if body is None or is_form else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded" if is_form else "application/json"
        asked = urllib.request.Request(place + path, data, headers, method=method)  # noqa: S310 - checked
        try:
            with urllib.request.urlopen(asked, timeout=TIMEOUT) as answer:  # noqa: S310 - as above
                text: bytes = answer.read()
                return text
        except urllib.error.HTTPError as error:
            said = error.read().decode("utf-8", "replace").strip()[-WORDS:]
            if path == RELOAD and error.code == 500:
                raise Permanent(
                    f"{self.title} refuses its configuration, and goes on with that of before: "
                    f"{self.why() or said}"
                ) from None
            kind = Permanent if error.code < 500 else Temporary
            raise kind(f"{self.title} answers {error.code} to {method} {path}: {said}") from None
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "reason", None) or error
            raise Temporary(f"{self.title} at {place} cannot be asked: {why}.") from None

    def why(self) -> str:
        """What it has written of its last error, where it is on this machine: over HTTP it says that there
        was one. The first since it began to read is the cause of the others."""
        from gamma_orch.targets.home import tail

        said = tail(self._local.log).rpartition(READING)[2] if self._local is not None else ""
        errors = (line for line in said.splitlines() if "level=error" in line)
        return next(errors, "").partition(" msg=")[2]

    def _place(self) -> tuple[str, dict[str, str]]:
        """Where it is and how to ask there, without a password in the place."""
        if self._local is not None:
            return self._local.url, {"Authorization": self._local.authorization()}
        parts = urllib.parse.urlsplit(self._url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Permanent(f"The URL of {self.title} does not begin with http:// or https://.")
        host = parts.netloc.rpartition("@")[2]
        headers = {}
        if parts.username is not None:
            user, password = (urllib.parse.unquote(one or "") for one in (parts.username, parts.password))
            headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        return f"{parts.scheme}://{host}{parts.path.rstrip('/')}", headers
