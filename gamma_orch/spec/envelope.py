"""What every document has around its spec: apiVersion, kind, metadata.

`spec.resolve` asks `opened` first, for the address alone, so that patches can find what they
patch; metadata as a whole is checked only after patches, by the model `Metadata`.
"""

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from gamma_orch.core.address import KIND, NAME, Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Path, did_you_mean, nearest, written
from gamma_orch.core.resource import NO_LIFECYCLE, Drift, Lifecycle, Replace
from gamma_orch.spec.codes import Code
from gamma_orch.spec.complaints import Fault, checked, found, is_broken
from gamma_orch.spec.expressions import leaf_paths
from gamma_orch.spec.fields import by_alias
from gamma_orch.spec.model import Item, Spec
from gamma_orch.spec.paths import inside_spec, parse_path
from gamma_orch.spec.positions import Document, Part
from gamma_orch.spec.words import quoted

API_VERSION = "gamma/v1"
ENVIRONMENT = "Environment"
_KEYS = frozenset({"apiVersion", "kind", "metadata", "spec"})


class LifecycleSpec(Spec):
    """What may happen to the resource, and in which order."""

    protect: bool = False
    """Never delete it without a consent that names it, even after its YAML is gone."""
    retain: bool = False
    """When its YAML goes, forget the object and leave it as it is."""
    ignore: list[Item[str]] = Field(default_factory=list)
    """Paths inside the spec that are left as they are once the object exists, such as columns.email."""
    replace: Literal["createFirst", "deleteFirst"] | None = None
    """How an object that cannot be changed in place gives way: createFirst or deleteFirst."""
    drift: Literal["heal", "report", "off"] | None = None
    """What is done by itself about a change made outside; without it, what the environment says."""


class Moved(Spec):
    """The address under which the ledger knows this resource until now."""

    from_: str = Field(alias="from")
    """The old address, Kind/name."""


class Metadata(Spec):
    """Who and what the resource is; nothing here changes what is built."""

    name: str = Field(json_schema_extra={"pattern": f"^{NAME.pattern}$", "x-gamma-fixed": True})
    """Its name: small letters, digits, '.', '_' and '-'; unique among its kind."""
    owner: str = ""
    """Who answers for it."""
    labels: dict[str, Item[str]] = Field(default_factory=dict)
    """Words to select by."""
    description: str = ""
    """What it is for, in Markdown."""
    depends_on: list[Item[str]] = Field(default_factory=list, alias="dependsOn")
    """Addresses (Kind/name) that must be in place first, beyond those that the spec names."""
    lifecycle: LifecycleSpec = Field(default_factory=LifecycleSpec)
    """How the resource may be changed and removed."""
    moved: Moved | None = None
    """Where it was declared before it was renamed."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What `metadata` says, ready for a Resource."""

    depends_on: tuple[tuple[int, Address], ...] = ()  # with the position in the list
    lifecycle: Lifecycle = NO_LIFECYCLE
    owner: str = ""
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    moved_from: Address | None = None


NOTHING_SAID = Envelope()


def address_of(document: Document, kinds: Container[str]) -> Address | None:
    """The address of a document without a fault in its envelope; None if `faults` must be asked."""
    data = document.data
    metadata = data.get("metadata")
    kind = data.get("kind")
    if (
        data.get("apiVersion") == API_VERSION
        and type(kind) is str
        and kind in kinds
        and type(metadata) is dict
    ):
        name = metadata.get("name")
        if type(name) is str and NAME.fullmatch(name) and data.keys() <= _KEYS:
            return Address(kind, name)
    return None


def intended(document: Document) -> Address | None:
    """The address that a faulty document probably means to have, so that others may refer to it."""
    kind, metadata = document.data.get("kind"), document.data.get("metadata")
    name = metadata.get("name") if type(metadata) is dict else None
    if type(kind) is str and KIND.fullmatch(kind) and type(name) is str and NAME.fullmatch(name):
        return Address(kind, name)
    return None


def faults(document: Document, kinds: Iterable[str]) -> list[Fault]:
    """What is wrong with a document's envelope, apart from the rest of its metadata."""
    data = document.data
    said = [
        Fault(Code.UNKNOWN_FIELD, f"A document has no field {quoted(key)}.", (key,), _meant(key), Part.KEY)
        for key in data
        if key not in _KEYS
    ]
    version = data.get("apiVersion")
    if "apiVersion" not in data:
        said.append(
            Fault(
                Code.API_VERSION,
                "The document has no apiVersion.",
                ("apiVersion",),
                f"begin it with apiVersion: {API_VERSION}",
                Part.KEY,
            )
        )
    elif version != API_VERSION:
        said.append(
            Fault(
                Code.API_VERSION,
                f"The apiVersion is {found(version)}; this Gamma knows {API_VERSION}.",
                ("apiVersion",),
                f"write {API_VERSION}",
            )
        )
    kind = data.get("kind")
    if "kind" not in data:
        said.append(
            Fault(Code.KIND, "The document has no kind.", ("kind",), did_you_mean("", kinds), Part.KEY)
        )
    elif type(kind) is not str:
        said.append(Fault(Code.KIND, f"The kind must be a name; it is {found(kind)}.", ("kind",)))
    elif kind not in (names := list(kinds)):
        said.append(
            Fault(Code.KIND, f"There is no kind {quoted(kind)}.", ("kind",), did_you_mean(kind, names))
        )
    metadata = data.get("metadata")
    if "metadata" not in data:
        said.append(
            Fault(
                Code.MISSING,
                "The document has no metadata.",
                ("metadata",),
                "write metadata: with a name: below it",
                Part.KEY,
            )
        )
    elif type(metadata) is not dict:
        said.append(
            Fault(
                Code.TYPE,
                f"metadata must be a map; it is {found(metadata)}.",
                ("metadata",),
                "write name: below it, indented",
            )
        )
    elif "name" not in metadata:
        near = nearest("name", [key for key in metadata if key not in by_alias(Metadata)])
        hint = f"did you mean name instead of {near!r}?" if near else ""
        said.append(Fault(Code.MISSING, "The metadata has no name.", ("metadata", "name"), hint, Part.KEY))
    elif type(metadata["name"]) is not str or not NAME.fullmatch(metadata["name"]):
        said.append(_bad_name(metadata["name"]))
    return said


