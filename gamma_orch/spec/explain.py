"""The documentation of a kind or of one of its fields, from the models themselves.

For `gamma explain Index.spec.columns`: `explain` finds it, `explanation_text` writes it for a
terminal, `Explanation.encoded` for `-o json`. A path that leads nowhere raises NoSuchField, which
names the nearest one that leads somewhere. Pure.
"""

import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from textwrap import wrap
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gamma_orch.core.canonical import Json, canonical
from gamma_orch.core.diagnostic import did_you_mean, written
from gamma_orch.core.provider import GammaError
from gamma_orch.spec.envelope import API_VERSION, ENVIRONMENT, Metadata
from gamma_orch.spec.environment import EnvironmentSpec
from gamma_orch.spec.fields import alternatives, by_alias, unwrapped
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.model import Names, Spec
from gamma_orch.spec.paths import parse_path
from gamma_orch.spec.references import plain
from gamma_orch.spec.registry import Registry


class NoSuchField(GammaError):
    """The path given to `explain` leads nowhere."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line below an explanation: a field, a kind or an output."""

    name: str
    type: str
    description: str
    required: bool = False

    def encoded(self) -> Json:
        return {
            "name": self.name,
            "type": self.type,
            "description": self.description,
            "required": self.required,
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    path: str
    type: str
    description: str
    required: bool = False
    default: str = ""  # as YAML; empty where there is none
    allowed: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    children: tuple[Entry, ...] = ()
    outputs: tuple[Entry, ...] = ()

    def encoded(self) -> Json:
        return {
            "path": self.path,
            "type": self.type,
            "description": self.description,
            "required": self.required,
            "default": self.default,
            "allowed": list(self.allowed),
            "limits": list(self.limits),
            "children": [child.encoded() for child in self.children],
            "outputs": [output.encoded() for output in self.outputs],
        }


def explain(registry: Registry, path: str = "") -> Explanation:
    """The documentation of `Kind`, `Kind.spec.field`, or of all kinds for an empty path.

    Items of a list need no number: `Index.spec.columns.name`. Raises NoSuchField, KindUnavailable.
    """
    if not path:
        return _all_kinds(registry)
    try:
        name, *parts = parse_path(path)
    except ValueError as error:
        raise NoSuchField(f"{error} An example: Index.spec.columns.") from None
    kind = registry.get(str(name))
    if kind is None and name != ENVIRONMENT:
        hint = did_you_mean(str(name), [*registry.names(), ENVIRONMENT])
        raise NoSuchField(f"There is no kind {name!r}{_because(hint)}")
    spec: type[Spec] = kind.spec if kind is not None else EnvironmentSpec
    summary = kind.summary if kind is not None else _doc(EnvironmentSpec)
    if not parts:
        return _kind(str(name), summary, spec, kind)
    roots: dict[str | int, type[Spec]] = {"spec": spec, "metadata": Metadata}
    root = roots.get(parts[0])
    if root is None:
        hint = did_you_mean(f"{name}.{parts[0]}", [f"{name}.spec", f"{name}.metadata"])
        if parts[0] in by_alias(spec):
            hint = f"did you mean '{name}.spec.{written(parts)}'?"
        raise NoSuchField(f"{name} has no {parts[0]!r}{_because(hint)}")
    return _field(path, root, parts, summary)


def _doc(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip()


def _because(hint: str) -> str:
    return f"; {hint}" if hint else "."


def _all_kinds(registry: Registry) -> Explanation:
    kinds = [Entry(kind.name, kind.family, kind.summary) for kind in registry.all()]
    kinds.append(Entry(ENVIRONMENT, "delivery", _doc(EnvironmentSpec)))
    description = "A document has apiVersion, kind, metadata and spec. These kinds are installed:"
    return Explanation("", API_VERSION, description, children=tuple(kinds))


def _kind(name: str, summary: str, spec: type[BaseModel], kind: Kind | None) -> Explanation:
    outputs = kind.outputs if kind is not None else {}
    return Explanation(
        name,
        kind.family if kind is not None else "delivery",
        summary,
        children=tuple(_entries(spec, "spec.")),
        outputs=tuple(Entry(f"${{{name}/….{key}}}", "", text) for key, text in outputs.items()),
    )


def _field(path: str, root: type[BaseModel], parts: Sequence[str | int], summary: str) -> Explanation:
    """Walk down from `spec` or `metadata`; the field that the last key names is explained."""
    annotation: Any = root
    info: FieldInfo | None = None
    said = ""
    for count, part in enumerate(parts[1:], start=1):
        step = next(_steps(annotation, part), None)
        if step is None:
            names = [name for model in _models(annotation) for name in by_alias(model)]
            where = path.split(".", 1)[0] + "." + written(parts[:count])
            raise NoSuchField(f"{where} has no {part!r}{_because(did_you_mean(str(part), names))}")
        annotation, info = step
        said = (info.description if info else None) or said
    models = list(_models(annotation))
    said = said or (_doc(models[0]) if models else summary)
    metadata = info.metadata if info else ()
    return Explanation(
        path,
        in_words(annotation, metadata),
        said,
        info is not None and info.is_required(),
        _default(info),
        tuple(_choices(annotation)),
        tuple(_limits(annotation, metadata)),
        tuple(entry for model in models for entry in _entries(model, "")),
    )


def _steps(annotation: Any, part: str | int) -> Iterator[tuple[Any, FieldInfo | None]]:
    """What a part of a path leads to: a field, an entry of a map, an item of a list."""
    for member in alternatives(annotation):
        origin, arguments = typing.get_origin(member), typing.get_args(member)
        if origin is list:
            if isinstance(part, int):
                yield arguments[0], None
            else:
                yield from _steps(arguments[0], part)
        elif origin is dict:
            yield arguments[1], None
        elif isinstance(member, type) and issubclass(member, BaseModel):
            info = by_alias(member).get(str(part))
            if info is not None:
                yield info.annotation, info


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models whose fields stand below a value, lists and maps opened."""
    for member in alternatives(annotation):
        arguments = typing.get_args(member)
        if isinstance(member, type) and issubclass(member, BaseModel):
            yield member
        elif typing.get_origin(member) in (list, dict):
            yield from _models(arguments[-1])


def _entries(model: type[BaseModel], before: str) -> Iterator[Entry]:
    for name, info in by_alias(model).items():
        text = info.description or ""
        yield Entry(before + name, in_words(info.annotation, info.metadata), text, info.is_required())


# --- types in words -------------------------------------------------------------------------------

_WORDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    timedelta: "duration",
    Any: "anything",
}


def in_words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """A type as a person would name it: `list of texts`, `name of a Table`."""
    marks = [*metadata, *(typing.get_args(annotation)[1:] if annotation is not unwrapped(annotation) else ())]
    for mark in marks:
        if isinstance(mark, Names):
            return f"name of {_one(mark.kinds)}" if mark.kinds else "address Kind/name"
    words = dict.fromkeys(_word(member) for member in _members(annotation))
    return " or ".join(words) or "nothing"


def _members(annotation: Any) -> Iterator[Any]:
    """The members of a union, with the marks of `Annotated` kept."""
    bare = unwrapped(annotation)
    if len(list(alternatives(bare))) > 1 or type(None) in typing.get_args(bare):
        for member in typing.get_args(bare):
            if member is not type(None):
                yield from _members(member) if member is unwrapped(member) else (member,)
    else:
        yield annotation


def _word(annotation: Any) -> str:
    bare = unwrapped(annotation)
    if bare is not annotation:
        return in_words(bare, typing.get_args(annotation)[1:])
    origin, arguments = typing.get_origin(bare), typing.get_args(bare)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments)) if len(arguments) > 1 else str(arguments[0])
    if origin is list:
        return f"list of {_many(in_words(arguments[0]))}"
    if origin is dict:
        return f"map of {_many(in_words(arguments[1]))} by name"
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        return "map"
    return _WORDS.get(bare, getattr(bare, "__name__", str(bare)))


_MANY = {"text": "texts", "whole number": "whole numbers", "number": "numbers", "map": "maps"}


def _many(word: str) -> str:
    return "names" + word.removeprefix("name") if word.startswith("name of ") else _MANY.get(word, word)


def _one(kinds: Sequence[str]) -> str:
    return " or ".join(f"an {kind}" if kind[0] in "AEIOU" else f"a {kind}" for kind in kinds)


def _choices(annotation: Any) -> Iterator[str]:
    for member in alternatives(annotation):
        if typing.get_origin(member) is Literal:
            yield from map(str, typing.get_args(member))


_LIMITS = {
    "ge": "at least {}",
    "gt": "more than {}",
    "le": "at most {}",
    "lt": "less than {}",
    "multiple_of": "a multiple of {}",
    "min_length": "length at least {}",
    "max_length": "length at most {}",
    "pattern": "of the form {}",
}


def _limits(annotation: Any, metadata: Sequence[Any]) -> Iterator[str]:
    marks = [*metadata]
    for member in _members(annotation):
        if member is not unwrapped(member):
            marks += typing.get_args(member)[1:]
    for mark in marks:
        for inner in getattr(mark, "metadata", None) or [mark]:
            for name, words in _LIMITS.items():
                if (limit := getattr(inner, name, None)) is not None:
                    yield words.format(limit)


def _default(info: FieldInfo | None) -> str:
    if info is None or info.is_required():
        return ""
    return canonical(plain(info.get_default(call_default_factory=True)))


# --- for a terminal -------------------------------------------------------------------------------


def explanation_text(found: Explanation, width: int = 100) -> str:
    """The explanation as plain text, wrapped."""
    lines = [f"{found.path}  ({found.type})" if found.path else found.type]
    lines += wrap(found.description, width)
    facts = [("required", "yes")] if found.required else []
    if found.default:
        facts.append(("default", found.default))
    if found.allowed:
        facts.append(("allowed", ", ".join(found.allowed)))
    facts += [("limit", limit) for limit in found.limits]
    if facts:
        lines += ["", *(f"{name}: {value}" for name, value in facts)]
    for title, entries in (("Fields", found.children), ("Outputs", found.outputs)):
        if entries:
            lines += ["", f"{title if found.path else 'Kinds'}:"]
            for entry in entries:
                kind = ", ".join(filter(None, (entry.type, "required" if entry.required else "")))
                lines.append(f"  {entry.name}" + (f"  ({kind})" if kind else ""))
                lines += [f"      {line}" for line in wrap(entry.description, width - 6)]
    return "\n".join(lines)
