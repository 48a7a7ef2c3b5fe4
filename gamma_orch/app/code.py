"""Which code a worker runs, so that a changed one is seen: workers are then replaced one by one."""

import hashlib
from functools import cache
from pathlib import Path


@cache
def digest() -> str:
    """Of the files of the app and the runtimes, 12 hex digits."""
    root = Path(__file__).parents[1]
    found = hashlib.sha256()
    for folder in ("app", "runtimes"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.suffix in (".py", ".html", ".css", ".js"):
                found.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:12]
