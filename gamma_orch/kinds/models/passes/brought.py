"""What a source brought: files by their name inside the source, each where it lies on this machine.

Made by `sources.bring`, read by the passes that fetch. The files are not copied until a pass wants
them, and belong to somebody else (an installed package, the project's folder): they are never written to.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gamma_orch.store.artifact_files import sha256_of

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Licence:
    name: str  # as it is written there: apache-2.0, MIT
    where: str  # who says so


@dataclass(frozen=True, slots=True)
class Brought:
    files: Mapping[str, Path]
    where: str  # the source in a few words, for errors and facts
    licence: Licence | None = None  # of what carried the files; their own README may say another
    hashes: Mapping[str, str] = field(default_factory=dict)  # sha256 of those files that were checked

    def sha256(self, name: str) -> str:
        return self.hashes.get(name) or sha256_of(self.files[name])

    def digest(self, names: Iterable[str]) -> str:
        """sha256 over the names and contents of these files, whatever their order: 64 hex digits."""
        lines = "".join(f"{self.sha256(name)}  {name}\n" for name in sorted(names))
        return hashlib.sha256(lines.encode()).hexdigest()


def megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB"
