"""INT8 by ONNX Runtime, ranges found at each call."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.passes import weights
from gamma_orch.runtimes import Card
from tests.kinds.models.built import Workshop, carry_out
from tests.kinds.models.tiny import DECODERS, ENCODER_DECODERS, ENCODERS, KINDS, Kind


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_is_counted_and_changed(workshop: Workshop, kind: Kind):
    folder, facts = workshop.built(kind, "export", "quantize_dynamic")
    for layers in facts["layers"].values():
        found, changed = layers["candidates"], layers["changed"]
        assert layers["unchanged"] == []
        assert sum(changed.values()) == sum(found.values()) > 0
    assert Card.read(folder).precision == "int8"
    assert facts["megabytes"] < facts["megabytesBefore"]
    said = facts["comparedWithInput"]
    assert said["texts"] == "validation split"
    assert 0 < said["maxDifference"] < (0.5 if kind in ENCODERS else 8)
    assert said["sameLabels" if kind in ENCODERS else "sameGreedyTokens"] > 0.85


@pytest.mark.parametrize("kind", [*DECODERS, *ENCODER_DECODERS])
def test_the_output_layer_is_quantized_too(workshop: Workshop, kind: Kind):
    """It is tied to the embedding, and optimum exports it as a transposition of that: nothing to quantize."""
    folder = workshop.model(kind, "export", "quantize_dynamic")
    name = "model.onnx" if kind in DECODERS else "decoder.onnx"
    graph = onnx.load(folder / name).graph
    makers = {output: node for node in graph.node for output in node.output}
    node = makers["logits"]
    seen = set()
    while node.op_type != "MatMulInteger":
        seen.add(node.op_type)
        node = makers[node.input[0]]
    assert seen <= {"Mul", "Cast", "Reshape", "Add"}


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_preparing_changes_no_answer(workshop: Workshop, tmp_path: Path, kind: Kind):
    import shutil

    from gamma_orch.kinds.models.passes import parity
    from gamma_orch.runtimes import load

    source = workshop.model(kind, "export")
    shutil.copytree(source, tmp_path / "prepared")
    graph = weights.prepared(onnx.load(source / "model.onnx"))
    assert not [node for node in graph.graph.node if node.op_type == "Gemm"]
    onnx.save(graph, tmp_path / "prepared" / "model.onnx")
    assert parity.compared(load(source), load(tmp_path / "prepared")).difference < 1e-5


def test_a_scale_a_channel_is_nearer(workshop: Workshop):
    def off(per_channel: bool) -> Any:
        step = ("quantize_dynamic", {"perChannel": per_channel})
        return workshop.facts("bert", "export", step)["comparedWithInput"]["maxDifference"]

    assert off(True) < off(False)


def test_without_data_it_says_what_it_was_compared_on(workshop: Workshop, tmp_path: Path):
    facts = carry_out("quantize_dynamic", tmp_path / "out", model=workshop.model("bert", "export"))
    assert facts["comparedWithInput"]["texts"] == "made from the tokenizer's vocabulary"
    assert facts["comparedWithInput"]["compared"] == 32


def test_what_is_quantized_already_is_refused(workshop: Workshop, tmp_path: Path):
    once = workshop.model("bert", "export", "quantize_dynamic")
    with pytest.raises(
        Permanent, match=r"changed no layer of model.onnx: it has .* Is the model quantized already"
    ):
        carry_out("quantize_dynamic", tmp_path / "out", model=once)


def test_what_is_not_exported_is_refused(workshop: Workshop, tmp_path: Path):
    with pytest.raises(
        Permanent, match=r"takes a model in ONNX, and it is in PyTorch. Put it after `export`"
    ):
        carry_out("quantize_dynamic", tmp_path / "out", model=workshop.torch("bert"))


def test_the_same_graph_gives_the_same_bytes(workshop: Workshop, tmp_path: Path):
    first = workshop.model("bert", "export", "quantize_dynamic")
    carry_out("quantize_dynamic", tmp_path / "again", model=workshop.model("bert", "export"))
    assert (first / "model.onnx").read_bytes() == (tmp_path / "again" / "model.onnx").read_bytes()


def test_counting_sees_a_layer_that_was_passed_over():
    """A tool that takes one of two layers has changed one of two."""
    make = onnx.helper

    def graph(*nodes: Any, **held: Any) -> Any:
        tensors = [onnx.numpy_helper.from_array(array, name) for name, array in held.items()]
        x, y = (make.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in ("x", "y"))
        return make.make_model(make.make_graph(nodes, "g", [x], [y], tensors))

    wide: Any = np.ones((4, 4), dtype=np.float32)
    one = make.make_node("MatMul", ["x", "a"], ["m"], name="one")
    two = make.make_node("MatMul", ["m", "b"], ["y"], name="two")
    small = make.make_node("MatMulInteger", ["x", "a8"], ["m"], name="one_quant")
    found = weights.counted(
        graph(one, two, a=wide, b=wide), graph(small, two, a8=wide.astype(np.int8), b=wide)
    )
    assert (found.candidates, found.changed, found.left) == ({"MatMul": 2}, {"MatMul": 1}, ("two",))
