"""What does not fit together in a Model, said before anything is fetched."""

from typing import Any

import pytest

from gamma_orch.core.diagnostic import written
from gamma_orch.kinds.models.agreement import FORMS, models
from gamma_orch.kinds.models.pass_spec import AnyPass
from tests.kinds.models.specs import dataset, everything, model


def said(data: dict[str, Any] | None = None, **changed: Any) -> list[tuple[str, str, str, str]]:
    world = everything(Dataset__reviews=dataset(**(data or {})), Model__sentiment=model(**changed))
    mine = [resource for at, resource in world.items() if at.kind == "Model"]
    return [(one.code, written(one.path), one.message, one.hint) for one in models(mine, world)]


def test_a_whole_model_has_nothing_to_say_about():
    assert said() == []
    assert said(optimize={"level": "ultra"}, gates=[{"metric": "p95", "max": 20, "length": 32}]) == []


def test_data_without_a_label():
    assert said({"columns": {"text": "text"}}) == [
        (
            "GAM701",
            "spec.finetune.dataset",
            "Dataset/reviews names no label, which text-classification needs",
            "write `columns: {label: ...}` in Dataset/reviews",
        )
    ]


PRUNE = {"pass": "prune", "ffn": 0.5}


@pytest.mark.parametrize(
    ("optimize", "complains"),
    [
        ({"level": "advanced"}, False),
        ({"level": "ultra"}, True),
        ({"passes": [PRUNE, {"pass": "export"}]}, True),
        ({"passes": [{**PRUNE, "importance": "weights"}, {"pass": "export"}]}, False),
        ({"passes": [{"pass": "distil"}, {"pass": "export"}]}, True),
        ({"passes": [{"pass": "export"}, {"pass": "quantize-static"}]}, False),
    ],
)
def test_what_learns_from_the_data_of_optimize_needs_its_labels(optimize: dict[str, Any], complains: bool):
    texts = dataset(columns={"text": "text"})
    mine = model(optimize={**optimize, "data": "texts"})
    world = everything(Dataset__reviews=dataset(), Dataset__texts=texts, Model__sentiment=mine)
    found = models([resource for at, resource in world.items() if at.kind == "Model"], world)
    paths = [(one.code, written(one.path)) for one in found]
    assert paths == ([("GAM701", "spec.optimize.data")] if complains else [])


def test_a_label_that_the_data_has_not():
    assert said(labels=["negative", "postive"]) == [
        (
            "GAM701",
            "spec.labels[1]",
            "Dataset/reviews has no label 'postive'; it has negative, positive",
            "did you mean 'positive'?",
        )
    ]


@pytest.mark.parametrize("level", ["advanced", "ultra", "auto"])
def test_a_level_that_nobody_could_judge(level: str):
    [(code, path, message, _)] = said(finetune=None, optimize={"level": level})
    assert (code, path) == ("GAM702", "spec.optimize.level")
    assert message == f"without data, nobody can tell whether {level} keeps the model good"


def test_an_export_needs_no_data():
    assert said(finetune=None, optimize={"level": "basic"}) == []


def test_quality_is_not_measured_without_data():
    found = said(
        finetune=None,
        optimize={"level": "none"},
        budget={"quality": {"relative": 0.99}},
        gates=[{"metric": "p95", "max": 20}, {"metric": "accuracy", "min": 0.8}],
    )
    assert [path for _, path, _, _ in found] == ["spec.budget.quality", "spec.gates[1].metric"]


def test_a_pass_without_its_data():
    found = said(finetune=None, optimize={"passes": [{"pass": "distil"}]})
    assert [(code, path) for code, path, _, _ in found] == [("GAM702", "spec.optimize.passes[0]")]


@pytest.mark.parametrize(
    ("passes", "wrong"),
    [
        (["export", "prune"], 1),
        (["quantize-dynamic"], 0),
        (["export", "openvino", "quantize-dynamic"], 2),
        (["export", "quantize-dynamic", "fuse"], 2),
        (["export", "quantize-dynamic", "openvino"], 2),
        (["prune", "export", "fuse", "quantize-static"], None),
        (["prune", "export", "openvino", "quantize-openvino"], None),
    ],
)
def test_the_order_of_passes(passes: list[str], wrong: int | None):
    found = said(optimize={"passes": [{"pass": name} for name in passes]})
    expected = [] if wrong is None else [("GAM703", f"spec.optimize.passes[{wrong}].pass")]
    assert [(code, path) for code, path, _, _ in found] == expected


def test_a_gate_on_what_the_task_has_not():
    [(code, path, message, hint)] = said(gates=[{"metric": "perplexity", "max": 20}])
    assert (code, path) == ("GAM704", "spec.gates[0].metric")
    assert message == "perplexity is not measured for text-classification"
    assert hint.startswith("measured are accuracy, f1")


def test_a_gate_on_a_shape_that_is_not_measured():
    [(code, path, message, hint)] = said(gates=[{"metric": "p95", "max": 20, "batch": 8}])
    assert (code, path) == ("GAM704", "spec.gates[0].batch")
    assert message == "the benchmark does not measure batch 8; it measures [1, 16]"
    assert hint == "add it to benchmark.batches"


def test_an_adapter_is_not_optimized():
    found = said(finetune={"dataset": "reviews", "keep": "adapter"})
    assert [(code, path) for code, path, _, _ in found] == [("GAM705", "spec.optimize")]


def test_each_pass_of_the_language_has_a_form():
    names = {one.model_fields["name"].annotation.__args__[0] for one in AnyPass.__args__}
    assert names == set(FORMS)
