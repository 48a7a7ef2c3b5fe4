"""Quality on rows whose answers are known, and what is said of two models together."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from gamma_orch import runtimes
from gamma_orch.core.canonical import Json, canonical
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import evaluate
from tests.kinds.models.passes.graphs import hand_made
from tests.kinds.models.tiny import texts, tiny

Table = Mapping[str, tuple[float, ...]]
REVIEWS: Table = {"good": (0.0, 1.0), "bad": (1.0, 0.0), "film": (0.2, 0.0)}
LABELS = ("negative", "positive")


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def data(self, rows: list[dict[str, Any]], split: str = "validation") -> Path:
        folder = self._new("data")
        folder.mkdir()
        lines = [json.dumps({"id": f"row-{i}", **row}) + "\n" for i, row in enumerate(rows)]
        (folder / f"{split}.jsonl").write_text("".join(lines))
        return folder

    def reviews(self, good: int = 30, bad: int = 10, wrong: int = 4) -> Path:
        rows = [{"text": "the film was good", "label": "positive"}] * good
        rows += [{"text": "bad film", "label": "negative"}] * bad
        rows += [{"text": "good film", "label": "negative"}] * wrong
        return self.data(rows)

    def model(self, table: Table | None = None, **more: Any) -> Path:
        return hand_made(self._new("model"), table or REVIEWS, **{"labels": LABELS, **more})

    def run(
        self, model: Path, data: Path | None, reference: Path | None = None, **params: Any
    ) -> tuple[Json, Path]:
        out, work = self._new("out"), self._new("work")
        out.mkdir()
        work.mkdir()
        inputs = {"model": model, "data": data, "reference": reference}
        given = {name: path for name, path in inputs.items() if path is not None}
        facts = evaluate.run(Job(params, given, out, work, 1, lambda text, fraction: None))
        canonical(facts)  # a NaN could not be kept
        assert json.loads((out / "evaluation.json").read_text()) == facts
        return facts, out

    def _new(self, name: str) -> Path:
        self.count += 1
        return self.folder / f"{name}{self.count}"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_classifier_alone(bench: Bench):
    facts, out = bench.run(bench.model(), bench.reviews())
    assert (facts["task"], facts["split"], facts["rows"]) == ("text-classification", "validation", 44)
    assert facts["metric"] == "accuracy"
    assert facts["metrics"]["accuracy"] == facts["quality"]["value"] == pytest.approx(40 / 44)
    assert facts["metrics"]["recall"] == {"negative": pytest.approx(10 / 14), "positive": 1.0}
    assert facts["quality"]["low"] < 40 / 44 < facts["quality"]["high"]
    assert facts["relative"] is None
    predictions = load_file(out / "predictions.safetensors")
    assert predictions["predicted"].tolist() == [1] * 30 + [0] * 10 + [1] * 4
    assert predictions["logits"][0] == pytest.approx(
        [0.05, 0.25]
    )  # in the order of the rows, padding left out
    assert predictions["logits"][30] == pytest.approx([0.6, 0])


def test_a_classifier_beside_its_reference(bench: Bench):
    data = bench.reviews()
    theirs, reference = bench.run(bench.model(), data)
    # Sees "film" as such a bad sign that it finds the four hard rows, and loses the 30 easy ones.
    other = {"good": (0.0, 1.0), "bad": (1.0, 0.0), "film": (1.5, 0.0)}
    facts, _ = bench.run(bench.model(other), data, reference)
    assert facts["metrics"]["accuracy"] == pytest.approx(14 / 44)
    beside = facts["reference"]
    assert (beside["metrics"], beside["quality"]) == (theirs["metrics"], theirs["quality"])
    assert beside["difference"]["value"] == pytest.approx(-26 / 44)
    assert beside["difference"]["high"] < 0
    assert facts["relative"] == beside["ratio"]
    assert facts["relative"]["value"] == pytest.approx(14 / 40)
    assert beside["agreement"] == pytest.approx(10 / 44)
    assert (beside["mcnemar"]["onlyOurs"], beside["mcnemar"]["onlyReference"]) == (4, 30)
    assert beside["mcnemar"]["p"] < 1e-4
    assert beside["largestLogitDifference"] == pytest.approx(1.3 / 2)
    assert facts["bootstrap"]["draws"] == 10_000


def test_the_same_model_is_its_own_equal(bench: Bench):
    data, model = bench.reviews(), bench.model()
    first, out = bench.run(model, data)
    second, again = bench.run(model, data, out)
    assert second["relative"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert second["reference"]["agreement"] == 1.0
    assert second["reference"]["largestLogitDifference"] == 0.0
    assert second["reference"]["mcnemar"]["p"] == 1.0
    assert second["quality"] == first["quality"]
    assert (out / evaluate.PREDICTIONS).read_bytes() == (again / evaluate.PREDICTIONS).read_bytes()


def test_a_limit_a_length_and_chosen_metrics(bench: Bench):
    data = bench.data([{"text": "bad good good good good", "label": "negative"}] * 9)
    facts, _ = bench.run(bench.model(), data, limit=5, metrics=["accuracy"])
    assert (facts["rows"], facts["metrics"]) == (5, {"accuracy": 0.0})
    facts, _ = bench.run(bench.model(), data, length=1)
    assert facts["metrics"]["accuracy"] == 1.0


def test_a_tagger(bench: Bench):
    labels = ("O", "B-PER", "B-LOC")
    table = {"Anna": (0.0, 1.0, 0.0), "Paris": (0.0, 0.0, 1.0), "the": (1.0, 0, 0), "in": (1.0, 0, 0)}
    good = bench.model(table, labels=labels, task="token-classification")
    poor = bench.model({**table, "Paris": (1.0, 0, 0)}, labels=labels, task="token-classification")
    rows = [
        {"tokens": ["Anna", "lives", "in", "Paris"], "tags": ["B-PER", "O", "O", "B-LOC"]},
        {"tokens": ["the", "film"], "tags": ["O", "O"]},
        {"tokens": ["Paris"], "tags": ["B-LOC"]},
    ] * 5
    data = bench.data(rows)
    facts, reference = bench.run(good, data)
    assert facts["metrics"] == {"f1": 1.0, "precision": 1.0, "recall": 1.0, "tokenAccuracy": 1.0}
    facts, _ = bench.run(poor, data, reference)
    assert facts["metrics"]["precision"] == 1.0
    assert facts["metrics"]["recall"] == pytest.approx(1 / 3)
    assert facts["metrics"]["f1"] == facts["relative"]["value"] == pytest.approx(1 / 2)
    assert facts["relative"]["low"] < 0.5 < facts["relative"]["high"]
    assert facts["reference"]["agreement"] == pytest.approx(5 / 7)


def test_a_word_that_was_cut_off_has_no_tag(bench: Bench):
    table = {"Anna": (0.0, 1.0)}
    model = bench.model(table, labels=("O", "B-PER"), task="token-classification")
    data = bench.data([{"tokens": ["Anna", "Anna", "Anna"], "tags": ["B-PER"] * 3}] * 3)
    facts, _ = bench.run(model, data, length=2)
    assert facts["metrics"]["recall"] == pytest.approx(2 / 3)


def test_embeddings(bench: Bench):
    rows = [
        {"text": "good", "other": "good film", "score": 5},
        {"text": "good", "other": "film", "score": 3},
        {"text": "good", "other": "bad", "score": 0},
    ] * 4
    data = bench.data(rows)
    plain = {"good": (1.0, 0.0, 0.0), "bad": (0.0, 1.0, 0.0), "film": (0.5, 0.5, 0.0)}
    source = bench.model(plain, labels=("x", "y", "z"), task="embeddings")
    facts, reference = bench.run(source, data)
    assert (facts["quality"], facts["relative"]) == (None, None)
    assert facts["metrics"]["spearman"] == pytest.approx(1.0)
    turned = {**plain, "good": (1.0, 1.0, 0.0)}
    facts, _ = bench.run(bench.model(turned, labels=("x", "y", "z"), task="embeddings"), data, reference)
    assert facts["metric"] == "cosine"
    assert facts["metrics"]["cosine"] == pytest.approx(2**-0.5)
    assert facts["metrics"]["leastCosine"] == pytest.approx(2**-0.5)
    assert facts["relative"]["value"] == facts["quality"]["value"] == facts["metrics"]["cosine"]
    narrow = bench.model({"good": (1.0, 0.0)}, labels=("x", "y"), task="embeddings")
    with pytest.raises(Permanent, match="vectors have 3 numbers, this model's 2"):
        bench.run(narrow, data, reference)


def test_a_writer(bench: Bench, tmp_path: Path):
    data = bench.data([{"text": text} for text in texts(12)])
    model, other = (tiny("gpt2", tmp_path / f"gpt2-{seed}", seed=seed) for seed in (0, 1))
    facts, reference = bench.run(model, data, batch=5)
    loaded = runtimes.load(model)
    assert isinstance(loaded, runtimes.Generator)
    assert facts["metrics"]["perplexity"] == pytest.approx(loaded.perplexity(texts(12)), rel=1e-4)
    assert facts["quality"]["low"] < facts["quality"]["value"] < facts["quality"]["high"]
    beside, _ = bench.run(other, data, reference, batch=5)
    assert beside["relative"]["value"] == pytest.approx(
        facts["metrics"]["perplexity"] / beside["metrics"]["perplexity"], rel=1e-6
    )
    difference = beside["metrics"]["perplexity"] - facts["metrics"]["perplexity"]
    assert beside["reference"]["difference"]["value"] == pytest.approx(difference, rel=1e-6)


def test_a_summarizer(bench: Bench, tmp_path: Path):
    model = tiny("bart", tmp_path / "bart")
    said = runtimes.load_generator(model).generate(texts(4), max_new_tokens=8)
    words = [re.findall(r"\w+", text) for text in said]
    assert any(words)
    # The first row's summary is what the model says; the others' has nothing of it.
    first = next(i for i, found in enumerate(words) if found)
    rows = [{"text": text, "summary": said[i] if i == first else "0000"} for i, text in enumerate(texts(4))]
    facts, reference = bench.run(model, bench.data(rows), newTokens=8, batch=4)
    assert facts["metric"] == "rouge"
    assert facts["metrics"]["rouge"] == facts["quality"]["value"] == pytest.approx(1 / 4)
    again, _ = bench.run(model, bench.data(rows), reference, newTokens=8, batch=4)
    assert again["relative"]["value"] == 1.0


def test_what_is_wrong_is_said(bench: Bench):
    data, model = bench.reviews(), bench.model()
    with pytest.raises(Permanent, match="There is no split 'dev'"):
        bench.run(model, data, split="dev")
    with pytest.raises(Permanent, match="has no test split"):
        bench.run(model, data, split="test")
    with pytest.raises(Permanent, match="none is given"):
        bench.run(model, None)
    with pytest.raises(Permanent, match=r"fluency: not measured here\. Measured are: accuracy, f1, recall"):
        bench.run(model, data, metrics=["fluency"])
    strange = bench.data([{"text": "good", "label": "neutral"}])
    with pytest.raises(Permanent, match="has the label 'neutral', and the model's are: negative, positive"):
        bench.run(model, strange)


def test_a_reference_of_other_rows(bench: Bench):
    model = bench.model()
    _, reference = bench.run(model, bench.reviews(), limit=40)
    with pytest.raises(Permanent, match="on 40 rows, this model on 44, and 40 are the same"):
        bench.run(model, bench.reviews(), reference)
    tagger = bench.model(task="token-classification")
    with pytest.raises(Permanent, match="was measured as text-classification, and this model is for token"):
        bench.run(tagger, bench.data([{"tokens": ["good"], "tags": ["positive"]}]), reference)
    with pytest.raises(Permanent, match="no evaluation that can be paired with"):
        bench.run(model, bench.reviews(), model)


def test_a_broken_model(bench: Bench):
    broken = bench.model({"good": (math.nan, 0.0)})
    with pytest.raises(Permanent, match="NaN or infinity"):
        bench.run(broken, bench.reviews())
    empty = bench.model()
    (empty / "model.onnx").write_bytes(b"")
    with pytest.raises(Permanent, match=r"model\.onnx"):
        bench.run(empty, bench.reviews())
