"""INT8 by ONNX Runtime, ranges found beforehand."""

from pathlib import Path

import pytest

from gamma_orch.core.provider import Permanent
from tests.kinds.models.built import Workshop, carry_out
from tests.kinds.models.tiny import ENCODERS, Kind


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_layer_is_changed(workshop: Workshop, kind: Kind):
    facts = workshop.facts(kind, "export", ("quantize_static", {"rows": 16}))
    layers = facts["layers"]["model"]
    assert layers["changed"] == layers["candidates"]
    assert facts["calibration"] == {"texts": 16, "from": "train split", "method": "minmax"}
    assert facts["comparedWithInput"]["sameLabels"] > 0.8


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_every_method_takes_texts_of_different_lengths(workshop: Workshop, method: str):
    facts = workshop.facts("distilbert", "export", ("quantize_static", {"rows": 16, "method": method}))
    assert facts["calibration"]["method"] == method
    assert 8 <= facts["calibration"]["texts"] <= 16
    assert facts["comparedWithInput"]["maxDifference"] < 1.5


def test_a_generator_is_refused(workshop: Workshop, tmp_path: Path):
    with pytest.raises(Permanent, match="for encoders only, and gpt2 generates"):
        carry_out("quantize_static", tmp_path / "out", model=workshop.model("gpt2", "export"))


def test_an_unknown_method_is_refused(workshop: Workshop, tmp_path: Path):
    with pytest.raises(Permanent, match="no calibration method 'guess'; there are minmax"):
        carry_out(
            "quantize_static", tmp_path / "out", {"method": "guess"}, model=workshop.model("bert", "export")
        )


def test_an_empty_split_is_refused(workshop: Workshop, tmp_path: Path):
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(Permanent, match="split train has no texts"):
        carry_out("quantize_static", tmp_path / "out", model=workshop.model("bert", "export"), data=tmp_path)


def test_a_broken_row_is_said_with_its_line(workshop: Workshop, tmp_path: Path):
    (tmp_path / "train.jsonl").write_text('{"text": "good"}\n{"label": 1}\n')
    with pytest.raises(Permanent, match=r"train.jsonl, line 2: no row with a text"):
        carry_out("quantize_static", tmp_path / "out", model=workshop.model("bert", "export"), data=tmp_path)
