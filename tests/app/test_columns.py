"""Sealed columns: opened by any key of the secret, written by the newest, and silent about what they hold."""

import re

import pytest
from cryptography.fernet import Fernet
from hypothesis import example, given
from hypothesis import strategies as st

from gamma_orch.app.columns import Columns, Unreadable

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))
COLUMNS = Columns(NEW)


@given(st.text(st.characters(exclude_categories=())))
@example("half a \ud800 surrogate")
def test_what_is_sealed_is_opened(text: str) -> None:
    sealed = COLUMNS.seal(text)
    assert COLUMNS.open(sealed) == text
    assert COLUMNS.seal(text) != sealed
    assert not COLUMNS.stale(sealed)


def test_a_key_is_changed() -> None:
    sealed = Columns(OLD).seal("CANARY")
    both = Columns(f"{NEW}\n{OLD}\n")
    assert both.open(sealed) == "CANARY"
    assert both.stale(sealed)
    again = both.rotate(sealed)
    assert not both.stale(again)
    assert COLUMNS.open(again) == "CANARY"
    assert not COLUMNS.stale(both.seal("CANARY"))
    assert Fernet(NEW).extract_timestamp(again) == Fernet(OLD).extract_timestamp(sealed)


@pytest.mark.parametrize("between", ["\n", ",", ", ", "\r\n", " ", "\n\n,\n"])
def test_keys_are_parted_by_commas_or_white_space(between: str) -> None:
    columns = Columns(f"{between}{NEW}{between}{OLD}{between}")
    assert columns.stale(Columns(OLD).seal("a"))
    assert not columns.stale(Columns(NEW).seal("a"))


@pytest.mark.parametrize(
    "secret",
    ["", " \n,", "CANARY", f"{NEW},CANARY", NEW[:-2], NEW + NEW, "CANARY-é", "\ud800CANARY", f"'{NEW}'"],
    ids=range(9),
)
def test_a_secret_that_has_no_key(secret: str) -> None:
    with pytest.raises(ValueError, match="secret `columns`") as caught:
        Columns(secret)
    shown = f"{caught.value!r}{caught.value.__context__!r}"
    assert "CANARY" not in shown
    assert NEW[:8] not in shown


def test_the_place_of_a_wrong_key_is_said() -> None:
    with pytest.raises(ValueError, match=re.escape(": 2, 4.")):
        Columns(f"{NEW},no,{OLD},neither")


@pytest.mark.parametrize(
    "broken",
    [b"", b"CANARY", b"\xff" * 90, COLUMNS.seal("CANARY")[:-4], Columns(OTHER).seal("CANARY")],
    ids=range(5),
)
def test_what_cannot_be_read(broken: bytes) -> None:
    for use in (COLUMNS.open, COLUMNS.stale, COLUMNS.rotate):
        with pytest.raises(Unreadable) as caught:
            use(broken)
        assert "CANARY" not in f"{caught.value!r}{caught.value.__context__!r}"
    assert NEW not in repr(COLUMNS) + repr(vars(COLUMNS))


LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
SEALED = COLUMNS.seal("a text of two blocks or so")


# Not the last letter: it may have bits that nothing reads.
@given(st.integers(0, len(SEALED.rstrip(b"=")) - 2), st.integers(1, 63))
def test_a_changed_letter_is_not_read(place: int, by: int) -> None:
    letter = LETTERS[(LETTERS.index(SEALED[place]) + by) % 64]
    with pytest.raises(Unreadable):
        COLUMNS.open(SEALED[:place] + bytes([letter]) + SEALED[place + 1 :])
