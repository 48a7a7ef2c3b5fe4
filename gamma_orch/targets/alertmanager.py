"""An Alertmanager as the kinds of monitoring see it: a configuration that is put together from parts.

One `Alertmanager` a target, made by `targets.Targets`. A part is what one resource puts there: receivers,
routes, and the fields that they came from. What always holds: the configuration is that of all parts, and of
nothing else; a part that the server refuses is taken back before anybody is told; what is running is asked of
the server itself. Secrets are in the folder of the server (mode 0700), in its configuration and in parts.
"""

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import yaml

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent, Temporary
from gamma_orch.targets.home import Home
from gamma_orch.targets.reloaded import Reloaded

if TYPE_CHECKING:
    from gamma_orch.targets.embedded_alertmanager import EmbeddedAlertmanager


class Alertmanager(Reloaded):
    def __init__(self, name: str, server: "EmbeddedAlertmanager") -> None:
        super().__init__(f"Alertmanager {name!r}", server)
        self.server = server
        self._writing = asyncio.Lock()

    def why(self) -> str:
        return f"its log {self.server.log} says why. It may have secrets in it."

    async def running(self) -> Json:
        """The configuration that it goes by, with secrets blanked out. Raises Temporary or Permanent."""
        status = json.loads(await self.ask("GET", "/api/v2/status"))
        return yaml.safe_load(status["config"]["original"])

    def parts(self) -> dict[str, Json]:
        """By name."""
        found = {}
        for path in sorted((self.server.home / "parts").glob("*.json")):
            with suppress(OSError, ValueError):
                found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        return found

    async def put(self, name: str, part: Json) -> None:
        """Have this part, or with None have it no more. Raises Temporary or Permanent; then all is as it
        was."""
        await self.ready()
        async with self._writing:
            before = await asyncio.to_thread(self.parts)
            after = {one: said for one, said in before.items() if one != name}
            if part is not None:
                after[name] = part
            try:
                await asyncio.to_thread(self._write, name, part, after)
                await self.reload()
            except (Permanent, Temporary):
                await asyncio.to_thread(self._write, name, before.get(name), before)
                raise

    def _write(self, name: str, part: Json, all_parts: dict[str, Json]) -> None:
        home = Home(self.server.home, self.title, "")
        (home.folder / "parts").mkdir(mode=0o700, exist_ok=True)
        home.write("alertmanager.yml", yaml.safe_dump(assembled(all_parts), sort_keys=False, width=110))
        if part is None:
            (home.folder / "parts" / f"{name}.json").unlink(missing_ok=True)
        else:
            home.write(f"parts/{name}.json", json.dumps(part, sort_keys=True))


def assembled(parts: dict[str, Json]) -> dict[str, Any]:
    """The configuration of these parts. Each policy looks at each alert, so none hides another."""
    from gamma_orch.targets.embedded_alertmanager import NOBODY

    ordered = [said for _, said in sorted(parts.items())]
    held = [one for said in ordered for one in said.get("inhibit_rules", ())]
    times = [one for said in ordered for one in said.get("time_intervals", ())]
    return {
        **({"time_intervals": times} if times else {}),
        **({"inhibit_rules": [one for n, one in enumerate(held) if one not in held[:n]]} if held else {}),
        "route": {"receiver": NOBODY, "routes": [one for said in ordered for one in said["routes"]]},
        "receivers": [{"name": NOBODY}, *(one for said in ordered for one in said["receivers"])],
    }
