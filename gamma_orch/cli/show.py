"""`gamma show`: what the ledger holds, now or at any moment of the past."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from gamma_orch.cli.contract import EnvironmentOption, OutputOption, ProjectOption
from gamma_orch.core.render import Style


def show(
    resource: Annotated[str | None, typer.Argument(help="Kind/name: only this one, with its fields.")] = None,
    env: EnvironmentOption = "dev",
    output: OutputOption = Style.TEXT,
    project: ProjectOption = Path(),
    at: Annotated[
        str | None,
        typer.Option(help="A moment: 2026-11-22T10:00, 2026-11-22, or back from now: 90s, 15m, 2h, 7d."),
    ] = None,
) -> None:
    """Show what was applied, now or at a moment of the past."""
    from gamma_orch.cli.address import address
    from gamma_orch.cli.report import show as write
    from gamma_orch.cli.report import show_json
    from gamma_orch.core.compare import paths
    from gamma_orch.core.diagnostic import written
    from gamma_orch.core.provider import GammaError
    from gamma_orch.core.render import table_markdown, value_text
    from gamma_orch.engine.doors import ledger as opened
    from gamma_orch.store.ledger import past, present

    moment = parse_moment(at) if at else None
    with opened(project, env) as database:
        ledger = past(database, env, moment) if moment else present(database, env)[0]
    records = {a: e.record for a, e in sorted(ledger.entries.items()) if e.record}
    if resource is not None:
        wanted = address(resource)
        if wanted not in records:
            when = f" at {moment:%Y-%m-%d %H:%M:%S %Z}" if moment else ""
            raise GammaError(f"The ledger of {env} has no {wanted}{when}.")
        records = {wanted: records[wanted]}
    rows = [(str(a), ledger.entries[a].since, r.fingerprint.content[:12]) for a, r in records.items()]
    match output:
        case Style.JSON:
            show_json({"environment": env, "resources": {str(a): r.encoded() for a, r in records.items()}})
        case Style.MARKDOWN:
            write(table_markdown(("resource", "since", "fingerprint"), rows))
        case Style.TEXT if resource is not None:
            for found in records.values():
                for path, value in (*paths({"fields": found.fields}), *paths({"outputs": found.outputs})):
                    write(f"{written(path)}: {value_text(value)}\n")
        case Style.TEXT:
            width = max((len(row[0]) for row in rows), default=0)
            write("".join(f"{name:<{width}}  {since}  {content}\n" for name, since, content in rows))
            if not rows:
                write(
                    f"The ledger of {env} was empty then.\n" if moment else f"The ledger of {env} is empty.\n"
                )


def parse_moment(text: str) -> datetime:
    """A moment, in local time unless it says otherwise. Raises GammaError with the forms."""
    from gamma_orch.core.provider import GammaError

    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    if text[:-1].isdecimal() and text[-1:] in units:
        return datetime.now(UTC) - timedelta(**{units[text[-1]]: int(text[:-1])})
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        raise GammaError(
            f"{text!r} is no moment. Write 2026-11-22T10:00, 2026-11-22, or back from now: 90s, 15m, 2h, 7d."
        ) from None
