"""What a spec model says about its fields: names, types and descriptions by path. Pure.

`spec.complaints` asks it for the right names beside a wrong one, `spec.explain` for everything.
A path is the document's own: keys as in YAML, numbers for list items, any key for a map.
"""

import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gamma_orch.core.diagnostic import Path

_UNIONS = (Union, types.UnionType)
_LISTS = (list, tuple, set, frozenset)


def alias(name: str, info: FieldInfo) -> str:
    """The field as it is written in YAML."""
    return info.alias or name


@cache
def by_alias(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {alias(name, info): info for name, info in model.model_fields.items()}


def unwrapped(annotation: Any) -> Any:
    """The annotation without `Annotated`."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    return annotation


def alternatives(annotation: Any) -> Iterator[Any]:
    """The members of a union, None left out; else the annotation alone. `Annotated` is taken off."""
    annotation = unwrapped(annotation)
    if typing.get_origin(annotation) in _UNIONS:
        for member in typing.get_args(annotation):
            yield from alternatives(member)
    elif annotation is not type(None):
        yield annotation


def annotations_at(model: Any, path: Path) -> list[Any]:
    """All annotations that the value at a path may have; none where the path leads nowhere."""
    here = [model]
    for part in path:
        here = [inner for annotation in here for inner in _inside(annotation, part)]
    return here


def _inside(annotation: Any, part: str | int) -> Iterator[Any]:
    for member in alternatives(annotation):
        origin = typing.get_origin(member) or member
        arguments = typing.get_args(member)
        if isinstance(origin, type) and issubclass(origin, BaseModel):
            info = by_alias(origin).get(str(part))
            if info is not None:
                yield info.annotation
        elif origin is dict:
            yield arguments[1] if len(arguments) == 2 else Any
        elif origin in _LISTS:
            yield arguments[0] if arguments else Any


def models_at(model: Any, path: Path) -> list[type[BaseModel]]:
    """The models that a map at this path may be of."""
    return [
        member
        for annotation in annotations_at(model, path)
        for member in alternatives(annotation)
        if isinstance(member, type) and issubclass(member, BaseModel)
    ]


def allowed_at(model: Any, path: Path) -> list[str]:
    """The field names a map at this path may have."""
    return list(dict.fromkeys(name for found in models_at(model, path) for name in by_alias(found)))


def field_at(model: Any, path: Path) -> str:
    """The description of the field at a path; empty where there is none."""
    for found in models_at(model, path[:-1]):
        info = by_alias(found).get(str(path[-1]))
        if info is not None and info.description:
            return info.description
    return ""
