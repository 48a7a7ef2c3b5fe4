"""How long a change is likely to take, from the log alone."""

from collections.abc import Iterable, Mapping

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.change import Action, Impact
from gamma_orch.core.event import Event, Type
from gamma_orch.core.plan import Plan
from gamma_orch.core.provider import Temporary
from gamma_orch.engine import estimate
from gamma_orch.engine.estimate import impacts, past
from gamma_orch.store.lease import acquire
from gamma_orch.store.ledger import Log
from tests.engine.bench import Bench, item

TABLE = Address("Table", "t")


def done(address: Address, opcode: str, seconds: float | None) -> Event:
    data = {"opcode": opcode, "record": None, "movedFrom": None}
    return Event(Type.DONE, address, data=data if seconds is None else {**data, "seconds": seconds})


async def plan_with(bench: Bench, history: Iterable[Event]) -> Plan:
    bench.want("a")
    lease = acquire(bench.database, "dev", "test")
    Log(bench.database, lease, "t").append(list(history), bench.clock)
    return await bench.look()


async def test_the_median_by_kind_and_action(bench: Bench):
    history = [done(item("x"), "create", s) for s in (1.0, 100.0, 2.0)]
    history += [done(TABLE, "create", s) for s in (3.0, 4.00061)]
    history += [done(item("x"), "delete", 7.0), done(item("x"), "update", 5.0)]
    plan = await plan_with(bench, history)
    assert past(bench.database, "dev") == {
        ("Item", Action.CREATE): Impact(2.0, 3),
        ("Table", Action.CREATE): Impact(3.5, 2),
        ("Item", Action.DELETE): Impact(7.0, 1),
        ("Item", Action.UPDATE): Impact(5.0, 1),
        ("Item", Action.ADOPT): Impact(5.0, 1),
    }
    assert impacts(bench.database, plan, bench.world()) == {item("a"): Impact(2.0, 3)}


async def test_what_was_not_timed_does_not_count(bench: Bench):
    history = [
        done(item("x"), "create", None),  # settled after a crash
        Event(Type.FAILED, item("x"), data={"error": "No.", "seconds": 9.0, "opcode": "create"}),
        Event(Type.RELEASED, data={"commit": ""}),
    ]
    assert impacts(bench.database, await plan_with(bench, history), bench.world()) == {}


async def test_only_the_newest_count(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(estimate, "LOOK_BACK", 2)
    history = [done(item("x"), "create", s) for s in (100.0, 1.0, 3.0)]
    assert impacts(bench.database, await plan_with(bench, history), bench.world()) == {
        item("a"): Impact(2.0, 2)
    }


async def test_another_environment_says_nothing(bench: Bench):
    lease = acquire(bench.database, "prod", "test")
    Log(bench.database, lease, "t").append([done(item("x"), "create", 1.0)], bench.clock)
    bench.want("a")
    assert impacts(bench.database, await bench.look(), bench.world()) == {}


async def test_a_plan_without_steps_needs_none(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    bench.want("a")
    await bench.made()
    plan = await bench.look()
    monkeypatch.setattr(estimate, "latest", lambda *_: pytest.fail("the log was read for nothing"))
    assert impacts(bench.database, plan, bench.world()) == {}


async def test_a_run_leaves_what_the_next_is_estimated_by(bench: Bench):
    bench.want("a")
    await bench.made()
    bench.want("b")
    found = impacts(bench.database, await bench.look(), bench.world())
    assert set(found) == {item("b")}
    assert found[item("b")].runs == 1
    assert 0 < (found[item("b")].seconds or 0) < 60


async def test_a_provider_that_foresees_is_asked(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    bench.want("a")
    bench.want("b")
    plan = await plan_with(bench, [done(item("x"), "create", 1.0)])
    asked: list[Mapping[Address, Json]] = []

    def estimate(planned: Mapping[Address, Json]) -> Mapping[Address, Impact]:
        asked.append(planned)
        return {item("b"): Impact(note="nothing to build")}

    world = bench.world()
    monkeypatch.setattr(world.provider("Item"), "estimate", estimate, raising=False)
    assert impacts(bench.database, plan, world) == {
        item("a"): Impact(1.0, 1),
        item("b"): Impact(note="nothing to build"),
    }
    assert asked == [{step.address: step.planned for step in plan.steps}]


async def test_a_provider_that_cannot_foresee_spoils_no_plan(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    bench.want("a")
    plan = await plan_with(bench, [])

    def estimate(planned: Mapping[Address, Json]) -> Mapping[Address, Impact]:
        raise Temporary("the index cannot be read")

    world = bench.world()
    monkeypatch.setattr(world.provider("Item"), "estimate", estimate, raising=False)
    assert impacts(bench.database, plan, world) == {}
