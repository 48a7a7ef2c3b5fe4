"""`gamma plan`: what apply would do, and why. Changes nothing. Exit 0: nothing; 2: changes; 3: refused."""

import json
from pathlib import Path
from typing import Annotated

import typer

from gamma_orch.cli.contract import EnvironmentOption, Exit, OutputOption, ProjectOption
from gamma_orch.core.render import Style


def plan(
    env: EnvironmentOption = "dev",
    output: OutputOption = Style.TEXT,
    project: ProjectOption = Path(),
    out: Annotated[
        Path | None, typer.Option(help="Save the plan, to be applied exactly or not at all.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show the unchanged resources too.")] = False,
) -> None:
    """Show what apply would do, and why."""
    from gamma_orch.cli.patience import waiting
    from gamma_orch.cli.report import show, show_json
    from gamma_orch.core.provider import GammaError
    from gamma_orch.core.render import plan_json, plan_markdown, plan_text
    from gamma_orch.engine.converge import look
    from gamma_orch.engine.doors import opened, run
    from gamma_orch.engine.estimate import impacts

    with opened(project, env) as site:
        with waiting(f"Reading what is there in {env}"):
            found = run(site, look(site)).plan
        estimates = impacts(site.database, found, site.world)
    if out is not None:
        try:
            out.write_text(json.dumps(plan_json(found), ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise GammaError(f"The plan cannot be saved as {out}: {error.strerror}.") from None
    match output:
        case Style.JSON:
            show_json(plan_json(found, estimates))
        case Style.MARKDOWN:
            show(plan_markdown(found, estimates))
        case Style.TEXT:
            show(plan_text(found, estimates, everything))
    if found.refused:
        raise typer.Exit(Exit.REFUSED)
    if found.steps:
        raise typer.Exit(Exit.CHANGES)
