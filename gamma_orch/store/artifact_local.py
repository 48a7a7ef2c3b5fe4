"""Artifacts in a folder of this machine, or on a disk that it shares.

Whatever is written is on the disk when the call returns: files are synced, then renamed, then their folder is
synced. Nothing is copied where the build lies on the same disk.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from gamma_orch.store.artifact_files import READ_ONLY, File, Hashed, Mark, damage, paths
from gamma_orch.store.artifact_locks import Locks
from gamma_orch.store.artifact_places import Damaged, children, erase, sync, sync_folders, told, touched

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class Local:
    """A folder on a disk of this machine, or on one that it shares."""

    def __init__(self, root: Path, scratch: Path, builds: Callable[[], Locks]) -> None:
        self.where = str(root)
        self.locks: Path | None = root / "locks"
        self._root = root
        self._builds = builds
        self._hashed = Hashed(scratch / "hashed")

    def read(self, name: str) -> bytes | None:
        with told("read", self.where):
            return _read(self._root / name)

    def read_all(self, folder: str) -> Mapping[str, bytes]:
        found: dict[str, bytes] = {}
        with told("read", self.where):
            if self._root.exists() and not self._root.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder")
            for path in paths(self._root / folder):
                if path.endswith(".json") and (data := _read(self._root / folder / path)) is not None:
                    found[f"{folder}/{path}"] = data
        return found

    def write(self, name: str, data: bytes) -> None:
        with told("written", self.where), self._fresh(name, data) as fresh:
            fresh.replace(self._root / name)
            sync((self._root / name).parent)

    def create(self, name: str, data: bytes) -> bool:
        target = self._root / name
        with told("written", self.where), self._fresh(name, data) as fresh:
            try:
                os.link(fresh, target)  # unlike a rename, this fails where something is
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                if target.exists():  # a disk without hard links: the lock of all commits is held
                    return False
                fresh.replace(target)
            sync(target.parent)
        return True

    def remove(self, name: str) -> None:
        with told("written", self.where), suppress(FileNotFoundError, NotADirectoryError):
            (self._root / name).unlink()
            sync((self._root / name).parent)

    def has(self, digest: str) -> bool:
        with told("read", self.where):
            return self._object(digest).is_dir()

    def bring(self, key: str, digest: str, files: Sequence[File], out: Path) -> Path:
        with told("written", self.where):
            for left in (self._root / "incoming").glob(f"{key}.*"):  # by a build that was killed
                erase(left)
            brought = self._aside("incoming", key)
            try:
                out.rename(brought)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self._copy(out, brought)
            try:
                sync_folders(brought)
            except BaseException:
                shutil.rmtree(brought, ignore_errors=True)
                raise
        return brought

    def settle(self, digest: str, files: Sequence[File], brought: Path, marks: Mapping[str, Mark]) -> None:
        place = self._object(digest)
        with told("written", self.where):
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                if place.exists():
                    if damage(place, files) == ("", ""):
                        return
                    self.set_aside(digest)
                brought.rename(place)
                sync(place.parent)
            finally:
                shutil.rmtree(brought, ignore_errors=True)  # where it was moved, there is none
        self._hashed.remember(digest, marks)

    def fault(self, digest: str, files: Sequence[File]) -> str:
        with told("read", self.where):
            if not self.has(digest):
                return f"its files are gone from {self.where}"
            file, what = self._hashed.damage(self._object(digest), digest, files)
            if what:
                return f"{file} {what}"
            foreign = self._foreign(digest, files)
        return f"{foreign[0]} lies among its files and is none of them" if foreign else ""

    def folder(self, digest: str, files: Sequence[File]) -> Path:
        place = self._object(digest)
        with told("read", self.where):
            if not place.is_dir():
                raise Damaged("", f"its files are gone from {self.where}")
            file, what = damage(place, files)
            if what:
                raise Damaged(file, what)
            # A library would load these too, and it would not be the artifact that runs.
            for path in self._foreign(digest, files):
                (place / path).rename(self._aside("broken", f"{digest}-foreign"))
            return place

    def whole(self, digest: str, files: Sequence[File]) -> bool:
        with told("read", self.where):
            return self.has(digest) and damage(self._object(digest), files) == ("", "")

    def set_aside(self, digest: str) -> None:
        """It stays where somebody may look into it: of one content the last."""
        with told("written", self.where):
            for old in (self._root / "broken").glob(f"{digest}.*"):
                erase(old)
            if self.has(digest):
                os.utime(self._object(digest))  # `sweep` counts from now
                self._object(digest).rename(self._aside("broken", digest))
                sync(self._object(digest).parent)
        self._hashed.forget(digest)

    def retire(self, digest: str) -> Path | None:
        self._hashed.forget(digest)
        with told("written", self.where):
            if not self.has(digest):
                return None
            gone = self._aside("incoming", "gone")
            self._object(digest).rename(gone)
            sync(self._object(digest).parent)
        return gone

    def contents(self) -> Mapping[str, datetime]:
        with told("read", self.where):
            found = self._root / "objects"
            return {p.name: touched(p) for p in found.iterdir()} if found.is_dir() else {}

    def sweep(self, before: datetime) -> None:
        with told("written", self.where):
            for path in children(self._root / "broken"):
                if touched(path) < before:
                    erase(path)
            for path in children(self._root / "incoming"):
                with self._builds().attempt(path.name.partition(".")[0]) as free:
                    if free and touched(path) < before:
                        erase(path)

    def _object(self, digest: str) -> Path:
        return self._root / "objects" / digest

    def _foreign(self, digest: str, files: Sequence[File]) -> list[str]:
        return sorted(set(paths(self._object(digest))) - {file.path for file in files})

    def _aside(self, folder: str, name: str) -> Path:
        """A new name in one of this store's own folders, on the same disk."""
        (self._root / folder).mkdir(parents=True, exist_ok=True)
        return self._root / folder / f"{name}.{os.urandom(6).hex()}"

    @contextmanager
    def _fresh(self, name: str, data: bytes) -> Iterator[Path]:
        """The data in a file of another name, on the disk; gone afterwards, unless it was renamed."""
        (self._root / name).parent.mkdir(parents=True, exist_ok=True)
        fresh = self._aside("incoming", "small")
        try:
            with fresh.open("xb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), READ_ONLY)
                os.fsync(file.fileno())
            yield fresh
        finally:
            with suppress(OSError):
                fresh.unlink()

    def _copy(self, out: Path, brought: Path) -> None:
        """Across disks: a copy, on the disk when it is done, nothing where it fails."""
        try:
            brought.mkdir()
            for path in paths(out):
                (brought / path).parent.mkdir(parents=True, exist_ok=True)
                _copy_file(out / path, brought / path)
        except BaseException:
            shutil.rmtree(brought, ignore_errors=True)
            raise


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _copy_file(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fchmod(file.fileno(), READ_ONLY)
        os.fsync(file.fileno())
