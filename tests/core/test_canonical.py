"""One spelling of every value."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import canonical, digest
from gamma_orch.core.leaves import Ref, encode
from tests.core.values import keys, scalars, specs, trees


def turned_round(tree):
    """The same mappings, written down in the opposite order."""
    if isinstance(tree, dict):
        return {key: turned_round(value) for key, value in reversed(tree.items())}
    return [turned_round(value) for value in tree] if isinstance(tree, list) else tree


@given(trees())
def test_the_order_of_keys_is_nothing(tree) -> None:
    """Mappings have no order."""
    assert canonical(tree) == canonical(turned_round(tree))
    assert digest(tree) == digest(turned_round(tree))


@given(st.lists(scalars, min_size=2, max_size=4))
def test_the_order_of_a_list_is_something(values: list[Any]) -> None:
    """Lists have one."""
    same = [canonical(value) for value in values] == [canonical(value) for value in values[::-1]]
    assert (digest(values) == digest(values[::-1])) is same


@given(trees())
def test_it_can_be_read_back(tree) -> None:
    """The text is JSON, and says it all."""
    assert canonical(json.loads(canonical(tree))) == canonical(tree)


@given(trees(), trees())
def test_equal_digests_are_equal_texts(one, two) -> None:
    """Identity is the text's."""
    assert (digest(one) == digest(two)) == (canonical(one) == canonical(two))


@given(st.dictionaries(keys, scalars, min_size=1))
def test_a_value_more_is_another_value(tree: dict[str, Any]) -> None:
    """Nothing is left out: not even an empty or a null one."""
    for key in tree:
        assert digest({other: value for other, value in tree.items() if other != key}) != digest(tree)


@given(specs)
def test_leaves_are_spelled_as_they_are_encoded(tree) -> None:
    """A tree and its encoded form are one thing."""
    assert canonical(tree) == canonical(encode(tree))


def test_the_spelling() -> None:
    """No blanks, sorted keys, letters as they are. Ids in ledgers rest on this text for ever."""
    value = {"b": [1, 2.5, None, True, "é"], "a": Ref(Address("Thing", "x"), "id")}
    assert canonical(value) == '{"a":{"$ref":"Thing/x.id"},"b":[1,2.5,null,true,"é"]}'
    assert digest(value) == "8d826efd89ee71438be092cbdd60de5cc58d35257f55a65d2c992bcb016301c2"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_what_is_no_number_has_no_form(value) -> None:
    """NaN is unequal to itself, so that nothing could be compared with it."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(value)


def test_other_objects_have_no_form() -> None:
    """An error that names the type: a set has no order, bytes no text."""
    with pytest.raises(TypeError, match="set has no JSON form"):
        canonical({"a": {1, 2}})
