"""`gamma validate`: every problem of the specs, with its place. Reads files, and nothing else."""

from pathlib import Path
from typing import Annotated

import typer

from gamma_orch.cli.contract import Exit, OutputOption, ProjectOption
from gamma_orch.core.render import Style


def validate(
    env: Annotated[
        str | None, typer.Option("--env", "-e", help="Only this environment; without it, all of them.")
    ] = None,
    output: OutputOption = Style.TEXT,
    project: ProjectOption = Path(),
) -> None:
    """Check the specs of one environment, or of all."""
    from gamma_orch.cli.report import say, show, show_json
    from gamma_orch.core.diagnostic import Severity
    from gamma_orch.core.render import diagnostic_json, diagnostics_text, table_markdown
    from gamma_orch.engine.project import environments, find_root, read

    root = find_root(project.resolve())
    found = [read(root, name) for name in ([env] if env else environments(root))]
    # The same mistake in specs/ shows in every environment; it is said once.
    diagnostics = list(dict.fromkeys(d for one in found for d in one.diagnostics))
    ok = all(one.desired is not None for one in found)
    resources = {address for one in found if one.desired for address in one.desired.resources}
    match output:
        case Style.JSON:
            show_json(
                {
                    "ok": ok,
                    "resources": len(resources),
                    "diagnostics": [diagnostic_json(d) for d in diagnostics],
                }
            )
        case Style.MARKDOWN:
            rows = [(str(d.span or ""), str(d.code), d.message, d.hint) for d in diagnostics]
            show(table_markdown(("where", "code", "what", "hint"), rows))
        case Style.TEXT:
            show(diagnostics_text(diagnostics))
            if ok:
                names = ", ".join(one.environment for one in found)
                say(f"{len(resources):,} resources are valid in {names or 'no environment'}.")
    if not any(d.severity is Severity.ERROR for d in diagnostics):
        raise typer.Exit(Exit.OK)
    raise typer.Exit(Exit.ERROR)
