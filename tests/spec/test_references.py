"""Plain data and typed references of models; order and cycles."""

import random
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal, Optional, Union

import pytest
from pydantic import ConfigDict, Field

from gamma_orch.core.address import Address
from gamma_orch.core.leaves import Ref, Secret
from gamma_orch.spec.model import Item, Names, Spec
from gamma_orch.spec.references import Naming, finder, in_order, plain
from tests.spec.kinds import BoxSpec, ItemSpec

Name = Annotated[str, Names("Table")]
LEAF = Ref(Address("Item", "a"), "url")


class Colour(Enum):
    RED = "red"


class Leaf(Spec):
    table: Name | None = None
    others: list[Name] = Field(default_factory=list)


class Tree(Spec):
    model_config = ConfigDict(strict=False)

    direct: Name = "t"
    optional: Optional[Name] = None  # noqa: UP045
    union: Union[int, Name] = 1  # noqa: UP007
    listed: list[Item[Name]] = Field(default_factory=list)
    mapped: dict[str, list[Name]] = Field(default_factory=dict)
    keys: dict[Name, int] = Field(default_factory=dict)
    pair: tuple[Name, ...] = ()
    group: frozenset[str] = frozenset()
    either: Leaf | Literal["x"] | list[Leaf] = "x"
    several: Annotated[str, Names("A", "B")] | None = None
    children: "list[Tree]" = Field(default_factory=list)
    colour: Colour = Colour.RED
    day: date = date(2024, 1, 31)
    bare: list = Field(  # type: ignore[type-arg]
        default_factory=list
    )
    anything: Any = None


def named(model: Spec) -> list[tuple[str, Any]]:
    return [(".".join(map(str, path)), value) for path, value, _ in finder(type(model))(model, ("spec",))]


def test_every_place_a_name_can_stand() -> None:
    tree = Tree(
        direct="a",
        optional="b",
        union="c",
        listed=["d", LEAF],
        mapped={"x": ["e"]},
        keys={"f": 1},
        pair=("g",),
        either=[Leaf(table="h"), Leaf(others=["i"])],
        several="j",
        children=[Tree(direct="k", either=Leaf(table="l"), children=[Tree(direct="m")])],
    )
    assert named(tree) == [
        ("spec.direct", "a"),
        ("spec.optional", "b"),
        ("spec.union", "c"),
        ("spec.listed.0", "d"),
        ("spec.listed.1", LEAF),
        ("spec.mapped.x.0", "e"),
        ("spec.keys.f", "f"),
        ("spec.pair.0", "g"),
        ("spec.either.0.table", "h"),
        ("spec.either.1.others.0", "i"),
        ("spec.several", "j"),
        ("spec.children.0.direct", "k"),
        ("spec.children.0.either.table", "l"),
        ("spec.children.0.children.0.direct", "m"),
    ]
    assert named(Tree()) == [("spec.direct", "t")]
    assert finder(Tree)(Tree(several="x"), ())[-1] == Naming(("several",), "x", ("A", "B"))


def test_a_model_without_names_is_not_walked() -> None:
    class Empty(Spec):
        a: int = 1
        b: dict[str, Any] = Field(default_factory=dict)

    assert finder(Empty).walk is None
    assert finder(Empty)(Empty(), ()) == []
    assert finder(ItemSpec).walk is not None


def test_plain_data() -> None:
    tree = Tree(pair=("x",), group=frozenset("ba"), either=Leaf(), anything={"x": [Leaf(), LEAF]})
    data = plain(tree)
    assert data["pair"] == ["x"]
    assert data["group"] == ["a", "b"]
    assert data["either"] == {"table": None, "others": []}
    assert data["colour"] == "red"
    assert data["day"] == "2024-01-31"
    assert data["anything"] == {"x": [{"table": None, "others": []}, LEAF]}
    assert plain(BoxSpec(by_label={"x": "y"}))["byLabel"] == {"x": "y"}


def test_leaves_pass_every_check() -> None:
    secret = Secret("s", "d")
    values = {"size": secret, "colour": secret, "enabled": LEAF, "after": None}
    model = ItemSpec.model_validate(values)
    assert plain(model) == values


def address(number: int) -> Address:
    return Address("Item", f"i{number}")


def test_order_and_cycles() -> None:
    needs = {address(n): [address(n - 1)] if n else [Address("Other", "x")] for n in range(5)}
    order, cycles = in_order(needs)
    assert order == [address(n) for n in range(5)]
    assert cycles == []
    needs[address(0)] = [address(2)]
    order, cycles = in_order(needs)
    assert order == []
    assert cycles == [[address(0), address(2), address(1)]]
    assert in_order({address(0): [address(0)]}) == ([], [[address(0)]])


def test_a_chain_as_long_as_you_like() -> None:
    needs = {address(n): [address(n - 1)] for n in range(1, 100_000)}
    order, cycles = in_order(needs)
    assert len(order) == 99_999
    needs[address(0)] = [address(99_999)]
    order, cycles = in_order(needs)
    assert not order
    assert len(cycles[0]) == 100_000


@pytest.mark.parametrize("seed", range(50))
def test_random_graphs(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.randint(1, 12)
    needs = {address(n): [address(m) for m in range(count) if chance.random() < 0.15] for n in range(count)}
    order, cycles = in_order(needs)
    assert all(order.index(need) < order.index(a) for a in order for need in needs[a])
    assert (len(order) == count) == (not cycles)
    members = [member for cycle in cycles for member in cycle]
    assert len(members) == len(set(members))
    for cycle in cycles:
        assert cycle[0] == min(cycle)
        for here, need in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            assert need in needs[here]
