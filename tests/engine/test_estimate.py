"""How long a change is likely to take, from the log alone."""

from collections.abc import Iterable

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.change import Impact
from gamma_orch.core.event import Event, Type
from gamma_orch.core.plan import Plan
from gamma_orch.engine import estimate
from gamma_orch.engine.estimate import impacts
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
    found = impacts(bench.database, await plan_with(bench, history))
    assert found == {
        ("Item", "create"): Impact(2.0, 3),
        ("Table", "create"): Impact(3.5, 2),
        ("Item", "delete"): Impact(7.0, 1),
        ("Item", "update"): Impact(5.0, 1),
        ("Item", "adopt"): Impact(5.0, 1),
    }


async def test_what_was_not_timed_does_not_count(bench: Bench):
    history = [
        done(item("x"), "create", None),  # settled after a crash
        Event(Type.FAILED, item("x"), data={"error": "No.", "seconds": 9.0, "opcode": "create"}),
        Event(Type.RELEASED, data={"commit": ""}),
    ]
    assert impacts(bench.database, await plan_with(bench, history)) == {}


async def test_only_the_newest_count(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(estimate, "LOOK_BACK", 2)
    history = [done(item("x"), "create", s) for s in (100.0, 1.0, 3.0)]
    assert impacts(bench.database, await plan_with(bench, history)) == {("Item", "create"): Impact(2.0, 2)}


async def test_another_environment_says_nothing(bench: Bench):
    lease = acquire(bench.database, "prod", "test")
    Log(bench.database, lease, "t").append([done(item("x"), "create", 1.0)], bench.clock)
    bench.want("a")
    assert impacts(bench.database, await bench.look()) == {}


async def test_a_plan_without_steps_needs_none(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    bench.want("a")
    await bench.made()
    plan = await bench.look()
    monkeypatch.setattr(estimate, "latest", lambda *_: pytest.fail("the log was read for nothing"))
    assert impacts(bench.database, plan) == {}


async def test_a_run_leaves_what_the_next_is_estimated_by(bench: Bench):
    bench.want("a")
    await bench.made()
    bench.want("b")
    found = impacts(bench.database, await bench.look())
    assert set(found) == {("Item", "create")}
    assert found["Item", "create"].runs == 1
    assert 0 < (found["Item", "create"].seconds or 0) < 60
