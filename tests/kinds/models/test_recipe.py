"""From the fields of a model to keys: what a change rebuilds, and what it leaves."""

from collections.abc import Callable

import pytest

from gamma_orch.core.kind import Fields
from gamma_orch.kinds.models.derivation import TOOLS, Derivation, in_order
from gamma_orch.kinds.models.ladder import LEVELS
from gamma_orch.kinds.models.pointing import pinned_source
from gamma_orch.kinds.models.recipe import Recipe, recipe
from tests.kinds.models.specs import DIGEST, fields, model


def versions(name: str) -> str:
    return "1.0"


def made(spec: object, digest: str = DIGEST, versions: Callable[[str], str] = versions) -> Recipe:
    return recipe(fields(spec, digest), versions, host="h")


def ops(derivation: Derivation) -> list[str]:
    return [one.op for one in in_order(derivation)]


def keys(of: Recipe) -> dict[str, str]:
    """The key of every derivation that the asked rung may build, by what it does."""
    return {
        f"{candidate.name}:{one.op}": one.key
        for candidate in of.rungs[0].candidates
        for one in in_order(candidate.built)
    }


def test_the_chain_of_an_int8_model():
    found = made(model())
    assert [rung.level for rung in found.rungs] == ["advanced", "basic", "none"]
    openvino, onnx = found.rungs[0].candidates
    assert ops(openvino.built) == [
        "fetch_model", "finetune", "merge", "trim_vocabulary", "export", "to_openvino", "quantize_openvino",
    ]  # fmt: skip
    assert ops(onnx.built) == [
        "fetch_model", "finetune", "merge", "trim_vocabulary", "export", "quantize_dynamic",
    ]  # fmt: skip
    assert ops(found.reference) == ["fetch_model", "finetune", "merge"]


def test_the_same_fields_give_the_same_keys():
    assert keys(made(model())) == keys(made(model()))
    assert made(model()).choice.key == made(model()).choice.key


def test_a_changed_pass_changes_the_keys_from_there_on_and_none_before():
    rank = {"finetune": {"dataset": "reviews", "rank": 8}}
    before, after = keys(made(model())), keys(made(model(**rank)))
    same = {name for name in before if before[name] == after[name]}
    assert same == {"openvino-int8:fetch_model", "onnxruntime-int8:fetch_model"}


def test_other_data_changes_what_learns_from_it():
    before, after = keys(made(model())), keys(made(model(), digest="e" * 64))
    assert before["openvino-int8:fetch_model"] == after["openvino-int8:fetch_model"]
    assert before["openvino-int8:finetune"] != after["openvino-int8:finetune"]


def test_an_upgrade_changes_the_passes_that_use_the_package():
    def upgraded(name: str) -> str:
        return "2.0" if name == "openvino" else "1.0"

    before, after = keys(made(model())), keys(made(model(), versions=upgraded))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"openvino-int8:to_openvino", "openvino-int8:quantize_openvino"}


def test_gates_and_budgets_rebuild_nothing_and_choose_again():
    gated = model(gates=[{"metric": "accuracy", "min": 0.8}], budget={"size": "30MB"})
    assert keys(made(model())) == keys(made(gated))
    assert made(model()).choice.key != made(gated).choice.key


def test_another_machine_measures_again_and_builds_nothing():
    here, there = (recipe(fields(model()), versions, host) for host in ("a", "b"))
    assert keys(here) == keys(there)
    built = here.rungs[0].candidates[0].built
    assert here.benchmark(built).key != there.benchmark(built).key
    assert here.evaluation(built, "test").key == there.evaluation(built, "test").key


def test_other_traffic_is_measured_again_and_builds_nothing():
    steady, mixed = made(model(benchmark={})), made(model(benchmark={"traffic": "mixed"}))
    assert keys(steady) == keys(mixed)
    built = steady.rungs[0].candidates[0].built
    assert mixed.benchmark(built).params == {**steady.benchmark(built).params, "traffic": "mixed"}


def test_one_shape_alone_is_no_mixture():
    one = {"traffic": "mixed", "batches": [1, 1], "lengths": [32]}
    with pytest.raises(ValueError, match="mixed traffic needs two shapes or more"):
        fields(model(benchmark=one))


def test_where_something_lies_is_no_part_of_what_it_is():
    """A pinned path gives the keys of its content: this is what lets two checkouts share a store."""
    here, there = fields(model(source={"path": "a/mini"})), fields(model(source={"path": "b/mini"}))

    def key(of: Fields, pin: str) -> str:
        return recipe(pinned_source(of, pin), versions, "h").reference.key

    assert key(here, "a" * 64) == key(there, "a" * 64) != key(here, "b" * 64)


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_falls_back_to_those_below(level: str):
    found = made(model(optimize={"level": level}))
    assert [rung.level for rung in found.rungs] == list(reversed(LEVELS[: LEVELS.index(level) + 1]))
    assert all(rung.candidates for rung in found.rungs)


def test_auto_is_all_of_them_at_once():
    [rung] = made(model(optimize={"level": "auto"})).rungs
    assert [candidate.name for candidate in rung.candidates] == [
        "torch", "openvino-float32", "onnxruntime-float32", "openvino-int8", "onnxruntime-int8",
        "pruned-openvino-int8", "pruned-onnxruntime-int8",
    ]  # fmt: skip


def test_a_runtime_that_is_not_wanted_is_not_built():
    [first, *_] = made(model(optimize={"level": "advanced", "runtimes": ["onnxruntime"]})).rungs
    assert [candidate.name for candidate in first.candidates] == ["onnxruntime-int8"]


def test_generators_end_in_int4_weights():
    writer = model(
        task="text-generation", labels=[], finetune=None,
        optimize={"level": "ultra"}, evaluate={"dataset": "reviews"},
    )  # fmt: skip
    first = made(writer).rungs[0]
    assert [candidate.name for candidate in first.candidates] == ["openvino-int4", "onnxruntime-int4"]
    assert made(writer).benchmark(first.candidates[0].built).params["generate"] == {"prompt": 32, "new": 32}


def test_listed_passes_are_taken_as_they_are():
    listed = [
        {"pass": "prune", "layers": [0, 2]},
        {"pass": "distil"},
        {"pass": "export"},
        {"pass": "openvino"},
    ]
    [rung] = made(model(optimize={"passes": listed})).rungs
    [candidate] = rung.candidates
    assert ops(candidate.built)[-4:] == ["prune", "distil", "export", "to_openvino"]
    distil = next(one for one in in_order(candidate.built) if one.op == "distil")
    assert set(distil.inputs) == {"model", "teacher", "data"}
    assert distil.inputs["teacher"] == made(model()).reference


def test_an_adapter_is_kept_and_its_merged_model_is_measured():
    kept = model(finetune={"dataset": "reviews", "keep": "adapter"}, optimize={"level": "none"})
    [candidate] = made(kept).rungs[0].candidates
    assert candidate.built.op == "finetune"
    assert candidate.measured == made(kept).reference


def test_a_quality_that_is_asked_for_takes_the_place_of_the_promise():
    found = made(model(budget={"quality": {"relative": "98%"}}))
    assert [(rung.level, rung.quality) for rung in found.rungs] == [
        ("advanced", 0.98), ("basic", 0.98), ("none", 0.0),
    ]  # fmt: skip


def test_every_pass_that_a_recipe_uses_has_its_tools_named():
    found = made(model(optimize={"level": "ultra"}))
    used = {one.op for rung in found.rungs for c in rung.candidates for one in in_order(c.built)}
    assert used <= TOOLS.keys()
