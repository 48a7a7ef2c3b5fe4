"""Sizes, times and shares as they are written."""

import pytest
from pydantic import TypeAdapter, ValidationError

from gamma_orch.spec.quantities import Latency, Share, Size, seconds_of, share_of, size_of


@pytest.mark.parametrize(
    ("text", "number"),
    [("30MB", 30_000_000), ("1.5GB", 1_500_000_000), ("7 kB", 7_000), ("0B", 0), ("2TB", 2 * 10**12)],
)
def test_a_size_is_decimal_bytes(text: str, number: int):
    assert size_of(text) == number


@pytest.mark.parametrize("text", ["30", "30 mb", "30MiB", "-1MB", "MB", "1e3MB", "30MB ", "1.2.3MB"])
def test_another_spelling_of_a_size_is_refused(text: str):
    with pytest.raises(ValueError, match="a size is a number and a unit"):
        size_of(text)


@pytest.mark.parametrize(
    ("text", "number"), [("20ms", 0.02), ("1.5s", 1.5), ("250us", 0.00025), ("2m", 120.0)]
)
def test_a_time_is_seconds(text: str, number: float):
    assert seconds_of(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["20", "20 msec", "1h", "-5ms", "ms"])
def test_another_spelling_of_a_time_is_refused(text: str):
    with pytest.raises(ValueError, match="a time is a number and a unit"):
        seconds_of(text)


@pytest.mark.parametrize(("value", "share"), [("99.5%", 0.995), (0.5, 0.5), ("0%", 0.0), (1, 1.0)])
def test_a_share_is_a_part_of_one(value: str | float, share: float):
    assert share_of(value) == pytest.approx(share)


@pytest.mark.parametrize("value", ["99.5", True, "half", None])
def test_another_spelling_of_a_share_is_refused(value: object):
    with pytest.raises(ValueError, match="a share is written as"):
        share_of(value)  # type: ignore[arg-type]


def test_a_spec_keeps_the_text_in_one_spelling():
    assert TypeAdapter(Size).validate_python("30 MB") == "30MB"
    assert TypeAdapter(Latency).validate_python("20 ms") == "20ms"
    assert TypeAdapter(Share).validate_python("99.5 %") == "99.5%"


def test_a_share_far_from_one_is_a_slip():
    with pytest.raises(ValidationError, match="between 0% and 1000%"):
        TypeAdapter(Share).validate_python(99.5)
