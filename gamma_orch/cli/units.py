"""`gamma units`: the files by which systemd runs the workers of a Service, printed or put into a folder."""

from pathlib import Path
from typing import Annotated

import typer

from gamma_orch.cli.contract import EnvironmentOption, ProjectOption


def units(
    service: Annotated[str, typer.Argument(help="The name of the Service.")],
    env: EnvironmentOption = "dev",
    into: Annotated[
        Path | None, typer.Option("--into", help="Write them into this folder. Default: print.")
    ] = None,
    user: Annotated[str, typer.Option("--user", help="Who runs it. Default: this user.")] = "",
    memory: Annotated[str, typer.Option("--memory", help="Of each worker at most: 2G. Default: all.")] = "",
    project: ProjectOption = Path(),
) -> None:
    """Print units for systemd that run the workers of a Service."""
    import getpass
    import sys

    from gamma_orch.cli.report import say, show
    from gamma_orch.core.address import Address
    from gamma_orch.core.diagnostic import did_you_mean
    from gamma_orch.core.provider import GammaError
    from gamma_orch.engine.project import STATE, faultless, find_root
    from gamma_orch.kinds.serving.units import Units, rendered

    root = find_root(project.resolve())
    resources = faultless(root, env)[1].resources
    wanted = Address("Service", service.removeprefix("Service/"))
    if wanted not in resources:
        known = [str(address) for address in resources if address.kind == "Service"]
        raise GammaError(f"{env} has no {wanted}; {did_you_mean(str(wanted), known)}")
    home = root / STATE / env / f"service-{wanted.name}"
    said = Units(wanted.name, str(home), sys.executable, user or getpass.getuser(), memory)
    for name, text in rendered(said, resources[wanted].spec).items():
        if into is None:
            show(f"# {name}\n{text}\n")
            continue
        try:
            into.mkdir(parents=True, exist_ok=True)
            (into / name).write_text(text)
        except OSError as error:
            raise GammaError(f"{into / name} cannot be written: {error.strerror}.") from None
        say(f"  {into / name}")
