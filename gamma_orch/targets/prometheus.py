"""A Prometheus as the kinds of monitoring see it: the rules that it runs, and the folder that they come from.

One `Prometheus` a target, made by `targets.Targets`. What always holds: what it runs is asked of itself, and
never read from the folder; a change that it refuses is taken back before anybody is told.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent, Temporary
from gamma_orch.targets.reloaded import Reloaded

if TYPE_CHECKING:
    from gamma_orch.targets.embedded_prometheus import EmbeddedPrometheus


class Prometheus(Reloaded):
    def __init__(
        self, name: str, server: "EmbeddedPrometheus | None", url: str = "", rules: str = ""
    ) -> None:
        """`server`: the embedded one; or a `url`, and the folder of `rules` that its configuration names."""
        super().__init__(f"Prometheus {name!r}", server, url)
        self.rules = server.rules if server is not None else Path(rules)

    async def ready(self) -> None:
        await super().ready()
        if not await asyncio.to_thread(self.rules.is_dir):
            raise Permanent(
                f"The folder of rules of {self.title} is not there: {self.rules}. Make it, and name it in "
                "`rule_files` of that Prometheus."
            )

    async def groups(self) -> list[Json]:
        """The groups of rules that it runs. Raises Temporary or Permanent."""
        found = json.loads(await self.ask("GET", "/api/v1/rules"))
        return list(found["data"]["groups"])

    async def put(self, file: str, text: str | None) -> None:
        """Have this file of rules, or with None have it no more, in the folder and in the server. Raises
        Temporary or Permanent; then all is as it was."""
        await self.ready()
        path = self.rules / file
        before = await asyncio.to_thread(_read, path)
        try:
            await asyncio.to_thread(_put, path, text)
            await self.reload()
        except (Permanent, Temporary):
            await asyncio.to_thread(_put, path, before)
            raise


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
