"""A file that is there whole or not at all, for its owner's eyes alone."""

import os
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Raises OSError; then the file is as it was."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
