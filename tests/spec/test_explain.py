"""`explain`: what it finds, how it reads, what it says to a wrong path."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from gamma_orch.spec.explain import NoSuchField, explain, explanation_text, in_words
from gamma_orch.spec.fields import by_alias
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.model import Item, Names, Spec
from gamma_orch.spec.paths import inside_spec, parse_path
from gamma_orch.spec.registry import Registry
from tests.spec.kinds import no_provider, test_registry
from tests.spec.shown import CASES, compare

PATHS = (
    "",
    "Item",
    "Box",
    "Environment",
    "Item.spec",
    "Item.spec.size",
    "Item.spec.colour",
    "Box.spec.columns",
    "Box.spec.columns.order",
    "Box.spec.columns[0].name",
    "Box.spec.byLabel.any",
    "Box.spec.labels",
    "Box.spec.anything",
    "Box.spec.main",
    "Item.metadata",
    "Item.metadata.lifecycle.replace",
    "Environment.spec.targets.main.maxParallel",
    "Environment.spec.secrets",
)
WRONG = (
    "Itm",
    "Item.colour",
    "Item.specs",
    "Item.zzz",
    "Item.spec.colur",
    "Item.spec.size.x",
    "Box.spec.columns.nam",
    "Box.spec.columns[0][1]",
    "a..b",
    ".",
)


def test_golden() -> None:
    shown = [f"$ explain {path}\n{explanation_text(explain(test_registry(), path), 80)}\n" for path in PATHS]
    for path in WRONG:
        with pytest.raises(NoSuchField) as caught:
            explain(test_registry(), path)
        shown.append(f"$ explain {path}\n{caught.value}\n")
    golden = CASES / "explain.txt"
    text = "\n".join(shown)
    compare(golden, text, golden.read_text(encoding="utf-8") if golden.exists() else "", text)


def test_every_field_can_be_explained() -> None:
    for kind in test_registry().all():
        for name, info in by_alias(kind.spec).items():
            found = explain(test_registry(), f"{kind.name}.spec.{name}")
            assert found.description == info.description
            assert found.encoded()["required"] == info.is_required()
            assert explanation_text(found)


def test_json() -> None:
    found = explain(test_registry(), "Item.spec.colour").encoded()
    assert found["allowed"] == ["red", "green", "blue"]
    assert found["default"] == '"red"'
    kind = explain(test_registry(), "Item").encoded()
    assert [child["name"] for child in kind["children"]] == [
        "spec.size",
        "spec.colour",
        "spec.after",
        "spec.enabled",
    ]
    assert [output["name"] for output in kind["outputs"]] == ["${Item/….url}", "${Item/….size}"]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (str, "text"),
        (int | None, "whole number"),
        (list[str], "list of texts"),
        (dict[str, int], "map of whole numbers by name"),
        (list[Item[str | int]], "list of text or whole number"),
        (Annotated[str, Names("Table", "Index")], "name of a Table or an Index"),
        (Annotated[str, Names()], "address Kind/name"),
        (list[Annotated[str, Names("Table")]] | None, "list of names of a Table"),
        (Literal["a", "b"] | None, "one of a, b"),
        (Literal["auto"] | int, "auto or whole number"),
        (Annotated[int, Field(ge=1)] | Annotated[str, Names("A")], "whole number or name of an A"),
        (bytes, "bytes"),
        (Any, "anything"),
    ],
)
def test_types_in_words(annotation: Any, words: str) -> None:
    assert in_words(annotation) == words


def test_a_kind_without_descriptions() -> None:
    class Bare(Spec):
        union: Annotated[int, Field(ge=1, multiple_of=5)] | None = None
        inner: dict[str, int] = Field(default_factory=dict)

    registry = Registry({"Bare": Kind("Bare", "t", "The summary.", Bare, no_provider)})
    found = explain(registry, "Bare.spec.union")
    assert found.description == "The summary."
    assert found.limits == ("at least 1", "a multiple of 5")
    assert explain(registry, "Bare.spec.inner.anything").type == "whole number"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a", ("a",)),
        ("a.b[0].c", ("a", "b", 0, "c")),
        ("[3]", (3,)),
        ('a["b.c"][1]', ("a", "b.c", 1)),
        ("$ref.x-y_z", ("$ref", "x-y_z")),
    ],
)
def test_paths(text: str, path: tuple[str | int, ...]) -> None:
    assert parse_path(text) == path
    assert inside_spec(("spec", *path)) == path


@pytest.mark.parametrize(
    "text", ["", ".", "a.", ".a", "a..b", "a[", "a[x]", "a[-1]", 'a["', "a b", "a[0]b", '[""]']
)
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        parse_path(text)


def test_a_field_named_spec() -> None:
    assert inside_spec(("spec",)) == ("spec",)
