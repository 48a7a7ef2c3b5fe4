"""A Prometheus as the kinds of monitoring see it: the rules that it runs, and the folder that they come from.

One `Prometheus` a target, made by `targets.Targets`. What always holds: what it runs is asked of itself, and
never read from the folder; a change that it refuses is taken back before anybody is told; several changes at
one moment are one reload.
"""

import asyncio
import base64
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent, Temporary

if TYPE_CHECKING:
    from gamma_orch.targets.embedded_prometheus import EmbeddedPrometheus

TIMEOUT = 20.0  # seconds
WORDS = 1000  # characters of an answer that are told, at most


class Prometheus:
    def __init__(
        self, name: str, server: "EmbeddedPrometheus | None", url: str = "", rules: str = ""
    ) -> None:
        """`server`: the embedded one; or a `url`, and the folder of `rules` that its configuration names."""
        self.name = name
        self._server = server
        self._given, self._folder = url, rules
        self._headers: dict[str, str] = {}
        self._lock = asyncio.Lock()
        self._wanted = self._loaded = 0

    @property
    def embedded(self) -> bool:
        return self._server is not None

    @property
    def exists(self) -> bool:
        """False for an embedded one that never was started: then it has no rules."""
        from gamma_orch.targets.embedded_postgres import State

        return self._server is None or self._server.state() is not State.ABSENT

    @property
    def rules(self) -> Path:
        return self._server.rules if self._server is not None else Path(self._folder)

    async def groups(self) -> list[Json]:
        """The groups of rules that it runs. Raises Temporary or Permanent."""
        found = json.loads(await self._ask("GET", "/api/v1/rules?type=alert"))
        return list(found["data"]["groups"])

    async def put(self, file: str, text: str | None) -> None:
        """Have this file of rules, or with None have it no more, in the folder and in the server. Raises
        Temporary or Permanent; then all is as it was."""
        await self._ready()
        path = self.rules / file
        before = await asyncio.to_thread(_read, path)
        if before == text:
            return await self._reload()
        try:
            await asyncio.to_thread(_put, path, text)
            await self._reload()
        except (Permanent, Temporary):
            await asyncio.to_thread(_put, path, before)
            raise
        return None

    async def _reload(self) -> None:
        self._wanted += 1
        mine = self._wanted
        async with self._lock:
            if self._loaded >= mine:
                return
            upto = self._wanted  # all of these have written their files
            await self._ask("POST", "/-/reload")
            self._loaded = upto

    async def _ready(self) -> None:
        if self._server is not None:
            await asyncio.to_thread(self._server.ensure)
        elif not await asyncio.to_thread(self.rules.is_dir):
            raise Permanent(
                f"The folder of rules of the target {self.name!r} is not there: {self.rules}. Make it, and "
                "name it in `rule_files` of that Prometheus."
            )

    async def _ask(self, method: str, path: str) -> bytes:
        await self._ready()
        return await asyncio.to_thread(self._asked, method, path)

    def _asked(self, method: str, path: str) -> bytes:
        place, headers = self._place()
        asked = urllib.request.Request(place + path, headers=headers, method=method)  # noqa: S310 - checked
        try:
            with urllib.request.urlopen(asked, timeout=TIMEOUT) as answer:  # noqa: S310 - as above
                text: bytes = answer.read()
                return text
        except urllib.error.HTTPError as error:
            said = error.read().decode("utf-8", "replace").strip()[-WORDS:]
            message = f"Prometheus {self.name!r} answers {error.code} to {method} {path}: {said}"
            if error.code == 500 and path == "/-/reload":
                message = (
                    f"Prometheus {self.name!r} refuses the rules, and goes on with those of before: {said}"
                )
            raise (Permanent if error.code < 500 or path == "/-/reload" else Temporary)(message) from None
        except OSError as error:
            why = getattr(error, "reason", None) or error
            raise Temporary(f"Prometheus {self.name!r} at {place} cannot be asked: {why}.") from None

    def _place(self) -> tuple[str, dict[str, str]]:
        """Where it is and how to ask there, without a password in the place."""
        if self._server is not None:
            return self._server.url, {"Authorization": self._server.authorization()}
        parts = urllib.parse.urlsplit(self._given)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Permanent(f"The URL of the target {self.name!r} begins with http:// or https://.")
        host = parts.netloc.rpartition("@")[2]
        headers = {}
        if parts.username is not None:
            user, password = (urllib.parse.unquote(one or "") for one in (parts.username, parts.password))
            headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        return f"{parts.scheme}://{host}{parts.path.rstrip('/')}", headers


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _put(path: Path, text: str | None) -> None:
    """Whole or not at all. Whoever runs the server must be able to read it, so it has no mode of its own."""
    if text is None:
        path.unlink(missing_ok=True)
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
