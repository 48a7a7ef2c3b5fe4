"""Folders for servers in tests: pytest's own are closed to the account under which a server runs.

In memory where the machine has room for it, because a PostgreSQL server waits for the disk a lot.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def open_folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="gamma-test-", dir=_in_memory()))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _in_memory() -> Path | None:
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 * 1024**3
    return memory if roomy else None
