"""Where artifacts are kept, as `artifacts` sees it, and what the places have in common.

    keys/<key>.json                       a manifest: what was built for a key, written last
    objects/<digest>/...                  its files, read-only, shared by all keys with this content
    pointers/<environment>/<address>.json what an environment points at
    incoming/, broken/, locks/            local only: not yet there, no longer good, who is at work

`artifacts` is the one caller, and says when: it holds the lock of all commits around whatever must not be
interleaved (`settle`, `write`, `create`, `set_aside`, `retire`, `sweep`). What each place promises: a name is
either read whole or not there, and what failed half-way is not visible.
"""

import errno
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from gamma_orch.store.artifact_files import File, Mark
from gamma_orch.store.errors import StoreError
from gamma_orch.store.lease import user

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class Damaged(Exception):
    """The files of a content are not what was built. Turned into `Corrupt` by `artifacts`."""

    def __init__(self, file: str, what: str) -> None:
        super().__init__(file, what)
        self.file, self.what = file, what


class Place(Protocol):
    where: str  # for people: no password in it
    locks: Path | None  # a folder of its own for locks, seen by all who use it

    def read(self, name: str) -> bytes | None:
        """A small file whole; None where it is not there."""
        ...

    def read_all(self, folder: str) -> Mapping[str, bytes]:
        """All JSON files at or below a folder, by name."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Make or replace a small file, at once."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Make a small file; False where there is one."""
        ...

    def remove(self, name: str) -> None:
        """Absence is success."""
        ...

    def has(self, digest: str) -> bool:
        """Whether a content may be there: as far as is known without asking over a network."""
        ...

    def bring(self, key: str, digest: str, files: Sequence[File], out: Path) -> Path:
        """Move what was built near its place, which may take long; where it lies now."""
        ...

    def settle(self, digest: str, files: Sequence[File], brought: Path, marks: Mapping[str, Mark]) -> None:
        """Put it in its place, unless the same is there and whole."""
        ...

    def fault(self, digest: str, files: Sequence[File]) -> str:
        """What is wrong with a content, quickly; empty where nothing is."""
        ...

    def folder(self, digest: str, files: Sequence[File]) -> Path:
        """Where its files are on this machine, each hashed now. Raises Damaged."""
        ...

    def whole(self, digest: str, files: Sequence[File]) -> bool:
        """Whether a content that was found damaged has been put there anew meanwhile."""
        ...

    def set_aside(self, digest: str) -> None:
        """Take a damaged content away, so that it can be put there anew."""
        ...

    def retire(self, digest: str) -> Path | None:
        """Take a content away; what is left to erase afterwards."""
        ...

    def contents(self) -> Mapping[str, datetime]:
        """The contents that are there, and when each was put."""
        ...

    def sweep(self, before: datetime) -> None:
        """Erase what was left behind before a moment. Under the lock of all commits."""
        ...


@contextmanager
def told(verb: str, where: str) -> Iterator[None]:
    """What the system says of a folder, as a StoreError: what, where, why, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            hint = "Make room there (`gamma models gc`, or a larger disk), then apply again."
        elif error.errno in _FORBIDDEN:
            hint = f"Check that user {user()} may do that there."
        else:
            hint = "Check the path and the disk, then try again."
        said = error.strerror or str(error) or type(error).__name__
        at = f" ({error.filename})" if error.filename and str(error.filename) != where else ""
        raise StoreError(f"The artifact store {where} cannot be {verb}: {said}{at}. {hint}") from error


def touched(path: Path) -> datetime:
    """When something was last written at or below a path; now, where it is gone meanwhile."""
    last = 0.0
    for place in (path, *path.rglob("*")):
        try:
            last = max(last, place.lstat().st_mtime)
        except FileNotFoundError:
            last = max(last, time.time())
    return datetime.fromtimestamp(last, UTC)


def erase(path: Path) -> None:
    """Remove a file or a whole folder. Absence is success. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def sync(folder: Path) -> None:
    """A rename is on the disk only when its folder is. Some shared disks cannot, and do it at once."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(opened)


def sync_folders(top: Path) -> None:
    for folder in (*(p for p in top.rglob("*") if p.is_dir()), top):
        sync(folder)
