"""Says what is waited for, once it takes longer than a second. Fast work stays silent."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gamma_orch.cli.report import say

SECONDS = 1.0


@contextmanager
def waiting(for_what: str) -> Iterator[None]:
    timer = threading.Timer(SECONDS, say, [f"{for_what} ..."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
