"""What a plan says of one resource: the action, a coded reason, and each field was/wanted/live.

Every resource has a change, `keep` included, and every change says why. `compare` makes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Path, written


class Action(StrEnum):
    KEEP = "keep"
    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    ADOPT = "adopt"  # the world has it already: take it into the ledger
    FORGET = "forget"  # out of the ledger; the object stays
    DELETE = "delete"
    WAIT = "wait"  # something it needs cannot proceed
    REFUSE = "refuse"  # this object cannot be touched; the others go on


class Reason(StrEnum):
    IN_SYNC = "in sync"
    NEW = "not there yet"
    DELETED_OUTSIDE = "deleted outside"
    SPEC_CHANGED = "spec changed"
    DRIFTED = "drifted"
    CONFLICT = "spec changed and drifted"
    KNOWN_LATER = "decided at apply"
    UNHEALTHY = "unhealthy"
    IMMUTABLE = "cannot change in place"
    PARENT_CHANGED = "parent changed"
    PARENT_REPLACED = "parent replaced"
    EXISTS = "exists, not managed yet"
    CONVERGED_OUTSIDE = "already as wanted"
    MOVED = "moved"
    METADATA = "metadata changed"
    REMOVED = "removed from the specs"
    RETAINED = "removed from the specs, retained"
    GONE = "removed from the specs, already gone"
    PROTECTED = "protected"
    UNREADABLE = "unreadable"
    IN_DOUBT = "in doubt"
    NEEDS = "waits for what it needs"


class Verdict(StrEnum):
    """The comparison of one owned field; the table is in `core.compare`."""

    KEEP = "keep"
    CHANGE = "change"
    DRIFT = "drift"
    CONFLICT = "conflict"
    RELEASE = "release"  # ours before, no longer wanted: unset it
    FORGET = "forget"  # ours before, no longer wanted, changed by another: leave it
    FOREIGN = "foreign"
    LATER = "later"  # decided at apply


class _Missing:
    """The field is not there. Distinct from null, which a spec may want."""

    def __repr__(self) -> str:
        return "(none)"


MISSING = _Missing()


@dataclass(frozen=True, slots=True)
class FieldChange:
    path: Path
    verdict: Verdict
    was: Json = MISSING
    wanted: Json = MISSING
    live: Json = MISSING

    def encoded(self) -> Json:
        given = {"was": self.was, "wanted": self.wanted, "live": self.live}
        shown = {name: value for name, value in given.items() if value is not MISSING}
        return {"path": written(self.path), "verdict": self.verdict.value, **shown}


@dataclass(frozen=True, slots=True)
class Impact:
    """What carrying the change out is expected to do; None where nothing is known."""

    seconds: float | None = None  # median of past runs of this action on this kind
    runs: int = 0  # how many past runs that rests on
    note: str = ""  # what else is foreseen, in words

    def encoded(self) -> Json:
        return {"seconds": self.seconds, "runs": self.runs, "note": self.note}


NO_IMPACT = Impact()


@dataclass(frozen=True, slots=True)
class Change:
    address: Address
    action: Action
    reason: Reason
    detail: str = ""  # completes the reason: which parent, what error, what to do
    fields: tuple[FieldChange, ...] = ()
    moved_from: Address | None = None

    def encoded(self) -> Json:
        """The JSON form. Impact is not part of it: an estimate must not change a plan's id."""
        body: dict[str, Json] = {
            "address": str(self.address),
            "action": self.action.value,
            "reason": self.reason.value,
            "fields": [field.encoded() for field in self.fields],
        }
        if self.detail:
            body["detail"] = self.detail
        if self.moved_from:
            body["movedFrom"] = str(self.moved_from)
        return body


Impacts = Mapping[Address, Impact]  # of the addresses that a plan changes
