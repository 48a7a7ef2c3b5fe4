"""Is it ready, and if not, why not: the status of a resource, and of an environment.

Status is derived from a fresh plan, never stored, so it cannot lie for longer than a read takes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.change import Action, Change, Reason
from gamma_orch.core.ledger import NOTHING, Entry, Ledger
from gamma_orch.core.observation import Observation, Seen
from gamma_orch.core.plan import Plan


class Health(IntEnum):
    """Ordered: a whole is as healthy as its worst part."""

    READY = 0
    PROGRESSING = 1  # a change is pending
    WAITING = 2
    DRIFTED = 3
    MISSING = 4
    FAILED = 5
    UNKNOWN = 6


class Truth(StrEnum):
    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    address: Address
    ready: Truth
    health: Health
    reason: str
    message: str = ""
    since: str = ""  # UTC, when the ledger last had news of it; empty: never

    def encoded(self) -> Json:
        return {
            "address": str(self.address),
            "ready": self.ready.value,
            "health": self.health.name.lower(),
            "reason": self.reason,
            "message": self.message,
            "since": self.since or None,
        }


_HEALTH = {
    Reason.DRIFTED: Health.DRIFTED,
    Reason.CONFLICT: Health.DRIFTED,
    Reason.DELETED_OUTSIDE: Health.MISSING,
    Reason.NEW: Health.MISSING,
    Reason.UNHEALTHY: Health.FAILED,
    Reason.UNREADABLE: Health.UNKNOWN,
    Reason.IN_DOUBT: Health.UNKNOWN,
    Reason.NEEDS: Health.WAITING,
}


def conditions(plan: Plan, ledger: Ledger, observations: Mapping[Address, Observation]) -> list[Condition]:
    """One condition a resource, from a plan made a moment ago."""
    return [
        _condition(change, ledger.entries.get(change.address, NOTHING), observations.get(change.address))
        for change in plan.changes
    ]


def _condition(change: Change, entry: Entry, observation: Observation | None) -> Condition:
    since, error = entry.since, entry.error
    if change.action is Action.KEEP:
        healthy = isinstance(observation, Seen) and observation.healthy
        if healthy:
            return Condition(change.address, Truth.TRUE, Health.READY, change.reason.value, since=since)
    health = _HEALTH.get(change.reason, Health.PROGRESSING)
    if error:
        health = max(health, Health.FAILED)
    truth = Truth.UNKNOWN if health is Health.UNKNOWN else Truth.FALSE
    message = "; ".join(part for part in (change.detail, f"last attempt: {error}" if error else "") if part)
    return Condition(change.address, truth, health, change.reason.value, message, since)


def overall(found: Iterable[Condition]) -> Health:
    """The worst of them; READY for none at all."""
    return max((condition.health for condition in found), default=Health.READY)
