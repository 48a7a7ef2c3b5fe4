"""`gamma import`: the YAML of an object that exists already; the next plan says `adopt`."""

from pathlib import Path
from typing import Annotated

import typer

from gamma_orch.cli.contract import EnvironmentOption, OutputOption, ProjectOption
from gamma_orch.core.render import Style


def import_(
    resource: Annotated[str, typer.Argument(help="Kind/name that the new resource shall have.")],
    what: Annotated[
        str, typer.Argument(help="DATABASE, DATABASE/NAME, or SERVER/DATABASE/NAME; NAME may be SCHEMA.NAME.")
    ],
    env: EnvironmentOption = "dev",
    output: OutputOption = Style.TEXT,
    project: ProjectOption = Path(),
    to: Annotated[Path | None, typer.Option(help="Append to this file instead of printing.")] = None,
) -> None:
    """Write the YAML of an existing object."""
    import yaml

    from gamma_orch.cli.address import address
    from gamma_orch.cli.report import say, show, show_json
    from gamma_orch.engine.doors import opened, run
    from gamma_orch.engine.imports import describe

    with opened(project, env) as site:
        document = run(site, describe(site, address(resource), what))
    if output is Style.JSON:
        show_json(document)
        return
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, explicit_start=True)
    if to is None:
        show(text)
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    with to.open("a", encoding="utf-8") as file:
        file.write(text)
    say(f"Appended {resource} to {to}. The next plan says adopt.")
