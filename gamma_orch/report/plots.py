"""The plots of a report, as SVG to stand in a page, by matplotlib. Called by `page`.

The same figures give the same text: no date and no version is written, and ids are salted with the plot's
name, so that several in a page do not take each other's. Texts stay texts, escaped; a name is never read as a
formula. What is not known is a grey ground, with no line on it.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from io import StringIO
from typing import Any

from gamma_orch.report.alerts import Alerts, Noise
from gamma_orch.report.answers import Line
from gamma_orch.report.changes import Changes
from gamma_orch.report.objectives import Objective
from gamma_orch.report.services import Service
from gamma_orch.report.span import Span

WIDTH = 8.2  # inches
MOST_ROWS = 20
LONGEST_NAME = 34  # characters
_INK, _FAINT, _GRID, _BLANK = "#222222", "#666666", "#dddddd", "#ededed"
_BLUE, _GREEN, _RED, _ORANGE = "#1f5fa8", "#1a7f37", "#b3261e", "#c2570c"
_SEVERITIES = {"critical": _RED, "warning": _ORANGE}
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
}


def burn(one: Objective) -> str:
    """What was left of the budget over the window of an objective."""
    times = [one.window_start + one.window_step * (n + 1) for n in range(len(one.burn))]
    with _drawn(f"burn {one.name}", 2.1) as (figure, done):
        axes = figure.add_subplot()
        _blank(axes, times, one.window_step, one.burn)
        _line(axes, times, one.burn, _BLUE)
        known = [value for value in one.burn if value is not None]
        axes.set_ylim(min(0.0, *known) * 1.05, 1.05)
        if min(known) < 0:
            axes.axhline(0, color=_RED, linewidth=1)
        _axes(axes, "budget left", _share_text)
        _time(axes, times[0] - one.window_step, times[-1])
    return done()


def service(span: Span, one: Service) -> str:
    """Requests, errors and latency over time."""
    times = span.times
    with _drawn(f"service {one.name}", 4.6) as (figure, done):
        requests, errors, latency = figure.subplots(3, 1, sharex=True, height_ratios=(1, 1, 1.5))
        for axes, values in ((requests, one.rate), (errors, one.errors), (latency, one.latency["p50"])):
            _blank(axes, times, span.step, values)
        _line(requests, times, one.rate, _BLUE)
        _axes(requests, "requests / s", lambda value: f"{value:g}")
        _line(errors, times, one.errors, _RED)
        _axes(errors, "failed", _share_text)
        for (name, values), colour in zip(one.latency.items(), (_GREEN, _BLUE, _ORANGE), strict=True):
            _line(latency, times, values, colour, name)
        _axes(latency, "latency", _seconds_text)
        if any(value is not None for value in one.latency["p50"]):
            latency.legend(loc="upper left", ncols=3, frameon=False, fontsize=8)
        longest = tuple(value for values in one.latency.values() for value in values)
        for axes, values, room in (
            (requests, one.rate, 1.1),
            (errors, one.errors, 1.1),
            (latency, longest, 1.35),
        ):
            most = max((value for value in values if value is not None), default=0.0)
            axes.set_ylim(0, most * room or 0.01)  # above a latency is its legend
        _time(latency, span.start, span.end)
    return done()


def timeline(span: Span, alerts: Alerts, gaps: Sequence[tuple[float, float]]) -> str:
    """When the noisiest rules fired."""
    rows = alerts.rules[:MOST_ROWS]
    with _drawn("alerts", 0.9 + 0.26 * len(rows)) as (figure, done):
        axes = figure.add_subplot()
        for begin, end in gaps:
            axes.axvspan(_date(begin), _date(end), color=_BLANK, linewidth=0)
        least = span.seconds / 500  # or else it could not be seen
        for row, one in enumerate(rows):
            bars = [
                (_date(min(begin, span.end - least)), _days(max(end - begin, least)))
                for begin, end in one.times
            ]
            axes.broken_barh(
                bars, (row - 0.32, 0.64), color=_SEVERITIES.get(one.severity, _BLUE), linewidth=0
            )
        axes.set_yticks(range(len(rows)), [_named(one) for one in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        _axes(axes, "", None)
        axes.tick_params(axis="y", colors=_INK)
        _time(axes, span.start, span.end)
    return done()


def days(changes: Changes) -> str:
    """What the reconciler did, a group of bars each day."""
    from matplotlib.ticker import MaxNLocator

    known = [(n, day) for n, day in enumerate(changes.days) if day.done is not None]
    with _drawn("changes", 2.3) as (figure, done):
        axes = figure.add_subplot()
        for n, day in enumerate(changes.days):
            if day.done is None:
                axes.axvspan(n - 0.5, n + 0.5, color=_BLANK, linewidth=0)
        kinds = (
            ("steps done", "done", _GREEN),
            ("steps failed", "failed", _RED),
            ("found changed", "drifted", _ORANGE),
        )
        for place, (label, name, colour) in enumerate(kinds):
            heights = [getattr(day, name) for _, day in known]
            axes.bar([n + (place - 1) * 0.27 for n, _ in known], heights, 0.25, color=colour, label=label)
        _axes(axes, "events a day", None)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        every = -(-len(changes.days) // 10)
        shown = range(0, len(changes.days), every)
        axes.set_xticks(list(shown), [_day_text(changes.days[n].date) for n in shown])
        axes.set_xlim(-0.6, len(changes.days) - 0.4)
        axes.set_ylim(0, max(axes.get_ylim()[1] * 1.3, 1))
        axes.legend(loc="upper left", ncols=3, frameon=False, fontsize=8)
        axes.set_xlabel("day (UTC)", color=_FAINT, fontsize=8)
    return done()


@contextmanager
def _drawn(name: str, height: float) -> Iterator[tuple[Any, Callable[[], str]]]:
    """A figure, and what gives its SVG once it is drawn."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        text = StringIO()

        def done() -> str:
            return text.getvalue()

        yield figure, done
        with warnings.catch_warnings():
            # A letter that the font has not is the browser's to draw; here it is but measured.
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        whole = text.getvalue()
        whole = whole[whole.index("<svg") :]
        whole = re.sub(r"<metadata>.*?</metadata>\s*", "", whole, flags=re.DOTALL)
        # They are counted from 1 in each plot, so that they would be twice in a page.
        whole = re.sub(r'(<\w+) id="[\w.]+_\d+"', r"\1", whole)
        text.seek(0)
        text.truncate()
        text.write(whole.rstrip() + "\n")


