"""`gamma up`: start the embedded servers, converge the environment, and say what runs and where."""

from pathlib import Path

import typer

from gamma_orch.cli.contract import EnvironmentOption, OutputOption, ProjectOption
from gamma_orch.core.render import Style


def up(
    env: EnvironmentOption = "dev", output: OutputOption = Style.TEXT, project: ProjectOption = Path()
) -> None:
    """Bring an environment up: start its embedded servers and converge it."""
    from gamma_orch.cli.apply import converge, report
    from gamma_orch.cli.report import say
    from gamma_orch.engine.doors import opened
    from gamma_orch.engine.embedded import running

    with opened(project, env) as site:
        outcome = converge(site, None, [], output, purpose="up")
        code = report(outcome, env, output)
        for line in running(site):
            say(line)
    raise typer.Exit(code)
