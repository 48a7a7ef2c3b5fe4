"""The kind ScalingPolicy: how many workers a Service should have, recommended from what its workers do.

What it sees is said in `figures`, what it makes of it in `scaling`. Observing it is a look at the workers,
which is remembered, so a recommendation comes once two looks are a window apart; a schedule that observes
keeps it fresh. With `apply` a policy is not healthy while its Service has another number of workers than it
recommends, and applying it gives the Service that many; `workers` of the Service is then where it begins.
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
from gamma_orch.kinds.serving.service import ServiceProvider
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
    apply: bool = False
    """Whether the Service gets as many as are recommended. Else it is said and no more."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"`min` is {self.least}, and `max` is {self.most}")
        return self


class ScalingPolicyProvider:
    def __init__(self, targets: Targets, clock: Callable[[], float] = time.time) -> None:
        self._targets = targets
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
        """Raises Temporary or Permanent."""
        self._kept.write(task)
        if not task.fields["apply"]:
            await self._give_back(task)
            return
        await self._look(task.address, Seen(task.fields))
        if (wanted := self._told[task.address].workers) is not None:
            await self._resize(task, wanted)

    async def delete(self, task: Task) -> None:
        await self._give_back(task)
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
        figures = await self._figures(address, self._house(service), policy, now)
        told = self._told[address] = recommend(figures, policy, now)
        outputs: dict[str, Json] = {"recommended": told.workers, "reasons": list(told.reasons)}
        if not seen.fields.get("apply") or told.workers in (None, figures.workers):
            return Seen(seen.fields, outputs)
        why = f"Service/{service} has {figures.workers} workers, and {told.workers} are recommended. "
        return Seen(seen.fields, outputs, False, why + " ".join(told.reasons))

    async def _resize(self, task: Task, workers: int) -> None:
        """`workers`: of all replicas together."""
        service = str(task.fields["service"])
        house = self._house(service)
        fields = house.fields(house.current())
        each = -(-workers // max(1, programs.replicas(fields)))
        if each != house.sized(fields)["workers"]:
            task.tell(f"Service/{service}: {each} workers", None)
            await ServiceProvider(self._targets).resize(service, each, task.tell)

    async def _give_back(self, task: Task) -> None:
        """The Service has as many as its spec says again."""
        fields = task.recorded or task.live or {}
        house = self._house(str(fields.get("service", "")))
        if fields.get("apply") and (house.folder / "scaled").exists() and house.exists:
            await ServiceProvider(self._targets).resize(str(fields["service"]), None, task.tell)

    def _house(self, service: str) -> House:
        return House(self._place / f"service-{service}")

    async def _figures(self, address: Address, house: House, policy: Policy, now: float) -> Figures:
        from gamma_orch.kinds.serving import figures

        try:
            fields = house.sized(house.fields(house.current()))
            workers = house.seats() if programs.is_on_ray(fields) else programs.numbers(fields)
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
