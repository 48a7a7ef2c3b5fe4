"""The HTTP API of a server, asked: of one that Gamma runs, or of one by its URL.

What always holds: a password or token is in no message; each call ends in time.
"""

import asyncio
import base64
import copy
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Self

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent, ProviderError, Temporary

if TYPE_CHECKING:
    from gamma_orch.targets.local_server import LocalServer

TIMEOUT = 20.0  # seconds
WORDS = 1000  # characters of an answer that are told, at most


class Refused(Permanent):
    """What was asked was understood, and is not done."""

    def __init__(self, says: str, code: int) -> None:
        super().__init__(says)
        self.code = code


class WebApi:
    def __init__(
        self, title: str, server: "LocalServer | None", url: str = "", token: str | None = None
    ) -> None:
        """`title`: for people. `server`: one that Gamma runs; else its `url`, perhaps with a user and a
        password, or a bearer `token`."""
        self.title = title
        self._local, self._url, self._token = server, url, token
        self._starts = True

    @property
    def exists(self) -> bool:
        """False for one of Gamma's own that never was started: then it runs nothing."""
        from gamma_orch.targets.embedded_postgres import State

        return self._local is None or self._local.state() is not State.ABSENT

    def as_it_is(self) -> Self:
        """The same for who only looks: it is not started where it does not run, and not made sure of at each
        question."""
        found = copy.copy(self)
        found._starts = False
        return found

    async def ready(self) -> None:
        """Raises Permanent, or Missing, where it cannot be started."""
        if self._local is not None and self._starts:
            await asyncio.to_thread(self._local.ensure)

    async def ask(self, method: str, path: str, body: Json = None) -> bytes:
        """Raises Temporary, or Permanent (Refused, where it says no)."""
        await self.ready()
        return await asyncio.to_thread(self.asked, method, path, body)

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
            raise self._answered(error.code, method, path, said) from None
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "reason", None) or error
            raise Temporary(f"{self.title} at {place} cannot be asked: {why}.") from None

    def _answered(self, code: int, method: str, path: str, said: str) -> ProviderError:
        """What an answer is that is no good one."""
        says = f"{self.title} answers {code} to {method} {path}: {said}"
        return Refused(says, code) if code < 500 else Temporary(says)

    def _place(self) -> tuple[str, dict[str, str]]:
        """Where it is and how to ask there, without a password in the place."""
        if self._local is not None:
            return self._local.url, {"Authorization": self._local.authorization()}
        parts = urllib.parse.urlsplit(self._url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Permanent(f"The URL of {self.title} does not begin with http:// or https://.")
        host = parts.netloc.rpartition("@")[2]
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        if parts.username is not None:
            user, password = (urllib.parse.unquote(one or "") for one in (parts.username, parts.password))
            headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        return f"{parts.scheme}://{host}{parts.path.rstrip('/')}", headers
