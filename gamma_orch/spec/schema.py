"""One JSON Schema (2020-12) for every document, so that an editor completes and checks as one types.

Made from the same models that `spec.resolve` validates with, so it cannot say anything else than
they do; it only admits an expression `${…}` wherever the language does. `gamma schema` prints it.
`Form.PATCH` is the schema of files below `environments/<env>/patches/`: there nothing is required
and null removes. Pure.
"""

from collections.abc import Callable
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from gamma_orch.spec.envelope import API_VERSION, ENVIRONMENT, Metadata
from gamma_orch.spec.environment import EnvironmentSpec
from gamma_orch.spec.fields import by_alias
from gamma_orch.spec.registry import Registry

Node = dict[str, Any]

_EXPRESSION = "expression"
_DEFS = "#/$defs/"


class Form(Enum):
    DOCUMENT = "document"
    PATCH = "patch"


def schema(registry: Registry, form: Form = Form.DOCUMENT) -> Node:
    """The schema of any document of these kinds. Imports all of them. Raises KindUnavailable."""
    kinds = {kind.name: (kind.summary, kind.spec) for kind in registry.all()}
    summary = (EnvironmentSpec.__doc__ or "").strip()
    if form is Form.DOCUMENT:
        kinds[ENVIRONMENT] = (summary, EnvironmentSpec)
    definitions: dict[str, Node] = {
        _EXPRESSION: {
            "type": "string",
            "pattern": r"\$\{",
            "description": "A value from elsewhere: ${var.name}, ${env.name}, ${secret.name} "
            "or ${Kind/name.output}.",
        }
    }
    metadata = _of_model("metadata", Metadata, definitions)
    specs = {name: _of_model(name, model, definitions) for name, (_, model) in kinds.items()}
    if form is Form.PATCH:
        metadata = {"allOf": [_partial(metadata, definitions)], "required": ["name"]}
        specs = {name: _or_null(_partial(node, definitions)) for name, node in specs.items()}
    needed = {
        name: form is Form.DOCUMENT and any(info.is_required() for info in by_alias(model).values())
        for name, (_, model) in kinds.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Gamma " + form.value,
        "description": "One resource: what it is (kind), who it is (metadata) and how it should be (spec).",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata"],
        "additionalProperties": False,
        "properties": {
            "apiVersion": {"const": API_VERSION, "description": "The version of this language."},
            "kind": {
                "description": "What the resource is.",
                "oneOf": [{"const": name, "description": text} for name, (text, _) in sorted(kinds.items())],
            },
            "metadata": {**metadata, "description": "Who and what the resource is."},
            "spec": {"description": "How the resource should be; its fields are those of the kind."},
        },
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": name}}, "required": ["kind"]},
                "then": {"properties": {"spec": node}} | ({"required": ["spec"]} if needed[name] else {}),
            }
            for name, node in sorted(specs.items())
        ],
        "$defs": dict(sorted(definitions.items())),
    }


def _of_model(name: str, model: type[BaseModel], definitions: dict[str, Node]) -> Node:
    """The model's schema as an entry of `definitions`; returned is the reference to it."""
    prefix = f"{name}."
    made = model.model_json_schema(
        by_alias=True, ref_template=f"{_DEFS}{prefix}{{model}}", schema_generator=GenerateJsonSchema
    )
    for inner, node in made.pop("$defs", {}).items():
        definitions[prefix + inner] = _inside(node)
    definitions[name] = _inside(made)
    return {"$ref": _DEFS + name}


def _inside(node: Node) -> Node:
    """A map's or list's schema whose values may be expressions; the map itself may not."""
    node = {key: value for key, value in node.items() if key != "title"}
    for key in ("properties", "patternProperties"):
        if key in node:
            node[key] = {name: _open(value) for name, value in node[key].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            node[key] = _open(node[key])
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        if key in node:
            node[key] = [_inside(value) for value in node[key]]
    return node


_NARROWS = frozenset({"pattern", "format", "minLength", "maxLength", "enum", "const"})
_STAYS_OUTSIDE = ("description", "default", "deprecated", "examples")


def _open(node: Node) -> Node:
    """A value's schema that an expression satisfies too."""
    node = _inside(node)
    if node.pop("x-gamma-fixed", False) or _takes_any_text(node):
        return node
    outside = {key: node.pop(key) for key in _STAYS_OUTSIDE if key in node}
    inner = node["anyOf"] if set(node) == {"anyOf"} else [node]
    return {**outside, "anyOf": [*inner, {"$ref": _DEFS + _EXPRESSION}]}


def _takes_any_text(node: Node) -> bool:
    if "anyOf" in node:
        return any(_takes_any_text(member) for member in node["anyOf"])
    if "type" not in node:
        return not node.keys() & {"$ref", "oneOf", "allOf", "enum", "const"}
    return node["type"] == "string" and not node.keys() & _NARROWS


def _or_null(node: Node) -> Node:
    return {"anyOf": [node, {"type": "null"}]}


def _partial(node: Node, definitions: dict[str, Node]) -> Node:
    """The schema of a part: no key is required, null removes one. Lists are replaced, so they stay whole."""
    if "$ref" in node:
        name = node["$ref"].removeprefix(_DEFS)
        if name == _EXPRESSION:
            return node
        part = name + "-patch"
        if part not in definitions:
            definitions[part] = {}  # a model may hold itself
            definitions[part] = _partial(definitions[name], definitions)
        return {**node, "$ref": _DEFS + part}
    node = {key: value for key, value in node.items() if key != "required"}
    again: Callable[[Node], Node] = lambda value: _or_null(_partial(value, definitions))  # noqa: E731
    if "properties" in node:
        node["properties"] = {key: again(value) for key, value in node["properties"].items()}
    if isinstance(node.get("additionalProperties"), dict):
        node["additionalProperties"] = again(node["additionalProperties"])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in node:
            node[key] = [_partial(value, definitions) for value in node[key]]
    return node
