"""Progress of an apply on standard error: a bar on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gamma_orch.cli.report import say
from gamma_orch.core.plan import Plan, Step
from gamma_orch.core.render import duration
from gamma_orch.engine.progress import Sparing, Status, StepResult, Watcher

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

# Beyond this many steps, plain output names only what failed and counts the rest.
LINES = 200


class Lines:
    """A line a step as it ends."""

    def __init__(self) -> None:
        self._total = 0
        self._ended = 0
        self._sparing = Sparing()

    def planned(self, plan: Plan) -> None:
        self._total = len(plan.steps)
        if self._total:
            steps = "step" if self._total == 1 else "steps"
            say(f"Applying {self._total:,} {steps} of plan {plan.id[:12]} to {plan.environment}.")

    def started(self, step: Step) -> None:
        return None

    def retrying(self, step: Step, error: str, seconds: float) -> None:
        say(f"  {step.address}  {step.opcode.value}: again in {duration(seconds)}: {error}")

    def progress(self, step: Step, text: str, fraction: float | None) -> None:
        if self._sparing.worth_saying(step, text):
            say(f"  {step.address}  {text}")

    def finished(self, result: StepResult) -> None:
        self._ended += 1
        if result.status is Status.FAILED or self._total <= LINES:
            say(ended(result))
        elif self._ended % (self._total // 10) == 0:
            say(f"  {self._ended:,} of {self._total:,}")


class Bar:
    """A bar with what is running now; failures stay as lines above it."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._running: list[str] = []
        self._doing: dict[str, str] = {}  # what those of them say that take long

    def planned(self, plan: Plan) -> None:
        if plan.steps:
            self._task = self._progress.add_task("", total=len(plan.steps))

    def started(self, step: Step) -> None:
        self._running.append(f"{step.opcode.value} {step.address}")
        self._refresh(0)

    def retrying(self, step: Step, error: str, seconds: float) -> None:
        self._progress.console.print(f"  {step.address}: again in {duration(seconds)}: {error}", markup=False)

    def progress(self, step: Step, text: str, fraction: float | None) -> None:
        far = "" if fraction is None else f" {fraction:.0%}"
        self._doing[f"{step.opcode.value} {step.address}"] = f"{step.address}{far} {text}"
        self._refresh(0)

    def finished(self, result: StepResult) -> None:
        name = f"{result.step.opcode.value} {result.step.address}"
        if name in self._running:
            self._running.remove(name)
        self._doing.pop(name, None)
        self._progress.console.print(ended(result), markup=False, highlight=False)
        self._refresh(1)

    def _refresh(self, advance: int) -> None:
        if self._task is not None:
            shown = [self._doing.get(name, name) for name in self._running[:3]]
            now: Any = ", ".join(shown) + (" ..." if len(self._running) > 3 else "")
            self._progress.update(self._task, advance=advance, description=now)


def ended(result: StepResult) -> str:
    step = result.step
    text = f"  {step.opcode.value} {step.address}: {result.status.value}"
    if result.status in (Status.DONE, Status.FAILED):
        text += f" in {duration(result.seconds)}"
    return text + (f"\n      {result.error}" if result.error else "")


@contextmanager
def watching() -> Iterator[Watcher]:
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Bar(progress)
