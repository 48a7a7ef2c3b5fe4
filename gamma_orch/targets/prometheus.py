"""A Prometheus as the kinds of monitoring see it: the rules that it runs, what it scrapes, and the folders
that both come from.

One `Prometheus` a target, made by `targets.Targets`. What always holds: what it runs is asked of itself, and
never read from the folder; a change that it refuses is taken back before anybody is told.
"""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import yaml

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent, Temporary
from gamma_orch.targets import shared_file
from gamma_orch.targets.embedded_prometheus import parsed
from gamma_orch.targets.reloaded import Reloaded

if TYPE_CHECKING:
    from gamma_orch.targets.embedded_prometheus import EmbeddedPrometheus


class Prometheus(Reloaded):
    def __init__(
        self,
        name: str,
        server: "EmbeddedPrometheus | None",
        url: str = "",
        rules: str = "",
        scrapes: str = "",
    ) -> None:
        """`server`: the embedded one; or a `url`, and the folders of `rules` and `scrapes` that its
        configuration names."""
        super().__init__(f"Prometheus {name!r}", server, url)
        self._server = server
        self.rules = server.rules if server is not None else Path(rules)
        self._scrapes = server.scrapes if server is not None else Path(scrapes) if scrapes else None
        self._composed = True

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

    async def jobs(self) -> dict[str, Json]:
        """What it scrapes, by the job's name, as its configuration has it; secrets are blanked out. Raises
        Temporary or Permanent."""
        found = json.loads(await self.ask("GET", "/api/v1/status/config"))
        configuration = await asyncio.to_thread(parsed, found["data"]["yaml"])
        return {one["job_name"]: one for one in configuration.get("scrape_configs") or ()}

    async def query(self, expr: str, at: float) -> list[Json]:
        """What the expression is at a moment, in seconds since 1970. Raises Temporary or Permanent."""
        return await self._result("query", query=expr, time=f"{at:.3f}")

    async def query_range(self, expr: str, start: float, end: float, step: float) -> list[Json]:
        """The series that the expression gives over time, a point each `step` seconds. It gives 11,000 points
        at most. Raises Temporary or Permanent."""
        span = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        return await self._result("query_range", query=expr, **span)

    def queried(self, what: str, **said: object) -> Json:
        """What the API says to that, of one that is ready; blocks. Raises Temporary or Permanent."""
        form = urlencode(said).encode()  # in the body, for an expression may be longer than a URL
        return json.loads(self.asked("POST", f"/api/v1/{what}", form))["data"]

    async def _result(self, what: str, **said: object) -> list[Json]:
        await self.ready()
        found = await asyncio.to_thread(self.queried, what, **said)
        return list(found["result"])

    async def put(self, file: str, text: str | None) -> None:
        """Have this file of rules, or with None have it no more, in the folder and in the server. Raises
        Temporary or Permanent; then all is as it was."""
        await self._have(self.rules / file, text)

    async def put_job(self, name: str, job: Json, about: Json) -> None:
        """Have this job, or with None have it no more: what it scrapes, as its configuration has it. `about`
        is kept beside it (`kept`), and has no secret in it. Raises Temporary or Permanent, as `put`."""
        if self._scrapes is None:
            raise Permanent(
                f"{self.title} has no folder for what it scrapes. Make one, name it in `scrape_config_files` "
                "of that Prometheus (2.43 or later), and as `scrapes` of the target in environment.yaml."
            )
        text = f"{ABOUT}{json.dumps(about, sort_keys=True)}\n{yaml.safe_dump({'scrape_configs': [job]})}"
        await self._have(self._scrapes / f"{name}.yml", text if job is not None else None)

    def kept(self) -> dict[str, tuple[Json, Json]]:
        """Each job that was put, and what was said about it, by its name. Blocks."""
        found = {}
        for path in sorted(self._scrapes.glob("*.yml")) if self._scrapes is not None else ():
            about, _, rest = path.read_text(encoding="utf-8").partition("\n")
            if about.startswith(ABOUT):  # others are somebody else's
                [job] = parsed(rest)["scrape_configs"]
                found[path.stem] = (job, json.loads(about.removeprefix(ABOUT)))
        return found

    async def _have(self, path: Path, text: str | None) -> None:
        await self.ready()
        before = await asyncio.to_thread(_read, path)
        try:
            await self._write(path, text)
            await self.reload()
        except (Permanent, Temporary):
            await self._write(path, before)
            await asyncio.to_thread(self._compose)  # not for now, but for its next start
            raise

    async def _write(self, path: Path, text: str | None) -> None:
        await asyncio.to_thread(shared_file.put, path, text)
        if path.parent == self._scrapes:
            self._composed = False  # after the file: what is composed in between is composed once more

    def _compose(self) -> None:
        if self._server is not None and not self._composed:
            self._composed = True  # before it looks, for the same reason
            self._server.compose()


ABOUT = "# Made by Gamma, of "  # the first line of a job's file


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
