"""Each architecture exported, and what is refused."""

import hashlib
from pathlib import Path
from typing import Any

import onnx
import pytest

from gamma_orch.core.provider import Permanent
from gamma_orch.runtimes import Card
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
