"""The ledger's alphabet. An event is appended once and never changed; state is a fold of them.

`seq` counts from 1 within an environment, without gaps. `token` is the fencing token of the lease
under which it was appended; an append with an older token fails (law 3).
"""

from dataclasses import dataclass, field
from enum import StrEnum

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json


class Type(StrEnum):
    PLANNED = "planned"  # a plan was admitted: its id, commit, summary
    APPROVED = "approved"  # a person consented to something, by name
    BEGUN = "begun"  # an effect may now happen
    DONE = "done"  # it happened, and was read back
    FAILED = "failed"  # it did not happen, or not as planned
    RELEASED = "released"  # every step of a plan is done, and nothing was held back
    REJECTED = "rejected"
    EVIDENCE = "evidence"
    REVOKED = "revoked"
    DRIFTED = "drifted"


@dataclass(frozen=True, slots=True)
class Event:
    type: Type
    address: Address | None = None
    plan: str = ""  # id of the plan it belongs to
    step: str = ""  # idempotency key of the step
    data: Json = field(default_factory=dict)
    # Given by the store at append:
    seq: int = 0
    token: int = 0
    at: str = ""  # UTC, RFC 3339 with milliseconds
    by: str = ""  # who ran the command

    def encoded(self) -> Json:
        return {
            "seq": self.seq,
            "at": self.at,
            "type": self.type.value,
            "address": str(self.address) if self.address else None,
            "plan": self.plan,
            "step": self.step,
            "by": self.by,
            "token": self.token,
            "data": self.data,
        }
