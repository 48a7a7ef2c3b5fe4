"""`gamma explain Index.spec.columns`: the documentation of a kind or of one of its fields."""

from typing import Annotated

import typer

from gamma_orch.cli.contract import OutputOption
from gamma_orch.core.render import Style


def explain(
    path: Annotated[str, typer.Argument(help="A kind, or a field of one: Index, Index.spec.columns.")] = "",
    output: OutputOption = Style.TEXT,
) -> None:
    """Explain a kind or a field."""
    from gamma_orch.cli.report import show, show_json
    from gamma_orch.spec.explain import explain as look_up
    from gamma_orch.spec.explain import explanation_text
    from gamma_orch.spec.registry import registry

    found = look_up(registry(), path)
    if output is Style.JSON:
        show_json(found.encoded())
    else:
        show(explanation_text(found))
