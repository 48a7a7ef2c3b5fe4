"""The door to `.gamma/cache/`: documents parsed before, by the sha256 of their file's bytes.

One JSON file. Its first line names the Gamma version, the loader's format and the digest of the
rest; whatever does not match, cannot be read or is not there counts as an empty cache. A cache is
never needed and never trusted beyond that line; deleting it only costs time.
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
        content = Path(folder, _NAME).read_bytes()
    except OSError:
        return {}
    head, _, body = content.partition(b"\n")
    if head != _head(version, body):
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
            with os.fdopen(descriptor, "wb") as file:
                file.write(_head(version, body) + b"\n" + body)
            Path(temporary).replace(Path(folder, _NAME))
        except BaseException:
            Path(temporary).unlink()
            raise
    except OSError:
        return


def _head(version: str, body: bytes) -> bytes:
    return f"gamma {version} documents {FORMAT} {hashlib.sha256(body).hexdigest()}".encode()
