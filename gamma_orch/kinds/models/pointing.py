"""What "applied" means for something that is built: the environment points at an artifact.

A pointer is a small JSON file in the artifact store: what was wanted when it was written (the fields), the
key and digest of the artifact, and what was measured. Reading the world is reading pointers and asking the
store whether each artifact still is what it was. Both kinds of this family read, move and remove pointers
through here; artifacts themselves are never altered, and are removed only by `gamma models gc`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json, digest
from gamma_orch.core.kind import Fields
from gamma_orch.core.observation import ABSENT, Observation, Seen, Unreadable
from gamma_orch.core.provider import Asked, Permanent, Temporary
from gamma_orch.store.artifact_files import sha256_of
from gamma_orch.store.errors import StoreError

if TYPE_CHECKING:
    from gamma_orch.store.artifacts import Artifact, Artifacts


@dataclass(frozen=True, slots=True)
class Pointer:
    key: str
    digest: str
    fields: Fields
    outputs: Mapping[str, Json]
    pin: str = ""  # digest of what lies in the project or came from a database, when it was read
    told: Json = None  # what else is known of the build: predictions, the report's key

    def encoded(self) -> Json:
        return {
            "key": self.key,
            "digest": self.digest,
            "fields": dict(self.fields),
            "outputs": dict(self.outputs),
            "pin": self.pin,
            "told": self.told,
        }

    @classmethod
    def decoded(cls, body: Json) -> "Pointer":
        said = (body["key"], body["digest"], body["fields"], body["outputs"])
        return cls(*said, body.get("pin", ""), body.get("told"))


@dataclass(frozen=True, slots=True)
class Pointing:
    store: "Artifacts"
    environment: str
    root: Path  # of the project

    def pointer(self, address: Address) -> Pointer | None:
        body = self.store.pointer(self.environment, str(address))
        return Pointer.decoded(body) if body is not None else None

    def observe(self, kind: str, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        """Each asked address, and what else of this kind the environment points at."""
        found: dict[Address, Observation] = {one.address: self._look(one.address) for one in asked}
        try:
            names = [name for environment, name in self.store.pointers() if environment == self.environment]
        except StoreError:
            return found  # each asked address says so already
        for address in map(Address.parse, names):
            if address.kind == kind and address not in found:
                found[address] = self._look(address)
        return found

    def point(self, address: Address, pointer: Pointer) -> None:
        self.store.point(self.environment, str(address), pointer.encoded())

    def unpoint(self, address: Address) -> None:
        """Absence is success. Raises Temporary."""
        try:
            self.store.unpoint(self.environment, str(address))
        except StoreError as error:
            raise Temporary(str(error)) from error

    def _look(self, address: Address) -> Observation:
        try:
            pointer = self.pointer(address)
            if pointer is None:
                return ABSENT
            why = self._fault(pointer)
        except StoreError as error:
            return Unreadable(str(error))
        return Seen(pointer.fields, pointer.outputs, healthy=not why, why=why)

    def _fault(self, pointer: Pointer) -> str:
        artifact = self.store.find(pointer.key)
        if artifact is None:
            return f"its artifact {pointer.key[:12]} is not in the store any more; it will be built again"
        if artifact.digest != pointer.digest:
            return f"the artifact {pointer.key[:12]} in the store is another one than was pointed at"
        path = pointer.fields.get("source", {}).get("path")
        if path and pointer.pin and (now := self.pinned(path)) != pointer.pin:
            return f"{path} changed since it was read" if now else f"{path} is gone"
        fault: str = self.store.fault(artifact)
        return fault

    def pinned(self, path: str) -> str:
        """The digest of a file or folder of the project; empty where there is none."""
        place = (self.root / path).resolve()
        if not place.is_relative_to(self.root.resolve()):
            return ""
        if place.is_file():
            return sha256_of(place)
        if not place.is_dir():
            return ""
        inside = sorted(p for p in place.rglob("*") if p.is_file())
        return digest([[str(p.relative_to(place)), sha256_of(p)] for p in inside])

    def pins(self, fields: Fields) -> str:
        """The pin of a `path` source; empty for one that is pinned by its spec.

        Raises Permanent where there is nothing at the path.
        """
        path = fields["source"].get("path")
        if not path:
            return ""
        if not (pin := self.pinned(path)):
            raise Permanent(
                f"source.path {path} is neither a file nor a folder of this project. "
                "It is relative to the project's root and may not lead out of it."
            )
        return pin


def pinned_source(fields: Fields, pin: str) -> dict[str, Any]:
    """The fields with the source as a key knows it: what lies in the project or came from a database is what
    it contains, wherever it lies."""
    if not pin:
        return dict(fields)
    source = fields["source"]
    name = source.get("file") or source.get("path") or ".jsonl"
    return {**fields, "source": {**source, "content": pin, "suffix": PurePath(name).suffix}}


def built_before(artifact: "Artifact") -> str:
    return f"built for {artifact.built_for} at {artifact.built_at[:16].replace('T', ' ')}"
