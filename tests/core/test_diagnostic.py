"""Hints: the word that was meant."""

import pytest

from gamma_orch.core.diagnostic import Span, did_you_mean, nearest


@pytest.mark.parametrize(
    ("word", "candidates", "meant"),
    [
        ("tabel", ["table", "index"], "table"),
        ("TABLE", ["Table"], "Table"),
        ("xyz", ["table"], None),
        ("", ["table"], None),
        ("table", [], None),
    ],
)
def test_nearest(word: str, candidates: list[str], meant: str | None) -> None:
    """The closest one, if it is close; letter case is no difference."""
    assert nearest(word, candidates) == meant


@pytest.mark.parametrize(
    ("word", "candidates", "hint"),
    [
        ("tabel", ["table", "index"], "did you mean 'table'?"),
        ("xyz", ["b", "a", "b"], "one of: a, b"),
        ("xyz", [f"n{number}" for number in range(13)], ""),
        (
            "xyz",
            [f"n{number:02}" for number in range(12)],
            "one of: " + ", ".join(f"n{n:02}" for n in range(12)),
        ),
        ("xyz", [], ""),
    ],
)
def test_did_you_mean(word: str, candidates: list[str], hint: str) -> None:
    """The nearest, else all of a few, else nothing."""
    assert did_you_mean(word, candidates) == hint


def test_a_span_is_a_place_to_click() -> None:
    """Line 0 is the file as a whole."""
    assert str(Span("specs/a.yaml", 3, 7)) == "specs/a.yaml:3:7"
    assert str(Span("specs/a.yaml")) == "specs/a.yaml"
