"""Carries a plan out: starts what is ready, never more than its target bears, and records each end.

One step is: read again; is the world still what was planned on; Begun; the effect, with retries;
read back; Done. Each of those is a place where the process may be killed, and for each
`core.settle` knows what to make of it. A failed step stops what depends on it and nothing else.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from gamma_orch.core.address import Address
from gamma_orch.core.admit import admit_step
from gamma_orch.core.canonical import Json
from gamma_orch.core.compare import left_alone
from gamma_orch.core.diagnostic import written
from gamma_orch.core.event import Event, Type
from gamma_orch.core.fingerprint import in_order
from gamma_orch.core.kind import Fields
from gamma_orch.core.leaves import Ref, encode, replace_leaves
from gamma_orch.core.observation import ABSENT, Absent, Observation, Seen, Unreadable
from gamma_orch.core.plan import Plan, Step
from gamma_orch.core.provider import Asked, GammaError, Opcode, Permanent, Task, Temporary
from gamma_orch.core.ready import Frontier, Phase
from gamma_orch.core.settle import differences
from gamma_orch.engine.journal import Journal
from gamma_orch.engine.progress import Status, StepResult, Watcher
from gamma_orch.engine.secrets import Secrets
from gamma_orch.engine.survey import Survey
from gamma_orch.engine.world import World, defect
from gamma_orch.store.errors import StoreError

ATTEMPTS = 6  # of one effect; with the waits below, at most about a minute
READS = 5  # of one address that cannot be read
FIRST_WAIT, LONGEST_WAIT, LONGEST = 0.5, 20.0, 90.0  # seconds: between two tries, and altogether
ALTOGETHER = 64  # steps at once over all targets
T = TypeVar("T")

_LEDGER_ONLY = frozenset({Opcode.RECORD, Opcode.FORGET})


_Running = asyncio.Task[tuple[StepResult, list[Event]]]


class _NotRead(Temporary):
    """An address could not be read this time."""


class Refused(GammaError):
    """The step may not act: the world is not what it was planned on."""


@dataclass(slots=True)
class Execution:
    """One plan being carried out: whole, or part by part."""

    survey: Survey
    world: World
    journal: Journal
    secrets: Secrets
    watcher: Watcher
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    _fields: dict[Address, Fields] = field(default_factory=dict)  # final, leaves still leaves
    _touched: frozenset[Address] = frozenset()
    _open: set[Address] = field(default_factory=set)  # whose fields the planner, too, made anew
    _limits: dict[str, asyncio.Semaphore] = field(default_factory=dict)
    _all: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(ALTOGETHER))
    frontier: Frontier = field(init=False)

    def __post_init__(self) -> None:
        self.frontier = Frontier(self.plan)
        self._touched = frozenset(step.address for step in self.plan.steps)
        for address in in_order(self.survey.desired):
            resource = self.survey.desired[address]
            refers = self.survey.traits[address.kind].refers
            if resource.has_leaves or refers or not self._open.isdisjoint(resource.needs):
                self._open.add(address)

    @property
    def plan(self) -> Plan:
        return self.survey.plan

    async def run(self, among: Collection[int] | None = None) -> list[StepResult]:
        """Carry out the steps not carried out yet, or those `among` them (with all that they need).

        Their results, in the order of the plan. Raises StoreError when nothing can be recorded any
        more; the steps that were running are then settled by the next run.
        """
        frontier = self.frontier
        asked = range(len(self.plan.steps)) if among is None else sorted(among)
        fresh = [index for index in asked if frontier.phase[index] is Phase.PENDING]
        results: dict[int, StepResult] = {}
        # A queue of the ended, not asyncio.wait over the running: that would look at every one of
        # them, thousands in a wide plan, each time one ends.
        ended: asyncio.Queue[_Running] = asyncio.Queue()
        running: set[_Running] = set()
        try:
            while True:
                if not self.stop.is_set():
                    for step in frontier.take(among):
                        task = asyncio.create_task(self._step(step))
                        task.add_done_callback(ended.put_nowait)
                        running.add(task)
                if not running:
                    break
                task = await ended.get()
                running.discard(task)
                result, events = task.result()
                results[result.step.index] = result
                for event in events:
                    frontier.feed(event)
        finally:
            if running:
                self.stop.set()  # nothing can be recorded any more, or somebody cancelled
                await asyncio.gather(*running, return_exceptions=True)
        return [results.get(index) or self._not_run(self.plan.steps[index]) for index in fresh]

    def _not_run(self, step: Step) -> StepResult:
        skipped = self.frontier.phase[step.index] is Phase.SKIPPED
        result = StepResult(step, Status.SKIPPED if skipped else Status.STOPPED)
        self.watcher.finished(result)
        return result

    async def _step(self, step: Step) -> tuple[StepResult, list[Event]]:
        async with self._limit(step), self._all:
            if self.stop.is_set():
                result = StepResult(step, Status.STOPPED)
                self.watcher.finished(result)
                return result, []
            started = time.monotonic()
            self.watcher.started(step)
            try:
                events = await self._carry_out(step, started)
                result = StepResult(step, Status.DONE, time.monotonic() - started)
            except StoreError:
                raise
            except GammaError as error:
                result = StepResult(step, Status.FAILED, time.monotonic() - started, str(error))
                events = await self.journal.append(self._event(Type.FAILED, step, {"error": str(error)}))
            except Exception as error:  # noqa: BLE001 - a defect in a provider stops its branch, not the run
                text = f"The provider of {step.address.kind} failed: {defect(error)}."
                result = StepResult(step, Status.FAILED, time.monotonic() - started, text)
                events = await self.journal.append(self._event(Type.FAILED, step, {"error": text}))
            self.watcher.finished(result)
            return result, events

    async def _carry_out(self, step: Step, started: float) -> list[Event]:
        live = ABSENT if step.opcode is Opcode.FORGET else await self._read(step, step.planned)
        if refusals := admit_step(step, live):
            raise Refused("; ".join(refusal.message for refusal in refusals))
        fields = self._final(step, live)
        begun: list[Event] = []
        if step.opcode not in _LEDGER_ONLY and not self._already(step, fields, live):
            task = self._task(step, fields, live)
            begun = await self.journal.append(self._event(Type.BEGUN, step, self._begin(step, fields, live)))
            await self._effect(step, task)
            live = await self._read_back(step, fields)
        seconds = time.monotonic() - started
        done = await self.journal.append(
            self._event(Type.DONE, step, {**self._end(step, fields, live), "seconds": round(seconds, 3)})
        )
        return begun + done

    async def _effect(self, step: Step, task: Task) -> None:
        provider = self.world.provider(step.address.kind)
        act = provider.delete if step.opcode is Opcode.DELETE else provider.apply
        await self._patiently(step, ATTEMPTS, lambda: act(task))

    async def _patiently(self, step: Step, attempts: int, call: Callable[[], Awaitable[T]]) -> T:
        """Call again, with backoff and jitter, while it fails temporarily; then raise what it raised.

        Not full jitter: five reads of a server that restarts could all fall into one second.
        """
        from tenacity import (
            AsyncRetrying,
            RetryCallState,
            retry_if_exception_type,
            stop_after_attempt,
            stop_after_delay,
            wait_exponential_jitter,
        )

        def tell(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            wait = state.next_action.sleep if state.next_action else 0.0
            self.watcher.retrying(step, str(error), wait)

        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(Temporary),
            stop=stop_after_attempt(attempts) | stop_after_delay(LONGEST),
            wait=wait_exponential_jitter(multiplier=FIRST_WAIT, max=LONGEST_WAIT, jitter=FIRST_WAIT),
            before_sleep=tell,
            reraise=True,
        ):
            with attempt:
                return await call()
        raise AssertionError  # reraise: the last attempt returned or raised

    async def _read(self, step: Step, wanted: Fields | None) -> Observation:
        """What is there now. One that cannot be read is asked again for a while: a server that a
        neighbour's setting restarts is back in a second."""

        async def once() -> Observation:
            found = (await self.world.observe([self._asked(step, wanted)]))[step.address]
            if isinstance(found, Unreadable):
                raise _NotRead(found.error)
            return found

        try:
            return await self._patiently(step, READS, once)
        except _NotRead as error:
            return Unreadable(str(error))

    async def _read_back(self, step: Step, fields: Fields) -> Observation:
        """The world after the effect; raises Permanent where it is not what was planned."""
        live = await self._read(step, fields or None)
        match live:
            case Unreadable(error):
                raise Permanent(f"It was applied, and then could not be read back: {error}")
            case Absent() if step.opcode is not Opcode.DELETE:
                raise Permanent("It was applied without an error, and is not there.")
            case Seen() if step.opcode is Opcode.DELETE:
                raise Permanent("It was deleted without an error, and is still there.")
            case Seen(live_fields, _, healthy, why):
                wrong = differences(encode(fields), live_fields, self._was(step))
                if wrong:
                    raise Permanent(
                        "It was applied, and reads back different: " + ", ".join(map(written, wrong))
                    )
                if not healthy:
                    raise Permanent(f"It was applied, and does not work: {why}")
        return live

    def _asked(self, step: Step, wanted: Fields | None) -> Asked:
        record = self.journal.ledger.record(step.moved_from or step.address)
        return Asked(step.address, wanted, record.fields if record else None)

    def _was(self, step: Step) -> Fields:
        record = self.journal.ledger.record(step.moved_from or step.address)
        return record.fields if record else {}

    def _final(self, step: Step, live: Observation) -> Fields:
        """The fields with every reference resolved by what the ledger holds now."""
        if step.planned is None:
            return {}
        record = self.journal.ledger.record(step.moved_from or step.address)
        fields = self._resolved(step.address, live if record else None)
        self._fields[step.address] = fields
        return fields

    def _resolved(self, address: Address, live: Observation | None) -> Fields:
        resource, fields = self.survey.desired[address], self.survey.wanted[address]
        if address in self._open:
            spec = replace_leaves(resource.spec, self._value)
            traits = self.survey.traits[address.kind]
            fields = traits.normalise(address, spec, self._of)
            if traits.refers:
                fields = replace_leaves(fields, self._value)
        if resource.lifecycle.ignore and isinstance(live, Seen):
            return left_alone(fields, live.fields, resource.lifecycle)
        return fields

    def _of(self, address: Address) -> Fields:
        """The final fields of a resource that another needs: its step is done, or it has none."""
        if address not in self._fields:
            self._fields[address] = self._resolved(address, self.survey.observations.get(address))
        return self._fields[address]

    def _value(self, leaf: Json) -> Json:
        if not isinstance(leaf, Ref):
            return leaf
        outputs = self._outputs(leaf.address)
        if leaf.output not in outputs:
            raise Permanent(f"{leaf.address} has no output {leaf.output!r}, now that it is applied.")
        return outputs[leaf.output]

    def _outputs(self, address: Address) -> Mapping[str, Json]:
        """What a resource gives: as its step has recorded it; where the plan has none, as it was seen."""
        seen = self.survey.observations.get(address)
        if address not in self._touched and isinstance(seen, Seen):
            return seen.outputs
        record = self.journal.ledger.record(address)
        return record.outputs if record else {}

    def _already(self, step: Step, fields: Fields, live: Observation) -> bool:
        """Whether a step that waited for a value turns out to have nothing to do."""
        return (
            step.opcode is Opcode.UPDATE
            and encode(step.planned) != encode(fields)
            and isinstance(live, Seen)
            and live.healthy
            and encode(fields) == self._was(step)
            and not differences(encode(fields), live.fields, self._was(step))
            and not self._parents_changed(step)
        )

    def _parents_changed(self, step: Step) -> bool:
        """In a kind that derives, a change of this resource, whatever its own fields say."""
        record = self.journal.ledger.record(step.moved_from or step.address)
        derives = self.survey.traits[step.address.kind].derives
        return derives and record is not None and record.fingerprint.parents != step.record["fingerprint"][2]

    def _task(self, step: Step, fields: Fields, live: Observation) -> Task:
        return Task(
            key=step.key,
            opcode=step.opcode,
            address=step.address,
            fields=fields,
            recorded=self._was(step) or None,
            live=live.fields if isinstance(live, Seen) else None,
            reveal=self.secrets.reveal,
            tell=lambda text, fraction: self.watcher.progress(step, text, fraction),
        )

    def _begin(self, step: Step, fields: Fields, live: Observation) -> Json:
        return {
            "opcode": step.opcode.value,
            "planned": encode(fields) if step.planned is not None else None,
            "before": dict(live.fields) if isinstance(live, Seen) else None,
            "record": {**step.record, "fields": encode(fields)} if step.record is not None else None,
            "movedFrom": str(step.moved_from) if step.moved_from else None,
        }

    def _end(self, step: Step, fields: Fields, live: Observation) -> Json:
        record = None
        if step.record is not None:
            outputs = dict(live.outputs) if isinstance(live, Seen) else {}
            record = {**step.record, "fields": encode(fields), "outputs": outputs}
        return {
            "opcode": step.opcode.value,
            "record": record,
            "movedFrom": str(step.moved_from) if step.moved_from else None,
        }

    def _event(self, kind: Type, step: Step, data: Mapping[str, Json]) -> Event:
        return Event(kind, step.address, self.plan.id, step.key, dict(data))

    def _limit(self, step: Step) -> asyncio.Semaphore:
        traits = self.survey.traits.get(step.address.kind)
        fields = step.planned if step.planned is not None else step.before
        target = traits.target(fields) if traits and fields else ""
        if target not in self._limits:
            bound = self.world.targets.limit(target) if target else ALTOGETHER
            self._limits[target] = asyncio.Semaphore(bound)
        return self._limits[target]
