"""The kind ScalingPolicy: how many workers a Service should have, recommended from what its workers do.

It recommends and does nothing: `workers` of the Service is what somebody writes. What it sees is said in
`figures`, what it makes of it in `scaling`. Observing it is a look at the workers, which is remembered, so a
recommendation comes once two looks are a window apart; a schedule that observes keeps it fresh.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Of, Traits
from gamma_orch.core.observation import Observation, Seen, Unreadable
from gamma_orch.core.provider import Asked, Page, Task
from gamma_orch.kinds.serving import programs
from gamma_orch.kinds.serving.bounds import SomeTime
from gamma_orch.kinds.serving.house import House
from gamma_orch.kinds.serving.kept import Kept
from gamma_orch.kinds.serving.scaling import LONG, Figures, Measure, Policy, Recommendation, recommend
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.model import Names
from gamma_orch.spec.quantities import Share, seconds_of, share_of
from gamma_orch.spec.written_out import WrittenOut
from gamma_orch.targets import Targets


class Target(WrittenOut):
    cpu: Share | None = None
    """The share of a core that each worker uses: 70%. One that has several threads may use more than one."""
    queue: float | None = Field(default=None, gt=0)
    """Texts that wait for each worker."""
    p95: SomeTime | None = None
    """The 95th percentile of the time from a request to its answer. Not of streams."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.cpu is None and self.queue is None and self.p95 is None:
            raise ValueError("say what to aim at: `cpu`, `queue` or `p95`")
        if self.cpu is not None and share_of(self.cpu) <= 0:
            raise ValueError("a worker that uses 0% of a core does nothing")
        return self


class ScalingPolicySpec(WrittenOut):
    service: Annotated[str, Names("Service")]
    """The Service whose workers are looked at."""
    least: int = Field(default=1, ge=1, le=64, alias="min")
    """Workers, at least."""
    most: int = Field(ge=1, le=64, alias="max")
    """Workers, at most."""
    target: Target
    """What the workers should keep to. The one that they are furthest beyond decides."""
    window: SomeTime = "5m"
    """How long they are watched for a recommendation."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"`min` is {self.least}, and `max` is {self.most}")
        return self


class ScalingPolicyProvider:
    def __init__(self, targets: Targets, clock: Callable[[], float] = time.time) -> None:
        self._kept = Kept(targets, "ScalingPolicy")
        self._place = targets.state / targets.environment
        self._clock = clock
        self._told: dict[Address, Recommendation] = {}

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        found = dict(self._kept.observe(asked))
        for address, one in found.items():
            if isinstance(one, Seen):
                found[address] = await self._look(address, one)
        return found

    async def apply(self, task: Task) -> None:
        self._kept.write(task)

    async def delete(self, task: Task) -> None:
        self._kept.remove(task)
        with contextlib.suppress(OSError):  # nobody reads them any more
            self._looks(task.address).unlink()

    def pages(self, address: Address) -> Mapping[str, Page]:
        """What the last observation of this process recommends."""
        if address not in self._told:
            return {}
        told = self._told[address]
        first = f"Workers recommended: {told.workers or 'none, too little is known'}."
        lines = [first, "", *(f"- {reason}" for reason in told.reasons)]
        return {"recommendation": Page(markdown="\n".join(lines))}

    async def _look(self, address: Address, seen: Seen) -> Observation:
        try:
            service, policy = str(seen.fields["service"]), policy_of(seen.fields)
        except (KeyError, TypeError, ValueError):
            return Unreadable(f"What was kept of {address} is no policy. Apply it again after deleting it.")
        now = self._clock()
        figures = await self._figures(address, House(self._place / f"service-{service}"), policy, now)
        told = self._told[address] = recommend(figures, policy, now)
        return Seen(seen.fields, {"recommended": told.workers, "reasons": list(told.reasons)})

    async def _figures(self, address: Address, house: House, policy: Policy, now: float) -> Figures:
        from gamma_orch.kinds.serving import figures

        try:
            workers = programs.numbers(house.fields(house.current()))
            taken = await figures.look(house.folder, workers, now)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return Figures(0, now, 0.0, unknown=f"{house.folder.name} runs no bundle")
        except figures.Unseen as error:
            return Figures(0, now, 0.0, unknown=str(error))
        path = self._looks(address)
        looks = figures.remembered(path)
        with contextlib.suppress(OSError):  # then the next look is the first one again
            figures.remember(path, [*looks, taken], now - LONG * policy.window)
        return figures.between(looks, taken, policy.window)

    def _looks(self, address: Address) -> Path:
        return self._place / "policies" / f"{address.kind}__{address.name}.looks"


def policy_of(fields: Fields) -> Policy:
    """Raises KeyError, TypeError or ValueError for fields that are none."""
    said = fields["target"]
    targets: dict[Measure, float] = {}
    if said.get("cpu") is not None:
        targets["cpu"] = share_of(said["cpu"])
    if said.get("queue") is not None:
        targets["queue"] = float(said["queue"])
    if said.get("p95") is not None:
        targets["p95"] = seconds_of(said["p95"])
    return Policy(int(fields["min"]), int(fields["max"]), targets, seconds_of(fields["window"]))


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    target = {measure: value for measure, value in spec["target"].items() if value is not None}
    return {**spec, "target": target}


KIND = Kind(
    name="ScalingPolicy",
    family="serving",
    summary="How many workers a Service should have, recommended from what they do.",
    spec=ScalingPolicySpec,
    provider=ScalingPolicyProvider,
    traits=Traits(normalise=normalise, convergent=True),
    outputs={
        "recommended": "how many workers it should have; nothing where too little is known",
        "reasons": "why, with figures",
    },
)
