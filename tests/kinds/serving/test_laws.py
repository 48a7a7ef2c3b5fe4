"""The provider laws, of the policies. Those of Service need processes: tests/e2e has them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.core.address import Address
from gamma_orch.kinds.serving.cache_policy import KIND as CACHE
from gamma_orch.kinds.serving.scaling_policy import KIND as SCALING
from gamma_orch.spec.kind import Kind
from gamma_orch.targets import Targets
from gamma_orch.testing.laws import LAWS, Law, Sample, Subject, check
from tests.kinds.serving.specs import cache, scaling

SAMPLES = {
    "CachePolicy": (
        Sample(Address("CachePolicy", "a"), cache(), changed=cache(ttl="1m", tenants=True)),
        Sample(Address("CachePolicy", "b"), cache(entries=0), changed=cache(entries=5)),
    ),
    "ScalingPolicy": (
        Sample(
            Address("ScalingPolicy", "a"),
            scaling(),
            changed=scaling(min=2, window="1m", target={"p95": "20ms", "queue": 4.5}),
        ),
        Sample(Address("ScalingPolicy", "b"), scaling(service="other"), changed=scaling(max=9)),
    ),
}


def subject(root: Path, kind: Kind) -> Subject:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        yield kind.provider(Targets("dev", root, {}, lambda tree: tree))

    @contextmanager
    def unreadable(address: Address) -> Iterator[frozenset[Address]]:
        """A folder where the file should be."""
        file = root / "dev" / "policies" / f"{address.kind}__{address.name}.json"
        aside = file.with_suffix(".aside")
        file.parent.mkdir(parents=True, exist_ok=True)
        if there := file.is_file():
            file.rename(aside)
        file.mkdir()
        yield frozenset({address})
        file.rmdir()
        if there:
            aside.rename(file)

    return Subject(kind.traits, opened, SAMPLES[kind.name], unreadable)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("kind", [CACHE, SCALING], ids=lambda kind: kind.name)
def test_it_keeps(kind: Kind, law: Law, tmp_path: Path) -> None:
    check(law, subject(tmp_path, kind))
