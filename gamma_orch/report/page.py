"""One HTML file of a report: styles and plots are in it, and it asks nobody for anything. Called by `gamma
report`.

Names and texts come from specs, from Prometheus and from errors, so everything is escaped, but for the plots,
whose texts matplotlib escapes. The page also forbids the browser to run or load anything.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from gamma_orch.report import plots, words
from gamma_orch.report.contents import Report, Tone

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent


def page(report: Report) -> str:
    from markupsafe import Markup

    changes = report.changes
    nothing = all(day.done is None for day in changes.days)
    drawn = {f"burn {one.name}": plots.burn(one) for one in report.objectives if one.left is not None}
    drawn |= {
        f"service {one.name}": plots.service(report.span, one) for one in report.services if one.requests
    }
    if report.alerts.rules:
        drawn["alerts"] = plots.timeline(report.span, report.alerts, report.source.gaps)
    if not nothing:
        drawn["changes"] = plots.days(changes)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            plots={name: Markup(svg) for name, svg in drawn.items()},  # noqa: S704  # nosec B704  # of plots
            all_unknown=nothing,
            most_rows=plots.MOST_ROWS,
            tone=_tone,
            **{"from": words.moment(report.span.start), "to": words.moment(report.span.end)},
        )
    )


def _tone(is_good: bool | None) -> Tone:
    return Tone.UNKNOWN if is_good is None else Tone.GOOD if is_good else Tone.BAD


@cache
def _environment() -> "Environment":
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    made = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for filled in (words.percent, words.count, words.times, words.latency, words.lasting, words.moment):
        made.filters[filled.__name__] = filled
    return made
