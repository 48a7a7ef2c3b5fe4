"""The place of every key and value."""

from gamma_orch.core.address import Address
from gamma_orch.core.diagnostic import Span
from gamma_orch.spec.careful import Careful
from gamma_orch.spec.load import load
from gamma_orch.spec.positions import Document, Documents, Part
from tests.spec.shown import run

TEXT = """\
# comment
a: 1
b:
  - x
  - {c: "d", e: [1, 2]}
f: |
  one ${var.x}
    two ${var.y} $${z}
---
g:
    h: 'it''s ${var.z}'
... # end
k: >-
  folded
  ${var.w}
"""


def test_keys_and_values() -> None:
    first, second, third = (documents := load({"f": TEXT.encode()}).documents).items
    span = documents.span
    assert span(first) == Span("f", 2, 1)
    assert span(first, ("a",)) == Span("f", 2, 4)
    assert span(first, ("a",), Part.KEY) == Span("f", 2, 1)
    assert span(first, ("b",)) == Span("f", 4, 3)
    assert span(first, ("b", 0)) == span(first, ("b", 0), Part.KEY) == Span("f", 4, 5)
    assert span(first, ("b", 1, "c")) == Span("f", 5, 9)
    assert span(first, ("b", 1, "e", 1)) == Span("f", 5, 21)
    assert span(first, ("b", 1, "e"), Part.KEY) == Span("f", 5, 14)
    assert span(second, ("g", "h")) == Span("f", 11, 8)
    assert span(third, ("k",), Part.KEY) == Span("f", 13, 1)


def test_what_is_not_there_is_shown_at_what_is_around_it() -> None:
    first, second, _ = (documents := load({"f": TEXT.encode()}).documents).items
    assert documents.span(first, ("b", 1, "zzz", 0)) == documents.span(first, ("b", 1), Part.KEY)
    assert documents.span(second, ("g", "nothing")) == Span("f", 10, 1)
    assert documents.span(first, ("nothing",)) == Span("f", 2, 1)


def test_expressions_inside_texts() -> None:
    first, second, third = (documents := load({"f": TEXT.encode()}).documents).items
    inside = documents.span_inside
    assert [inside(first, ("f",), n) for n in range(3)] == [
        Span("f", 7, 7),
        Span("f", 8, 9),
        Span("f", 8, 18),
    ]
    assert inside(first, ("f",), 3) == documents.span(first, ("f",))
    assert inside(first, ("b",), 0) == documents.span(first, ("b",))
    assert inside(first, ("no",), 0) == Span("f", 2, 1)
    assert inside(second, ("g", "h"), 0) == Span("f", 11, 15)
    assert inside(third, ("k",), 0) == Span("f", 15, 3)


def test_a_document_on_the_line_of_its_marker() -> None:
    _, second = (documents := load({"f": b"a: 1\n--- {b: [x]}\n"}).documents).items
    assert documents.span(second, ("b", 0)) == Span("f", 2, 10)


def test_a_document_without_its_text() -> None:
    lost = Document("gone", 7, False, {"a": 1})
    assert Documents((lost,)).span(lost, ("a",)) == Span("gone", 7, 1)


def test_every_path_of_a_document_has_a_place() -> None:
    careful = Careful("a: {b: [1, {c: null}], d: ''}\ne:\n")
    assert set(careful.places) == {
        (), ("a",), ("a", "b"), ("a", "b", 0), ("a", "b", 1), ("a", "b", 1, "c"), ("a", "d"), ("e",),
    }  # fmt: skip


def test_desired_locates_in_the_patch_that_wrote_a_value() -> None:
    base = (
        b"apiVersion: gamma/v1\nkind: Box\nmetadata: {name: a}\nspec:\n  columns: [{name: x}]\n  weight: 1\n"
    )
    head = b"apiVersion: gamma/v1\nkind: Box\nmetadata: {name: a}\nspec:\n"
    patch = head + b"\n  columns: [{name: y}]\n  labels: {k: v}\n"
    patches = "environments/dev/patches/p.yaml"
    _, resolution = run({"specs/a.yaml": base, patches: patch})
    desired = resolution.desired
    assert desired is not None
    box = Address("Box", "a")
    assert desired.locate(box) == Span("specs/a.yaml", 1, 1)
    assert desired.locate(box, ("spec", "weight")) == Span("specs/a.yaml", 6, 11)
    assert desired.locate(box, ("spec", "weight"), Part.KEY) == Span("specs/a.yaml", 6, 3)
    assert desired.locate(box, ("spec", "columns", 0, "name")) == Span(patches, 6, 20)
    assert desired.locate(box, ("spec", "columns", 0, "order")) == Span(patches, 6, 13)
    assert desired.locate(box, ("spec", "columns", 5)) == Span(patches, 6, 3)
    assert desired.locate(box, ("spec", "labels", "new")) == Span(patches, 7, 3)
    assert desired.locate(box, ("spec", "url")) == Span("specs/a.yaml", 4, 1)
    assert desired.locate(Address("Box", "none")) == Span("")
    assert desired.name == "dev"
    assert desired.origins.span_inside(Address("Box", "none"), (), 0) == Span("")
