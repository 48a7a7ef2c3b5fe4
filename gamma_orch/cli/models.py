"""`gamma models`: what was built, what each environment points at, and how they compare."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gamma_orch.cli.contract import EnvironmentOption, OutputOption, ProjectOption
from gamma_orch.core.render import Style

if TYPE_CHECKING:
    from gamma_orch.core.canonical import Json
    from gamma_orch.engine.converge import Site
    from gamma_orch.store.artifacts import Artifacts

app = typer.Typer(
    help="What was built, what each environment points at, and how they compare.", no_args_is_help=True
)


@app.command("ls")
def ls(
    env: EnvironmentOption = "dev", output: OutputOption = Style.TEXT, project: ProjectOption = Path()
) -> None:
    """List the models and datasets of all environments that share this store."""
    from gamma_orch.cli.tables import table
    from gamma_orch.engine.doors import opened
    from gamma_orch.kinds.models.shelf import pointed, row

    with opened(project, env) as site:
        store = _store(site)
        found = pointed(store)
        size = sum(artifact.size for artifact in store.all())
    header = ("environment", "resource", "artifact", "what", "size", "quality", "p95", "built")
    match output:
        case Style.JSON:
            from gamma_orch.cli.report import show_json

            show_json({"models": [one.encoded() for one in found], "bytes": size})
        case _:
            table(header, [row(one) for one in found], output, empty="Nothing is built yet.")
            if output is Style.TEXT and found:
                from gamma_orch.cli.report import say

                say(f"{size / 1e6:,.0f} MB in {store.url}")


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A model, or the first digits of an artifact's digest or key.")],
    env: EnvironmentOption = "dev",
    output: OutputOption = Style.TEXT,
    project: ProjectOption = Path(),
) -> None:
    """Show the card of a model: lineage, data, quality and speed beside the source's."""
    from gamma_orch.cli.report import show as write
    from gamma_orch.cli.report import show_json
    from gamma_orch.engine.doors import opened
    from gamma_orch.kinds.models.shelf import card, find

    with opened(project, env) as site:
        store = _store(site)
        found = find(store, name, env)
        if output is Style.JSON:
            show_json(found.encoded())
        else:
            write(card(store, found))


@app.command("compare")
def compare(
    names: Annotated[
        list[str], typer.Argument(help="Two or more: model, environment:model, or digits of a digest.")
    ],
    env: EnvironmentOption = "dev",
    output: OutputOption = Style.TEXT,
    project: ProjectOption = Path(),
) -> None:
    """Set models side by side."""
    from gamma_orch.cli.report import show_json
    from gamma_orch.cli.tables import table
    from gamma_orch.engine.doors import opened
    from gamma_orch.kinds.models.shelf import compared, find

    with opened(project, env) as site:
        store = _store(site)
        found = [find(store, name, env) for name in names]
    if output is Style.JSON:
        show_json({"models": [one.encoded() for one in found]})
        return
    table(("", *(one.title for one in found)), compared(found), output, empty="")


@app.command("gc")
def gc(
    env: EnvironmentOption = "dev",
    output: OutputOption = Style.TEXT,
    project: ProjectOption = Path(),
    older_than: Annotated[
        str, typer.Option("--older-than", help="Keep what was pointed at or built in this time: 30d.")
    ] = "30d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove artifacts that no environment points at, nor did lately."""
    from gamma_orch.cli.report import show as write
    from gamma_orch.cli.report import show_json
    from gamma_orch.core.provider import GammaError
    from gamma_orch.engine.doors import opened
    from gamma_orch.engine.project import environments, find_root
    from gamma_orch.engine.reach import reachable
    from gamma_orch.spec.durations import duration

    try:
        age: timedelta = duration(older_than)
    except ValueError as error:
        raise GammaError(f"--older-than {older_than}: {error}.") from None
    now = datetime.now(UTC)
    with opened(project, env) as site:
        roots = reachable(site.database, environments(find_root(project.resolve())), now - age)
        gone = _store(site).collect(roots, now, age, dry_run)
    size = sum(artifact.size for artifact in gone)
    document: Json = {"removed": [artifact.key for artifact in gone], "bytes": size, "dryRun": dry_run}
    if output is Style.JSON:
        show_json(document)
        return
    for artifact in gone:
        write(f"  {artifact.recipe.get('op', '?'):<18} {artifact.key[:12]}  {artifact.size / 1e6:8.1f} MB\n")
    verb = "would go" if dry_run else "removed"
    write(f"{len(gone)} artifacts, {size / 1e6:,.0f} MB {verb}.\n")


def _store(site: "Site") -> "Artifacts":
    from gamma_orch.kinds.models.building import store_of

    return store_of(site.world.targets)
