"""`gamma status`: is each resource as declared and working, asked of the world at this moment."""

from pathlib import Path
from typing import Annotated

import typer

from gamma_orch.cli.contract import EnvironmentOption, OutputOption, ProjectOption
from gamma_orch.core.render import Style


def status(
    env: EnvironmentOption = "dev",
    output: OutputOption = Style.TEXT,
    project: ProjectOption = Path(),
    everything: Annotated[bool, typer.Option("--all", help="List the ready resources too.")] = False,
) -> None:
    """Show whether each resource is as declared and works."""
    from gamma_orch.cli.patience import waiting
    from gamma_orch.cli.report import show, show_json
    from gamma_orch.core.condition import conditions
    from gamma_orch.core.render import status_json, status_lines, table_markdown
    from gamma_orch.engine.converge import look
    from gamma_orch.engine.doors import opened, run
    from gamma_orch.store.ledger import released

    with opened(project, env) as site:
        with waiting(f"Reading what is there in {env}"):
            found = run(site, look(site))
        release = released(site.database, env)
    told = conditions(found.plan, found.ledger, found.observations)
    match output:
        case Style.JSON:
            show_json(status_json(env, release, told))
        case Style.MARKDOWN:
            rows = [(str(c.address), c.health.name.lower(), c.reason, c.message, c.since) for c in told]
            show(table_markdown(("resource", "health", "reason", "message", "since"), rows))
        case Style.TEXT:
            show("\n".join(status_lines(env, told, everything)) + "\n")
