"""May this plan, or this step, act now? Asked before any effect, and again before each step.

The answer is a list of refusals; empty means yes. Nothing here looks anything up: the engine brings
the ledger's state and what it observed a moment ago.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from gamma_orch.core.address import Address
from gamma_orch.core.evidence import Evidence, Gate
from gamma_orch.core.observation import Observation, Unreadable, observed_digest
from gamma_orch.core.plan import Plan, Step
from gamma_orch.core.provider import Opcode


class Ground(StrEnum):
    """Why something is refused; stable, for scripts."""

    LEDGER_MOVED = "ledger-moved"
    COMMIT_MOVED = "commit-moved"
    SPECS_MOVED = "specs-moved"
    WORLD_MOVED = "world-moved"
    UNREADABLE = "unreadable"
    GATE_CLOSED = "gate-closed"
    TAMPERED = "tampered"
    FROZEN = "frozen"


@dataclass(frozen=True, slots=True)
class Refusal:
    ground: Ground
    message: str
    address: Address | None = None


@dataclass(frozen=True, slots=True)
class Now:
    """What is so at this moment, as far as the engine can tell."""

    state: int  # the ledger's state sequence
    commit: str
    desired: str
    observations: Mapping[Address, Observation] = field(default_factory=dict)
    gates: Sequence[Gate] = ()
    evidence: Mapping[tuple[str, str], Evidence] = field(default_factory=dict)  # newest, by (claim, subject)
    at: str = ""


def admit(plan: Plan, now: Now) -> list[Refusal]:
    """Whether a plan made earlier still holds, all of it. Any refusal means: no effect at all."""
    refusals = []
    if plan.parent != now.state:
        refusals.append(
            Refusal(
                Ground.LEDGER_MOVED,
                f"the plan was made when the ledger stood at {plan.parent}, and it stands at {now.state}: "
                "something was applied since",
            )
        )
    if plan.commit != now.commit:
        before, after = plan.commit[:12] or "no commit", now.commit[:12] or "no commit"
        refusals.append(Refusal(Ground.COMMIT_MOVED, f"the plan was made from {before}, and this is {after}"))
    elif plan.desired != now.desired:
        refusals.append(
            Refusal(Ground.SPECS_MOVED, "the specs, variables or secrets changed since the plan was made")
        )
    for step in plan.steps:
        if _found_first(plan, step):
            refusals.extend(admit_step(step, now.observations.get(step.address)))
    closed = [g for g in now.gates if not g.open(now.evidence.get((g.claim, g.subject)), now.at)]
    shut = [Refusal(Ground.GATE_CLOSED, f"there is no valid evidence for {gate.claim}") for gate in closed]
    return refusals + shut


def admit_step(step: Step, observation: Observation | None) -> list[Refusal]:
    """Whether the world still is what the step was planned on. Forgetting does not touch it."""
    if step.opcode is Opcode.FORGET:
        return []
    if observation is None or isinstance(observation, Unreadable):
        why = observation.error if observation else "it was not observed"
        return [Refusal(Ground.UNREADABLE, f"{step.address} cannot be read now: {why}", step.address)]
    if observed_digest(observation) != step.expects:
        return [
            Refusal(
                Ground.WORLD_MOVED,
                f"{step.address} changed since the plan was made; plan again to see how",
                step.address,
            )
        ]
    return []


def _found_first(plan: Plan, step: Step) -> bool:
    """Whether the step starts from what was observed, not from what an earlier step leaves."""
    return not any(plan.steps[need].address == step.address for need in step.needs)
