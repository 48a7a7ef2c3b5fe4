"""Zeros where the smallest weights were, and an honest word about them."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from gamma_orch.core.provider import Permanent
from gamma_orch.runtimes import load_encoder
from tests.kinds.models.built import Workshop, carry_out
from tests.kinds.models.tiny import KINDS, Kind, texts


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_share_of_zeros_is_the_ratio(workshop: Workshop, kind: Kind):
    facts = workshop.facts(kind, ("sparsify", {"ratio": 0.5}))
    assert facts["zeros"] == pytest.approx(0.5, abs=0.001)
    assert facts["compressedMegabytes"] < facts["compressedMegabytesBefore"]
    assert facts["speedsUp"] is False
    assert "speed nothing up here" in facts["note"]


def test_the_smallest_go_and_the_others_stay(workshop: Workshop):
    before = load_file(workshop.torch("bert") / "model.safetensors")
    after = load_file(workshop.model("bert", ("sparsify", {"ratio": 0.3})) / "model.safetensors")
    name = "bert.encoder.layer.0.attention.self.query.weight"
    gone = after[name] == 0
    assert abs(before[name][gone]).max() <= abs(before[name][~gone]).min()
    assert (after[name][~gone] == before[name][~gone]).all()
    table = "bert.embeddings.word_embeddings.weight"
    assert (after[table] == before[table]).all()


def test_it_is_still_a_model(workshop: Workshop):
    model = load_encoder(workshop.model("bert", ("sparsify", {"ratio": 0.3})))
    assert model.logits(texts(3)).shape == (3, 2)


@pytest.mark.parametrize("ratio", [0, 1, 1.5, "half"])
def test_a_ratio_that_is_none(workshop: Workshop, tmp_path: Path, ratio: Any):
    with pytest.raises(Permanent, match="a share between 0 and 1"):
        carry_out("sparsify", tmp_path / "out", {"ratio": ratio}, model=workshop.torch("bert"))
