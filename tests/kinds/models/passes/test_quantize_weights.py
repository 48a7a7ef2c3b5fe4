"""INT4 and INT8 of the weights alone."""

from pathlib import Path
from typing import Any

import onnx
import pytest

from gamma_orch.core.provider import Permanent
from gamma_orch.runtimes import Card, load_generator
from tests.kinds.models.built import Workshop, carry_out
from tests.kinds.models.tiny import DECODERS, ENCODER_DECODERS, Kind, texts


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", [*DECODERS, *ENCODER_DECODERS])
def test_every_layer_is_changed_and_it_still_writes(workshop: Workshop, kind: Kind, bits: int):
    """Without turning Gemm into MatMul and untying the output, INT4 changes nothing in a GPT-2."""
    folder, facts = workshop.built(kind, "export", ("quantize_weights", {"bits": bits}))
    for layers in facts["layers"].values():
        assert layers["changed"] == layers["candidates"]
        assert layers["unchanged"] == []
    assert Card.read(folder).precision == f"int{bits}"
    model = load_generator(folder)
    assert all(len(model.generate_ids([row], 5)[0]) <= 5 for row in model.text.ids(texts(3)))


def test_four_bits_are_smaller_and_eight_are_nearer(workshop: Workshop):
    four, eight = (workshop.facts("gpt2", "export", ("quantize_weights", {"bits": b})) for b in (4, 8))
    assert four["megabytes"] < eight["megabytes"] < eight["megabytesBefore"]
    difference = "maxDifference"
    assert eight["comparedWithInput"][difference] < four["comparedWithInput"][difference]


def test_embeddings_are_in_blocks_of_four_bits(workshop: Workshop):
    graph = onnx.load(
        workshop.model("gpt2", "export", ("quantize_weights", {"bits": 4})) / "model.onnx"
    ).graph
    assert {"MatMulNBits", "GatherBlockQuantized"} <= {node.op_type for node in graph.node}


@pytest.mark.parametrize("params", [{"bits": 3}, {"bits": 4, "block": 31}])
def test_bits_or_blocks_that_no_kernel_takes(workshop: Workshop, tmp_path: Path, params: Any):
    with pytest.raises(Permanent, match="Weights are quantized to 4 or 8 bits in blocks of 16, 32"):
        carry_out("quantize_weights", tmp_path / "out", params, model=workshop.model("gpt2", "export"))
