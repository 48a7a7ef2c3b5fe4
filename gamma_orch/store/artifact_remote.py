"""Artifacts in whatever fsspec reaches by URL: an object store, as a rule.

To be used they are downloaded into the scratch folder, once, and hashed there each time. This relies on a put
being whole or not at all, which object stores give. Where a store has no conditional put, the first of two
machines that commit one key at the same moment may be replaced by the second.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from gamma_orch.store.artifact_files import READ_ONLY, File, Mark, damage, paths
from gamma_orch.store.artifact_locks import Locks
from gamma_orch.store.artifact_places import Damaged, children, erase, sync_folders, told, touched
from gamma_orch.store.errors import StoreError

DOWNLOADS = 2  # of a file that does not arrive as it should; after them the store's copy is the damaged one
_LOGIN = r"[^/]*"  # user and password, between // and the last @ of the host
# What backends call the moment at which a file was written.
_TIMES = ("LastModified", "mtime", "updated", "modified", "created")


class Remote:
    """What fsspec reaches: an object store, as a rule. Artifacts are downloaded into scratch to be used."""

    def __init__(self, url: str, scratch: Path) -> None:
        self.where = re.sub(rf"//{_LOGIN}@", "//", url).partition("?")[0]
        self.locks: Path | None = None
        logins = re.findall(rf"//({_LOGIN})@", url)
        self._secrets = [text for login in logins for text in (login, login.partition(":")[2]) if text]
        self._scratch = scratch
        self._downloads = Locks(scratch / "locks")
        self._url = url

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
        with self._downloads.hold(f"download-{digest}"):
            with told("read", scratch):
                if set(paths(place)) == {f.path for f in files} and damage(place, files) == ("", ""):
                    place.mkdir(parents=True, exist_ok=True)  # of an artifact without files
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
                    sync_folders(fresh)
                    fresh.rename(place)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
        return place

    def whole(self, digest: str, files: Sequence[File]) -> bool:
        try:
            self.folder(digest, files)
        except Damaged:
            return False
        return True

    def set_aside(self, digest: str) -> None:
        with self._told("written"):
            for name in self._below(f"objects/{digest}"):
                with suppress(FileNotFoundError):
                    self._fs.rm_file(self._at(name))

    def retire(self, digest: str) -> Path | None:
        self.set_aside(digest)
        gone = self._scratch / "incoming" / f"gone.{os.urandom(6).hex()}"
        with self._downloads.hold(f"download-{digest}"), told("cleaned", str(self._scratch)):
            if not self._copy(digest).is_dir():
                return None
            gone.parent.mkdir(parents=True, exist_ok=True)
            self._copy(digest).rename(gone)
        return gone

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
                for path in children(self._scratch / folder):
                    name = f"download-{path.name.partition('.')[0]}"
                    with self._downloads.attempt(name) as free:
                        if free and touched(path) < before:
                            erase(path)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        with self._told("opened"):
            from fsspec.core import url_to_fs

            fs, root = url_to_fs(self._url)
        return fs, root.rstrip("/")

    @property
    def _fs(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1]

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
            for secret in self._secrets:
                said = said.replace(secret, "***")
            raise StoreError(
                f"The artifact store {self.where} cannot be {verb}: {said}. "
                "Check the address, the network and the credentials, then try again."
            ) from None


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
