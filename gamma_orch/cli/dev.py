"""`gamma dev`: Dagster for this project: its web pages and its daemon, until Ctrl-C."""

from pathlib import Path
from typing import Annotated

import typer

from gamma_orch.cli.contract import ProjectOption
from gamma_orch.cli.init import SCAFFOLD


def dev(
    project: ProjectOption = Path(),
    port: Annotated[int, typer.Option(help="Port of the web pages; 0: any free one.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Run Dagster: web pages and daemon, with each environment as a code location."""
    from gamma_orch.cli.report import say
    from gamma_orch.core.provider import GammaError
    from gamma_orch.engine.project import find_root

    root = find_root(project.resolve())
    try:
        import dagster_webserver  # noqa: F401
    except ImportError:
        raise GammaError("Dagster is not installed here. Say: pip install 'gamma-orch[dagster]'") from None
    locations = root / "pipelines" / "definitions.py"
    if not locations.is_file():
        locations.parent.mkdir(exist_ok=True)
        locations.write_bytes((SCAFFOLD / "pipelines" / "definitions.py").read_bytes())
        say(f"{locations} is written: Dagster loads the environments by it.")
    from gamma_orch.orchestration.server import serve

    say("Starting Dagster; the first page takes some seconds.")
    raise typer.Exit(serve(root, host, port, say))
