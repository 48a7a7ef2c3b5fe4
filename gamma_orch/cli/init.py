"""`gamma init DIR`: a project that validates and applies, small enough to read in a minute."""

from pathlib import Path
from typing import Annotated

import typer

SCAFFOLD = Path(__file__).parent / "scaffold"


def init(
    directory: Annotated[Path, typer.Argument(help="Where to put it; existing files are never touched.")],
) -> None:
    """Make a new project."""
    from gamma_orch.cli.report import say
    from gamma_orch.core.provider import GammaError

    sources = sorted(path for path in SCAFFOLD.rglob("*") if path.is_file() and path.suffix != ".pyc")
    # A leading "dot-" stands for a dot, so that packaging tools do not pass the file over.
    goals = {source: directory / str(source.relative_to(SCAFFOLD)).replace("dot-", ".") for source in sources}
    taken = [str(goal) for goal in goals.values() if goal.exists()]
    if taken:
        raise GammaError(f"Nothing was written: {', '.join(taken)} is there already. Choose an empty folder.")
    for source, goal in goals.items():
        try:
            goal.parent.mkdir(parents=True, exist_ok=True)
            goal.write_bytes(source.read_bytes())
        except OSError as error:
            raise GammaError(f"{goal} cannot be written: {error.strerror}.") from None
        say(f"  {goal}")
    say(f"\nNext:\n  cd {directory}\n  gamma validate\n  gamma up")
