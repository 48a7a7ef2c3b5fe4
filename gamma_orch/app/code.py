"""Which code a process of ours runs, so that a changed one is seen: workers are then replaced one by one."""

import hashlib
from functools import cache
from pathlib import Path


@cache
def digest(*folders: str) -> str:
    """Of the files of these folders of the package, 12 hex digits. Default: the app and the runtimes."""
    root = Path(__file__).parents[1]
    found = hashlib.sha256()
    for folder in folders or ("app", "runtimes"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.suffix in (".py", ".html", ".css", ".js"):
                found.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:12]
