"""Kinds to test the language with: small, and between them one of every feature."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from gamma_orch.core.address import Address
from gamma_orch.core.diagnostic import Diagnostic
from gamma_orch.core.resource import Resource
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.model import Item, Names, Spec
from gamma_orch.spec.registry import Registry


def no_provider(targets: Any) -> Any:
    raise NotImplementedError


class ItemSpec(Spec):
    """A thing."""

    size: int = Field(ge=0, le=1_000_000)
    """How large it is, in units."""
    colour: Literal["red", "green", "blue"] = "red"
    """What colour it is painted."""
    after: Annotated[str, Names("Item")] | None = None
    """The item that must be there first."""
    enabled: bool = True
    """Whether it does anything."""


class Column(Spec):
    """One column of an index."""

    name: str = Field(min_length=1, max_length=20)
    """Its name."""
    order: Literal["asc", "desc"] = "asc"
    """Which way it is sorted."""


class Expression(Spec):
    """An expression instead of a column."""

    expression: str
    """SQL."""


class BoxSpec(Spec):
    """A box of things, with a field of every sort."""

    items: list[Annotated[str, Names("Item")]] = Field(default_factory=list, max_length=4)
    """What is in it."""
    by_label: dict[str, Annotated[str, Names("Item", "Box")]] = Field(default_factory=dict, alias="byLabel")
    """The same by label."""
    columns: list[Item[Column | Expression]] = Field(default_factory=list)
    """Columns or expressions."""
    weight: float = Field(default=1.0, gt=0)
    """In kilogrammes."""
    timeout: int | Literal["none"] = 30
    """Seconds, or none."""
    url: str = Field(default="http://x", pattern=r"^https?://.+$")
    """Where it is."""
    labels: dict[str, Item[str]] = Field(default_factory=dict)
    """Words."""
    anything: Any = None
    """Whatever you like."""
    main: Column | None = None
    """The main column."""
    any_ref: Annotated[str, Names()] | None = Field(default=None, alias="anyRef")
    """Any resource, as Kind/name."""

    @field_validator("weight")
    @classmethod
    def _not_unlucky(cls, value: float) -> float:
        if value == 13:
            raise ValueError("A weight of 13 brings bad luck; use 12 or 14.")
        return value


def check_items(
    resources: Sequence[Resource], everything: Mapping[Address, Resource]
) -> Iterable[Diagnostic]:
    for resource in resources:
        after = resource.spec["after"]
        if after is None:
            continue
        sizes = (everything[Address("Item", after)].spec["size"], resource.spec["size"])
        if all(isinstance(size, int) for size in sizes) and sizes[0] > sizes[1]:
            yield Diagnostic(
                "GAM601",
                f"{resource.address} is smaller than {after}, which comes before it.",
                path=("spec", "size"),
                address=resource.address,
                hint="make it larger",
            )


ITEM = Kind(
    "Item",
    "testing",
    "A thing with a size and a colour.",
    ItemSpec,
    no_provider,
    outputs={"url": "where it is", "size": "how large it became"},
    check=check_items,
)
BOX = Kind("Box", "testing", "A box of things.", BoxSpec, no_provider)
KINDS = [ITEM, BOX]


def test_registry() -> Registry:
    return Registry({kind.name: kind for kind in KINDS})


test_registry.__test__ = False  # type: ignore[attr-defined]
