"""Graphs that run, and answer wrongly only sometimes: the comparison finds them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.passes import parity
from gamma_orch.runtimes import load
from tests.kinds.models.built import Workshop
from tests.kinds.models.tiny import Kind


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


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
    shutil.copytree(right, wrong)
    model = onnx.load(wrong / graph)
    break_it(model.graph)
    onnx.save(model, wrong / graph)
    report = parity.compared(load(workshop.torch(kind)), load(wrong))
    with pytest.raises(
        Permanent, match=r"does not answer as the PyTorch model does.*allowed is less than 0.001"
    ):
        parity.require(report, "The export")


def test_numbers_that_are_none_are_an_infinite_difference():
    report = parity.Report()
    report.compare(np.array([[np.nan, 1.0]]), np.array([[0.0, 1.0]]))
    assert report.difference == float("inf")
    assert report.facts("Labels")["maxDifference"] == "infinite"


@pytest.mark.parametrize(
    ("size", "difference", "fits"),
    [(5, 9e-4, True), (5, 1.1e-3, False), (30, 2.9e-3, True), (30, 3.1e-3, False)],
)
def test_the_limit_grows_with_the_numbers_and_not_below_ten(size: float, difference: float, fits: bool):
    theirs = np.array([[size, 0.0]])
    report = parity.Report()
    report.compare(theirs + np.array([[difference, 0.0]]), theirs)
    if fits:
        parity.require(report, "It")
    else:
        with pytest.raises(Permanent, match="allowed is less than"):
            parity.require(report, "It")
