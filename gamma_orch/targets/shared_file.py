"""A file that a server of somebody else's reads, in a folder of theirs."""

import os
from pathlib import Path


def put(path: Path, text: str | None) -> None:
    """Whole or not at all; None: it is there no more. Whoever runs the server must be able to read it, so it
    has no mode of its own."""
    if text is None:
        path.unlink(missing_ok=True)
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
