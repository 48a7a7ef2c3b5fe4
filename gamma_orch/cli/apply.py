"""`gamma apply`: converge. Exit 0: done or nothing to do; 3: something was refused; 1: something failed."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gamma_orch.cli.contract import EnvironmentOption, Exit, OutputOption, ProjectOption
from gamma_orch.core.render import Style

if TYPE_CHECKING:
    from gamma_orch.core.address import Address
    from gamma_orch.core.plan import Plan
    from gamma_orch.engine.converge import Outcome, Site


def apply(
    file: Annotated[Path | None, typer.Argument(help="A plan saved by `gamma plan --out FILE`.")] = None,
    env: EnvironmentOption = "dev",
    output: OutputOption = Style.TEXT,
    project: ProjectOption = Path(),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    consent: Annotated[
        list[str] | None,
        typer.Option(
            help="Kind/name: allow once what would be refused, a protected object's deletion for one."
        ),
    ] = None,
    despite_freeze: Annotated[
        bool, typer.Option("--despite-freeze", help="Apply in a freeze window too.")
    ] = False,
) -> None:
    """Converge the environment to its specs."""
    from gamma_orch.cli.address import addresses
    from gamma_orch.cli.saved import WrongEnvironment, read_plan
    from gamma_orch.core.provider import GammaError
    from gamma_orch.engine.doors import opened

    consents = addresses(consent or [])
    saved = read_plan(file) if file else None
    if saved is not None and consents:
        raise GammaError("A saved plan is applied as it is: consent first, plan again, and save that.")
    if saved is not None and saved.environment != env:
        raise WrongEnvironment(
            f"{file} is a plan for {saved.environment}, and this is {env}. "
            f"Say: gamma apply {file} -e {saved.environment}"
        )
    with opened(project, env) as site:
        if saved is None and not yes:
            saved = _asked(site, consents)
        outcome = converge(site, saved, consents, output, despite_freeze=despite_freeze)
    raise typer.Exit(report(outcome, env, output))


def _asked(site: "Site", consents: "list[Address]") -> "Plan | None":
    """Show the plan and ask. The answer holds for this very plan; None: nothing to ask about."""
    from gamma_orch.cli.patience import waiting
    from gamma_orch.cli.report import painted
    from gamma_orch.core.provider import GammaError
    from gamma_orch.core.render import plan_text
    from gamma_orch.engine.converge import look
    from gamma_orch.engine.doors import run
    from gamma_orch.engine.estimate import impacts

    if not sys.stdin.isatty():
        raise GammaError(
            "There is nobody to ask here. Say --yes, or apply a plan saved with: gamma plan --out FILE"
        )
    with waiting(f"Reading what is there in {site.environment}"):
        found = run(site, look(site)).plan
    sys.stderr.write(
        painted(plan_text(found, impacts(site.database, found, site.world)), sys.stderr.isatty())
    )
    if found.steps or consents:
        typer.confirm("Apply this?", abort=True, err=True)
    # A consent changes the ledger, and with it the plan: there it is the consent that was asked for.
    return None if consents or not found.steps else found


def converge(
    site: "Site",
    saved: "Plan | None",
    consents: "list[Address]",
    output: Style,
    purpose: str = "apply",
    despite_freeze: bool = False,
) -> "Outcome":
    """Apply with progress on standard error. Ctrl-C lets the running steps finish."""
    import signal

    from gamma_orch.cli.progress import watching
    from gamma_orch.cli.report import say
    from gamma_orch.engine import converge as engine
    from gamma_orch.engine.doors import run

    async def work() -> "Outcome":
        stop = asyncio.Event()

        def interrupted() -> None:
            if stop.is_set():
                raise KeyboardInterrupt
            say("Stopping: the steps that run are finished first; press Ctrl-C again to leave them in doubt.")
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, interrupted)
        with watching() as watcher:
            return await engine.apply(site, saved, consents, watcher, stop, purpose, despite_freeze)

    return run(site, work())


def report(outcome: "Outcome", env: str, output: Style) -> Exit:
    """Print what came of it, and choose the exit code."""
    from collections import Counter

    from gamma_orch.cli.report import say, show, show_json
    from gamma_orch.core.render import headline, table_markdown
    from gamma_orch.engine.progress import Status

    counted = Counter(result.status for result in outcome.results)
    refused = [f"{r.message}." for r in outcome.refusals]
    refused += [f"{change.address}  {headline(change)}" for change in outcome.plan.refused]
    match output:
        case Style.JSON:
            show_json(
                {
                    "plan": outcome.plan.id,
                    "applied": counted[Status.DONE],
                    "failed": counted[Status.FAILED],
                    "skipped": counted[Status.SKIPPED] + counted[Status.STOPPED],
                    "refused": refused,
                    "steps": [result.encoded() for result in outcome.results],
                }
            )
        case Style.MARKDOWN:
            rows = [
                (str(r.step.address), r.step.opcode.value, r.status.value, f"{r.seconds:.2f}", r.error)
                for r in outcome.results
            ]
            show(table_markdown(("resource", "action", "status", "seconds", "error"), rows))
        case Style.TEXT:
            if outcome.results:
                parts = [f"{counted[status]} {status.value}" for status in Status if counted[status]]
                show(f"{env}: {', '.join(parts)}.\n")
            elif not refused:
                show(f"No changes. {len(outcome.plan.changes):,} resources of {env} as declared.\n")
    if outcome.refusals:
        say("The plan is not applied:")
    for line in refused:
        say(f"  ! {line}")
    if outcome.stopped:
        say("Stopped before the end; run it again to go on.")
        return Exit.INTERRUPTED
    if outcome.failed:
        return Exit.ERROR
    return Exit.REFUSED if refused else Exit.OK
