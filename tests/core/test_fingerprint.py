"""The three digests of a resource, and the order in which resources come."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.core.address import Address
from gamma_orch.core.diagnostic import Span
from gamma_orch.core.fingerprint import fingerprint, in_order
from gamma_orch.core.leaves import Secret
from gamma_orch.core.resource import Lifecycle, Replace, Resource
from tests.core.reading import place
from tests.core.test_planner_laws import generations

A, B, C = place("a"), place("b"), place("c")
PLAIN = Resource(A, {"size": 1})


def of(resource: Resource):
    return fingerprint({A: resource}, [A])[A]


@pytest.mark.parametrize(
    "other",
    [
        {"owner": "ada"},
        {"description": "what it is for"},
        {"labels": {"team": "x"}},
        {"lifecycle": Lifecycle(protect=True)},
        {"lifecycle": Lifecycle(retain=True)},
        {"lifecycle": Lifecycle(ignore=("spec.size",))},
        {"lifecycle": Lifecycle(replace=Replace.CREATE_FIRST)},
    ],
)
def test_what_is_metadata(other: dict[str, Any]) -> None:
    """Noted, and never worth an effect."""
    changed = of(replace(PLAIN, **other))
    assert changed.metadata != of(PLAIN).metadata
    assert (changed.content, changed.parents) == (of(PLAIN).content, of(PLAIN).parents)


def test_needs_are_metadata() -> None:
    """The ledger keeps them, to know what rests on what; the object itself is the same."""
    desired = {A: Resource(A, {}), B: Resource(B, {}, (A,))}
    with_need, without = fingerprint(desired, [A, B])[B], fingerprint({B: Resource(B, {})}, [B])[B]
    assert with_need.metadata != without.metadata
    assert with_need.content == without.content


@pytest.mark.parametrize("spec", [{"size": 2}, {"size": True}, {"size": 1, "more": None}, {}])
def test_what_is_content(spec: dict[str, Any]) -> None:
    """Any difference in the spec."""
    assert of(replace(PLAIN, spec=spec)).content != of(PLAIN).content
    assert of(replace(PLAIN, spec=spec)).metadata == of(PLAIN).metadata


def test_a_rotated_secret_is_content() -> None:
    """By its keyed digest."""
    one, two = (of(replace(PLAIN, spec={"pw": Secret("pw", digest)})) for digest in ("1", "2"))
    assert one.content != two.content


@pytest.mark.parametrize(
    "other",
    [
        {"span": Span("elsewhere.yaml", 5, 1)},
        {"moved_from": B},
        {"has_leaves": True},
        {"lifecycle": Lifecycle()},
        {"labels": {}},
        {"spec": {"size": 1}},
    ],
)
def test_what_is_nothing(other: dict[str, Any]) -> None:
    """Where it is written, how it is spelled: a lifecycle of defaults is none."""
    assert of(replace(PLAIN, **other)) == of(PLAIN)


def test_ignored_paths_have_no_order() -> None:
    """They are a set."""
    one, two = (of(replace(PLAIN, lifecycle=Lifecycle(ignore=paths))) for paths in (("a", "b"), ("b", "a")))
    assert one == two


def chain(size: int = 1, *, a_owner: str = "", middle: str = "Model", m_size: int = 1):
    """c <- b <- a, where `b` and `c` may derive."""
    b, c = Address(middle, "b"), Address("Model", "c")
    desired = {
        A: Resource(A, {"size": size}, owner=a_owner),
        b: Resource(b, {"size": m_size}, (A,)),
        c: Resource(c, {}, (b,)),
    }
    return fingerprint(desired, [A, b, c], {"Model"})[c].parents


def test_parents_count_through_kinds_that_derive() -> None:
    """A change anywhere above is a change, as long as all in between derive; metadata is none."""
    assert chain(size=2) != chain(size=1)
    assert chain(m_size=2) != chain()
    assert chain(a_owner="ada") == chain()
    assert chain(size=2, middle="Thing") == chain(size=1, middle="Thing")
    assert chain(m_size=2, middle="Thing") != chain(middle="Thing")


def test_other_kinds_have_no_parents() -> None:
    """They do not follow."""
    desired = {A: Resource(A, {}), B: Resource(B, {}, (A,))}
    assert fingerprint(desired, [A, B], {"Model"})[B].parents == ""


@given(generations())
def test_in_order_is_topological_and_stable(desired) -> None:
    """Each after what it needs; the order in which they were written does not count."""
    order = in_order(desired)
    assert sorted(order) == sorted(desired)
    for position, address in enumerate(order):
        assert set(desired[address].needs) <= set(order[:position])
    assert in_order(dict(reversed(desired.items()))) == order


@given(st.sets(st.sampled_from("abcdef")))
def test_the_free_ones_come_by_address(names) -> None:
    """A reader finds them."""
    assert in_order({place(name): Resource(place(name), {}) for name in names}) == sorted(map(place, names))


@pytest.mark.parametrize("first_is_root", [True, False])
def test_a_chain_may_be_very_deep(first_is_root: bool) -> None:
    """100,000, from either end, without recursion and without trying anything twice."""
    depth = 100_000
    names = [Address("Thing", f"n{number:06}") for number in range(depth)]
    if not first_is_root:
        names.reverse()
    desired = {
        a: Resource(a, {}, tuple(names[max(number - 1, 0) : number])) for number, a in enumerate(names)
    }
    assert in_order(desired) == names


def test_a_net_is_walked_once() -> None:
    """Each of 300 needs all before it: 45,000 arrows, and no arrow twice."""
    names = [Address("Thing", f"n{number:06}") for number in range(300)]
    desired = {a: Resource(a, {}, tuple(names[:number])) for number, a in enumerate(names)}
    assert in_order(desired) == names
