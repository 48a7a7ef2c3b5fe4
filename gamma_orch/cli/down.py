"""`gamma down`: stop the embedded servers that `up` or `apply` started. Data is kept unless asked.

The ledger stays in any case: it is history. After `--data` the next plan says "deleted outside".
"""

from pathlib import Path
from typing import Annotated

import typer

from gamma_orch.cli.contract import EnvironmentOption, ProjectOption


def down(
    env: EnvironmentOption = "dev",
    project: ProjectOption = Path(),
    data: Annotated[
        bool, typer.Option("--data", help="Delete the servers' data and the generated secrets too.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Stop the embedded servers of an environment."""
    from gamma_orch.cli.report import say
    from gamma_orch.engine.embedded import forget, stop
    from gamma_orch.engine.project import STATE, find_root

    root = find_root(project.resolve())
    if data and not yes:
        typer.confirm(f"Delete all data of {env} under {root / STATE}?", abort=True, err=True)
    for line in stop(root / STATE, env):
        say(line)
    if data:
        for line in forget(root / STATE, env):
            say(line)
