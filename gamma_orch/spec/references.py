"""From a validated spec: its plain data, and the names of other resources in it. And cycles.

How to walk a model is worked out once a model, from its annotations, into a few closures: with
ten thousand resources of one kind the annotations are read once. `spec.resolve` calls
`plain` and `Walk.names` for each resource, then `cycles` once. Pure.
"""

import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from enum import Enum
from functools import cache
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Path
from gamma_orch.core.leaves import LEAVES
from gamma_orch.spec.durations import written_duration
from gamma_orch.spec.fields import alias, alternatives
from gamma_orch.spec.model import Names

# --- plain data -----------------------------------------------------------------------------------

_AS_IS = frozenset({str, int, float, bool, type(None), *LEAVES})


@cache
def _attributes(model: type[BaseModel]) -> tuple[tuple[str, str], ...]:
    return tuple((name, alias(name, info)) for name, info in model.model_fields.items())


def plain(value: Any) -> Json:
    """A validated value as JSON: fields as in YAML, defaults filled in, leaves kept."""
    kind: Any = type(value)
    if kind in _AS_IS:
        return value
    if kind is list:
        return [plain(item) for item in value]
    if kind is dict:
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, BaseModel):
        inner = value.__dict__
        return {
            name: item if type(item := inner[attribute]) in _AS_IS else plain(item)
            for attribute, name in _attributes(kind)
        }
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, timedelta):
        return written_duration(value)
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=repr)
    return to_jsonable_python(value)


# --- names of other resources ---------------------------------------------------------------------


_NAMES = (str, *LEAVES)


class Naming(NamedTuple):
    """A place in a spec that names another resource."""

    path: Path
    value: Json  # a text, or a leaf that should have been one
    kinds: tuple[str, ...]


_Walk = Callable[[Any, Path, list[Naming]], None]


