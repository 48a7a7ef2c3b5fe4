"""`gamma silence`: alerts that nobody is told of for a time, with a reason and an end."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gamma_orch.cli.contract import EnvironmentOption, OutputOption, ProjectOption
from gamma_orch.core.render import Style

if TYPE_CHECKING:
    from gamma_orch.core.canonical import Json

app = typer.Typer(
    help="Alerts that nobody is told of for a time, with a reason and an end.", no_args_is_help=True
)

ServerOption = Annotated[
    str, typer.Option("--alertmanager", help="The target: the name of an Alertmanager in environment.yaml.")
]


@app.command("add")
def add(
    matchers: Annotated[
        list[str],
        typer.Argument(help="What alerts: label=value, label!=value, label=~regex. All have to fit."),
    ],
    lasts: Annotated[str, typer.Option("--for", help="How long: 30m, 2h, 1d.")],
    why: Annotated[str, typer.Option("--why", help="The reason, for whoever wonders.")],
    env: EnvironmentOption = "dev",
    alertmanager: ServerOption = "alertmanager",
    project: ProjectOption = Path(),
) -> None:
    """Tell nobody of some alerts for a time."""
    import getpass

    from gamma_orch.cli.report import say
    from gamma_orch.kinds.monitoring.silences import silence
    from gamma_orch.spec.durations import written_duration

    made, lasting = silence(matchers, lasts, why, getpass.getuser(), datetime.now(UTC))
    found = _asked(project, env, alertmanager, "POST", "/api/v2/silences", made)
    what, long = ", ".join(matchers), written_duration(lasting)
    say(f"Silence {found['silenceID']}: nobody is told of {what} for {long}.")


@app.command("ls")
def ls(
    env: EnvironmentOption = "dev",
    alertmanager: ServerOption = "alertmanager",
    output: OutputOption = Style.TEXT,
    project: ProjectOption = Path(),
) -> None:
    """List the silences that last, or are to come."""
    from gamma_orch.cli.tables import table
    from gamma_orch.kinds.monitoring.silences import lasting, row

    found = lasting(_asked(project, env, alertmanager, "GET", "/api/v2/silences"))
    if output is Style.JSON:
        from gamma_orch.cli.report import show_json

        show_json({"silences": found})
        return
    table(
        ("id", "alerts", "until", "by", "why"), [row(one) for one in found], output, empty="There are none."
    )


@app.command("end")
def end(
    silence_id: Annotated[str, typer.Argument(help="The id, or its first letters.")],
    env: EnvironmentOption = "dev",
    alertmanager: ServerOption = "alertmanager",
    project: ProjectOption = Path(),
) -> None:
    """End a silence before its time."""
    from gamma_orch.cli.report import say
    from gamma_orch.kinds.monitoring.silences import lasting, named

    whole = named(lasting(_asked(project, env, alertmanager, "GET", "/api/v2/silences")), silence_id)
    _asked(project, env, alertmanager, "DELETE", f"/api/v2/silence/{whole}")
    say(f"Silence {whole} has ended.")


def _asked(project: Path, env: str, name: str, method: str, path: str, body: "Json" = None) -> Any:
    import json

    from gamma_orch.engine.doors import opened, run

    with opened(project, env) as site:
        server = site.world.targets.alertmanager(name)
        text = run(site, server.ask(method, path, body))
    return json.loads(text) if text else None
