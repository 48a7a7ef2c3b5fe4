"""`gamma schema`: one JSON Schema of everything that may stand in a spec, for editors and checks."""

import typer

from gamma_orch.cli.contract import Exit


def schema() -> None:
    """Print the JSON Schema of all documents."""
    from gamma_orch.cli.report import show_json
    from gamma_orch.spec.registry import registry
    from gamma_orch.spec.schema import schema as made

    show_json(made(registry()))
    raise typer.Exit(Exit.OK)
