"""`gamma report`: what an environment has done in a span of time, as a page or a PDF for people."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gamma_orch.cli.contract import EnvironmentOption, OutputOption, ProjectOption
from gamma_orch.core.render import Style

if TYPE_CHECKING:
    from gamma_orch.report.contents import Report


def report(
    env: EnvironmentOption = "dev",
    since: Annotated[
        str, typer.Option(help="From when: 24h, 7d, 30d before the end, or a moment: 2026-11-22T10:00.")
    ] = "7d",
    until: Annotated[str, typer.Option(help="Until when, in the same forms; by default until now.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="The file, .html or .pdf; by default report-ENV.html, here.")
    ] = None,
    prometheus: Annotated[
        str, typer.Option(help="The target in environment.yaml, where there are several.")
    ] = "",
    output: OutputOption = Style.TEXT,
    project: ProjectOption = Path(),
) -> None:
    """Write what an environment has done: availability, objectives, alerts, changes."""
    from gamma_orch.cli.patience import waiting
    from gamma_orch.cli.report import say, show, show_json
    from gamma_orch.core.render import table_markdown
    from gamma_orch.engine.doors import run, working
    from gamma_orch.engine.project import faultless, find_root
    from gamma_orch.report.contents import report as made
    from gamma_orch.report.gathering import gathered

    if out is None and output is not Style.JSON:
        out = Path(f"report-{env}.html")
    _check(out)
    start, end = span(since, until)
    found_project, desired = faultless(find_root(project.resolve()), env)
    with working(found_project, desired) as site:
        there = [key for key, one in desired.environment.targets.items() if one.type == "prometheus"]
        name = prometheus or (there[0] if len(there) == 1 else "prometheus")
        server = site.world.targets.prometheus(name) if there or prometheus else None
        with waiting(f"Asking what happened in {env}"):
            raw = run(site, gathered(env, site.desired, site.database, server, name, start, end))
    found = made(raw)
    if out is not None:
        with waiting("Drawing the report"):
            _write(found, out)
    match output:
        case Style.JSON:
            show_json(found.encoded())
        case Style.MARKDOWN:
            rows = [(fact.name, fact.value, fact.says) for fact in found.summary]
            show(table_markdown(("", env, ""), rows))
        case Style.TEXT:
            width = max(len(fact.name) for fact in found.summary)
            show("".join(f"{one.name:<{width}}  {one.value}  {one.says}\n" for one in found.summary))
    if out is not None:
        say(f"The report is in {out}.")


def span(since: str, until: str) -> tuple[float, float]:
    """In seconds since 1970. Raises GammaError."""
    import math
    import time
    from datetime import timedelta

    from gamma_orch.cli.show import parse_moment
    from gamma_orch.core.provider import GammaError
    from gamma_orch.spec.durations import duration

    now = time.time()
    end = math.ceil(min(parse_moment(until).timestamp(), now) if until else now)  # with this second
    try:
        before: timedelta = duration(since)
    except ValueError:
        start = math.floor(parse_moment(since).timestamp())
    else:
        start = end - int(before.total_seconds())
    if start >= end:
        raise GammaError("The report would end before it begins: --since is a time before --until.")
    return start, end


def _check(out: Path | None) -> None:
    from gamma_orch.core.provider import GammaError

    if out is not None and out.suffix not in (".html", ".pdf"):
        raise GammaError(f"A report is a page or a PDF: write --out {out.stem}.html or --out {out.stem}.pdf.")


def _write(found: "Report", out: Path) -> None:
    """Raises GammaError; where there can be no PDF, the page is there instead."""
    from gamma_orch.core.provider import GammaError
    from gamma_orch.report import pdf

    try:
        from gamma_orch.report.page import page

        text = page(found)
    except ImportError:
        raise GammaError("Plots are made by matplotlib: pip install 'gamma-orch[monitoring]'") from None
    try:
        if out.suffix == ".pdf":
            pdf.written(text, out)
        else:
            out.write_text(text, encoding="utf-8")
    except pdf.NoPdf as error:
        instead = out.with_suffix(".html")
        instead.write_text(text, encoding="utf-8")
        raise GammaError(f"{error}. The page is in {instead}; a browser can print it.") from None
    except OSError as error:
        raise GammaError(f"The report cannot be written to {out}: {error.strerror}.") from None
