"""The table of commands. Each lives in the file of its name and registers nothing by itself."""

from collections.abc import Callable

import typer

from gamma_orch.cli import (
    analytics,
    apply,
    dashboards,
    destroy,
    dev,
    doctor,
    down,
    explain,
    graph,
    history,
    import_,
    init,
    models,
    plan,
    render,
    schema,
    show,
    silence,
    status,
    units,
    up,
    validate,
)

app = typer.Typer(
    name="gamma",
    help="Converge a self-hosted AI application to what YAML in git says.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS: dict[str, Callable[..., None]] = {
    "init": init.init,
    "validate": validate.validate,
    "plan": plan.plan,
    "apply": apply.apply,
    "status": status.status,
    "history": history.history,
    "report": analytics.report,
    "show": show.show,
    "explain": explain.explain,
    "schema": schema.schema,
    "graph": graph.graph,
    "render": render.render,
    "units": units.units,
    "import": import_.import_,
    "destroy": destroy.destroy,
    "up": up.up,
    "down": down.down,
    "doctor": doctor.doctor,
    "dev": dev.dev,
    "dashboards": dashboards.dashboards,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
app.add_typer(models.app, name="models")
app.add_typer(silence.app, name="silence")


@app.callback(invoke_without_command=True)
def _gamma(
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    if version:
        from gamma_orch import __version__

        typer.echo(f"gamma {__version__}")
        raise typer.Exit
