"""One tick: look at the environment once, decide what a run should do by itself, and why not the rest.

`decide` is pure. Schedules and sensors differ only in what they let start a run: `Cause`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from gamma_orch.core.address import Address
from gamma_orch.core.change import Action, Change, Reason
from gamma_orch.core.event import Event
from gamma_orch.core.ledger import NOTHING, Ledger
from gamma_orch.core.plan import Plan, up_to
from gamma_orch.core.render import headline, value_text
from gamma_orch.core.resource import Drift, Resource
from gamma_orch.spec.reconcile import ReconcileSpec

DRIFT = frozenset({Reason.DRIFTED, Reason.DELETED_OUTSIDE, Reason.UNHEALTHY})


class Cause(StrEnum):
    SCHEDULE = "schedule"  # whatever is pending
    COMMIT = "commit"  # whatever is pending, because there is a new commit
    DRIFT = "drift"  # what was changed outside, and what a run has left unfinished


@dataclass(frozen=True, slots=True)
class Decision:
    """`start` is what a run should converge; `left` says of everything else that is pending why not."""

    start: tuple[Address, ...]
    left: Mapping[Address, str]
    flapping: frozenset[Address] = frozenset()


@dataclass(frozen=True, slots=True)
class Seen:
    """What a tick knows."""

    plan: Plan
    ledger: Ledger
    wanted: Mapping[Address, Resource]
    drifts: Sequence[Event]  # Drifted events, newest first, no older than the window of `flapping`
    planned_commit: str  # of the last plan that was carried out
    unfinished: frozenset[Address]  # what the last run was to converge, before it failed or died
    settled: frozenset[Address]  # cut off with their run: nothing that failed by itself
    now: datetime


def decide(seen: Seen, settings: ReconcileSpec, cause: Cause) -> Decision:
    left: dict[Address, str] = {}
    with_steps = {step.address for step in seen.plan.steps}
    heals = Counter(event.address for event in seen.drifts)
    flapping = set()
    for change in seen.plan.changes:
        address = change.address
        if address not in with_steps:
            continue
        if change.reason in DRIFT:
            policy = drift_policy(seen.wanted.get(address), settings)
            if policy is not Drift.HEAL:
                left[address] = "its drift is only reported" if policy is Drift.REPORT else "drift is off"
                continue
            if heals[address] >= settings.flapping.heals:
                flapping.add(address)
                left[address] = rivalry(address, seen.drifts, settings)
                continue
        elif cause is Cause.DRIFT and address not in seen.unfinished:
            left[address] = "a change of ours, for the schedule or a commit to start"
            continue
        if why := _failed_lately(seen, address, settings.retry):
            left[address] = why
    # A step brings with it whatever it needs: what needs something that is left is left too.
    for address in sorted(with_steps - left.keys()) if left else ():
        needs = {seen.plan.steps[index].address for index in up_to(seen.plan, address)} - {address}
        if held := sorted(needs & left.keys()):
            left[address] = f"it needs {held[0]}: {left[held[0]]}"
    start = tuple(sorted(with_steps - left.keys()))
    return Decision(start, left, frozenset(flapping))


def drift_policy(resource: Resource | None, settings: ReconcileSpec) -> Drift:
    if resource is not None and resource.lifecycle.drift is not None:
        return resource.lifecycle.drift
    return Drift(settings.drift)


def rivalry(address: Address, drifts: Sequence[Event], settings: ReconcileSpec) -> str:
    """What something else keeps writing: the last values found, newest first."""
    mine = [event for event in drifts if event.address == address]
    values = dict.fromkeys(
        f"{field['path']} = {value_text(field['live']) if 'live' in field else '(none)'}"
        for event in mine
        for field in event.data.get("fields", [])
    )
    minutes = int(settings.flapping.within.total_seconds() // 60)
    found = "; ".join(list(values)[:5]) or "deleted each time"
    return f"healed {len(mine)} times in {minutes} min and left alone now: something else writes {found}"


def _failed_lately(seen: Seen, address: Address, retry: timedelta) -> str:
    entry = seen.ledger.entries.get(address, NOTHING)
    if not entry.error or address in seen.settled or seen.planned_commit != seen.plan.commit:
        return ""
    again = datetime.fromisoformat(entry.since) + retry
    return f"it failed and is tried again at {again:%H:%M:%S}: {entry.error}" if seen.now < again else ""


def drifted(plan: Plan, wanted: Mapping[Address, Resource], settings: ReconcileSpec) -> dict[Address, Change]:
    """What is not as it was left, among what is looked for."""
    return {
        change.address: change
        for change in plan.changes
        if (change.reason in DRIFT or change.reason is Reason.CONFLICT)
        and drift_policy(wanted.get(change.address), settings) is not Drift.OFF
    }


def blocked(plan: Plan) -> dict[Address, str]:
    """What cannot be changed at all, and why."""
    return {c.address: headline(c) for c in plan.changes if c.action in (Action.REFUSE, Action.WAIT)}
