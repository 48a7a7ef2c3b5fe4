"""The artifact store: what was built, by the key of its recipe and the digest of its content.

The builder of models calls it to find, build and read; `gamma models` to list and collect. What always holds:

- An artifact is seen whole or not at all, whenever a process dies: its files are in place and on the disk
  before the manifest that names them is.
- One process builds a key; the others wait for it and get what it built. The first commit of a key stays.
- Nothing is served unverified: `folder` hashes each file each time. What is found damaged is out of use from
  that moment, for every key with this content, and is built anew.
- What an environment points at is never collected, nor what is being built or read by a build.

    build --> out/<key> --take--> objects/<digest>, then keys/<key>.json --> find, folder
"""

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from gamma_orch.core.canonical import Json
from gamma_orch.store.artifact_files import File, digest_of, take
from gamma_orch.store.artifact_local import Local
from gamma_orch.store.artifact_locks import Locks
from gamma_orch.store.artifact_manifest import Artifact, decoded, encoded, parsed, written
from gamma_orch.store.artifact_places import Damaged, Place, erase, told, touched
from gamma_orch.store.artifact_remote import Remote
from gamma_orch.store.errors import StoreError
from gamma_orch.store.lease import rfc3339

__all__ = ["Artifact", "Artifacts", "Building", "Corrupt", "File"]

KEY = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # of an environment, as a folder
_READS = 3  # of one that others build anew while it is read
_COMMITS = "commits"  # the lock of all that changes which artifacts there are


class Corrupt(StoreError):
    """The files of an artifact are not what was built. It counts as not there from now on."""

    def __init__(self, key: str, file: str, what: str) -> None:
        super().__init__(
            f"The artifact {key[:12]} is damaged: {file + ' ' if file else ''}{what}. "
            "It is not used any more. Apply again: it is built anew."
        )
        self.key, self.file, self.what = key, file, what


