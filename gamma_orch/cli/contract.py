"""What every command has in common: exit codes, output formats, the options for both.

`docs/cli.md` is the contract in words. JSON goes to standard output alone; progress and errors go to
standard error.
"""

from enum import IntEnum
from pathlib import Path
from typing import Annotated

import typer

from gamma_orch.core.render import Style


class Exit(IntEnum):
    OK = 0  # done, or nothing to do
    ERROR = 1
    CHANGES = 2  # `plan`: changes are pending
    REFUSED = 3  # stale plan, lease, gate, policy, protected
    INTERRUPTED = 130


EnvironmentOption = Annotated[
    str, typer.Option("--env", "-e", envvar="GAMMA_ENV", help="The environment, a folder of environments/.")
]
OutputOption = Annotated[
    Style,
    typer.Option("--output", "-o", help="text for people, json for programs, markdown for a pull request."),
]
ProjectOption = Annotated[
    Path, typer.Option("--project", "-C", help="Where the project is; it is searched upwards from here.")
]