class Finder:
    """Finds the typed references in instances of one model. `walk` is None when it has none."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.walk = _of_model(model)

    def __call__(self, instance: BaseModel, at: Path) -> list[Naming]:
        named: list[Naming] = []
        if self.walk is not None:
            self.walk(instance, at, named)
        return named


@cache
def finder(model: type[BaseModel]) -> Finder:
    return Finder(model)


# Models that hold themselves are told by the entry that is still None while they are worked out.
_models: dict[type[BaseModel], list[tuple[str, str, _Walk]] | None] = {}


def _of_model(model: type[BaseModel]) -> _Walk | None:
    if model not in _models:
        _models[model] = None
        fields = []
        for name, info in model.model_fields.items():
            walk = _of_annotation(info.annotation, info.metadata)
            if walk is not None:
                fields.append((name, alias(name, info), walk))
        _models[model] = fields
    elif _models[model] is None:  # inside itself: look it up when it is walked
        return lambda value, path, named: _walk_fields(_models[model] or [], value, path, named)
    known = _models[model]
    if not known:
        return None
    fields = known
    if len(fields) == 1:
        ((attribute, key, only),) = fields

        def one(value: Any, path: Path, named: list[Naming]) -> None:
            if isinstance(value, model):
                inner = value.__dict__[attribute]
                if inner is not None:
                    only(inner, (*path, key), named)

        return one

    def several(value: Any, path: Path, named: list[Naming]) -> None:
        if isinstance(value, model):
            _walk_fields(fields, value, path, named)

    return several


def _walk_fields(fields: list[tuple[str, str, _Walk]], value: Any, path: Path, named: list[Naming]) -> None:
    for attribute, key, walk in fields:
        inner = value.__dict__.get(attribute)
        if inner is not None:
            walk(inner, (*path, key), named)


def _of_annotation(annotation: Any, metadata: Iterable[Any] = ()) -> _Walk | None:
    walks: list[_Walk] = []
    names = [mark for mark in metadata if isinstance(mark, Names)]
    while typing.get_origin(annotation) is typing.Annotated:
        annotation, *marks = typing.get_args(annotation)
        names += [mark for mark in marks if isinstance(mark, Names)]
    if names:
        walks.append(_of_text(tuple(kind for mark in names for kind in mark.kinds)))
    for member in _members(annotation):
        annotated = typing.get_origin(member) is typing.Annotated
        inner = _of_annotation(member) if annotated else _of_plain(member)
        if inner is not None:
            walks.append(inner)
    if len(walks) <= 1:
        return walks[0] if walks else None

    def each(value: Any, path: Path, named: list[Naming]) -> None:
        for walk in walks:
            walk(value, path, named)

    return each


def _members(annotation: Any) -> Iterator[Any]:
    """The members of a union with their `Annotated` kept: the marks are in there."""
    if len(list(alternatives(annotation))) > 1 or typing.get_origin(annotation) in _UNION_ORIGINS:
        yield from typing.get_args(annotation)
    else:
        yield annotation


_UNION_ORIGINS = (typing.Union, type(int | str))


def _of_plain(annotation: Any) -> _Walk | None:
    origin = typing.get_origin(annotation) or annotation
    arguments = typing.get_args(annotation)
    if origin in _UNION_ORIGINS:
        return _of_annotation(annotation)
    if isinstance(origin, type) and issubclass(origin, BaseModel):
        return _of_model(origin)
    if origin is dict and len(arguments) == 2:
        return _of_map(_of_annotation(arguments[0]), _of_annotation(arguments[1]))
    if origin in (list, tuple, set, frozenset) and arguments:
        return _of_list(_of_annotation(arguments[0]))
    return None


def _of_map(keys: _Walk | None, values: _Walk | None) -> _Walk | None:
    if keys is None and values is None:
        return None

    def entries(value: Any, path: Path, named: list[Naming]) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if keys is not None:
                    keys(key, (*path, key), named)
                if values is not None:
                    values(item, (*path, key), named)

    return entries


def _of_list(element: _Walk | None) -> _Walk | None:
    if element is None:
        return None

    def items(value: Any, path: Path, named: list[Naming]) -> None:
        if isinstance(value, list | tuple | set | frozenset):
            for index, item in enumerate(value):
                element(item, (*path, index), named)

    return items


def _of_text(kinds: tuple[str, ...]) -> _Walk:
    def text(value: Any, path: Path, named: list[Naming]) -> None:
        if isinstance(value, _NAMES):
            named.append(Naming(path, value, kinds))

    return text


# --- cycles ---------------------------------------------------------------------------------------


def in_order(needs: Mapping[Address, Iterable[Address]]) -> tuple[list[Address], list[list[Address]]]:
    """The addresses, each after those it needs, and the cycles that prevent a complete order.

    Needs outside the mapping count as met. Works along lists, not by recursion: chains may be as
    long as there are resources. What merely needs a member of a cycle is in neither list.
    """
    waiting: dict[Address, int] = {}
    dependents: dict[Address, list[Address]] = {}
    ready: list[Address] = []
    for address, own in needs.items():
        count = 0
        for need in own:
            if need in needs:
                count += 1
                dependents.setdefault(need, []).append(address)
        if count:
            waiting[address] = count
        else:
            ready.append(address)
    ordered: list[Address] = []
    while ready:
        address = ready.pop()
        ordered.append(address)
        for dependent in dependents.get(address, ()):
            waiting[dependent] -= 1
            if not waiting[dependent]:
                del waiting[dependent]
                ready.append(dependent)
    return ordered, _cycles(waiting, needs) if waiting else []


def _cycles(left: Mapping[Address, int], needs: Mapping[Address, Iterable[Address]]) -> list[list[Address]]:
    """Cycles among what is left: from each address follow the first need that is left, until known ground."""
    cycles = []
    seen: set[Address] = set()
    for start in sorted(left):
        trail: dict[Address, int] = {}
        here = start
        while here not in seen and here not in trail:
            trail[here] = len(trail)
            here = min(need for need in needs[here] if need in left)
        if here in trail:
            cycle = list(trail)[trail[here] :]
            least = cycle.index(min(cycle))
            cycles.append(cycle[least:] + cycle[:least])
        seen.update(trail)
    return cycles
