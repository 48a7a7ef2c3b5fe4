"""The engine inside a Dagster run: one session for the run, or one for each of its processes.

Dagster calls ops one after another, or in several processes; the engine is asynchronous and renews
its lease meanwhile. So a session lives in a thread of its own with an event loop, from the first op
that asks for it to the end of the run (or of the process).
"""

import asyncio
import contextlib
import logging
import multiprocessing
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import dagster as dg
from pydantic import PrivateAttr

from gamma_orch.core.address import Address
from gamma_orch.core.change import Action, Change, Reason
from gamma_orch.core.observation import Seen
from gamma_orch.core.plan import Plan, Step
from gamma_orch.core.provider import GammaError, Gated, Page, Shows
from gamma_orch.core.render import duration, headline
from gamma_orch.engine.doors import working
from gamma_orch.engine.progress import Sparing, Status, StepResult
from gamma_orch.engine.project import SpecsBroken
from gamma_orch.engine.session import Session, session
from gamma_orch.orchestration.scene import Scene
from gamma_orch.store.errors import LeaseHeld
from gamma_orch.store.lease import Sharing

# Waiting for somebody else who is at work on the environment: longer than a run that died on another
# machine keeps its lease.
PATIENCE_SECONDS = 150.0
STOPPING_SECONDS = 60.0  # for the steps that run when a run is cancelled
PURPOSE = "Dagster run"  # begins what a run writes into the ledger as its purpose
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one address in a run."""

    change: Change
    results: tuple[StepResult, ...]  # its own steps and those of others that had to come first
    healthy: bool
    why: str  # it is not healthy
    outputs: dict[str, Any]
    pages: Mapping[str, Page]
    gates: Mapping[str, Any]  # each with what it said: of the object, or of what they have refused

    @property
    def failed(self) -> str:
        """The error of the step that failed; empty if none did."""
        for result in self.results:
            if result.status is Status.FAILED:
                return f"{result.step.opcode.value} {result.step.address}: {result.error}"
        if any(result.status is not Status.DONE for result in self.results):
            return "stopped before it was done"
        return ""

    @property
    def seconds(self) -> float:
        own = (r.seconds for r in self.results if r.step.address == self.change.address)
        return sum(own)


class Logged:
    """A watcher that writes to the log of the op that is running."""

    def __init__(self) -> None:
        self.log: logging.Logger | Any = logging.getLogger(__name__)
        self.changes: Mapping[Address, Change] = {}
        self.sparing = Sparing()

    def planned(self, plan: Plan) -> None:
        self.changes = {change.address: change for change in plan.changes}

    def started(self, step: Step) -> None:
        change = self.changes.get(step.address)
        self.log.info(f"{step.address}: {headline(change) if change else step.opcode.value}")

    def retrying(self, step: Step, error: str, seconds: float) -> None:
        self.log.warning(f"{step.address}: {step.opcode.value} again in {duration(seconds)}: {error}")

    def progress(self, step: Step, text: str, fraction: float | None) -> None:
        if self.sparing.worth_saying(step, text):
            self.log.info(f"{step.address}: {text}")

    def finished(self, result: StepResult) -> None:
        step = result.step
        text = f"{step.address}: {step.opcode.value} {result.status.value} in {duration(result.seconds)}"
        if result.status is Status.FAILED:
            self.log.error(f"{text}: {result.error}")
        else:
            self.log.info(text)


class Reconciler(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The session of a run, for its ops. Opened at first use, closed when the run (or process) ends."""

    in_process: bool = True
    plan: str = ""
    """The id of the plan that the run was started for; empty: whatever is to be done now."""

    _stack: contextlib.ExitStack = PrivateAttr(default_factory=contextlib.ExitStack)
    _loop: Any = PrivateAttr(default=None)
    _session: Any = PrivateAttr(default=None)
    _watcher: Logged = PrivateAttr(default_factory=Logged)
    _stop: Any = PrivateAttr(default=None)
    _refusal: Any = PrivateAttr(default=None)

    @contextlib.contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["Reconciler"]:
        try:
            yield self
        finally:
            self._stack.close()

    def carry_out(self, scene: Scene, address: Address, run: dg.DagsterRun, log: Any) -> Told:
        """Converge one address of a scene that was read for this run.

        Raises GammaError where the environment cannot be worked on.
        """
        self._watcher.log = log
        opened = self._opened(scene, address, run, log)
        results = self._call(opened.carry_out(address))
        return told(opened, address, tuple(results))

    def plan_made(self) -> Plan:
        """The plan that this run goes by. After `carry_out`."""
        made: Plan = self._session.plan
        return made

    def _opened(self, scene: Scene, address: Address, run: dg.DagsterRun, log: Any) -> Session:
        """Opened once a process; what kept it from being opened is said to every op after that too."""
        if self._refusal is not None:
            raise self._refusal
        if self._session is None:
            with contextlib.ExitStack() as stack:
                try:
                    self._session = self._enter(stack, scene, address, run, log)
                except GammaError as error:
                    self._refusal = error
                    raise
                self._stack = stack.pop_all()
        found: Session = self._session
        return found

    def _enter(
        self, stack: contextlib.ExitStack, scene: Scene, address: Address, run: dg.DagsterRun, log: Any
    ) -> Session:
        if scene.project.desired is None:
            raise SpecsBroken(scene.project.diagnostics)
        site = stack.enter_context(working(scene.project, scene.project.desired))
        self._loop = stack.enter_context(_loop_in_thread())
        self._stop = asyncio.Event()
        stack.callback(lambda: self._call(site.world.aclose()))
        sharing = None if self.in_process else Sharing(run.run_id, _run_worker())
        only = None if self.in_process else address
        purpose = f"{PURPOSE} {run.run_id[:8]}"
        selection = sorted("/".join(key.path[1:]) for key in run.asset_selection or ())
        told = {"run": run.run_id, "selection": selection}
        entering = session(site, purpose, self._watcher, self._stop, sharing, only, told)
        give_up = time.monotonic() + PATIENCE_SECONDS
        opened: Session | None = None
        while opened is None:
            try:
                opened = self._call(entering.__aenter__())
            except LeaseHeld as error:
                if time.monotonic() > give_up:
                    raise
                log.info(f"Waiting: {error}")
                time.sleep(2)
                entering = session(site, purpose, self._watcher, self._stop, sharing, only, told)
        held = entering
        stack.callback(lambda: self._call(held.__aexit__(None, None, None)))
        if self.plan and opened.plan.id != self.plan and not opened.joined:
            log.warning(
                f"Plan {self.plan[:12]} is stale: the world, the specs or the ledger changed since "
                f"it was made. Planned again: {opened.plan.id[:12]}."
            )
        return opened

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop's thread and wait. An interrupt lets the running steps finish."""
        done: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return done.result()
        except BaseException:
            if not done.done():
                self._loop.call_soon_threadsafe(self._stop.set)
                with contextlib.suppress(Exception):
                    done.result(timeout=STOPPING_SECONDS)
            raise


