"""Takes files out of a zip or tar archive, without trusting it.

Called by the sources. Nothing is written outside the folder that is given: an archive with a name that
leads out of it is refused whole, links and devices are never followed or made, and what comes out is
counted as it is read, since the sizes in the headers may lie. A folder that exists afterwards is whole.
"""

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO

from gamma_orch.core.diagnostic import did_you_mean
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.passes.brought import CHUNK, megabytes

_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, LZMAError, RuntimeError)
# A member: its name, and how to read it; None where it is no regular file.
_Member = tuple[str, Callable[[], IO[bytes] | None] | None]


def unpack(archive: Path, wanted: str, into: Path, most: int, *, skip: int = 0) -> dict[str, Path]:
    """Write the file `wanted`, or all files under the folder `wanted`, below `into`; "" means all of them.

    `skip` leading folders of each name are left out (an sdist has one). Returns the files by their name
    below `wanted`; a single file by its own. `most` bytes are written at most. Raises Permanent.
    """
    wanted = wanted.strip("/")
    if not into.is_dir():
        half = into.with_name(into.name + ".half")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        try:
            _fill(archive, wanted, half, most, skip)
        except _BROKEN as error:
            raise Permanent(
                f"{archive.name} cannot be unpacked, it is broken: {error}. Fetch it anew, or name another."
            ) from error
        half.rename(into)
    return {path.relative_to(into).as_posix(): path for path in sorted(into.rglob("*")) if path.is_file()}


def _fill(archive: Path, wanted: str, folder: Path, most: int, skip: int) -> None:
    names: list[str] = []
    taken = 0
    for full, read in _members(archive):
        path = _safe(archive, full)
        name = "/".join(path.parts[skip:])
        if name != wanted and not name.startswith(wanted + "/") and wanted:
            names.append(name)
            continue
        if read is None or (source := read()) is None:
            raise Permanent(
                f"{archive.name}: {full} is a link or a device, and only regular files are taken. "
                "Name the file that it points at."
            )
        inside = PurePosixPath(name).name if name == wanted else name[len(wanted) :].strip("/")
        target = folder / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        with source, target.open("wb") as file:
            while chunk := source.read(CHUNK):
                taken += len(chunk)
                if taken > most:
                    raise Permanent(
                        f"{archive.name}: what {wanted or 'it'} holds is larger than {megabytes(most)}. "
                        "Raise maxBytes if that is meant."
                    )
                file.write(chunk)
    if not any(folder.iterdir()):
        raise Permanent(f"{archive.name} has no {wanted}: {did_you_mean(wanted, names) or 'look inside it'}")


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for item in opened.infolist():
                # The upper half of the attributes is the Unix mode, where there is one.
                link = (item.external_attr >> 16) & 0o170000 == 0o120000
                if not item.is_dir():
                    yield item.filename, None if link else lambda item=item: opened.open(item)  # type: ignore[misc]
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tape:
            for entry in tape:
                if not entry.isdir():
                    yield (
                        entry.name,
                        (lambda entry=entry: tape.extractfile(entry)) if entry.isreg() else None,  # type: ignore[misc]
                    )
    else:
        raise Permanent(
            f"{archive.name} is neither a zip nor a tar archive, so nothing can be taken out of it."
        )


def _safe(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise Permanent(
            f"{archive.name} has a member named {name!r}, which leads out of the archive: "
            "it is refused whole."
        )
    return path