def _meant(key: str) -> str:
    if key in by_alias(Metadata):
        return f"{key} stands below metadata"
    near = did_you_mean(key, _KEYS)
    return near if near.startswith("did") else "the kind's own fields stand below spec"


def _bad_name(name: Json) -> Fault:
    path = ("metadata", "name")
    if type(name) is not str:
        quoted = f'put it in quotes: "{name}"' if type(name) in (int, float) else ""
        return Fault(Code.NAME, f"The name must be a text; it is {found(name)}.", path, quoted)
    if "${" in name:
        return Fault(Code.NAME, "A name is fixed: no expression may stand in it.", path, "write the name out")
    proposal = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("._-")[:63].strip("._-")
    hint = f"for example {proposal}" if proposal else ""
    return Fault(
        Code.NAME,
        f"The name is {found(name)}; a name is 1 to 63 small letters, digits, '.', '_' and '-', "
        "and begins and ends with a letter or digit.",
        path,
        hint,
    )  # fmt: skip


def _ignored(texts: Sequence[str], at: Path, said: list[Fault]) -> list[str]:
    """The paths of `lifecycle.ignore`, in their one spelling."""
    ignored = []
    for index, text in enumerate(texts):
        try:
            path = inside_spec(parse_path(text))
        except ValueError as error:
            hint = 'for example columns.email or labels["a.b"]'
            said.append(Fault(Code.PATH, str(error), (*at, index), hint))
            continue
        whole = path[: next((i for i, part in enumerate(path) if type(part) is int), None)]
        if whole == path:
            ignored.append(written(path))
        else:
            message = f"{quoted(text)} leads into a list, and a list is compared as a whole."
            said.append(Fault(Code.PATH, message, (*at, index), f"ignore all of it: {written(whole)}"))
    return ignored


def opened(metadata: Json, kind: str, dynamic: bool = True) -> tuple[Envelope, list[Fault]]:
    """Metadata after patches and expressions -> what it says. Faults are relative to the document.

    `dynamic` is False where no expression was in it, so that no leaf need be looked for.
    """
    if len(metadata) == 1:  # the name alone, which is checked already
        return NOTHING_SAID, []
    at: Path = ("metadata",)
    model, said = checked(Metadata, metadata, at)
    if model is None:
        return NOTHING_SAID, said
    open_leaves = list(leaf_paths(metadata, at)) if dynamic else []
    said = [
        Fault(
            Code.LEAF_MISPLACED,
            f"metadata is known before anything runs; {found(leaf)} cannot stand in it.",
            path,
            "use a variable",
        )
        for path, leaf in open_leaves
        if not is_broken(leaf)
    ]
    if open_leaves:
        return NOTHING_SAID, said
    depends_on = []
    for index, text in enumerate(model.depends_on):
        try:
            depends_on.append((index, Address.parse(text)))
        except ValueError:
            said.append(_bad_address(text, (*at, "dependsOn", index)))
    ignored = _ignored(model.lifecycle.ignore, (*at, "lifecycle", "ignore"), said)
    moved_from = None
    if model.moved is not None:
        path = (*at, "moved", "from")
        try:
            moved_from = Address.parse(model.moved.from_)
        except ValueError:
            said.append(_bad_address(model.moved.from_, path))
        else:
            if moved_from.kind != kind:
                hint = f"write {kind}/{moved_from.name}, or delete the one and create the other"
                said.append(
                    Fault(
                        Code.MOVED,
                        f"A resource of kind {kind} cannot have been {moved_from} before: the kinds differ.",
                        path,
                        hint,
                    )
                )
    lifecycle = Lifecycle(
        model.lifecycle.protect,
        model.lifecycle.retain,
        tuple(ignored),
        Replace(model.lifecycle.replace) if model.lifecycle.replace else None,
        Drift(model.lifecycle.drift) if model.lifecycle.drift else None,
    )
    return Envelope(
        tuple(depends_on), lifecycle, model.owner, model.description, model.labels, moved_from
    ), said


def _bad_address(text: str, path: Path) -> Fault:
    return Fault(
        Code.ADDRESS,
        f"{quoted(text)} is not an address.",
        path,
        "an address is Kind/name, for example Index/accounts-by-email",
    )
