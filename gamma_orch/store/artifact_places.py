"""Where artifacts are kept: a folder of this machine, or anything that fsspec reaches by URL.

    keys/<key>.json                       a manifest: what was built for a key, written last
    objects/<digest>/...                  its files, read-only, shared by all keys with this content
    pointers/<environment>/<address>.json what an environment points at
    incoming/, broken/, locks/            local only: not yet there, no longer good, who is at work

`artifacts` is the one caller, and says when: it holds the lock of all commits around whatever must not be
interleaved (`settle`, `create`, `remove`, `condemn`, `retire`). What both promise: a name is either read whole or not
there; files come before the manifest that names them; what failed half-way is not visible.

Local writes are on the disk when they return: files are synced, then renamed, then their folder is synced.
Remote ones rely on a put being whole or not at all, which object stores give. Where a remote store has no
conditional put, the first of two machines that commit one key at the same moment may be replaced by the second.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from gamma_orch.store.artifact_files import READ_ONLY, File, Hashed, Mark, damage, paths
from gamma_orch.store.artifact_locks import Locks
from gamma_orch.store.errors import StoreError
from gamma_orch.store.lease import user

DOWNLOADS = 2  # of a file that does not arrive as it should; after them the store's copy is the damaged one
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
# What backends call the moment at which a file was written.
_TIMES = ("LastModified", "mtime", "updated", "modified", "created")


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

    def condemn(self, digest: str, files: Sequence[File]) -> bool:
        """Take a damaged content out of use; False where it is whole by now."""
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
            _sync((self._root / name).parent)

    def create(self, name: str, data: bytes) -> bool:
        target = self._root / name
        with told("written", self.where), self._fresh(name, data) as fresh:
            try:
                os.link(fresh, target)  # unlike a rename, this fails where something is
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                    raise
                if target.exists():  # a disk without hard links: the lock of all commits is held
                    return False
                fresh.replace(target)
            _sync(target.parent)
        return True

    def remove(self, name: str) -> None:
        with told("written", self.where), suppress(FileNotFoundError, NotADirectoryError):
            (self._root / name).unlink()
            _sync((self._root / name).parent)

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
                _sync_folders(brought)
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
                    self._set_aside(digest)
                brought.rename(place)
                _sync(place.parent)
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

    def condemn(self, digest: str, files: Sequence[File]) -> bool:
        place = self._object(digest)
        with told("written", self.where):
            if place.is_dir():
                if damage(place, files) == ("", ""):
                    return False
                self._set_aside(digest)
        return True

    def retire(self, digest: str) -> Path | None:
        self._hashed.forget(digest)
        with told("written", self.where):
            if not self.has(digest):
                return None
            gone = self._aside("incoming", "gone")
            self._object(digest).rename(gone)
            _sync(self._object(digest).parent)
        return gone

    def contents(self) -> Mapping[str, datetime]:
        with told("read", self.where):
            found = self._root / "objects"
            return {p.name: touched(p) for p in found.iterdir()} if found.is_dir() else {}

    def sweep(self, before: datetime) -> None:
        with told("written", self.where):
            for path in _children(self._root / "broken"):
                if touched(path) < before:
                    erase(path)
            for path in _children(self._root / "incoming"):
                with self._builds().attempt(path.name.partition(".")[0]) as free:
                    if free and touched(path) < before:
                        erase(path)

    def _object(self, digest: str) -> Path:
        return self._root / "objects" / digest

    def _foreign(self, digest: str, files: Sequence[File]) -> list[str]:
        return sorted(set(paths(self._object(digest))) - {file.path for file in files})

    def _set_aside(self, digest: str) -> None:
        """Keep a damaged content, so that somebody may look into it; of one content only the last."""
        for old in (self._root / "broken").glob(f"{digest}.*"):
            erase(old)
        os.utime(self._object(digest))  # `sweep` counts from now
        self._object(digest).rename(self._aside("broken", digest))
        _sync(self._object(digest).parent)
        self._hashed.forget(digest)

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
                os.fsync(file.fileno())
            yield fresh
        finally:
            with suppress(OSError):
                fresh.unlink()

    def _copy(self, out: Path, brought: Path) -> None:
        """Across disks: a copy, on the disk when it is done, nothing where it fails."""
        try:
            shutil.copytree(out, brought, copy_function=_copy_file)
        except shutil.Error as error:
            shutil.rmtree(brought, ignore_errors=True)
            raise OSError(errno.EIO, str(error.args[0][0][2])) from error
        except BaseException:
            shutil.rmtree(brought, ignore_errors=True)
            raise


class Remote:
    """What fsspec reaches: an object store, as a rule. Artifacts are downloaded into scratch to be used."""

    def __init__(self, url: str, scratch: Path) -> None:
        self.where = _shown(url)
        self.locks: Path | None = None
        self._secret = urlsplit(url).netloc.rpartition("@")[0]
        self._scratch = scratch
        with self._told("opened"):
            from fsspec.core import url_to_fs

            fs, root = url_to_fs(url)
        self._fs: Any = fs
        self._root: str = root.rstrip("/")

    def read(self, name: str) -> bytes | None:
        with self._told("read"):
            try:
                data: bytes = self._fs.cat_file(self._at(name))
            except FileNotFoundError:
                return None
        return data

    def read_all(self, folder: str) -> Mapping[str, bytes]:
        found: dict[str, bytes] = {}
        with self._told("read"):
            names = [name for name in self._below(folder) if name.endswith(".json")]
            read = self._fs.cat([self._at(name) for name in names], on_error="return") if names else {}
            by_end = {self._end(path): data for path, data in read.items()}
            for name in names:
                data = by_end.get(name)
                if isinstance(data, bytes):
                    found[name] = data
                elif isinstance(data, BaseException) and not isinstance(data, (FileNotFoundError, KeyError)):
                    raise data
        return found

    def write(self, name: str, data: bytes) -> None:
        with self._told("written"):
            self._put(name, lambda at: self._fs.pipe_file(at, data))

    def create(self, name: str, data: bytes) -> bool:
        with self._told("written"):
            try:
                self._put(name, lambda at: self._fs.pipe_file(at, data, mode="create"))
            except FileExistsError:
                return False
        return True

    def remove(self, name: str) -> None:
        with self._told("written"), suppress(FileNotFoundError):
            self._fs.rm_file(self._at(name))

    def has(self, digest: str) -> bool:
        return True

    def bring(self, key: str, digest: str, files: Sequence[File], out: Path) -> Path:
        with self._told("written"):
            for file in files:
                # Over whatever is there: the same content, or a damaged one.
                source = str(out / file.path)
                self._put(f"objects/{digest}/{file.path}", partial(self._fs.put_file, source))
        return out

    def settle(self, digest: str, files: Sequence[File], brought: Path, marks: Mapping[str, Mark]) -> None:
        if self.fault(digest, files):  # collected between the upload and this lock
            self.bring("", digest, files, brought)
            if why := self.fault(digest, files):
                raise StoreError(
                    f"What was uploaded to {self.where} is not there: {why}. Try again; if it stays so, "
                    "look at the store's own log."
                )

    def fault(self, digest: str, files: Sequence[File]) -> str:
        with self._told("read"):
            there = self._below(f"objects/{digest}")
        for file in files:
            found = there.get(f"objects/{digest}/{file.path}")
            if found is None:
                return f"{file.path} is missing from {self.where}"
            if found.get("size") not in (None, file.size):
                return f"{file.path} has {found['size']} bytes instead of {file.size}"
        return ""

    def folder(self, digest: str, files: Sequence[File]) -> Path:
        place = self._copy(digest)
        scratch = str(self._scratch)
        with Locks(self._scratch / "locks").hold(f"download-{digest}"):
            with told("read", scratch):
                if place.is_dir() and set(paths(place)) == {f.path for f in files}:
                    if damage(place, files) == ("", ""):
                        os.utime(place)  # in use: `sweep` goes by it
                        return place
                erase(place)  # the copy went bad, which says nothing of the store
            fresh = self._scratch / "incoming" / f"{digest}.{os.urandom(6).hex()}"
            try:
                with told("written", scratch):
                    fresh.mkdir(parents=True)
                    place.parent.mkdir(parents=True, exist_ok=True)
                for file in files:
                    self._download(digest, file, fresh)
                with told("written", scratch):
                    _sync_folders(fresh)
                    fresh.rename(place)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
        return place

    def condemn(self, digest: str, files: Sequence[File]) -> bool:
        self.retire(digest)
        return True

    def retire(self, digest: str) -> Path | None:
        with self._told("written"):
            for name in self._below(f"objects/{digest}"):
                with suppress(FileNotFoundError):
                    self._fs.rm_file(self._at(name))
            with suppress(FileNotFoundError, NotImplementedError, OSError):
                self._fs.rmdir(self._at(f"objects/{digest}"))
        return self._copy(digest)

    def contents(self) -> Mapping[str, datetime]:
        found: dict[str, datetime] = {}
        with self._told("read"):
            for name, info in self._below("objects").items():
                digest = name.split("/")[1]
                put = _moment(info) or datetime.now(UTC)  # where nothing is known, it is new
                found[digest] = max(put, found.get(digest, put))
        return found

    def sweep(self, before: datetime) -> None:
        with told("written", str(self._scratch)):
            for folder in ("incoming", "objects"):
                for path in _children(self._scratch / folder):
                    name = f"download-{path.name.partition('.')[0]}"
                    with Locks(self._scratch / "locks").attempt(name) as free:
                        if free and touched(path) < before:
                            erase(path)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _copy(self, digest: str) -> Path:
        return self._scratch / "objects" / digest

    def _end(self, path: str) -> str:
        """The name of a path as the backend spells it, which may have lost or got a leading slash."""
        root = self._fs._strip_protocol(self._root).strip("/")
        return str(path).strip("/").removeprefix(root).strip("/")

    def _below(self, folder: str) -> dict[str, Mapping[str, Any]]:
        """The files below a folder with what the backend says of each, by name."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.find(self._at(folder), detail=True)
        except FileNotFoundError:
            return {}
        return {self._end(path): info for path, info in found.items() if info.get("type") != "directory"}

    def _put(self, name: str, put: Callable[[str], None]) -> None:
        """Object stores have no folders; where a backend has, they are made when it misses one."""
        try:
            put(self._at(name))
        except FileNotFoundError:
            self._fs.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)
            put(self._at(name))

    def _download(self, digest: str, file: File, into: Path) -> None:
        target = into / file.path
        what = ""
        for _ in range(DOWNLOADS):
            with told("written", str(self._scratch)):
                target.parent.mkdir(parents=True, exist_ok=True)
            with self._told("read"):
                try:
                    self._fs.get_file(self._at(f"objects/{digest}/{file.path}"), str(target))
                except FileNotFoundError:
                    raise Damaged(file.path, f"is missing from {self.where}") from None
            with told("written", str(self._scratch)):
                _, what = damage(into, [file])
                if not what:
                    target.chmod(READ_ONLY)
                    return
                target.unlink()
        raise Damaged(file.path, what)

    @contextmanager
    def _told(self, verb: str) -> Iterator[None]:
        """Whatever the backend raises, as a StoreError without the password of the URL."""
        try:
            yield
        except (StoreError, Damaged):
            raise
        except Exception as error:  # noqa: BLE001 - each backend has errors of its own
            said = (str(error) or type(error).__name__).strip().rstrip(".")
            said = said.replace(self._secret, "***") if self._secret else said
            raise StoreError(
                f"The artifact store {self.where} cannot be {verb}: {said}. "
                "Check the address, the network and the credentials, then try again."
            ) from None


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


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _copy_file(source: str, target: str) -> str:
    shutil.copyfile(source, target)
    with Path(target).open("rb") as file:
        os.fsync(file.fileno())
    Path(target).chmod(READ_ONLY)
    return target


def _sync(folder: Path) -> None:
    """A rename is on the disk only when its folder is. Some shared disks cannot, and do it at once."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(opened)


def _sync_folders(top: Path) -> None:
    for folder in (*(p for p in top.rglob("*") if p.is_dir()), top):
        _sync(folder)


def _moment(info: Mapping[str, Any]) -> datetime | None:
    """When a file was written, in whichever way its backend says it."""
    for name in _TIMES:
        match info.get(name):
            case datetime() as moment:
                return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            case int() | float() as seconds:
                return datetime.fromtimestamp(seconds, UTC)
            case str() as text:
                with suppress(ValueError):
                    moment = datetime.fromisoformat(text)
                    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None


def _shown(url: str) -> str:
    """A URL without its user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
