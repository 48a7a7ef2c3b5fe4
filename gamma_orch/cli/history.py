"""`gamma history`: what happened, newest first; of the environment, or of one resource in full."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gamma_orch.cli.contract import EnvironmentOption, OutputOption, ProjectOption
from gamma_orch.core.render import Style

if TYPE_CHECKING:
    from gamma_orch.core.event import Event


def history(
    resource: Annotated[str | None, typer.Argument(help="Kind/name: only this resource, in full.")] = None,
    env: EnvironmentOption = "dev",
    output: OutputOption = Style.TEXT,
    project: ProjectOption = Path(),
    limit: Annotated[int, typer.Option(min=1, help="How many events.")] = 40,
) -> None:
    """Show what was done, when and by whom."""
    from gamma_orch.cli.address import address
    from gamma_orch.cli.report import show, show_json
    from gamma_orch.core.render import table_markdown
    from gamma_orch.engine.doors import ledger as opened
    from gamma_orch.store.ledger import latest

    with opened(project, env) as database:
        found = latest(database, env, limit, address(resource) if resource else None)
    rows = [(e.at, e.by, e.type.value, str(e.address or ""), told(e)) for e in found]
    match output:
        case Style.JSON:
            show_json({"environment": env, "events": [event.encoded() for event in found]})
        case Style.MARKDOWN:
            show(table_markdown(("when", "who", "event", "resource", "what"), rows))
        case Style.TEXT:
            if not rows:
                show(f"Nothing was ever applied to {env}.\n")
            widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
            for row in rows:
                show(
                    "  ".join(
                        [*(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=False)), row[4]]
                    ).rstrip()
                    + "\n"
                )


def told(event: "Event") -> str:
    """An event in one line."""
    from gamma_orch.core.change import MISSING
    from gamma_orch.core.event import Type
    from gamma_orch.core.render import duration, value_text

    data = event.data
    match event.type:
        case Type.PLANNED:
            counts = ", ".join(f"{n} {name}" for name, n in data["summary"].items() if n and name != "keep")
            return f"plan {event.plan[:12]}: {counts or 'nothing to do'}"
        case Type.DONE:
            took = f" in {duration(data['seconds'])}" if "seconds" in data else ""
            return f"{data.get('opcode', 'step')}{took}" + (
                " (found done on resume)" if data.get("settled") else ""
            )
        case Type.FAILED:
            return str(data["error"])
        case Type.BEGUN:
            return str(data["opcode"])
        case Type.APPROVED:
            return "consent, once"
        case Type.DRIFTED:
            # Of what is gone, its fields are no news.
            found = [f"{one['path']} = {value_text(one.get('live', MISSING))}" for one in data["fields"]]
            gone = not any("live" in one for one in data["fields"])
            return str(data["reason"]) + ("" if gone else f": {', '.join(found[:3])}")
        case Type.RELEASED:
            return f"plan {event.plan[:12]} carried out" + (
                f" at {data['commit'][:12]}" if data.get("commit") else ""
            )
        case _:
            return ""
