"""What a run tells whoever watches it: the terminal, a log, a Dagster run. All calls are cheap."""

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gamma_orch.core.canonical import Json
from gamma_orch.core.plan import Plan, Step

EVERY_SECONDS = 15.0  # of one thing that takes long, a line


class Status(StrEnum):
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"  # something it needs failed
    STOPPED = "stopped"  # the run was interrupted before its turn


@dataclass(frozen=True, slots=True)
class StepResult:
    step: Step
    status: Status
    seconds: float = 0.0
    error: str = ""

    def encoded(self) -> Json:
        return {
            "address": str(self.step.address),
            "action": self.step.opcode.value,
            "status": self.status.value,
            "seconds": round(self.seconds, 3),
            "error": self.error or None,
        }


class Watcher(Protocol):
    def planned(self, plan: Plan) -> None: ...
    def started(self, step: Step) -> None: ...
    def retrying(self, step: Step, error: str, seconds: float) -> None: ...
    def progress(self, step: Step, text: str, fraction: float | None) -> None: ...  # from any thread
    def finished(self, result: StepResult) -> None: ...


class Sparing:
    """What is worth a line of what a long effect says: where it goes on to something else (the text before
    the colon), and now and then how far it is."""

    def __init__(self) -> None:
        self._said: dict[int, tuple[str, float]] = {}  # by step: about what, and when

    def worth_saying(self, step: Step, text: str) -> bool:
        """Asked of everything that is said; what is worth it counts as said."""
        now, topic = time.monotonic(), text.partition(":")[0]
        before, at = self._said.get(step.index, ("", 0.0))
        if topic == before and now - at < EVERY_SECONDS:
            return False
        self._said[step.index] = (topic, now)
        return True


class Silent:
    """Watches nothing."""

    def planned(self, plan: Plan) -> None:
        return None

    def started(self, step: Step) -> None:
        return None

    def retrying(self, step: Step, error: str, seconds: float) -> None:
        return None

    def progress(self, step: Step, text: str, fraction: float | None) -> None:
        return None

    def finished(self, result: StepResult) -> None:
        return None
