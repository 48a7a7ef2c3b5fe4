"""What stands in a spec for a value that is not there yet."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import canonical
from gamma_orch.core.leaves import (
    Ref,
    Secret,
    Template,
    Unknown,
    encode,
    is_leaf,
    is_secret,
    is_unknown,
    leaves,
    replace_leaves,
)
from tests.core.values import refs, scalars, specs, trees

REF, SECRET, UNKNOWN = Ref(Address("Thing", "a"), "id"), Secret("pw", "d1"), Unknown("later")


@given(specs)
def test_encode_is_idempotent_and_gives_plain_json(tree) -> None:
    """Once encoded there is nothing left to encode."""
    once = encode(tree)
    assert encode(once) == once
    assert canonical(json.loads(json.dumps(once))) == canonical(once)
    assert list(leaves(once)) == []


@given(trees())
def test_a_tree_without_leaves_stays(tree) -> None:
    """Nothing else is touched."""
    assert encode(tree) == tree
    assert replace_leaves(tree, lambda leaf: 1 / 0) == tree


@given(specs)
def test_every_leaf_is_swapped_once(tree) -> None:
    """`leaves` finds those that `replace_leaves` swaps, in the same order."""
    seen: list[Any] = []

    def swap(leaf: Any) -> str:
        seen.append(leaf)
        return "x"

    replace_leaves(tree, swap)
    assert seen == list(leaves(tree))


@given(specs)
def test_swapped_for_values_no_leaf_is_left(tree) -> None:
    """Known is known: no template stays open."""
    assert list(leaves(replace_leaves(tree, lambda leaf: 7))) == []


@given(st.lists(refs | st.text(max_size=3), min_size=2, max_size=4), scalars)
def test_a_text_takes_in_any_value(parts: list[Any], value) -> None:
    """As JSON spells it, a text as it is; and half of it known is still a template of texts and leaves."""
    spelled = value if isinstance(value, str) else canonical(value)
    whole = replace_leaves(Template(tuple(parts)), lambda leaf: value)
    assert whole == "".join(part if isinstance(part, str) else spelled for part in parts)
    half = replace_leaves(Template((SECRET, *parts)), lambda leaf: leaf if leaf is SECRET else value)
    assert half == Template((SECRET, *[part if isinstance(part, str) else spelled for part in parts]))
    assert replace_leaves(encode(half), lambda leaf: 1 / 0) == encode(half)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "is true"),
        (5432, "is 5432"),
        (None, "is null"),
        ([1, "x"], 'is [1,"x"]'),
        ({"a": 1}, 'is {"a":1}'),
    ],
)
def test_values_in_texts(value, text: str) -> None:
    """Ports, flags, lists: whatever an output is."""
    assert replace_leaves(Template(("is ", REF)), lambda leaf: value) == text


def test_an_encoded_leaf_in_a_text_stays_a_leaf() -> None:
    """What was foreseen of an encoded parent may itself be unknown, or a secret."""
    unknown = replace_leaves(Template(("x-", REF)), lambda leaf: UNKNOWN.encoded())
    assert is_unknown(unknown)
    assert unknown == {"$template": ["x-", {"$unknown": "later"}]}


@pytest.mark.parametrize(
    ("leaf", "unknown", "secret"),
    [
        (REF, True, False),
        (UNKNOWN, True, False),
        (SECRET, False, True),
        (Template(("a", SECRET)), False, True),
        (Template(("a", UNKNOWN)), True, False),
        (Template((SECRET, REF)), True, True),
        (Template(("a", Template(("b", SECRET)))), False, True),
        (Template(("a", Template(("b", REF)))), True, False),
    ],
)
def test_what_an_encoded_leaf_stands_for(leaf, unknown: bool, secret: bool) -> None:
    """A text is unknown or secret as soon as a part of it is."""
    body = leaf.encoded()
    assert (is_leaf(body), is_unknown(body), is_secret(body)) == (True, unknown, secret)


@pytest.mark.parametrize("value", [None, "text", 5, ["$ref"], {}, {"ref": "x"}, "$secret"])
def test_what_is_no_leaf(value) -> None:
    """Only a mapping with a reserved key is."""
    assert (is_leaf(value), is_unknown(value), is_secret(value)) == (False, False, False)


def test_a_secret_shows_its_name_and_digest_only() -> None:
    """All that a plan, a ledger or a repr can hold of it."""
    assert SECRET.encoded() == {"$secret": "pw", "digest": "d1"}
    assert repr(SECRET) == "Secret(name='pw', digest='d1')"
