"""`gamma destroy`: delete everything that Gamma made in an environment. Protected objects refuse."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from gamma_orch.cli.contract import EnvironmentOption, OutputOption, ProjectOption
from gamma_orch.core.render import Style


def destroy(
    env: EnvironmentOption = "dev",
    output: OutputOption = Style.TEXT,
    project: ProjectOption = Path(),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    consent: Annotated[
        list[str] | None, typer.Option(help="Kind/name: allow the deletion of this protected object, once.")
    ] = None,
) -> None:
    """Delete everything that Gamma made in an environment."""
    from gamma_orch.cli.address import addresses
    from gamma_orch.cli.apply import converge, report
    from gamma_orch.cli.report import say
    from gamma_orch.core.provider import GammaError
    from gamma_orch.core.render import plan_text
    from gamma_orch.engine.converge import look
    from gamma_orch.engine.doors import opened, run

    consents = addresses(consent or [])
    with opened(project, env) as declared:
        site = replace(declared, desired={})
        if not yes:
            if not sys.stdin.isatty():
                raise GammaError("There is nobody to ask here. Say --yes, if all of it shall be deleted.")
            say(plan_text(run(site, look(site)).plan))
            if typer.prompt(f"Type {env} to delete all of this", err=True) != env:
                raise GammaError("Not confirmed; nothing was deleted.")
        outcome = converge(site, None, consents, output, purpose="destroy")
    raise typer.Exit(report(outcome, env, output))
