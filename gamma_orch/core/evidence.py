"""Measured claims about a digest, and the gates that ask for them.

Evidence is data: it says who measured what on which bytes, and until when that counts. A later
failure revokes it. `admit` evaluates gates; nothing else may.
"""

from dataclasses import dataclass
from enum import StrEnum

from gamma_orch.core.canonical import Json


class Judgement(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"  # nothing ran, or the tool could not tell: never a pass


@dataclass(frozen=True, slots=True)
class Evidence:
    claim: str  # for example "accuracy" or "suite:smoke"
    subject: str  # digest of what was measured
    environment: str
    value: float | None
    unit: str
    verdict: Judgement
    producer: str
    made_at: str  # UTC, RFC 3339; these texts order as the times do
    expires_at: str = ""  # empty: does not expire

    def encoded(self) -> Json:
        return {
            "claim": self.claim,
            "subject": self.subject,
            "environment": self.environment,
            "value": self.value,
            "unit": self.unit,
            "verdict": self.verdict.value,
            "producer": self.producer,
            "madeAt": self.made_at,
            "expiresAt": self.expires_at,
        }


@dataclass(frozen=True, slots=True)
class Gate:
    """Passes when the newest unrevoked evidence for claim and subject passed, is young enough and,
    where bounds are given, lies within them."""

    claim: str
    subject: str
    least: float | None = None
    most: float | None = None
    not_before: str = ""  # evidence made earlier is too old

    def open(self, evidence: Evidence | None, now: str) -> bool:
        if evidence is None or evidence.verdict is not Judgement.PASSED:
            return False
        if evidence.expires_at and evidence.expires_at <= now:
            return False
        if evidence.made_at < self.not_before:
            return False
        if self.least is None and self.most is None:
            return True
        value = evidence.value
        return (
            value is not None
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
        )
