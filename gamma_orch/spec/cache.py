"""The door to `.gamma/cache/`: documents parsed before, by the sha256 of their file's bytes.

One JSON file. Its first line names the Gamma version, the loader's format, the file's own time of
change and the digest of the rest; whatever does not match, cannot be read or is not there counts as
an empty cache. The time is there because git sets it anew: a cache that somebody committed, whose
documents might be others than the YAML shows, is never believed. Deleting it only costs time.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gamma_orch.spec.load import FORMAT, Parsed

_NAME = "documents.json"


def read(folder: Path | str, version: str) -> dict[str, Parsed]:
    """What the cache knows; nothing if it was written by anything but this version."""
    try:
        with Path(folder, _NAME).open("rb") as file:
            head, _, body = file.read().partition(b"\n")
            changed = os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return {}
    if head != _head(version, changed, body):
        return {}
    try:
        known: dict[str, Parsed] = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return known


def write(
    folder: Path | str, version: str, before: Mapping[str, Parsed], parsed: Mapping[str, Parsed]
) -> None:
    """Keep what `load` parsed, if that is news. A folder that cannot be written is no error.

    What only other environments need (it is in `before` alone) is kept until it outgrows the rest.
    """
    if parsed.keys() <= before.keys():
        return
    others = {identity: entries for identity, entries in before.items() if identity not in parsed}
    kept = {**others, **parsed} if len(others) <= len(parsed) else parsed
    body = json.dumps(kept, ensure_ascii=False, separators=(",", ":"), check_circular=False).encode()
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=_NAME, dir=folder)
        try:
            changed = Path(temporary).stat().st_mtime_ns
            with os.fdopen(descriptor, "wb") as file:
                file.write(_head(version, changed, body) + b"\n" + body)
            os.utime(temporary, ns=(changed, changed))
            Path(temporary).replace(Path(folder, _NAME))
        except BaseException:
            Path(temporary).unlink()
            raise
    except OSError:
        return


def _head(version: str, changed: int, body: bytes) -> bytes:
    return f"gamma {version} documents {FORMAT} {changed} {hashlib.sha256(body).hexdigest()}".encode()
