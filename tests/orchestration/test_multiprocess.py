"""Runs whose steps are processes of their own: together they hold one lease and go by one plan."""

import asyncio
import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.event import Type
from gamma_orch.engine.converge import Site
from gamma_orch.engine.doors import opened
from gamma_orch.engine.session import session
from gamma_orch.store.lease import Sharing, acquire, release
from gamma_orch.testing.thing import ThingProvider
from tests.orchestration.elsewhere import check_converged, log, reconcile, steps
from tests.orchestration.projects import applied, ledger, pending, project, thing, world, write

pytestmark = pytest.mark.timeout(240)

NAMES = [f"{chain}{n}" for chain in "abc" for n in range(4)]


def chain(*names: str) -> list[str]:
    """Things, each after the one before it."""
    return [thing(name, after, value="v1") for name, after in zip(names, (None, *names), strict=False)]


def several(root: Path, *documents: str, at_once: int = 2) -> Path:
    settings = f"  executor: {{type: multiprocess, maxConcurrent: {at_once}}}\n"
    return project(root, *documents, settings=settings)


def faults(**given: Any) -> dict[str, str]:
    return {"GAMMA_THING_FAULTS": json.dumps(given)}


def free(root: Path) -> bool:
    """Whether anybody can take the lease at once."""
    with ledger(root) as database:
        release(database, acquire(database, "dev", "test"))  # raises LeaseHeld
    return True


def test_a_run_of_many_processes_is_one_run(root: Path) -> None:
    several(root, *chain(*NAMES[:4]), *chain(*NAMES[4:8]), *chain(*NAMES[8:]))
    assert reconcile(root) is dg.DagsterRunStatus.SUCCESS
    check_converged(root, NAMES)
    assert len(log(root, Type.PLANNED)) == 1
    assert len({event.plan for event in log(root)}) == 1
    assert {event.token for event in log(root)} == {1}
    for kind in (Type.BEGUN, Type.DONE):
        assert sorted(str(event.address) for event in log(root, kind)) == [f"Thing/{name}" for name in NAMES]
    assert len(log(root, Type.RELEASED)) == 1
    assert free(root)


def test_a_failure_stops_its_branch_and_no_other(root: Path) -> None:
    several(root, *chain("a0", "a1", "a2"), *chain("b0", "b1"))
    assert reconcile(root, **faults(permanent=["a1"])) is dg.DagsterRunStatus.FAILURE
    ended = {name.removeprefix("Thing__"): how for name, how in steps(root).items()}
    assert ended == {"a0": "SUCCESS", "a1": "FAILURE", "b0": "SUCCESS", "b1": "SUCCESS"}
    assert sorted(world(root).things) == ["a0", "b0", "b1"]
    assert pending(root) == {"Thing/a1": "create", "Thing/a2": "create"}
    assert len(log(root, Type.PLANNED)) == 1
    assert free(root)


def test_processes_that_start_together_announce_one_plan(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each makes its plan before any of them has written one down; and none of them is the last to plan."""
    several(root, *chain("a"), *chain("b"), *chain("c"))
    observe = ThingProvider.observe

    async def slowly(self: ThingProvider, asked: Any) -> Any:
        found = await observe(self, asked)
        await asyncio.sleep(0.3)
        return found

    async def carried_out(site: Site, name: str) -> None:
        address = Address("Thing", name)
        async with session(site, "test", sharing=Sharing("r1"), address=address) as one:
            await one.carry_out(address)

    async def together(sites: list[Site]) -> None:
        await asyncio.gather(*map(carried_out, sites, "abc"))
        for site in sites:
            await site.world.aclose()

    monkeypatch.setattr(ThingProvider, "observe", slowly)
    with contextlib.ExitStack() as doors:
        asyncio.run(together([doors.enter_context(opened(root, "dev")) for _ in range(3)]))
    counted = Counter(event.type for event in log(root))
    assert counted == {Type.PLANNED: 1, Type.BEGUN: 3, Type.DONE: 3, Type.RELEASED: 1}
    assert free(root)


@pytest.mark.nightly
def test_a_branch_that_ends_early_leaves_the_lease_to_the_others(root: Path) -> None:
    """While `slow` is under way, `b1` ends the last of its branch, and `c1` begins."""
    several(root, *chain("slow"), *chain("b0", "b1"), *chain("c0", "c1"), at_once=3)
    assert reconcile(root, **faults(slow={"slow": 25, "c0": 12})) is dg.DagsterRunStatus.SUCCESS
    check_converged(root, ["slow", "b0", "b1", "c0", "c1"])
    assert {event.token for event in log(root)} == {1}
    assert log(root, Type.FAILED) == []
    assert len(log(root, Type.RELEASED)) == 1
    assert free(root)


def test_what_goes_waits_for_what_lets_go_of_it(root: Path) -> None:
    several(root, *chain("base", "top"))
    applied(root)
    write(root, thing("top", value="v2"))
    assert pending(root) == {"Thing/base": "delete", "Thing/top": "update"}
    assert reconcile(root, **faults(slow={"top": 4})) is dg.DagsterRunStatus.SUCCESS
    assert list(world(root).things) == ["top"]
    assert log(root, Type.FAILED) == []
    assert pending(root) == {}


def test_a_selection_may_hold_what_the_run_itself_deletes(root: Path) -> None:
    several(root, *chain("base", "top"), *chain("other"))
    applied(root)
    write(root, *chain("other"))
    assert reconcile(root, "base", "top") is dg.DagsterRunStatus.SUCCESS
    assert list(world(root).things) == ["other"]
    assert pending(root) == {}
