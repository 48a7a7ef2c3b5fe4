"""What a run tells whoever watches it: the terminal, a log, a Dagster run. All calls are cheap."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gamma_orch.core.canonical import Json
from gamma_orch.core.plan import Plan, Step


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