def _axes(axes: Any, label: str, told: Callable[[float], str] | None) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_ylabel(label)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if told is not None:
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: told(value)))


def _time(axes: Any, start: float, end: float) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=4, maxticks=9, tz=UTC)
    axes.set_xlim(_date(start), _date(end))
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC, show_offset=False))
    first, last = (datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M") for at in (start, end))
    axes.set_xlabel(f"{first} to {last} UTC", color=_FAINT, fontsize=8)


def _line(axes: Any, times: Sequence[float], values: Line, colour: str, label: str = "") -> None:
    known = [float("nan") if value is None else value for value in values]
    axes.plot([_date(at) for at in times], known, color=colour, linewidth=1.3, label=label)
    alone = [n for n, value in enumerate(values) if value is not None and not _beside(values, n)]
    axes.plot([_date(times[n]) for n in alone], [known[n] for n in alone], ".", color=colour, markersize=4)


def _beside(values: Line, n: int) -> bool:
    """Whether a line leads to it."""
    return any(0 <= at < len(values) and values[at] is not None for at in (n - 1, n + 1))


def _blank(axes: Any, times: Sequence[float], step: float, values: Line) -> None:
    runs: list[list[float]] = []
    for at, value in zip(times, values, strict=True):
        if value is None and runs and runs[-1][1] == at - step:
            runs[-1][1] = at
        elif value is None:
            runs.append([at - step, at])
    for begin, end in runs:
        axes.axvspan(_date(begin), _date(end), color=_BLANK, linewidth=0)


def _named(one: Noise) -> str:
    name = one.name if not one.about else f"{one.name} ({one.about})"
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."


def _date(at: float) -> float:
    return at / 86400  # as matplotlib counts: days since 1970


_days = _date


def _day_text(date: str) -> str:
    return datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC).strftime("%d %b")


def _share_text(value: float) -> str:
    return f"{value * 100:.4g} %"


def _seconds_text(value: float) -> str:
    return f"{value * 1000:.4g} ms" if value < 1 else f"{value:.3g} s"
