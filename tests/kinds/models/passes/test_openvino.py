"""OpenVINO's form, and what NNCF makes of it."""

import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

from gamma_orch.core.provider import Permanent
from gamma_orch.runtimes import Card, load_generator
from tests.kinds.models.built import Workshop, carry_out
from tests.kinds.models.tiny import DECODERS, ENCODER_DECODERS, ENCODERS, KINDS, Kind, texts


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_answers_as_before(workshop: Workshop, kind: Kind):
    folder, facts = workshop.built(kind, "export", "to_openvino")
    assert facts["parity"]["maxDifference"] < 1e-3
    assert facts["parity"]["sameLabels" if kind in ENCODERS else "sameGreedyTokens"] == 1.0
    assert Card.read(folder).runtime == "openvino"
    assert all(name.endswith(".xml") for name in Card.read(folder).graphs.values())
    assert not list(folder.glob("*.onnx"))


def test_float16_halves_the_weights_and_says_what_moved(workshop: Workshop):
    whole = workshop.model("bert", "export", "to_openvino")
    half, facts = workshop.built("bert", "export", ("to_openvino", {"precision": "float16"}))
    weights = [(folder / "model.bin").stat().st_size for folder in (whole, half)]
    assert weights[1] < 0.55 * weights[0]
    assert 1e-6 < facts["comparedWithInput"]["maxDifference"] < 0.05
    assert Card.read(half).precision == "float16"


@pytest.mark.parametrize("kind", ENCODERS)
def test_ranges_are_found_on_the_data(workshop: Workshop, kind: Kind):
    folder, facts = workshop.built(kind, "export", "to_openvino", ("quantize_openvino", {"rows": 16}))
    layers = facts["layers"]["model"]
    assert layers["changed"] == layers["candidates"]
    assert layers["quantizedActivations"] > 0
    assert facts["calibration"] == {"texts": 16, "from": "train split", "preset": "performance"}
    assert facts["comparedWithInput"]["sameLabels"] > 0.9
    assert Card.read(folder).precision == "int8"


@pytest.mark.parametrize("only", ["int8", "int4"])
@pytest.mark.parametrize("kind", [*DECODERS, *ENCODER_DECODERS])
def test_weights_alone(workshop: Workshop, kind: Kind, only: str):
    folder, facts = workshop.built(
        kind, "export", "to_openvino", ("quantize_openvino", {"weights": only, "block": 32})
    )
    for layers in facts["layers"].values():
        assert layers["changed"] == layers["candidates"]
        assert layers["quantizedActivations"] == 0
    assert Card.read(folder).precision == only
    model = load_generator(folder)
    assert model.generate(texts(2), 5)


def test_activations_of_a_generator_are_refused(workshop: Workshop, tmp_path: Path):
    with pytest.raises(Permanent, match="for encoders only, and gpt2 generates"):
        carry_out(
            "quantize_openvino", tmp_path / "out", model=workshop.model("gpt2", "export", "to_openvino")
        )


@pytest.mark.parametrize(
    ("params", "message"),
    [({"preset": "best"}, "no preset 'best'"), ({"weights": "int3"}, "int8 or int4, not to int3")],
)
def test_what_is_not_there(workshop: Workshop, tmp_path: Path, params: Any, message: str):
    source = workshop.model("bert", "export", "to_openvino")
    with pytest.raises(Permanent, match=message):
        carry_out("quantize_openvino", tmp_path / "out", params, model=source)


def test_a_node_that_openvino_does_not_know(workshop: Workshop, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(workshop.model("bert", "export"), folder)
    model = onnx.load(folder / "model.onnx")
    next(node for node in model.graph.node if node.op_type == "Erf").domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(
        Permanent, match=r"OpenVINO cannot read model.onnx.* put `openvino` right after `export`"
    ):
        carry_out("to_openvino", tmp_path / "out", model=folder)


@pytest.mark.parametrize(
    ("kind", "steps", "params"),
    [
        ("bert", ("export",), None),
        ("t5", ("export",), None),
        ("bert", ("export", "to_openvino"), {"rows": 8}),
        ("gpt2", ("export", "to_openvino"), {"weights": "int4", "block": 32}),
    ],
)
def test_the_same_graph_gives_the_same_bytes(
    workshop: Workshop, tmp_path: Path, kind: Kind, steps: Any, params: Any
):
    """OpenVINO names what has no name by a counter of the process, which stands elsewhere each time."""
    source = workshop.model(kind, *steps)
    op = "to_openvino" if params is None else "quantize_openvino"
    made = [tmp_path / "one", tmp_path / "two"]
    for out in made:
        carry_out(op, out, params, model=source, data=workshop.data)
    names = sorted(path.name for path in made[0].iterdir())
    assert [(made[0] / name).read_bytes() == (made[1] / name).read_bytes() for name in names] == [True] * len(
        names
    )