def told(opened: Session, address: Address, results: tuple[StepResult, ...]) -> Told:
    """What there is to say of an address after its steps, from the survey and the ledger."""
    changes = {change.address: change for change in opened.plan.changes}
    change = changes.get(address, Change(address, Action.KEEP, Reason.GONE))
    observation = opened.survey.observations.get(address)
    record = opened.execution.journal.ledger.record(address)
    healthy, why = True, ""
    if change.action is Action.KEEP and isinstance(observation, Seen):
        healthy, why = observation.healthy, observation.why
    outputs = dict(record.outputs) if record else {}
    done = all(result.status is Status.DONE for result in results)
    gates = outputs.get("gates", {}) if done else _refused(opened, address)
    return Told(change, results, healthy, why, outputs, _pages(opened, address), gates)


def _refused(opened: Session, address: Address) -> Mapping[str, Any]:
    try:
        provider = opened.site.world.provider(address.kind)
    except (GammaError, LookupError):
        return {}
    return provider.refused(address) if isinstance(provider, Gated) else {}


def _pages(opened: Session, address: Address) -> Mapping[str, Page]:
    try:
        provider = opened.site.world.provider(address.kind)
        return provider.pages(address) if isinstance(provider, Shows) else {}
    except (GammaError, LookupError):
        return {}  # a page that cannot be read is worth no run


@contextlib.contextmanager
def _loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="gamma", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _run_worker() -> int | None:
    """The process that lives as long as the run, where it is this one's parent: the multiprocess
    executor's. A worker of Celery's outlives the run, and a pod's parent is nobody."""
    parent = multiprocessing.parent_process()
    return parent.pid if parent else None
