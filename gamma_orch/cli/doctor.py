"""`gamma doctor`: is the machine, the project and the ledger in order; each problem with its mend."""

import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from gamma_orch.cli.contract import EnvironmentOption, Exit, OutputOption, ProjectOption
from gamma_orch.core.render import Style


def doctor(
    env: EnvironmentOption = "dev", output: OutputOption = Style.TEXT, project: ProjectOption = Path()
) -> None:
    """Check the machine, the project, its ledger and its targets."""
    from gamma_orch.cli.report import show, show_json
    from gamma_orch.core.render import table_markdown

    found = list(_checks(project, env))
    match output:
        case Style.JSON:
            show_json({"ok": all(ok for _, ok, _ in found), "checks": [_encoded(*check) for check in found]})
        case Style.MARKDOWN:
            show(
                table_markdown(("check", "ok", "says"), [(n, "yes" if ok else "no", t) for n, ok, t in found])
            )
        case Style.TEXT:
            for name, ok, text in found:
                show(f"{'ok ' if ok else 'BAD'}  {name}: {text}\n")
    raise typer.Exit(Exit.OK if all(ok for _, ok, _ in found) else Exit.ERROR)


def _encoded(name: str, ok: bool, text: str) -> dict[str, object]:
    return {"check": name, "ok": ok, "says": text}


def _checks(project: Path, env: str) -> Iterator[tuple[str, bool, str]]:
    """Name, whether it is well, and what to know or do."""

    from gamma_orch.core.observation import Unreadable
    from gamma_orch.core.provider import GammaError
    from gamma_orch.engine.converge import look
    from gamma_orch.engine.doors import opened, run
    from gamma_orch.engine.project import find_root, read
    from gamma_orch.store.ledger import verify

    version = ".".join(map(str, sys.version_info[:3]))
    yield "python", sys.version_info >= (3, 11), f"{version} at {sys.executable}"
    try:
        root = find_root(project.resolve())
    except GammaError as error:
        yield "project", False, str(error)
        return
    yield "project", True, str(root)
    specs = read(root, env)
    if specs.desired is None:
        problems = "1 problem" if len(specs.diagnostics) == 1 else f"{len(specs.diagnostics)} problems"
        yield "specs", False, f"{problems}; run: gamma validate"
        return
    yield "specs", True, f"{len(specs.desired.resources):,} resources in {env}"
    try:
        with opened(root, env) as site:
            wrong = verify(site.database, env)
            told = "; ".join(wrong) or "the projection is the fold of the log"
            yield "ledger", not wrong, f"{site.database.place}: {told}"
            observations = run(site, look(site)).observations
    except GammaError as error:
        yield "ledger", False, str(error)
        return
    unreadable = {a: o.error for a, o in observations.items() if isinstance(o, Unreadable)}
    if not unreadable:
        yield "targets", True, f"all {len(observations):,} resources can be read"
    for address, reason in unreadable.items():
        yield str(address), False, reason
