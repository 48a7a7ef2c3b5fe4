"""The files of an artifact: what may be one, what each contains, and whether it still does.

Called by `artifacts` and the two places. Files are hashed as streams, never read whole, never executed, and
links are never followed. A file that can run code when it is loaded (a pickle, or a zip that has one, as
`torch.save` makes) is refused by what it contains, whatever its name.
"""

import hashlib
import json
import mmap
import os
import pickletools
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from gamma_orch.core.canonical import Json, canonical, digest
from gamma_orch.store.errors import StoreError

READ_ONLY = 0o444
_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")  # older ones begin like any text
_OPCODES = 8  # so many in a row are a pickle: weights that begin with its two bytes do not go on like one
_MISSING = (FileNotFoundError, NotADirectoryError)

# What the system says of a file without reading it: device, inode, size, and the nanoseconds of its last
# writing and last change. The last cannot be put back by hand.
Mark = list[int]


@dataclass(frozen=True, slots=True)
class File:
    path: str  # posix, relative to the artifact
    size: int  # bytes
    sha256: str  # of its content, 64 hex digits

    def encoded(self) -> Json:
        return [self.path, self.size, self.sha256]


def digest_of(files: Sequence[File]) -> str:
    """The identity of a content: its paths, sizes and hashes, whatever the order they come in."""
    return digest([file.encoded() for file in sorted(files, key=lambda file: file.path)])


def safe(path: str) -> bool:
    """Whether a path stays inside the folder that it is relative to, on every system."""
    plain = PurePosixPath(path)
    return (
        bool(path)
        and str(plain) == path != "."
        and not plain.is_absolute()
        and ".." not in plain.parts
        and not any(sign in path for sign in "\\\0\n")
    )


def take(out: Path) -> tuple[tuple[File, ...], dict[str, Mark]]:
    """What was built in a folder, sorted by path, and each file's mark. Every file is on the disk and
    read-only when it returns; folders without files are gone.

    Raises StoreError for what cannot be part of an artifact, OSError where the disk does not play along.
    """
    found: list[File] = []
    marks: dict[str, Mark] = {}
    for path in paths(out):
        place = out / path
        if not safe(path) or not _written(path):
            raise StoreError(f"The file name {path!r} cannot be kept. Let the pass write plain names.")
        if not stat.S_ISREG(place.lstat().st_mode):
            raise StoreError(
                f"{path} is not a regular file, and an artifact has nothing else: a link may lead anywhere. "
                "Let the pass write the content itself."
            )
        if why := _refused(place):
            raise StoreError(
                f"{path} {why}, which can run code when it is loaded: it is never kept. "
                "Write safetensors, ONNX, OpenVINO IR or JSON instead."
            )
        place.chmod(READ_ONLY)
        with place.open("rb") as file:
            marks[path] = _mark(place)
            found.append(File(path, marks[path][2], sha256(file)))
            os.fsync(file.fileno())
    for folder in sorted((p for p in out.rglob("*") if p.is_dir()), reverse=True):
        folder.chmod(0o755)  # or an ordinary user could never remove it
        if not any(folder.iterdir()):
            folder.rmdir()
    return tuple(sorted(found, key=lambda file: file.path)), marks


def sha256(file: BufferedReader) -> str:
    """Of an open file's bytes from here on: 64 hex digits."""
    return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(path: Path) -> str:
    """Of a whole file: 64 hex digits."""
    with path.open("rb") as file:
        return sha256(file)


def paths(folder: Path) -> Iterator[str]:
    """Everything under a folder that is not a folder itself. None where it is not there."""
    try:
        with os.scandir(folder) as entries:
            inside = list(entries)
    except FileNotFoundError:
        return
    for entry in inside:
        if entry.is_dir(follow_symlinks=False):
            yield from (f"{entry.name}/{below}" for below in paths(folder / entry.name))
        else:
            yield entry.name


def damage(folder: Path, files: Sequence[File]) -> tuple[str, str]:
    """The first file that is not what it was, and what is wrong with it; two empty texts where all are well.
    Reads every byte. Raises OSError where a file is there and cannot be read."""
    for file in files:
        if why := _difference(folder / file.path, file):
            return file.path, why
    return "", ""


class Hashed:
    """What each file looked like when it was last hashed and found well: notes in a local folder, so that
    looking at an artifact again costs a stat for each file. A lost or damaged note costs one hashing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def damage(self, folder: Path, digest: str, files: Sequence[File]) -> tuple[str, str]:
        """As `damage`, but a file that looks as it did when it was hashed last is not hashed."""
        known = self._known(digest)
        seen: dict[str, Mark] = {}
        for file in files:
            try:
                now = _mark(folder / file.path)
            except _MISSING:
                return file.path, "is missing"
            if now != known.get(file.path) and (why := _difference(folder / file.path, file)):
                return file.path, why
            seen[file.path] = now
        if seen != known:
            self.remember(digest, seen)
        return "", ""

    def remember(self, digest: str, marks: Mapping[str, Mark]) -> None:
        """Note what was hashed just now. That it cannot be noted is no trouble."""
        note = self._folder / f"{digest}.json"
        with suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            fresh = note.with_suffix(f".{os.getpid()}-{os.urandom(4).hex()}")
            fresh.write_text(canonical(dict(marks)), encoding="utf-8")
            fresh.replace(note)

    def forget(self, digest: str) -> None:
        with suppress(OSError):
            (self._folder / f"{digest}.json").unlink()

    def _known(self, digest: str) -> Mapping[str, Json]:
        try:
            known = json.loads((self._folder / f"{digest}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def _difference(place: Path, file: File) -> str:
    try:
        found = place.lstat()
        if not stat.S_ISREG(found.st_mode):
            return "is not a regular file any more"
        if found.st_size != file.size:
            return f"has {found.st_size} bytes instead of {file.size}"
        with place.open("rb") as opened:
            now = sha256(opened)
    except _MISSING:
        return "is missing"
    if now != file.sha256:
        return f"has other content than was built: sha256 {now[:12]} instead of {file.sha256[:12]}"
    return ""


def _mark(place: Path) -> Mark:
    found = place.lstat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _written(path: str) -> bool:
    """Whether the name is text: on Linux a file name may be any bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refused(place: Path) -> str:
    with place.open("rb") as file:
        head = file.read(4)
        if head[:1] == b"\x80" and head[1:2] in _PROTOCOLS and _is_pickle(file):
            return "is a pickle"
    if head == b"PK\x03\x04":
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(place) as archive:
            inside = [name for name in archive.namelist() if name.endswith((".pkl", ".pickle"))]
            if inside:
                return f"is an archive with the pickle {inside[0]}"
    return ""


def _is_pickle(file: BinaryIO) -> bool:
    """Whether a file goes on as a pickle does. Nothing is executed, and what an argument claims to be long is
    not believed: a map is never read past its end."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            for count, (opcode, _, _) in enumerate(pickletools.genops(data), 1):  # type: ignore[arg-type]
                if count >= _OPCODES or opcode.name == "STOP":
                    return True
        except (ValueError, IndexError):
            return False
    return False
