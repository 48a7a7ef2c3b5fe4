"""Each architecture exported, and wrong graphs refused: those that run, and answer wrongly only sometimes."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.passes import parity
from gamma_orch.runtimes import Card, load
from tests.kinds.models.built import Workshop, carry_out
from tests.kinds.models.tiny import ENCODER_DECODERS, ENCODERS, KINDS, Kind, tiny


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_answers_as_in_pytorch(workshop: Workshop, kind: Kind):
    folder, facts = workshop.built(kind, "export")
    said = facts["parity"]
    assert said["maxDifference"] < 1e-4
    assert said["sameLabels" if kind in ENCODERS else "sameGreedyTokens"] == 1.0
    assert "4x33 noise" in said["shapes"]  # rows of different lengths, with ids under the mask
    assert all(nodes["MatMul"] > 0 for nodes in facts["nodes"].values())
    assert Card.read(folder).runtime == "onnxruntime"
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "tokenizer.json", "gamma-model.json"} <= names
    assert "model.safetensors" not in names


@pytest.mark.parametrize("task", ["embeddings", "token-classification"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_every_task_of_an_encoder(workshop: Workshop, kind: Kind, task: Any):
    facts = workshop.facts(kind, "export", task=task)
    assert facts["parity"]["maxDifference"] < 1e-4
    assert ("leastCosine" if task == "embeddings" else "sameLabels") in facts["parity"]


@pytest.mark.parametrize("kind", ENCODER_DECODERS)
def test_the_decoder_is_there_once(workshop: Workshop, kind: Kind):
    folder = workshop.model(kind, "export")
    assert sorted(path.name for path in folder.glob("*.onnx")) == ["decoder.onnx", "encoder.onnx"]
    encoder = onnx.load(folder / "encoder.onnx")
    assert [output.name for output in encoder.graph.output][1] == "present.0.encoder.key"


def test_the_same_weights_give_the_same_bytes(workshop: Workshop, tmp_path: Path):
    first = workshop.model("bert", "export")
    carry_out("export", tmp_path / "again", model=workshop.torch("bert"))

    def digests(folder: Path) -> dict[str, str]:
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}

    assert digests(first) == digests(tmp_path / "again")


def _mask_from_ids(graph: Any) -> None:
    """What one tensor given for two inputs does: the mask hangs on the ids. Unpadded texts answer well."""
    for node in graph.node:
        node.input[:] = ["input_ids" if name == "attention_mask" else name for name in node.input]


def _mask_is_ignored(graph: Any) -> None:
    """All ones, as it is on every text that is alone in its batch."""
    graph.node.insert(0, helper.make_node("Equal", ["attention_mask", "attention_mask"], ["yes"], name="yes"))
    graph.node.insert(1, helper.make_node("Cast", ["yes"], ["ones"], name="ones", to=onnx.TensorProto.INT64))
    for node in list(graph.node)[2:]:
        node.input[:] = ["ones" if name == "attention_mask" else name for name in node.input]


def _layers_swap_their_past(graph: Any) -> None:
    """The first token, whose past is empty, is right."""
    other = {
        f"past_key_values.{a}{kind}": f"past_key_values.{b}{kind}"
        for a, b in ((0, 1), (1, 0))
        for kind in (".key", ".value", ".decoder.key", ".decoder.value")
    }
    for node in graph.node:
        node.input[:] = [other.get(name, name) for name in node.input]


def _positions_are_ignored(graph: Any) -> None:
    """Counted from the start of the row, padding and all: right on a batch without padding."""
    for node in graph.node:
        if "position_ids" in node.input:
            axes = helper.make_tensor("axis_one", onnx.TensorProto.INT64, [], [1])
            graph.initializer.append(axes)
            break
    nodes = [
        helper.make_node("Equal", ["position_ids", "position_ids"], ["p_yes"]),
        helper.make_node("Cast", ["p_yes"], ["p_ones"], to=onnx.TensorProto.INT64),
        helper.make_node("CumSum", ["p_ones", "axis_one"], ["p_count"]),
        helper.make_node("Sub", ["p_count", "p_ones"], ["p_from_zero"]),
    ]
    for node in graph.node:
        node.input[:] = ["p_from_zero" if name == "position_ids" else name for name in node.input]
    for number, node in enumerate(nodes):
        graph.node.insert(number, node)


@pytest.mark.parametrize(
    ("kind", "graph", "break_it"),
    [
        ("bert", "model.onnx", _mask_from_ids),
        ("distilbert", "model.onnx", _mask_from_ids),
        ("roberta", "model.onnx", _mask_is_ignored),
        ("gpt2", "model.onnx", _mask_is_ignored),
        ("gpt2", "model.onnx", _layers_swap_their_past),
        ("llama", "model.onnx", _layers_swap_their_past),
        ("gpt2", "model.onnx", _positions_are_ignored),
        ("t5", "decoder.onnx", _layers_swap_their_past),
        ("bart", "encoder.onnx", _mask_is_ignored),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)).strip("_"),
)
def test_a_wrong_graph_is_refused(
    workshop: Workshop, tmp_path: Path, kind: Kind, graph: str, break_it: Callable[[Any], None]
):
    right = workshop.model(kind, "export")
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for path in right.iterdir():
        (wrong / path.name).write_bytes(path.read_bytes())
    model = onnx.load(wrong / graph)
    break_it(model.graph)
    onnx.save(model, wrong / graph)
    report = parity.compared(load(workshop.torch(kind)), load(wrong))
    with pytest.raises(
        Permanent, match=r"does not answer as the PyTorch model does.*allowed is less than 0.001"
    ):
        parity.require(report, "The export")


def test_numbers_that_are_none_are_an_infinite_difference():
    import numpy as np

    report = parity.Report()
    report.compare(np.array([[np.nan, 1.0]]), np.array([[0.0, 1.0]]))
    assert report.difference == float("inf")
    assert report.facts("Labels")["maxDifference"] == "infinite"


@pytest.mark.parametrize("opset", [3, 99, "new"])
def test_an_opset_that_is_none(workshop: Workshop, tmp_path: Path, opset: Any):
    with pytest.raises(Permanent, match="no opset"):
        carry_out("export", tmp_path / "out", {"opset": opset}, model=workshop.torch("bert"))


def test_what_is_exported_already(workshop: Workshop, tmp_path: Path):
    with pytest.raises(
        Permanent, match=r"takes a model in PyTorch, and it is in ONNX. Put it before the export"
    ):
        carry_out("export", tmp_path / "out", model=workshop.model("bert", "export"))


def test_an_architecture_that_is_not_proved(tmp_path: Path):
    folder = tiny("bert", tmp_path / "bert")
    card = Card.read(folder)
    Card(card.task, "mamba", "torch", graphs=card.graphs).write(folder)
    with pytest.raises(Permanent, match="architecture mamba cannot be exported: proved are bert, distilbert"):
        carry_out("export", tmp_path / "out", model=folder)


def test_a_task_that_the_architecture_does_not_do(tmp_path: Path):
    folder = tiny("bert", tmp_path / "bert")
    Card("text-generation", "bert", "torch", graphs={"model": "model.safetensors"}).write(folder)
    with pytest.raises(Permanent, match="bert is an encoder, and is not exported for text-generation"):
        carry_out("export", tmp_path / "out", model=folder)


def test_weights_that_are_cut_off(tmp_path: Path):
    folder = tiny("bert", tmp_path / "bert")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(Permanent, match="is cut off or no safetensors file"):
        carry_out("export", tmp_path / "out", model=folder)
