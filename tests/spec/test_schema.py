"""The JSON Schema says what the language says: about every spec that the tests use, and mutations of it."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import Field

from gamma_orch.core.canonical import Json
from gamma_orch.spec.codes import Code
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.load import load
from gamma_orch.spec.model import Spec
from gamma_orch.spec.positions import Document
from gamma_orch.spec.registry import Registry
from gamma_orch.spec.schema import Form, schema
from tests.spec.kinds import no_provider, test_registry
from tests.spec.shown import CASES, run, sections

SCHEMA: Any = schema(test_registry())
DOCUMENT = Draft202012Validator(SCHEMA)
PATCH = Draft202012Validator(schema(test_registry(), Form.PATCH))

# What JSON Schema cannot see: other resources, files, the values of expressions, a kind's own rules.
UNSEEN = {
    Code.REFERENCE,
    Code.AMBIGUOUS,
    Code.CYCLE,
    Code.MOVED,
    Code.DECLARED_TWICE,
    Code.ADDRESS,
    Code.PATH,
}
UNSEEN |= {
    Code.RULE,
    Code.MISPLACED,
    Code.PATCH_TARGET,
    Code.PATCH_NULL,
    Code.PATCH_CONFLICT,
    Code.LEAF_MISPLACED,
}
UNSEEN |= {
    Code.EXPRESSION,
    Code.UNKNOWN_EXPRESSION,
    Code.VARIABLE,
    Code.VARIABLE_CYCLE,
    Code.NOT_A_TEXT,
    Code.OUTPUT,
}
UNSEEN |= {Code.SECRET_UNREADABLE, Code.SECRET_UNDECLARED, Code.ENVIRONMENT}


def is_patch(document: Document) -> bool:
    return "/patches/" in document.file


def cases() -> Iterator[tuple[str, Document, bool]]:
    """Every document of the resolve cases, and whether the language has a complaint the schema must share."""
    for path in sorted((CASES / "resolve").glob("*.txt")):
        files = sections(path.read_text(encoding="utf-8"))
        files.pop("expected", None)
        texts = {name: body.encode() for name, body in files.items()}
        found, _ = run(texts)
        for document in load(texts).documents.items:
            faults = [d for d in found if d.span and d.span.file == document.file]
            yield f"{path.stem}:{document.file}:{document.line}", document, not faults


CASE_DOCUMENTS = list(cases())


def test_the_schemas_are_schemas() -> None:
    Draft202012Validator.check_schema(DOCUMENT.schema)
    Draft202012Validator.check_schema(PATCH.schema)


def faults_of(document: Document) -> list[Any]:
    validator = PATCH if is_patch(document) else DOCUMENT
    return list(validator.iter_errors(document.data))


@pytest.mark.parametrize(("name", "document", "right"), CASE_DOCUMENTS, ids=[c[0] for c in CASE_DOCUMENTS])
def test_what_the_language_accepts_the_schema_accepts(name: str, document: Document, right: bool) -> None:
    if right:
        assert not faults_of(document)


@pytest.mark.parametrize(
    "case", ["spec-faults", "spec-types", "spec-values", "spec-unions", "envelope-faults"]
)
def test_what_the_language_rejects_the_schema_rejects(case: str) -> None:
    files = sections((CASES / "resolve" / f"{case}.txt").read_text(encoding="utf-8"))
    files.pop("expected")
    documents = load({name: body.encode() for name, body in files.items()}).documents
    for document in documents.items:
        text = "".join(files[document.file].splitlines(keepends=True)[document.line - 1 :]).partition(
            "\n---\n"
        )[0]
        found, _ = run({document.file: text.encode()})
        if {str(d.code) for d in found} - UNSEEN:
            assert faults_of(document), document.data


def maps(tree: Json, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of all maps with fixed fields (not maps by name, and nothing inside `anything`)."""
    if isinstance(tree, dict):
        if not path or path[-1] not in ("labels", "byLabel", "variables", "secrets", "targets", "anything"):
            yield path
        for key, value in tree.items():
            if key not in ("anything", "variables"):
                yield from maps(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from maps(value, (*path, index))


def test_an_unknown_field_anywhere_is_rejected_by_both() -> None:
    tried = 0
    for _, document, right in CASE_DOCUMENTS:
        if not right:
            continue
        for path in maps(document.data):
            data = copy.deepcopy(document.data)
            inner = data
            for part in path:
                inner = inner[part]  # type: ignore[index]
            inner["zzzUnknown"] = 1
            assert faults_of(document._replace(data=data)), path
            tried += 1
    assert tried > 50


def test_descriptions_are_everywhere() -> None:
    for name, definition in SCHEMA["$defs"].items():
        assert definition.get("description"), name
        for field, node in definition.get("properties", {}).items():
            assert node.get("description"), (name, field)


def test_references_are_annotated() -> None:
    box = SCHEMA["$defs"]["Box"]["properties"]
    assert box["items"]["anyOf"][0]["items"]["x-gamma-kinds"] == ["Item"]
    assert box["byLabel"]["anyOf"][0]["additionalProperties"]["x-gamma-kinds"] == ["Item", "Box"]


def document(kind: str, spec: Json, **more: Json) -> Json:
    return {"apiVersion": "gamma/v1", "kind": kind, "metadata": {"name": "a"}, "spec": spec, **more}


@pytest.mark.parametrize(
    "spec",
    [
        {
            "weight": "${var.x}",
            "timeout": "${Item/a.size}",
            "columns": "${var.x}",
            "labels": "${var.x}",
            "main": "x${y}",
        },
        {"columns": ["${var.x}", {"name": "${var.x}", "order": "${var.x}"}], "url": "${var.x}"},
        {"byLabel": {"x": "${var.x}"}, "items": ["${var.x}"]},
    ],
)
def test_an_expression_may_stand_for_any_value(spec: Json) -> None:
    assert DOCUMENT.is_valid(document("Box", spec))


def test_an_expression_may_not_stand_for_a_name() -> None:
    assert not DOCUMENT.is_valid({**document("Box", {}), "metadata": {"name": "${var.x}"}})
    assert not DOCUMENT.is_valid({**document("Box", {}), "metadata": {"name": "No"}})


def test_what_is_required() -> None:
    assert not DOCUMENT.is_valid(document("Item", {}))
    without = document("Item", None)
    del without["spec"]
    assert not DOCUMENT.is_valid(without)
    without["kind"] = "Box"
    assert DOCUMENT.is_valid(without)


def test_patches_require_nothing_and_null_removes() -> None:
    accepted: list[Json] = [None, {}, {"size": None}, {"colour": "red"}]
    rejected: list[Json] = [{"siez": 1}, {"size": "x"}, 5]
    for spec in accepted:
        assert PATCH.is_valid(document("Item", spec)), spec
    for spec in rejected:
        assert not PATCH.is_valid(document("Item", spec)), spec
    # Lists are replaced as a whole, so their items are whole.
    assert not PATCH.is_valid(document("Box", {"columns": [{"order": "asc"}]}))
    assert PATCH.is_valid(document("Box", {"main": {"order": "asc"}, "labels": {"a": None}}))
    assert not PATCH.is_valid(document("Environment", {}))


def test_models_that_hold_themselves_and_other_shapes() -> None:
    class Nested(Spec):
        """Nested."""

        children: "list[Nested]" = Field(default_factory=list)
        by_name: "dict[str, Nested]" = Field(default_factory=dict, alias="byName")
        parent: "Nested | None" = None
        pair: tuple[int, str] = (1, "")
        switch: bool | int = False
        fixed: str = Field(default="x", json_schema_extra={"x-gamma-fixed": True, "pattern": "^x$"})

    registry = Registry({"Nested": Kind("Nested", "t", "s", Nested, no_provider)})
    for form in Form:
        made = schema(registry, form)
        Draft202012Validator.check_schema(made)
        validator = Draft202012Validator(made)
        assert validator.is_valid(document("Nested", {"children": [{"children": []}], "byName": {"x": {}}}))
        assert not validator.is_valid(document("Nested", {"children": [{"childen": []}]}))
        assert not validator.is_valid(document("Nested", {"parent": {"parent": {"zzz": 1}}}))
        assert not validator.is_valid(document("Nested", {"fixed": "${var.x}"}))
