"""The pictures: the same bytes each time, and what they must show is there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from gamma_orch.kinds.models.choice import Budget, Candidate, choose
from gamma_orch.kinds.models.intervals import Interval
from gamma_orch.kinds.models.passes.plots import Mark, Point, loss_png, pareto_png, points

FACTS: dict[str, Any] = {
    "loss": [[step, 1 / step] for step in range(1, 50)],
    "validation": [[10, 0.7], [20, 0.8], [30, 0.79]],
    "metric": "accuracy",
    "best": {"step": 20, "value": 0.8},
}


def candidates() -> list[Candidate]:
    def one(name: str, time: float, size: int, low: float) -> Candidate:
        return Candidate(name, name, size, time, 10**8, relative=Interval(low + 0.005, low, low + 0.01))

    return [
        one("source", 1.0, 91_000_000, 0.999),
        one("twin", 1.0, 95_000_000, 0.999),
        one("int8", 0.25, 23_000_000, 0.992),
        one("pruned", 0.12, 17_000_000, 0.96),
    ]


def colour(path: Path, wanted: str) -> int:
    """How many pixels are of a colour, `#rrggbb`, or nearly."""
    pixels = imread(path)[..., :3]
    there = np.array([int(wanted[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return int((np.abs(pixels - there).max(axis=-1) < 0.1).sum())


def test_what_became_of_each_candidate():
    found = candidates()
    marks = {one.name: one.mark for one in points(found, choose(found, Budget(relative=0.99)))}
    assert marks == {"source": Mark.FRONT, "twin": Mark.BEHIND, "int8": Mark.CHOSEN, "pruned": Mark.OUT}
    assert [one.speed for one in points(found, choose(found, Budget()))] == pytest.approx([1, 1, 4, 1 / 0.12])


def test_candidates(tmp_path: Path):
    found = candidates()
    drawn = points(found, choose(found, Budget(relative=0.99)))
    for name in ("a.png", "b.png"):
        pareto_png(drawn, tmp_path / name, "what there was", 0.99)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    for wanted in ("#1a7f37", "#1f5fa8", "#808080", "#c2570c"):
        assert colour(tmp_path / "a.png", wanted) > 100, wanted
    assert imread(tmp_path / "a.png").shape[1] == 1200


def test_a_candidate_without_quality_is_listed(tmp_path: Path):
    bare = [Point("a name that is far too long for its column, and goes on", 2.0, 10, None, Mark.CHOSEN)]
    pareto_png(bare, tmp_path / "a.png")
    assert 20 < colour(tmp_path / "a.png", "#1a7f37") < 1000


def test_a_training(tmp_path: Path):
    loss_png(FACTS, tmp_path / "a.png", "finetune")
    loss_png(FACTS, tmp_path / "b.png", "finetune")
    data = (tmp_path / "a.png").read_bytes()
    assert data == (tmp_path / "b.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert b"Software" not in data  # the version of matplotlib
    assert colour(tmp_path / "a.png", "#1f5fa8") > 300
    assert colour(tmp_path / "a.png", "#c2570c") > 300


def test_a_training_without_looks(tmp_path: Path):
    loss_png({"loss": [[1, 0.7]], "validation": [], "best": None}, tmp_path / "a.png")
    assert colour(tmp_path / "a.png", "#c2570c") == 0


def test_nothing_to_draw(tmp_path: Path):
    with pytest.raises(ValueError, match="no loss"):
        loss_png({"loss": []}, tmp_path / "a.png")
    with pytest.raises(ValueError, match="no candidate"):
        pareto_png([], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
