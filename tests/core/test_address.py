"""Names of resources."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.core.address import KIND, NAME, Address


@given(st.from_regex(KIND, fullmatch=True), st.from_regex(NAME, fullmatch=True))
def test_an_address_is_read_as_it_is_written(kind: str, name: str) -> None:
    """What can be a name comes back."""
    assert Address.parse(str(Address(kind, name))) == Address(kind, name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Thing",
        "Thing/",
        "/a",
        "thing/a",
        "Thing/A",
        "Thing/a/b",
        "Thing/-a",
        "Thing/a-",
        "Thing/a\n",
        "Thing\n/a",
        "Thing/" + "a" * 64,
        "T" * 64 + "/a",
        "Thing/ä",
        "9Thing/a",
    ],
)
def test_what_is_no_address(text: str) -> None:
    """The message repeats it, so that it can be found."""
    with pytest.raises(ValueError, match="is not of the form Kind/name") as error:
        Address.parse(text)
    assert repr(text) in str(error.value)


def test_the_longest_names() -> None:
    """63 letters each, as PostgreSQL has it."""
    assert Address.parse("T" * 63 + "/" + "a" * 63) == Address("T" * 63, "a" * 63)


def test_they_sort_by_kind_then_name() -> None:
    """The order of every plan."""
    assert sorted([Address("B", "a"), Address("A", "b"), Address("A", "a")]) == [
        Address("A", "a"),
        Address("A", "b"),
        Address("B", "a"),
    ]
