"""How many workers a service should have, by what they were seen to do. Pure.

Each target of a policy gives a load: the figure divided by what it may be. The greatest counts. Always:

- A recommendation lies between the least and the most, and no figure that grows makes it smaller.
- Out at once, to where the load is within the targets, but to twice as many at most; in by one worker, and
  only where the others would have room left. So what is followed is not taken back while the load stays.
- A figure that is not known takes no worker away. Where none is known, or they are too short, too long or too
  old, nothing is recommended.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Measure = Literal["cpu", "queue", "p95"]
TOLERATED = 1.1  # the load up to which nothing is done: figures are never twice the same
ROOM = 0.8  # the load that the others may have at most where one worker goes
FEW = 20  # requests, below which the 95th percentile is the luck of one
LONG = 3  # windows, beyond which figures tell of another time


@dataclass(frozen=True, slots=True)
class Policy:
    least: int
    most: int
    targets: Mapping[Measure, float]
    window: float  # seconds


@dataclass(frozen=True, slots=True)
class Figures:
    """Of all workers, over a time in which they were the same ones."""

    workers: int
    until: float  # seconds since 1970
    seconds: float  # before that
    # cpu: the share of a core, of each worker; queue: texts that wait for each; p95: seconds of a request.
    measured: Mapping[Measure, float] = field(default_factory=dict)
    requests: int = 0
    unknown: str = ""  # why nothing of it is known


@dataclass(frozen=True, slots=True)
class Recommendation:
    workers: int | None  # None: nothing is recommended
    reasons: tuple[str, ...]


def recommend(figures: Figures, policy: Policy, now: float) -> Recommendation:
    if why := _useless(figures, policy, now):
        return Recommendation(None, (why,))
    loads: list[float] = []
    reasons: list[str] = []
    for measure, target in policy.targets.items():
        load, said = _load(measure, target, figures)
        reasons.append(said)
        if load is not None:
            loads.append(load)
    if not loads:
        return Recommendation(None, tuple(reasons))
    here = figures.workers
    wanted, said = _wanted(here, max(loads), whole=len(loads) == len(policy.targets))
    reasons.append(said)
    bounded = min(max(wanted, policy.least), policy.most)
    if bounded != wanted:
        reasons.append(f"The policy allows {policy.least} to {policy.most}.")
    return Recommendation(bounded, tuple(reasons))


def _useless(figures: Figures, policy: Policy, now: float) -> str:
    if figures.unknown:
        return f"Nothing is known: {figures.unknown}."
    age, window = now - figures.until, policy.window
    if age > window:
        return f"The figures ended {age:.0f} s ago, longer than the window of {window:g} s."
    if figures.seconds < window:
        return f"These workers were watched for {figures.seconds:.0f} s, and the window is {window:g} s."
    if figures.seconds > LONG * window:
        return f"The look before was {figures.seconds:.0f} s ago, and the window is {window:g} s."
    return ""


def _load(measure: Measure, target: float, figures: Figures) -> tuple[float | None, str]:
    if measure not in figures.measured:
        return None, f"{measure} is not known, so no worker is taken away."
    if measure == "p95" and figures.requests < FEW:
        return 0.0, f"p95: {figures.requests} requests, too few to ask for more workers."
    found = figures.measured[measure]
    said = {
        "cpu": f"cpu: {found:.0%} of a core each, of {target:.0%}.",
        "queue": f"queue: {found:.1f} texts wait for each worker, of {target:g}.",
        "p95": f"p95: {found * 1000:.1f} ms, of {target * 1000:g} ms.",
    }
    return found / target, said[measure]


def _wanted(here: int, load: float, whole: bool) -> tuple[int, str]:
    """`whole`: every figure is known."""
    if load > TOLERATED:
        asked = math.ceil(here * load - 1e-9)
        wanted = min(asked, 2 * here)
        slower = "" if wanted == asked else f", and it goes to {wanted} at once"
        return wanted, f"{here} run at {load:.2f} of the target: {asked} are needed{slower}."
    if here > 1 and load * here / (here - 1) <= ROOM:
        if not whole:
            return here, f"{here} run at {load:.2f} of the target, as far as is known: they stay."
        return here - 1, f"{here} run at {load:.2f} of the target: {here - 1} would have room left."
    return here, f"{here} run at {load:.2f} of the target: that is as it should be."
