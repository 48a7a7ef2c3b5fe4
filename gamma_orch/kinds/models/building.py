"""Makes derivations real: finds what was built before, builds the rest, inputs first. Synchronous; called in
a thread of its own by the providers.

A derivation whose artifact is in the store and whole costs one small read, and what it was made from is not
looked at. An artifact that turns out to be damaged when it is read counts as not there, and is built again.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent, Tell, Temporary
from gamma_orch.kinds.models.derivation import Derivation, Given, title
from gamma_orch.kinds.models.workers import Worker, missing_libraries
from gamma_orch.store.artifacts import Artifact, Artifacts, Building, Corrupt
from gamma_orch.store.errors import StoreError
from gamma_orch.targets import Targets

T = TypeVar("T")
REBUILDS = 3  # of one damaged artifact; more of them is a broken disk
LOCAL = ("fetch_data", "fetch_model")  # passes that may read the project's own files


@dataclass(slots=True)
class Builder:
    store: Artifacts
    environment: str
    root: Path
    worker: Worker
    tell: Tell
    given: Callable[[str], Artifact]  # the artifact of a digest that another resource has made
    local: Mapping[str, Json] = field(default_factory=dict)  # for LOCAL passes, no part of the key

    def artifact(self, wanted: Derivation) -> Artifact:
        """The artifact of a derivation, found or built. Raises Permanent or Temporary."""
        try:
            return self.store.find(wanted.key) or self._build(wanted)
        except StoreError as error:
            raise Temporary(str(error)) from error

    def folder(self, wanted: Derivation | Given) -> Path:
        """A verified local folder with what the derivation makes."""
        for _ in range(REBUILDS):
            artifact = self.given(wanted.digest) if isinstance(wanted, Given) else self.artifact(wanted)
            try:
                return self.store.folder(artifact)
            except Corrupt as error:
                if isinstance(wanted, Given):
                    raise Permanent(str(error)) from error
                self.tell(f"{title(wanted.op)}: {error}", None)
            except StoreError as error:
                raise Temporary(str(error)) from error
        raise Permanent("An artifact is damaged each time it is read, newly built too. Check the disk.")

    def _build(self, wanted: Derivation) -> Artifact:
        def tell(text: str, fraction: float | None = None) -> None:
            self.tell(f"{title(wanted.op)}: {text}", fraction)

        reads = [
            source.digest if isinstance(source, Given) else source.key for source in wanted.inputs.values()
        ]
        inputs = {name: self.folder(source) for name, source in wanted.inputs.items()}
        with self.store.building(wanted.key, tell, reads, self.worker.is_stopped) as build:
            if build.found is not None:
                return build.found
            tell("started")
            params = {**wanted.params, **self.local} if wanted.op in LOCAL else wanted.params
            return self._made(build, wanted, params, inputs, tell)

    def keep(self, wanted: Derivation, params: Json, facts: Json) -> Artifact:
        """The artifact of a derivation whose parameters are what was found out meanwhile: a report.
        `facts` take the place of the pass's own."""
        with self.store.building(wanted.key) as build:
            if build.found is not None:
                return build.found
            return self._made(build, wanted, params, {}, self.tell, facts)

    def _made(
        self,
        build: Building,
        wanted: Derivation,
        params: Json,
        inputs: Mapping[str, Path],
        tell: Tell,
        facts: Json = None,
    ) -> Artifact:
        started = time.monotonic()
        said = self.worker.run(wanted.op, params, inputs, build.out, build.work, tell)
        seconds = time.monotonic() - started
        told = said if facts is None else facts
        return build.commit(wanted.recipe, told, self.environment, seconds, datetime.now(UTC))


def require_libraries() -> None:
    """Raises Permanent where the extra that builds models is not installed."""
    if missing := missing_libraries():
        raise Permanent(
            f"Building models needs {', '.join(missing)}, which this installation has not. "
            "Run: pip install 'gamma-orch[models]'"
        )


def store_of(targets: Targets) -> Artifacts:
    return Artifacts(targets.builds.store, targets.state / "builds")


def threads_of(targets: Targets) -> int:
    if targets.builds.threads:
        return targets.builds.threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


async def build(
    targets: Targets,
    store: Artifacts,
    log: str,
    tell: Tell,
    work: Callable[[Builder], T],
    given: Callable[[str], Artifact],
    local: Mapping[str, Json],
    online: bool = False,
) -> T:
    """Run `work` in a thread, with a builder and its worker process. Cancelled: the worker is ended, and what
    it has saved stays for the next build."""
    require_libraries()
    root = targets.state.parent
    with ExitStack() as stack:
        path = targets.state / "builds" / "logs" / f"{log}.log"
        worker = stack.enter_context(Worker(threads_of(targets), path, online))
        local = {"root": str(root), **local}
        builder = Builder(store, targets.environment, root, worker, tell, given, local)
        running = asyncio.get_running_loop().run_in_executor(None, work, builder)
        try:
            return await asyncio.shield(running)
        except StoreError as error:
            raise Temporary(str(error)) from error  # of the artifacts: the ledger is well
        except asyncio.CancelledError:
            worker.stop()
            await asyncio.wait([running])
            raise
