"""Who builds what: one lock a key, held by the process that builds it and free again when that process dies.

Locks lie in the scratch folder, because out and work folders lie there; and in the store too where that is a
folder, so that two projects with one store build a key once. A builder may say which artifacts it reads, and
the garbage collection leaves those alone meanwhile. Lock files stay: removing one would part those that wait
on it from those that come later.
"""

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from gamma_orch.core.canonical import canonical
from gamma_orch.store.errors import StoreError

_POLL = 0.05  # seconds between two looks at a lock that another holds


class Locks:
    def __init__(self, *folders: Path) -> None:
        """`folders`: each lock is held in all of them, always in this order."""
        self._folders = folders

    @contextmanager
    def hold(
        self,
        name: str,
        waiting: Callable[[], None] = lambda: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[None]:
        """Wait for a lock, and hold it. `waiting` is called once if it is not free, `stopped` while waiting:
        where it answers true, or the lock cannot be made, this raises StoreError."""
        with ExitStack() as stack:
            if not self._take(stack, name, 0, stopped):
                waiting()
                if not self._take(stack, name, -1, stopped):
                    raise StoreError("Stopped while another process was building the same artifact.")
            yield

    @contextmanager
    def attempt(self, name: str) -> Iterator[bool]:
        """Hold a lock if it is free; says whether it is held."""
        with ExitStack() as stack:
            yield self._take(stack, name, 0, lambda: False)

    @contextmanager
    def reading(self, name: str, keys: Collection[str]) -> Iterator[None]:
        """Say what the holder of a lock reads, for as long as it does."""
        note = self._folders[-1] / f"{name}.reads"
        if not keys:
            yield
            return
        try:
            fresh = note.with_suffix(".fresh")
            fresh.write_text(canonical(sorted(keys)), encoding="utf-8")
            fresh.replace(note)
            yield
        finally:
            with suppress(OSError):
                note.unlink()

    def read_now(self) -> set[str]:
        """What the holders of locks read."""
        found: set[str] = set()
        for folder in self._folders:
            for note in folder.glob("*.reads"):
                with self.attempt(note.stem) as free:
                    if free:  # left behind by a killed process
                        with suppress(OSError):
                            note.unlink()
                        continue
                with suppress(OSError, ValueError):
                    found |= set(json.loads(note.read_text(encoding="utf-8")))
        return found

    def _take(self, stack: ExitStack, name: str, timeout: float, stopped: Callable[[], bool]) -> bool:
        from filelock import FileLock, Timeout

        with ExitStack() as taken:
            for folder in self._folders:
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    lock = FileLock(folder / f"{name}.lock")
                    taken.enter_context(
                        lock.acquire(timeout=timeout, poll_interval=_POLL, cancel_check=stopped)
                    )
                except Timeout:
                    return False
                except OSError as error:
                    raise StoreError(
                        f"The lock {folder / name}.lock cannot be made: {error.strerror or error}. "
                        "Check that this user may write there."
                    ) from error
            stack.enter_context(taken.pop_all())
        return True
