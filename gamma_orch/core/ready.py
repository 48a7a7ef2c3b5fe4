"""Which steps may start now. The scheduler is this and nothing else, and so is resume.

`ready(plan, events)` is the definition. `Frontier` gives the same answer event by event, so that a
plan of 10,000 steps is not searched anew after each.
"""

from collections.abc import Container, Iterable
from enum import StrEnum

from gamma_orch.core.event import Event, Type
from gamma_orch.core.plan import Plan, Step


class Phase(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"  # something it needs failed or was skipped


class Frontier:
    """The progress of one plan. Feed it the plan's events in order; ask what is ready.

    A step is ready when each step it needs has a Done *event* (law 2): the caller feeds events only
    once they are persisted.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.phase = [Phase.PENDING] * len(plan.steps)
        self._unmet = [len(step.needs) for step in plan.steps]
        self._after: list[list[int]] = [[] for _ in plan.steps]
        for step in plan.steps:
            for need in step.needs:
                self._after[need].append(step.index)
        self._index = {step.key: step.index for step in plan.steps}
        self._free = [step.index for step in plan.steps if not step.needs]

    def feed(self, event: Event) -> None:
        index = self._index.get(event.step)
        if index is None or event.plan != self.plan.id:
            return
        match event.type:
            case Type.BEGUN if self.phase[index] is Phase.PENDING:
                self.phase[index] = Phase.RUNNING
            case Type.DONE if self.phase[index] is not Phase.DONE:
                self.phase[index] = Phase.DONE
                for after in self._after[index]:
                    self._unmet[after] -= 1
                    if self._unmet[after] == 0 and self.phase[after] is Phase.PENDING:
                        self._free.append(after)
            case Type.FAILED:
                self.phase[index] = Phase.FAILED
                self._skip_below(index)

    def _skip_below(self, index: int) -> None:
        queue = list(self._after[index])
        while queue:
            after = queue.pop()
            if self.phase[after] is Phase.PENDING:
                self.phase[after] = Phase.SKIPPED
                queue.extend(self._after[after])

    def take(self, among: Container[int] | None = None) -> list[Step]:
        """The steps that became ready since the last call, in the plan's order. Each once.

        `among`: only these; the others stay ready for a later call.
        """
        free = sorted(index for index in self._free if self.phase[index] is Phase.PENDING)
        taken = [index for index in free if among is None or index in among]
        self._free = [] if among is None else [index for index in free if index not in among]
        return [self.plan.steps[index] for index in taken]

    def count(self, phase: Phase) -> int:
        return self.phase.count(phase)

    @property
    def finished(self) -> bool:
        return not any(phase in (Phase.PENDING, Phase.RUNNING) for phase in self.phase)


def ready(plan: Plan, events: Iterable[Event]) -> list[Step]:
    """The steps of a plan that may start, given all of its events so far."""
    frontier = Frontier(plan)
    for event in events:
        frontier.feed(event)
    return frontier.take()
