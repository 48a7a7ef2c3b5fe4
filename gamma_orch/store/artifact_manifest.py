"""What is known of an artifact, and its manifest: the JSON file that makes it exist, by its key.

A manifest that is cut off, malformed or another key's is no manifest. It may have come from a store that
others write to, so nothing in it is believed that could lead out of the artifact's folder.
"""

import json
from dataclasses import dataclass

from gamma_orch.core.canonical import Json, canonical
from gamma_orch.store.artifact_files import File, digest_of, safe
from gamma_orch.store.errors import StoreError

_FORM = 1


@dataclass(frozen=True, slots=True)
class Artifact:
    key: str  # 64 hex digits: the digest of the recipe
    digest: str  # of the content: [[path, size, sha256], ...] in the order of paths
    files: tuple[File, ...]  # in the order of paths
    recipe: Json  # what it was made from: {"op", "params", "inputs": {name: key}, "tools"}
    facts: Json  # what was measured while it was made; no part of the digest
    built_at: str  # UTC, RFC 3339
    built_for: str  # the environment that needed it first
    seconds: float  # that the build took

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.size for file in self.files)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it was made from: keys, or `digest:` and the digest of a content."""
        inputs = self.recipe.get("inputs") if isinstance(self.recipe, dict) else None
        return tuple(str(value) for value in inputs.values()) if isinstance(inputs, dict) else ()


def written(value: Json, what: str) -> bytes:
    """The JSON text of a value. Raises StoreError where it has none; `what` is the value, for people."""
    try:
        return canonical(value).encode()
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"{what} cannot be kept, it is not JSON: {error}. A number that is not finite, such as a loss of "
            "NaN, has to be dealt with by the pass."
        ) from error


def parsed(data: bytes) -> Json:
    """The value of a JSON text; None where it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def encoded(artifact: Artifact) -> bytes:
    """The text of its manifest."""
    body: Json = {
        "form": _FORM,
        "key": artifact.key,
        "digest": artifact.digest,
        "files": [file.encoded() for file in artifact.files],
        "recipe": artifact.recipe,
        "facts": artifact.facts,
        "builtAt": artifact.built_at,
        "builtFor": artifact.built_for,
        "seconds": artifact.seconds,
    }
    return written(body, "The manifest")


def decoded(key: str, data: bytes) -> Artifact | None:
    """The artifact of a manifest; None where that is cut off, malformed, or not the one of this key."""
    body = parsed(data)
    try:
        files = tuple(File(path, size, sha256) for path, size, sha256 in body["files"])
        found = Artifact(
            key=key,
            digest=digest_of(files),
            files=files,
            recipe=body["recipe"],
            facts=body["facts"],
            built_at=str(body["builtAt"]),
            built_for=str(body["builtFor"]),
            seconds=float(body["seconds"]),
        )
        sound = (body["form"], body["key"], body["digest"]) == (_FORM, key, found.digest)
        return found if sound and all(safe(file.path) for file in files) else None
    except (KeyError, TypeError, ValueError):
        return None
