"""Apply as a whole: under a lease, settled first, admitted, and released only when all is done."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.admit import Ground
from gamma_orch.core.canonical import Json
from gamma_orch.core.change import Action, Reason
from gamma_orch.core.event import Event, Type
from gamma_orch.core.kind import Fields, Of
from gamma_orch.core.observation import Unreadable
from gamma_orch.core.provider import Permanent, Task
from gamma_orch.core.resource import Lifecycle
from gamma_orch.engine import converge
from gamma_orch.engine.converge import author
from gamma_orch.store import lease as leases
from gamma_orch.store.errors import LeaseHeld, StoreError
from gamma_orch.store.ledger import Log, released, verify
from tests.engine.bench import TRAITS, Bench, item, statuses
from tests.world.memory import Killed

# -- a saved plan --------------------------------------------------------------------------------


def another_apply(bench: Bench) -> None:
    lease = leases.acquire(bench.database, "dev", "test", lambda: bench.clock)
    consent = Event(Type.APPROVED, item("other"), data={"consent": "x"})
    Log(bench.database, lease, "t").append([consent], bench.clock)
    leases.release(bench.database, lease)


def another_commit(bench: Bench) -> None:
    bench.commit = "d" * 40


def other_specs(bench: Bench) -> None:
    bench.want("a", value="3")


def other_metadata(bench: Bench) -> None:
    bench.want("b", value="1", lifecycle=Lifecycle(protect=True))


def changed(bench: Bench) -> None:
    bench.place.objects["a"]["value"] = "theirs"


def deleted(bench: Bench) -> None:
    del bench.place.objects["a"]


def unwell(bench: Bench) -> None:
    bench.place.unwell["a"] = "it is invalid"


def unreadable(bench: Bench) -> None:
    bench.place.reads["a"] = [Unreadable("no route")]


def changed_elsewhere(bench: Bench) -> None:
    bench.place.objects["b"]["value"] = "theirs"


def came_up(bench: Bench) -> None:
    bench.place.put("new", value="theirs")


A = item("a")


@pytest.mark.parametrize(
    ("meanwhile", "grounds", "says"),
    [
        (another_apply, [(Ground.LEDGER_MOVED, None)], "something was applied since"),
        (another_commit, [(Ground.COMMIT_MOVED, None)], "made from cccccccccccc, and this is dddddddddddd"),
        (other_specs, [(Ground.SPECS_MOVED, None)], "the specs, variables or secrets changed"),
        (other_metadata, [(Ground.SPECS_MOVED, None)], "the specs, variables or secrets changed"),
        (changed, [(Ground.WORLD_MOVED, A)], "Item/a changed since the plan was made"),
        (deleted, [(Ground.WORLD_MOVED, A)], "Item/a changed since the plan was made"),
        (unwell, [(Ground.WORLD_MOVED, A)], "Item/a changed since the plan was made"),
        (came_up, [(Ground.WORLD_MOVED, item("new"))], "Item/new changed since the plan was made"),
        (unreadable, [(Ground.UNREADABLE, A)], "Item/a cannot be read now: no route"),
        (changed_elsewhere, [(Ground.WORLD_MOVED, None)], "planning again gives another plan"),
    ],
)
async def test_a_saved_plan_that_is_stale_is_refused_with_the_reason_and_has_no_effect(
    bench: Bench,
    meanwhile: Callable[[Bench], None],
    grounds: list[tuple[Ground, Address | None]],
    says: str,
):
    bench.want("a", value="1")
    bench.want("b", value="1")
    await bench.made()
    bench.want("a", value="2")
    bench.want("new", value="1")
    saved = await bench.look()
    meanwhile(bench)
    log = bench.written()
    outcome = await bench.apply(saved)
    assert [(refusal.ground, refusal.address) for refusal in outcome.refusals] == grounds
    assert says in outcome.refusals[0].message
    assert (outcome.results, outcome.stopped, outcome.failed) == ((), False, False)
    assert outcome.plan.id != saved.id, "what would be done now is told"
    assert bench.place.tasks == []
    assert bench.written() == log
    assert bench.told.lines == []
    assert bench.holder() == ""


async def test_every_reason_is_given(bench: Bench):
    bench.want("a", value="1")
    saved = await bench.look()
    another_apply(bench)
    another_commit(bench)
    bench.place.put("a", value="theirs")
    outcome = await bench.apply(saved)
    assert [r.ground for r in outcome.refusals] == [
        Ground.LEDGER_MOVED,
        Ground.COMMIT_MOVED,
        Ground.WORLD_MOVED,
    ]


async def test_a_refused_plan_leaves_an_open_step_open(bench: Bench):
    bench.want("a", value="1")
    saved = await bench.look()
    bench.place.after["a"] = die
    with pytest.raises(Killed):
        await bench.apply()
    log = bench.written()
    outcome = await bench.apply(saved)
    assert [r.ground for r in outcome.refusals][:1] == [Ground.LEDGER_MOVED]
    assert outcome.settled == ()
    assert bench.written() == log


async def test_a_saved_plan_that_holds_is_carried_out(bench: Bench):
    bench.want("a", value="1")
    saved = await bench.look()
    outcome = await bench.apply(saved)
    assert statuses(outcome) == {"a": "done"}
    assert outcome.plan.id == saved.id
    assert not outcome.refusals
    assert {event.plan for event in bench.log()} == {saved.id}
    again = await bench.apply(saved)
    assert [r.ground for r in again.refusals] == [Ground.LEDGER_MOVED, Ground.WORLD_MOVED]
    assert bench.place.effects == [("create", "a")]


# -- consents ------------------------------------------------------------------------------------


async def test_a_protected_object_goes_by_a_consent_that_names_it_and_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GAMMA_ACTOR", "ann")
    for name in ("a", "b"):
        bench.want(name, lifecycle=Lifecycle(protect=True))
    await bench.made()
    bench.drop("a", "b")
    refused = await bench.apply()
    assert [(c.address, c.reason) for c in refused.plan.refused] == [
        (item("a"), Reason.PROTECTED),
        (item("b"), Reason.PROTECTED),
    ]
    assert bench.place.tasks == []

    before = len(bench.log())
    outcome = await bench.apply(consents=[item("a")])
    assert statuses(outcome) == {"a": "done"}
    assert [change.address for change in outcome.plan.refused] == [item("b")]
    assert bench.place.effects == [("delete", "a")]
    assert bench.written()[before : before + 4] == ["approved a", "planned", "begun a", "done a"]
    approved = bench.log()[before]
    assert (approved.data, approved.by) == ({"consent": "ann"}, "ann")

    bench.want("a", lifecycle=Lifecycle(protect=True))
    await bench.made()
    bench.drop("a")
    again = await bench.apply()
    assert item("a") in [change.address for change in again.plan.refused], "a consent counts once"
    assert bench.place.tasks == []


async def test_a_consent_lets_a_step_in_doubt_go_on(bench: Bench):
    bench.want("a", value="1")
    await bench.made()
    bench.want("a", value="2")
    bench.place.after["a"] = die
    with pytest.raises(Killed):
        await bench.apply()
    bench.place.after.clear()
    bench.place.objects["a"]["value"] = "neither"
    doubt = await bench.apply()
    assert [change.reason for change in doubt.plan.refused] == [Reason.IN_DOUBT]
    bench.place.effects.clear()
    outcome = await bench.apply(consents=[item("a")])
    assert statuses(outcome) == {"a": "done"}
    assert [event.data["error"] for event in outcome.settled] == ["given up by consent"]
    assert bench.place.objects["a"]["value"] == "2"


def test_who_acts(monkeypatch: pytest.MonkeyPatch):
    assert author() == leases.user()
    monkeypatch.setenv("GAMMA_ACTOR", "pipeline 7")
    assert author() == "pipeline 7"
    monkeypatch.setenv("GAMMA_ACTOR", "")
    assert author() == leases.user()


# -- what an earlier run left ---------------------------------------------------------------------


async def die(task: Task) -> None:
    raise Killed


async def test_what_was_left_open_is_settled_before_anything_else(bench: Bench):
    bench.want("done")
    bench.want("not")
    bench.place.after["done"] = die
    bench.place.before["not"] = die
    with pytest.raises(Killed):
        await bench.apply()
    bench.place.after.clear()
    bench.place.before.clear()
    assert sorted(bench.written()) == ["begun done", "begun not", "planned"]
    key = next(e.step for e in bench.log() if e.type is Type.BEGUN and e.address == item("not"))
    outcome = await bench.apply()
    assert bench.written()[3:] == ["done done", "failed not", "planned", "begun not", "done not", "released"]
    assert [e.type for e in outcome.settled] == [Type.DONE, Type.FAILED]
    assert statuses(outcome) == {"not": "done"}
    assert bench.place.touched("done") == ["create"]
    assert [e.step for e in bench.log() if e.type is Type.BEGUN and e.address == item("not")] == [key, key]
    assert bench.record("done").outputs == {"id": bench.place.ids["done"]}
    assert verify(bench.database, "dev") == []


async def test_settling_may_be_all_there_is_to_do(bench: Bench):
    bench.want("a")
    bench.place.after["a"] = die
    with pytest.raises(Killed):
        await bench.apply()
    outcome = await bench.apply()
    assert [event.type for event in outcome.settled] == [Type.DONE]
    assert outcome.results == ()
    assert bench.written() == ["planned", "begun a", "done a", "released"]
    assert (await bench.apply()).settled == []


async def test_what_cannot_be_read_stays_open_and_holds_up_nobody(bench: Bench):
    bench.want("a")
    bench.place.after["a"] = die
    with pytest.raises(Killed):
        await bench.apply()
    bench.want("b")
    bench.place.reads["a"] = [Unreadable("no route")]
    outcome = await bench.apply()
    assert outcome.settled == []
    assert statuses(outcome) == {"b": "done"}
    assert bench.entry("a").begun is not None


# -- what is written down ------------------------------------------------------------------------


async def test_a_plan_carried_out_whole_is_released(bench: Bench):
    bench.want("a")
    await bench.apply()
    last = bench.log()[-1]
    assert (last.type, last.data, last.address) == (Type.RELEASED, {"commit": bench.commit}, None)
    assert released(bench.database, "dev") == bench.commit


async def test_a_plan_of_which_a_part_failed_is_not(bench: Bench):
    bench.want("a")
    bench.want("b")
    bench.place.fails["a"] = [Permanent("No.")]
    await bench.apply()
    assert "released" not in bench.written()
    assert released(bench.database, "dev") == ""
    await bench.apply()
    assert bench.written()[-1] == "released"


async def test_a_plan_of_which_a_part_is_held_back_is_not(bench: Bench):
    """A refused one, and one that waits for it: what could be done was done, and that is not all."""
    bench.want("a")
    bench.want("b", needs=["a"])
    bench.want("c")
    bench.place.reads["a"] = [Unreadable("no route")]
    outcome = await bench.apply()
    assert statuses(outcome) == {"c": "done"}
    assert "released" not in bench.written()
    assert statuses(await bench.apply()) == {"a": "done", "b": "done"}
    assert bench.written()[-1] == "released"


async def test_a_plan_that_was_stopped_is_not(bench: Bench):
    stop = asyncio.Event()

    async def stopping(task: Task) -> None:
        stop.set()

    bench.want("a")
    bench.want("b", needs=["a"])
    bench.place.before["a"] = stopping
    outcome = await bench.apply(stop=stop)
    assert statuses(outcome) == {"a": "done", "b": "stopped"}
    assert "released" not in bench.written()


async def test_a_stop_that_comes_too_late_stops_nothing(bench: Bench):
    stop = asyncio.Event()

    async def stopping(task: Task) -> None:
        stop.set()

    bench.want("a")
    bench.place.before["a"] = stopping
    assert statuses(await bench.apply(stop=stop)) == {"a": "done"}
    assert bench.written()[-1] == "released"


async def test_nothing_to_do_writes_nothing(bench: Bench):
    bench.want("a")
    await bench.made()
    log = bench.written()
    outcome = await bench.apply()
    assert outcome.results == ()
    assert [change.action for change in outcome.plan.changes] == [Action.KEEP]
    assert bench.written() == log
    assert bench.told.lines == [("planned", outcome.plan.id)]
    assert bench.holder() == ""


async def test_what_the_history_says_of_a_plan(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GAMMA_ACTOR", "ann")
    bench.want("kept")
    await bench.made()
    bench.want("a", value="1")
    outcome = await bench.apply(purpose="destroy")
    (planned,) = [e for e in bench.log() if e.type is Type.PLANNED and e.plan == outcome.plan.id]
    assert planned.by == "ann"
    assert planned.at == "2026-01-01T00:00:00.000Z"
    assert planned.data == {
        "purpose": "destroy",
        "commit": bench.commit,
        "summary": outcome.plan.summary(),
        "changes": [{"address": "Item/a", "action": "create", "reason": "not there yet"}],
    }
    assert planned.data["summary"]["create"] == planned.data["summary"]["keep"] == 1


async def test_the_watcher_sees_the_plan_first(bench: Bench):
    bench.want("a")
    outcome = await bench.apply()
    assert bench.told.lines == [("planned", outcome.plan.id), ("started", "a"), ("finished", "a")]


async def test_nobody_needs_to_watch(bench: Bench):
    bench.want("a")
    assert statuses(await bench.apply(watcher=None)) == {"a": "done"}


# -- the lease -----------------------------------------------------------------------------------


async def test_the_lease_is_held_while_it_acts_and_given_back(bench: Bench):
    held: list[dict[str, object]] = []

    async def look(task: Task) -> None:
        held.append(json.loads(bench.holder()))
        with pytest.raises(LeaseHeld, match="destroy"):
            await bench.apply()

    bench.want("a")
    bench.place.before["a"] = look
    outcome = await bench.apply(purpose="destroy")
    assert statuses(outcome) == {"a": "done"}
    assert held[0]["purpose"] == "destroy"
    assert bench.holder() == ""


async def test_who_finds_the_lease_held_does_nothing(bench: Bench):
    leases.acquire(bench.database, "dev", "another", lambda: bench.clock)
    before = bench.holder()
    bench.want("a")
    with pytest.raises(LeaseHeld, match="is at work on dev"):
        await bench.apply(consents=[item("a")])
    assert bench.place.asked == []
    assert bench.log() == []
    assert bench.holder() == before
    bench.clock += timedelta(seconds=leases.SECONDS + 1)
    assert statuses(await bench.apply()) == {"a": "done"}


async def test_another_environment_is_no_hindrance(bench: Bench):
    leases.acquire(bench.database, "prod", "another", lambda: bench.clock)
    bench.want("a")
    assert statuses(await bench.apply()) == {"a": "done"}


async def test_the_lease_is_given_back_after_an_error_of_the_survey(bench: Bench):
    bench.want("a")

    def broken(address: Address, spec: Json, of: Of) -> Fields:
        raise ZeroDivisionError

    bench.rules(replace(TRAITS, normalise=broken))
    with pytest.raises(ZeroDivisionError):
        await bench.apply()
    assert bench.holder() == ""


async def test_the_lease_is_given_back_after_an_error_in_the_middle(bench: Bench):
    bench.want("a")
    bench.place.before["a"] = die
    with pytest.raises(Killed):
        await bench.apply()
    assert bench.holder() == ""


async def test_the_lease_is_given_back_where_the_ledger_cannot_be_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object) -> None:
        raise StoreError("The ledger is damaged.")

    monkeypatch.setattr(converge, "Log", broken)
    with pytest.raises(StoreError, match="damaged"):
        await bench.apply()
    assert bench.holder() == ""


async def test_nobody_renews_any_more_at_the_end(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    renewals = 0

    def count(*_: object) -> None:
        nonlocal renewals
        renewals += 1

    async def wait(task: Task) -> None:
        await asyncio.sleep(0.05)

    monkeypatch.setattr(converge, "RENEW_SECONDS", 0.001)
    monkeypatch.setattr(leases, "renew", count)
    bench.want("a")
    bench.place.before["a"] = wait
    await bench.apply()
    assert renewals
    renewals = 0
    await asyncio.sleep(0.03)
    assert renewals <= 1, "one may have been under way"
    assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} == set()


def test_a_lease_is_renewed_well_before_it_ends():
    assert converge.RENEW_SECONDS * 2 < leases.SECONDS