class Artifacts:
    """The store at a URL. Safe to use from several threads and processes at once."""

    def __init__(self, url: str, scratch: Path) -> None:
        """`url`: a folder, or what fsspec understands (`s3://bucket/path`, `memory://x`). `scratch`: a folder
        of this machine for locks, builds and downloads. Nothing is opened or made yet."""
        if not url:
            raise StoreError("The artifact store has no address. Name a folder or a URL in environment.yaml.")
        self._scratch = scratch.absolute()
        plain = re.sub(r"^(file|local)://", "", url)
        self._place: Place = (
            Remote(url, self._scratch)
            if "://" in plain or "::" in plain
            else Local(Path(plain).expanduser().absolute(), self._scratch, lambda: self._locks)
        )
        self.url = self._place.where  # for people: no password in it
        own = [self._place.locks] if self._place.locks else []
        self._locks = Locks(self._scratch / "locks", *own)

    # --- read -------------------------------------------------------------------------------------

    def find(self, key: str) -> Artifact | None:
        """The artifact of a key: one small read, and none of its files. None where it is not there, or its
        manifest is cut off or malformed. Raises StoreError where the store cannot be read."""
        data = self._place.read(_manifest(key)) if KEY.fullmatch(key) else None
        found = decoded(key, data) if data is not None else None
        return found if found is not None and self._place.has(found.digest) else None

    def all(self) -> list[Artifact]:
        """All artifacts, the oldest first. Raises StoreError."""
        found = (decoded(_stem(name), data) for name, data in self._place.read_all("keys").items())
        there = [artifact for artifact in found if artifact and self._place.has(artifact.digest)]
        return sorted(there, key=lambda artifact: (artifact.built_at, artifact.key))

    def fault(self, artifact: Artifact) -> str:
        """What is wrong with its files, empty where nothing is: one is missing, of another size, or changed.
        A file that looks as it did when it was hashed last is not hashed again. Of a remote store only
        existence and sizes are asked. Changes nothing. Raises StoreError where it cannot be read."""
        return self._place.fault(artifact.digest, artifact.files)

    def folder(self, artifact: Artifact) -> Path:
        """A folder of this machine with all its files and no others, every byte hashed now; not to be written
        to. Raises Corrupt, and the artifact is not there any more; StoreError where it cannot be read."""
        left = _READS
        while True:
            left -= 1
            try:
                return self._place.folder(artifact.digest, artifact.files)
            except Damaged as error:
                if self._condemned(artifact) or not left:
                    raise Corrupt(artifact.key, error.file, error.what) from None

    def _condemned(self, artifact: Artifact) -> bool:
        """Take a damaged content, with all keys that have it, out of use. False where another process has
        built it anew in the meantime."""
        # A store that cannot be written to keeps it; that it is damaged is told all the same.
        with suppress(StoreError), self._locks.hold(_COMMITS):
            if self._place.whole(artifact.digest, artifact.files):
                return False
            for name, data in self._place.read_all("keys").items():
                found = decoded(_stem(name), data)
                if found and found.digest == artifact.digest:
                    self._place.remove(name)
            self._place.set_aside(artifact.digest)
        return True

    # --- build ------------------------------------------------------------------------------------

    @contextmanager
    def building(
        self,
        key: str,
        tell: Callable[[str], None] = lambda text: None,
        reads: Collection[str] = (),
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator["Building"]:
        """The right to build a key, alone among all processes of this machine. If another has it, `tell`
        hears so once, and this waits; `stopped` is asked meanwhile. `reads`: the keys or digests that the
        build reads, which are not collected as long as it lasts. Raises StoreError."""
        if not KEY.fullmatch(key):
            raise StoreError(f"{key!r} is no key of an artifact: a key is 64 hexadecimal digits.")
        with ExitStack() as stack:
            stack.enter_context(
                self._locks.hold(key, lambda: tell("another process builds this; waiting"), stopped)
            )
            # A name of its own: the worker of a killed build may live on for a while, and write to its own.
            for left in (self._scratch / "out").glob(f"{key}.*"):
                shutil.rmtree(left, ignore_errors=True)
            out = self._scratch / "out" / f"{key}.{os.urandom(4).hex()}"
            work = self._scratch / "work" / key
            found = self.find(key)
            with told("prepared", str(self._scratch)):
                if found is not None:
                    erase(work)
                out.mkdir(parents=True)
                work.mkdir(parents=True, exist_ok=True)
                stack.enter_context(self._locks.reading(key, reads))
            stack.callback(shutil.rmtree, out, ignore_errors=True)
            if found is not None:
                stack.callback(shutil.rmtree, work, ignore_errors=True)
            yield Building(self, key, found, out, work)

    def commit(self, made: Artifact, out: Path, marks: Mapping[str, list[int]]) -> Artifact:
        """Put what was built where all see it; called by `Building.commit`, under the key's lock. The
        artifact that the key has now: another one where another machine was faster. Raises StoreError."""
        body = encoded(made)
        brought = self._place.bring(made.key, made.digest, made.files, out)
        with self._locks.hold(_COMMITS):
            self._place.settle(made.digest, made.files, brought, marks)
            if not self._place.create(_manifest(made.key), body):
                if (first := self.find(made.key)) is not None:
                    return first
                self._place.write(_manifest(made.key), body)  # over one that is malformed or has no files
        return made

    # --- point ------------------------------------------------------------------------------------

    def point(self, environment: str, address: str, body: Json) -> None:
        """Let an environment point somewhere, at once and durably. `body` names artifacts by their keys or
        digests, anywhere in it. Raises StoreError."""
        name = _pointer(environment, address)
        data = written(body, f"The pointer of {address}")
        with self._locks.hold(_COMMITS):
            self._place.write(name, data)

    def pointer(self, environment: str, address: str) -> Json | None:
        """None where there is none, or it is malformed. Raises StoreError where it cannot be read."""
        data = self._place.read(_pointer(environment, address))
        return parsed(data) if data is not None else None

    def pointers(self) -> dict[tuple[str, str], Json]:
        """All pointers by environment and address, but for malformed ones. Raises StoreError."""
        return {at: body for at, body in self._pointers() if body is not None}

    def unpoint(self, environment: str, address: str) -> None:
        """Absence is success. Raises StoreError."""
        self._place.remove(_pointer(environment, address))

    def _pointers(self) -> Iterator[tuple[tuple[str, str], Json | None]]:
        for name, data in sorted(self._place.read_all("pointers").items()):
            _, environment, file = name.split("/", 2)
            yield (environment, file.removesuffix(".json").replace("__", "/", 1)), parsed(data)

    # --- collect ----------------------------------------------------------------------------------

    def collect(
        self,
        roots: Collection[str],
        now: datetime,
        older_than: timedelta,
        dry: bool = False,
        keep_inputs: bool = True,
    ) -> list[Artifact]:
        """Remove the artifacts that nothing needs, and return them; `dry` only tells.

        Kept are: those in `roots` (keys or digests), those that any pointer names, those built within
        `older_than`, those that a build makes or reads now, and, with `keep_inputs`, all that these were made
        from. Also erases what killed builds and damaged artifacts left behind, where it is as old.
        Raises StoreError, also where a pointer is malformed: what it holds cannot be known.
        """
        before = now - older_than
        gone: list[Artifact] = []
        erasable: list[Path | None] = []
        with self._locks.hold(_COMMITS):
            there = self.all()
            needed = _needed(there, {*roots, *self._pointed(), *self._locks.read_now()}, before, keep_inputs)
            for artifact in there:
                if artifact.key in needed:
                    continue
                with self._locks.attempt(artifact.key) as free:
                    if free:
                        gone.append(artifact)
                        if not dry:
                            self._place.remove(_manifest(artifact.key))
            if not dry:
                erasable = self._retire({artifact.digest for artifact in gone}, before)
                self._sweep(before)
        with told("cleaned", self._place.where):
            for path in erasable:
                if path is not None:
                    erase(path)
        return gone

    def _pointed(self) -> set[str]:
        named: set[str] = set()
        for (environment, address), body in self._pointers():
            if body is None:
                raise StoreError(
                    f"The pointer of {address} in {environment} is malformed, so nothing can be collected: "
                    f"what it points at is unknown. Apply {environment}, which writes it anew."
                )
            named |= set(_texts(body))
        return named

    def _retire(self, lost: Collection[str], before: datetime) -> list[Path | None]:
        """Take away contents that no key has any more: these at once, others where they are old."""
        used = {artifact.digest for artifact in self.all()}
        left = {digest for digest, put in self._place.contents().items() if put < before}
        return [self._place.retire(digest) for digest in sorted({*lost, *left} - used)]

    def _sweep(self, before: datetime) -> None:
        self._place.sweep(before)
        with told("cleaned", str(self._scratch)):
            for folder in ("out", "work"):
                for path in sorted((self._scratch / folder).glob("*")):
                    with self._locks.attempt(path.name.partition(".")[0]) as free:
                        if free and touched(path) < before:
                            erase(path)


@dataclass(slots=True)
class Building:
    """A build in progress, or what another process has built meanwhile."""

    store: Artifacts
    key: str
    found: Artifact | None  # then there is nothing to build
    out: Path  # empty; what lies here becomes the artifact
    work: Path  # stays when the build is killed or fails; gone after the commit

    def commit(self, recipe: Json, facts: Json, built_for: str, seconds: float, now: datetime) -> Artifact:
        """Make what lies in `out` the artifact of this key: whole, read-only and durable when it returns.

        Raises StoreError where it holds what may not be kept (links, pickles, names that lead out), where
        recipe or facts are not JSON, or where it cannot be written; nothing is visible then, `work` stays.
        """
        with told("written", str(self.out)):
            files, marks = take(self.out)
        made = Artifact(
            key=self.key,
            digest=digest_of(files),
            files=files,
            recipe=parsed(written(recipe, "The recipe")),
            facts=parsed(written(facts, "What was measured")),
            built_at=rfc3339(now),
            built_for=built_for,
            seconds=seconds,
        )
        self.found = self.store.commit(made, self.out, marks)
        with suppress(OSError):
            erase(self.work)
        return self.found


def _needed(there: Iterable[Artifact], named: set[str], before: datetime, keep_inputs: bool) -> set[str]:
    """The keys of the artifacts that stay."""
    keys: dict[str, list[Artifact]] = {}
    for artifact in there:
        for name in (artifact.key, artifact.digest, f"digest:{artifact.digest}"):
            keys.setdefault(name, []).append(artifact)
    since = rfc3339(before)
    stack = [artifact for name in named for artifact in keys.get(name, ())]
    stack += [artifact for artifact in there if artifact.built_at >= since]
    needed: set[str] = set()
    while stack:
        artifact = stack.pop()
        if artifact.key in needed:
            continue
        needed.add(artifact.key)
        if keep_inputs:
            stack += [source for name in artifact.inputs for source in keys.get(name, ())]
    return needed


def _texts(body: Json) -> Iterator[str]:
    """Every text in a JSON value."""
    match body:
        case str():
            yield body
        case dict():
            for key, value in body.items():
                yield key
                yield from _texts(value)
        case list():
            for value in body:
                yield from _texts(value)


def _manifest(key: str) -> str:
    return f"keys/{key}.json"


def _stem(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".json")


def _pointer(environment: str, address: str) -> str:
    file = address.replace("/", "__", 1)
    if not _NAME.fullmatch(environment) or not _NAME.fullmatch(file):
        raise StoreError(f"No pointer can be called {address!r} in {environment!r}: write Kind/name.")
    return f"pointers/{environment}/{file}.json"
