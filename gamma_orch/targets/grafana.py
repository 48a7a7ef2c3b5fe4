"""Where dashboards are put: on a Grafana, through its HTTP API, or in a folder that one can read as it starts
("provisioning"). Made by `targets.Targets`.

What always holds: a dashboard is there whole or as it was; those that others made are not looked into.
"""

import asyncio
import json
from abc import ABC, abstractmethod
from pathlib import Path
from urllib.parse import quote, urlencode

from gamma_orch.core.canonical import Json
from gamma_orch.targets import shared_file
from gamma_orch.targets.web_api import Refused, WebApi

FILES = ""  # the name of the folder that each environment has
AT_ONCE = 8  # questions
MOST = 5000  # that a search gives, at most


class Boards(ABC):
    """Dashboards by their uid."""

    @property
    @abstractmethod
    def exists(self) -> bool:
        """Whether there may be any."""

    @abstractmethod
    async def tagged(self, tag: str) -> list[Json]:
        """Those with a tag. Raises Temporary or Permanent."""

    @abstractmethod
    async def put(self, uid: str, board: Json | None) -> None:
        """Have it, or with None have it no more. Raises Temporary or Permanent."""


class Grafana(Boards):
    def __init__(self, name: str, url: str, token: str, folder: str) -> None:
        """`folder`: the uid of that in Grafana; "" is the uppermost."""
        self._api = WebApi(f"Grafana {name!r}", None, url, token)
        self._folder = folder

    @property
    def exists(self) -> bool:
        return True

    async def tagged(self, tag: str) -> list[Json]:
        asked = urlencode({"type": "dash-db", "tag": tag, "limit": MOST})
        found = json.loads(await self._api.ask("GET", f"/api/search?{asked}"))
        few = asyncio.Semaphore(AT_ONCE)

        async def one(uid: str) -> Json | None:
            async with few:
                return await self._one(uid)

        boards = await asyncio.gather(*(one(each["uid"]) for each in found))
        return [board for board in boards if board is not None]

    async def put(self, uid: str, board: Json | None) -> None:
        if board is None:
            try:
                await self._api.ask("DELETE", f"/api/dashboards/uid/{quote(uid)}")
            except Refused as error:
                if error.code != 404:
                    raise
            return
        # Without an id it is made, or with `overwrite` takes the place of what has this uid.
        said = {"dashboard": {**board, "id": None}, "overwrite": True, "message": "Put there by Gamma"}
        if self._folder:
            said["folderUid"] = self._folder
        await self._api.ask("POST", "/api/dashboards/db", said)

    async def _one(self, uid: str) -> Json | None:
        try:
            found = json.loads(await self._api.ask("GET", f"/api/dashboards/uid/{quote(uid)}"))
        except Refused as error:
            if error.code == 404:  # deleted since
                return None
            raise
        return found["dashboard"]


class BoardFiles(Boards):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def exists(self) -> bool:
        return self._folder.is_dir()

    async def tagged(self, tag: str) -> list[Json]:
        return await asyncio.to_thread(lambda: [one for one in self._all() if tag in (one.get("tags") or ())])

    async def put(self, uid: str, board: Json | None) -> None:
        await asyncio.to_thread(self._put, self._folder / f"{uid}.json", board)

    def _all(self) -> list[Json]:
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                board = json.loads(path.read_bytes())
            except (OSError, ValueError):  # no dashboard, or none any more: then ours is missing
                continue
            if isinstance(board, dict):
                found.append(board)
        return found

    def _put(self, path: Path, board: Json | None) -> None:
        if board is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        text = None if board is None else json.dumps(board, indent=2, sort_keys=True) + "\n"
        shared_file.put(path, text)
