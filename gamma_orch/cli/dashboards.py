"""`gamma dashboards`: the dashboards of an environment as a page, live, until Ctrl-C."""

import asyncio
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gamma_orch.cli.contract import EnvironmentOption, ProjectOption

if TYPE_CHECKING:
    from gamma_orch.dashboards.asking import Asked, Board
    from gamma_orch.dashboards.server import Listing
    from gamma_orch.engine.converge import Site
    from gamma_orch.spec.resolve import Desired


def dashboards(
    env: EnvironmentOption = "dev",
    project: ProjectOption = Path(),
    port: Annotated[int, typer.Option(help="Port of the page; 0: any free one.")] = 0,
) -> None:
    """Show the dashboards of an environment as a page, live."""
    from gamma_orch.core.provider import GammaError
    from gamma_orch.engine.doors import opened, run

    if not all(map(find_spec, ("plotly", "starlette", "uvicorn", "websockets"))):
        says = "What shows the page is not installed here. Say: pip install 'gamma-orch[monitoring]'"
        raise GammaError(says)
    with opened(project, env) as site:
        run(site, _serve(site, project, env, port))


async def _serve(site: "Site", project: Path, env: str, port: int) -> None:
    import secrets
    import socket

    import uvicorn

    from gamma_orch.cli.report import say
    from gamma_orch.core.provider import GammaError
    from gamma_orch.dashboards.server import Listing, app

    found = Listing(())

    async def listing() -> Listing:
        nonlocal found
        found = await asyncio.to_thread(_read, project, env, found)
        return found

    token = secrets.token_urlsafe(18)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError as error:
        raise GammaError(f"Port {port} cannot be listened on: {error.strerror}. Choose another.") from None
    listening.listen()  # who opens the address at once waits, and is not refused
    with listening:
        page = app(listing, lambda name: _prometheus(site, name), token)
        place = f"http://127.0.0.1:{listening.getsockname()[1]}/?token={token}"
        say(f"Dashboards of {env}, until Ctrl-C: {place}")
        config = uvicorn.Config(page, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
        await uvicorn.Server(config).serve(sockets=[listening])


def _prometheus(site: "Site", name: str) -> "Asked":
    from gamma_orch.core.provider import Permanent

    found = site.world.targets.prometheus(name)
    if not found.exists:
        raise Permanent(f"{found.title} is not there yet: gamma apply -e {site.environment}")
    return found.as_it_is()


def _read(project: Path, env: str, before: "Listing") -> "Listing":
    """As the files are now; where they have errors, as they were."""
    from gamma_orch.core.render import diagnostics_text
    from gamma_orch.dashboards.server import Listing
    from gamma_orch.engine.project import SpecsBroken, faultless, find_root

    try:
        _, desired = faultless(find_root(project.resolve()), env)
    except SpecsBroken as error:
        return Listing(before.boards, diagnostics_text(error.diagnostics))
    return Listing(tuple(_boards(desired)))


def _boards(desired: "Desired") -> "list[Board]":
    from gamma_orch.dashboards.asking import Board
    from gamma_orch.kinds.monitoring.dashboard import normalise

    found = [one for address, one in desired.resources.items() if address.kind == "Dashboard"]
    return [
        Board(one.address.name, one.spec["prometheus"], normalise(one.address, one.spec, lambda _: {}))
        for one in sorted(found, key=lambda one: one.address.name)
    ]
