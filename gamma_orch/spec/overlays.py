"""An environment's patches laid over a document: maps merge, lists replace, null removes.

`spec.resolve` calls `conflicts` for all patches of one address, then `merged`. Data of documents
is shared and never changed: what a patch touches is copied on its way down. Pure.
"""

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Path, did_you_mean, written
from gamma_orch.spec.codes import Code
from gamma_orch.spec.complaints import Fault
from gamma_orch.spec.positions import Document, Part


class Absence(Enum):
    """Why a patched document has no spec."""

    REMOVED = "removed"


REMOVED = Absence.REMOVED


class Conflict(NamedTuple):
    """Two patches that write one place differently; indexes into the patches given."""

    first: int
    first_path: Path
    second: int
    second_path: Path


def body(document: Document) -> dict[str, Json]:
    """The part of a document that is patched and evaluated: metadata and spec."""
    data = document.data
    return {"metadata": data["metadata"], "spec": data.get("spec", {})}


def merged(base: dict[str, Json], patch: Document, faults: list[Fault]) -> dict[str, Json] | Absence:
    """`base` with one patch laid over it. `spec: null` removes the resource."""
    if "spec" in patch.data and patch.data["spec"] is None:
        return REMOVED
    changes = {key: patch.data[key] for key in ("metadata", "spec") if key in patch.data}
    result: dict[str, Json] = _merge(base, changes, (), faults)
    return result


def _merge(base: Json, patch: Json, path: Path, faults: list[Fault]) -> Json:
    if type(patch) is not dict:
        return patch
    result = dict(base) if type(base) is dict else {}
    for key, value in patch.items():
        here = (*path, key)
        if value is not None:
            result[key] = _merge(result.get(key), value, here, faults)
        elif key in result:
            del result[key]
        else:
            near = did_you_mean(key, [known for known in result if known not in patch])
            faults.append(
                Fault(
                    Code.PATCH_NULL,
                    f"null removes {written(here)}, which is not there.",
                    here,
                    near if near.startswith("did") else "remove the line from the patch",
                    Part.KEY,
                )
            )
    return result


def conflicts(patches: Sequence[Document]) -> Iterator[Conflict]:
    """Places that two patches of one address write differently, also where one writes inside the other's."""
    written_by: dict[Path, tuple[int, Json]] = {}
    passed_by: dict[Path, tuple[int, Path]] = {}  # maps that a patch merges into, and one place inside
    for index, patch in enumerate(patches):
        spec = patch.data.get("spec", {})
        writes = list(_writes({"metadata": patch.data["metadata"]}, ()))
        writes += list(_writes({"spec": spec}, ()))
        for path, value in writes:
            if path == ("metadata", "name"):
                continue
            if (known := written_by.get(path)) is not None and known[0] != index:
                if not _same(known[1], value):
                    yield Conflict(known[0], path, index, path)
            elif (inside := passed_by.get(path)) is not None and inside[0] != index and value != {}:
                yield Conflict(inside[0], inside[1], index, path)
            else:
                for length in range(1, len(path)):
                    outer = written_by.get(path[:length])
                    if outer is not None and outer[0] != index and outer[1] != {}:
                        yield Conflict(outer[0], path[:length], index, path)
                        break
            written_by.setdefault(path, (index, value))
            for length in range(1, len(path)):
                passed_by.setdefault(path[:length], (index, path))


def _writes(tree: Json, path: Path) -> Iterator[tuple[Path, Json]]:
    """The places a patch writes: everything that is not a map with something in it."""
    if type(tree) is dict and tree:
        for key, value in tree.items():
            yield from _writes(value, (*path, key))
    else:
        yield path, tree


def _same(one: Json, other: Json) -> bool:
    """Equality that tells 1 from true and 1.0."""
    return type(one) is type(other) and repr(one) == repr(other)
