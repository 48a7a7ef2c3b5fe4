"""Pictures for people: how a training went, and what there was to choose from. PNG, by matplotlib.

Called by the pass that reports on a model. The same figures give the same bytes: no date and no version is
written, and the font is the one that comes with matplotlib.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from gamma_orch.core.canonical import Json
from gamma_orch.kinds.models.choice import Candidate, Choice
from gamma_orch.kinds.models.intervals import Interval

DPI = 120
_FONT = "DejaVu Sans"
_INK, _FAINT, _GRID = "#222222", "#767676", "#dddddd"
_LOSS, _LOOK = "#1f5fa8", "#c2570c"


class Mark(StrEnum):
    CHOSEN = "chosen"
    FRONT = "nothing better in every respect"
    BEHIND = "another is better in every respect"
    OUT = "outside the budget"


_COLOURS = {Mark.CHOSEN: "#1a7f37", Mark.FRONT: "#1f5fa8", Mark.BEHIND: "#808080", Mark.OUT: "#c2570c"}


@dataclass(frozen=True, slots=True)
class Point:
    name: str
    speed: float  # times as fast as the source
    size: int  # bytes
    quality: Interval | None  # share of the source's
    mark: Mark


def points(candidates: Sequence[Candidate], choice: Choice) -> list[Point]:
    def mark(one: Candidate) -> Mark:
        if one.name == choice.chosen:
            return Mark.CHOSEN
        if one.name in choice.rejected:
            return Mark.OUT
        return Mark.FRONT if one.name in choice.pareto else Mark.BEHIND

    return [
        Point(one.name, 1 / one.time if one.time > 0 else 1.0, one.size, one.relative, mark(one))
        for one in candidates
    ]


def loss_png(facts: Json, path: Path, title: str = "") -> None:
    """The loss of each step and what the validation split said, from the facts of a training.

    `facts`: loss [[step, value], ...], validation [[step, value], ...], metric, and best {"step", "value"}
    or None. Raises ValueError where there is no loss.
    """
    if not facts["loss"]:
        raise ValueError("there is no loss to draw")
    figure = Figure(figsize=(8, 4), dpi=DPI, layout="constrained")
    left = figure.add_subplot()
    _plain(left, title or "Training")
    steps, losses = zip(*facts["loss"], strict=True)
    left.plot(steps, losses, color=_LOSS, linewidth=1.6, label="loss of the train split")
    left.set_xlabel("step")
    left.set_ylabel("loss", color=_LOSS)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_ylim(bottom=min(0.0, *losses))
    lines = left.get_lines()
    if facts.get("validation"):
        right = left.twinx()
        looks, values = zip(*facts["validation"], strict=True)
        metric = str(facts.get("metric") or "validation")
        right.plot(looks, values, color=_LOOK, marker="o", markersize=4, linewidth=1.2,
                   label=f"{metric} of the validation split")  # fmt: skip
        right.set_ylabel(metric, color=_LOOK)
        right.spines[["top", "left", "bottom"]].set_visible(False)
        right.margins(y=0.15)
        lines = [*lines, *right.get_lines()]
        if best := facts.get("best"):
            right.annotate(
                f"best: {best['value']:.4f}",
                (best["step"], best["value"]),
                xytext=(0, 9),
                textcoords="offset points",
                ha="center",
                color=_LOOK,
                fontsize=9,
            )
    figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    _save(figure, path)


def pareto_png(found: Sequence[Point], path: Path, title: str = "", least: float | None = None) -> None:
    """Speed against quality, with the 95 % interval and the size of each candidate; `least`: the share of the
    source's quality that is asked for. Candidates without a quality are in the list alone.

    Raises ValueError where there is none.
    """
    if not found:
        raise ValueError("there is no candidate to draw")
    figure = Figure(figsize=(10, 0.26 * len(found) + 4.2), dpi=DPI, layout="constrained")
    rows = figure.add_gridspec(2, 1, height_ratios=[3.6, 0.26 * (len(found) + 1.5)])
    axes, legend = figure.add_subplot(rows[0]), figure.add_subplot(rows[1])
    _plain(axes, title or "Candidates")
    largest = max(one.size for one in found)
    for number, one in enumerate(found, 1):
        if one.quality is not None:
            _point(axes, number, one, largest)
    if least is not None:
        axes.axhline(100 * least, color=_FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            f"asked for: {100 * least:g}%",
            (0, 100 * least),
            xycoords=("axes fraction", "data"),
            xytext=(4, 3),
            textcoords="offset points",
            color=_FAINT,
            fontsize=8,
        )
    axes.set_xscale("log")
    _ticks(axes, [one.speed for one in found])
    axes.set_xlabel("times as fast as the source")
    axes.set_ylabel("share of the source's quality")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
    _list(legend, found)
    _save(figure, path)


def _point(axes: Axes, number: int, one: Point, largest: int) -> None:
    assert one.quality is not None
    colour, y = _COLOURS[one.mark], 100 * one.quality.value
    down, up = y - 100 * one.quality.low, 100 * one.quality.high - y
    axes.errorbar(
        one.speed, y, yerr=[[max(down, 0)], [max(up, 0)]], color=colour, linewidth=1.2, capsize=3, zorder=2
    )
    area = 130 + 700 * one.size / largest  # never smaller than its number
    axes.scatter(
        [one.speed], [y], s=area, color=colour, alpha=0.9, edgecolors="white", linewidths=1, zorder=3
    )
    axes.annotate(str(number), (one.speed, y), ha="center", va="center", color="white", fontsize=9,
                  fontweight="bold", zorder=4)  # fmt: skip


def _ticks(axes: Axes, speeds: Sequence[float]) -> None:
    low, high = min([*speeds, 1.0]) / 1.15, max([*speeds, 1.0]) * 1.15
    axes.set_xlim(low, high)
    marks = [
        mark
        for mark in (0.1, 0.2, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100)
        if low <= mark <= high
    ]
    axes.set_xticks(marks, [f"{mark:g}x" for mark in marks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _list(axes: Axes, found: Sequence[Point]) -> None:
    """Beside each number what it stands for."""
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(len(found) + 0.8, -0.8)
    columns = (
        (0.0, "left"),
        (0.03, "left"),
        (0.46, "right"),
        (0.56, "right"),
        (0.68, "right"),
        (0.71, "left"),
    )
    heads = ("", "candidate", "speed", "size", "quality", "")
    rows = [heads] + [
        (
            str(number),
            one.name if len(one.name) < 44 else f"{one.name[:42]}...",
            f"{one.speed:.2f}x",
            f"{one.size / 1e6:,.1f} MB",
            f"{100 * one.quality.value:.2f}%" if one.quality else "-",
            one.mark.value,
        )
        for number, one in enumerate(found, 1)
    ]
    for y, cells in enumerate(rows):
        colour = _FAINT if y == 0 else _COLOURS[found[y - 1].mark]
        for (x, side), text in zip(columns, cells, strict=True):
            coloured = y == 0 or x in (0.0, 0.71)
            axes.text(x, y, text, ha=side, va="center", fontsize=9, family=_FONT,
                      color=colour if coloured else _INK)  # fmt: skip


def _plain(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", color=_INK, fontsize=11, family=_FONT)
    axes.grid(color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
