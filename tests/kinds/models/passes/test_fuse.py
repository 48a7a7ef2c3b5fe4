"""Attention and normalization as single nodes."""

from pathlib import Path

import pytest

from gamma_orch.core.provider import Permanent
from tests.kinds.models.built import Workshop, carry_out
from tests.kinds.models.tiny import ENCODERS, Kind


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.mark.parametrize("kind", ENCODERS)
def test_each_layer_is_fused_and_answers_the_same(workshop: Workshop, kind: Kind):
    facts = workshop.facts(kind, "export", "fuse", task="token-classification")
    assert facts["fused"]["model"]["Attention"] == 2
    assert facts["fused"]["model"]["SkipLayerNormalization"] == 4
    assert facts["parity"]["maxDifference"] < 1e-4
    assert "Benchmark both" in facts["warning"]


def test_a_last_layer_for_one_token_is_not_fused(workshop: Workshop):
    """The export of a classifier narrows it, and the tool knows no such attention: it is not counted."""
    facts = workshop.facts("bert", "export", "fuse")
    assert facts["fused"]["model"]["Attention"] == 1
    assert facts["parity"]["maxDifference"] < 1e-4


def test_attention_that_is_not_known_is_counted_as_none(workshop: Workshop):
    assert workshop.facts("gpt2", "export", "fuse")["fused"]["model"]["Attention"] == 0


def test_a_fused_graph_can_be_quantized(workshop: Workshop):
    facts = workshop.facts("bert", "export", "fuse", "quantize_dynamic")
    assert facts["comparedWithInput"]["sameLabels"] > 0.9


def test_an_architecture_without_fusion(workshop: Workshop, tmp_path: Path):
    with pytest.raises(Permanent, match="knows no fusion for llama"):
        carry_out("fuse", tmp_path / "out", model=workshop.model("llama", "export"))


def test_after_quantization_it_is_too_late(workshop: Workshop, tmp_path: Path):
    with pytest.raises(Permanent, match="Nothing is fused in a graph of int8 weights"):
        carry_out("fuse", tmp_path / "out", model=workshop.model("bert", "export", "quantize_dynamic"))
