"""The kind CachePolicy: how long answers are kept, and where. It has no object of its own in the world: the
Services that name it take it into their bundles."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from gamma_orch.core.address import Address
from gamma_orch.core.kind import Traits
from gamma_orch.core.observation import Observation
from gamma_orch.core.provider import Asked, Task
from gamma_orch.kinds.serving.bounds import Time, at_least
from gamma_orch.kinds.serving.kept import Kept
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.quantities import Share, Size, share_of
from gamma_orch.spec.written_out import WrittenOut
from gamma_orch.targets import Targets


def _half(value: str | float) -> str | float:
    if share_of(value) > 0.5:
        raise ValueError("lives differ by 50% or less")
    return value


class CachePolicySpec(WrittenOut):
    entries: int = Field(default=10_000, ge=0)
    """Answers that each worker keeps, at most. 0: none."""
    size: Annotated[Size, AfterValidator(at_least("1MB"))] = "64MB"
    """Their bytes, at most, in whole megabytes."""
    ttl: Time = "5m"
    """How long an answer is good."""
    stale: Time = "0s"
    """So long after that it is still given, while it is made anew."""
    negative: Time = "0s"
    """How long a refusal of the model is remembered."""
    jitter: Annotated[Share, AfterValidator(_half)] = "10%"
    """The share by which lives differ, so that not all end at once."""
    tenants: bool = False
    """Each tenant has answers of its own."""
    shared: bool = True
    """Workers share answers through Valkey."""


class CachePolicyProvider:
    def __init__(self, targets: Targets) -> None:
        self._kept = Kept(targets, "CachePolicy")

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        return self._kept.observe(asked)

    async def apply(self, task: Task) -> None:
        self._kept.write(task)

    async def delete(self, task: Task) -> None:
        self._kept.remove(task)


KIND = Kind(
    name="CachePolicy",
    family="serving",
    summary="How long answers are kept, and where; Services name it.",
    spec=CachePolicySpec,
    provider=CachePolicyProvider,
    traits=Traits(convergent=True),
)
