"""Two models beside each other: which is faster and larger must come out, and what was done must be told."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.core.canonical import Json, canonical
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import benchmark, timed
from tests.kinds.models.passes.graphs import hand_made
from tests.kinds.models.tiny import tiny

SHORT = {"batches": [1, 4], "lengths": [8, 32], "seconds": 0.05}


def run(folder: Path, model: Path, baseline: Path | None = None, **params: Any) -> Json:
    out, work = folder / "out", folder / "work"
    out.mkdir()
    work.mkdir()
    inputs = {"model": model} if baseline is None else {"model": model, "baseline": baseline}
    facts = benchmark.run(Job({**SHORT, **params}, inputs, out, work, 1, lambda text, fraction: None))
    canonical(facts)
    assert json.loads((out / "benchmark.json").read_text()) == facts
    return facts


def small(folder: Path, wide: int = 0) -> Path:
    return hand_made(folder, {"good": (0.0, 1.0), "bad": (1.0, 0.0)}, ("no", "yes"), wide=wide)


def test_a_small_graph_beside_a_large_one(tmp_path: Path):
    model, baseline = small(tmp_path / "small"), small(tmp_path / "large", wide=1500)
    facts = run(tmp_path, model, baseline, concurrency=[1, 2], host="h")
    ours, theirs = facts["model"], facts["baseline"]
    assert [(one["batch"], one["length"]) for one in ours["shapes"]] == [(1, 8), (1, 32), (4, 8), (4, 32)]
    for one in (*ours["shapes"], *theirs["shapes"]):
        assert one["runs"] >= benchmark.LEAST
        assert 0 < one["wallMs"]["p50"] <= one["wallMs"]["p95"]
        assert 0 < one["cpuMs"]["p50"] <= one["cpuMs"]["p95"]
        assert one["textsPerSecond"] == pytest.approx(one["batch"] / one["wallMs"]["p50"] * 1e3, rel=1e-3)
    assert facts["host"] == "h"
    assert facts["basis"] == ("cpu" if facts["others"] > benchmark.BUSY else "wall")
    ratios = [one[facts["basis"]] for one in facts["ratios"]["shapes"]]
    assert facts["speedup"] == pytest.approx(math.prod(ratios) ** (1 / 4), rel=1e-2)
    assert facts["speedup"] > 2
    assert set(facts["ratios"]["byBatch"]) == {"1", "4"}
    assert facts["shares"]["size"] == pytest.approx(ours["size"] / theirs["size"], rel=1e-3)
    assert facts["shares"]["size"] < 0.01
    assert facts["shares"]["memory"] < 1
    assert theirs["weights"] > 9_000_000
    assert theirs["memory"]["peak"] - ours["memory"]["peak"] > 5_000_000
    for one in (ours, theirs):
        assert one["memory"]["floor"] < one["memory"]["loaded"]
        assert one["memory"]["own"] == one["memory"]["peak"] - one["memory"]["floor"]
        assert one["load"]["seconds"] > 0
        assert [(at["requests"], at["length"]) for at in one["concurrency"]] == [(2, 8), (2, 32)]


def test_mixed_traffic_never_runs_a_shape_after_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    subject = timed.Subject(small(tmp_path / "m"), 1)
    subject.load()
    ran: list[tuple[int, ...]] = []
    monkeypatch.setattr(subject, "_once", lambda ids, mask: ran.append(ids.shape))
    shapes = [(1, 8), (1, 16), (2, 8)]
    answer = subject.passes(shapes, 0, 4)
    assert ran == shapes * 4
    assert [len(times["wall"]) for times in answer["shapes"]] == [4, 4, 4]


def test_mixed_traffic_has_figures_for_each_shape(tmp_path: Path):
    facts = run(tmp_path, small(tmp_path / "a"), small(tmp_path / "b", wide=1500), traffic="mixed")
    shapes = [(1, 8), (1, 32), (4, 8), (4, 32)]
    assert [(one["batch"], one["length"]) for one in facts["model"]["shapes"]] == shapes
    assert [(one["batch"], one["length"]) for one in facts["ratios"]["shapes"]] == shapes
    assert all(one["runs"] >= benchmark.LEAST for one in facts["baseline"]["shapes"])
    assert facts["speedup"] > 2


def test_a_process_has_only_the_runtime_that_its_model_needs(tmp_path: Path):
    torch = tiny("bert", tmp_path / "torch")
    facts = run(tmp_path, small(tmp_path / "onnx"), torch)
    assert facts["model"]["memory"]["own"] < facts["baseline"]["memory"]["own"] / 2
    assert facts["model"]["load"]["seconds"] < facts["baseline"]["load"]["seconds"]
    assert (facts["model"]["runtime"], facts["baseline"]["runtime"]) == ("onnxruntime", "torch")


def test_a_writer(tmp_path: Path):
    model = tiny("gpt2", tmp_path / "gpt2")
    facts = run(tmp_path, model, model, batches=[1], lengths=[8], generate={"prompt": 16, "new": 6})
    written = facts["model"]["generate"]
    assert (written["prompt"], written["new"]) == (16, 6)
    assert written["runs"] >= benchmark.LEAST
    assert 0 < written["firstTokenMs"]["p50"] < written["wallMs"]["p50"]
    assert written["tokensPerSecond"] > 0
    # A model beside itself is not measured twice.
    assert (facts["baseline"], facts["ratios"], facts["shares"], facts["speedup"]) == (None, None, None, 1.0)


def test_too_long_for_the_model(tmp_path: Path):
    with pytest.raises(Permanent, match="asks for 100 tokens, and the model sees 64 at most"):
        run(tmp_path, small(tmp_path / "m"), lengths=[100])


def test_a_model_that_does_not_load(tmp_path: Path):
    model = small(tmp_path / "m")
    (model / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(Permanent, match="not a graph that ONNX Runtime can load"):
        run(tmp_path, model)


def test_a_model_that_fails_when_it_runs(tmp_path: Path):
    model = small(tmp_path / "m")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": 10_000}))  # rows the table has not
    with pytest.raises(Permanent, match=r"The model could not be measured \(load\): .*"):
        run(tmp_path, model)


def test_other_programs_decide_the_clock():
    class Times:
        _fields = ("user", "system", "idle", "iowait", "guest")

        def __init__(self, user: float, idle: float, guest: float = 0.0) -> None:
            self.user, self.idle, self.guest = user, idle, guest
            self.system = self.iowait = 0.0

    assert benchmark._others(Times(0, 0), Times(10, 10), 10) == 0
    assert benchmark._others(Times(0, 0), Times(15, 5), 10) == 0.25
    assert benchmark._others(Times(0, 0), Times(15, 5, guest=15), 10) == 0.25
    assert benchmark._others(Times(5, 5), Times(5, 5), 1) == 0
