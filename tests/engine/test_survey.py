"""Observe and plan: what is asked for, what an earlier run left open, and that nothing is written."""

from dataclasses import replace

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.change import Action, Reason
from gamma_orch.core.event import Type
from gamma_orch.core.leaves import Ref, Secret
from gamma_orch.core.observation import Seen, Unreadable
from gamma_orch.core.provider import Asked
from gamma_orch.core.resource import Lifecycle
from gamma_orch.engine import converge
from gamma_orch.engine.survey import survey
from gamma_orch.store.database import Database
from gamma_orch.store.ledger import present
from tests.engine.bench import ITEM, TRAITS, Bench, PlaceProvider, item, kind
from tests.world.memory import Killed


async def test_looking_writes_nothing(bench: Bench):
    bench.database.close()
    bench.database = Database(f"sqlite:///{bench.folder}/none/ledger.db")
    bench.want("a")
    plan = await bench.look()
    assert [step.address.name for step in plan.steps] == ["a"]
    assert (plan.environment, plan.commit, plan.parent) == ("dev", bench.commit, 0)
    assert not (bench.folder / "none").exists()
    assert bench.place.tasks == []


async def test_looking_at_an_open_step_writes_nothing_and_plans_as_if_it_were_settled(bench: Bench):
    bench.want("a")
    bench.place.fails["a"] = [Killed()]
    with pytest.raises(Killed):
        await bench.apply()
    before = bench.written()
    found = await converge.look(bench.site())
    assert [event.type for event in found.settled] == [Type.FAILED]
    assert found.ledger.entries[item("a")].begun is None
    assert [change.action for change in found.plan.changes] == [Action.CREATE]
    assert bench.written() == before

    outcome = await bench.apply(found.plan)
    assert not outcome.refusals, "what a look settles is numbered as an apply numbers it"
    assert outcome.plan.id == found.plan.id


async def test_settled_events_are_numbered_from_the_end_of_the_log(bench: Bench):
    for name in ("a", "b"):
        bench.want(name)
        bench.place.after[name] = killed
    with pytest.raises(Killed):
        await bench.apply()
    bench.place.after.clear()
    ledger, seq = present(bench.database, "dev")
    found = await survey("dev", bench.desired, "", ledger, seq, bench.world())
    numbers = {address.name: entry.done for address, entry in found.ledger.entries.items()}
    assert sorted(numbers.values()) == [seq + 1, seq + 2]
    outcome = await bench.apply()
    assert len(outcome.settled) == 2
    stored = present(bench.database, "dev")[0]
    assert {address.name: entry.done for address, entry in stored.entries.items()} == numbers


async def killed(task: object) -> None:
    raise Killed


async def test_what_is_asked_for(bench: Bench):
    bench.want("recorded", value="1")
    bench.want("leaving", value="1")
    bench.want("old", value="1")
    await bench.made()
    bench.drop("leaving", "old")
    bench.want("recorded", value="2")
    bench.want("fresh", upstream=Ref(item("recorded"), "id"), password=Secret("pw", "k:d"))
    bench.want("new", value="1", moved_from="old")
    await bench.look()
    (one,) = bench.place.asked
    assert one == [
        Asked(
            item("fresh"),
            {"name": "fresh", "upstream": Ref(item("recorded"), "id"), "password": Secret("pw", "k:d")},
            None,
        ),
        Asked(item("leaving"), None, {"name": "leaving", "value": "1"}),
        Asked(item("new"), {"name": "new", "value": "1"}, {"name": "old", "value": "1"}),
        Asked(item("recorded"), {"name": "recorded", "value": "2"}, {"name": "recorded", "value": "1"}),
    ]


async def test_what_is_gone_for_good_is_not_asked_for(bench: Bench):
    bench.want("a")
    await bench.made()
    bench.drop("a")
    await bench.made()
    await bench.look()
    assert bench.place.asked == []


async def test_a_step_that_was_cut_off_says_what_to_look_for(bench: Bench):
    bench.want("a", value="1")
    bench.place.before["a"] = killed
    with pytest.raises(Killed):
        await bench.apply()
    bench.place.asked.clear()
    bench.drop("a")
    bench.place.put("a", value="1")
    plan = await bench.look()
    assert bench.place.asked == [[Asked(item("a"), None, {"name": "a", "value": "1"})]]
    assert [change.action for change in plan.changes] == [Action.DELETE], "it was made, and is not wanted"


async def test_a_deletion_that_was_cut_off_says_what_it_found(bench: Bench):
    """The record went with another event: only the open step knows the name."""
    bench.want("a", value="1")
    await bench.made()
    ledger, _ = present(bench.database, "dev")
    entry = ledger.entries[item("a")]
    bench.drop("a")
    bench.place.before["a"] = killed
    with pytest.raises(Killed):
        await bench.apply()
    ledger, seq = present(bench.database, "dev")
    begun = ledger.entries[item("a")].begun
    assert begun is not None
    assert begun.planned is None
    bare = replace(ledger, entries={item("a"): replace(entry, record=None, begun=begun)})
    bench.place.asked.clear()
    await survey("dev", {}, "", bare, seq, bench.world())
    assert bench.place.asked == [[Asked(item("a"), None, {"name": "a", "value": "1"})]]


async def test_a_recorded_kind_that_is_gone_holds_up_nobody(bench: Bench):
    bench.kinds["Gone"] = kind(lambda targets: PlaceProvider(bench.place), "Gone")
    gone = Address("Gone", "g")
    bench.desired[gone] = replace(bench.desired[bench.want("x")], address=gone)
    bench.drop("x")
    await bench.made()
    del bench.desired[gone], bench.kinds["Gone"]
    bench.want("a")
    found = await converge.look(bench.site())
    assert found.observations[gone] == Unreadable("no installed plugin provides the kind Gone")
    assert {c.address: (c.action, c.reason) for c in found.plan.changes} == {
        gone: (Action.REFUSE, Reason.UNREADABLE),
        item("a"): (Action.CREATE, Reason.NEW),
    }
    outcome = await bench.apply()
    assert bench.place.effects == [("create", "a")]
    assert [change.address for change in outcome.plan.refused] == [gone]
    assert "g" in bench.place.objects


async def test_what_a_survey_holds(bench: Bench):
    bench.want("a", lifecycle=Lifecycle(protect=True), value="1")
    bench.place.put("a", value="1")
    found = await converge.look(bench.site())
    assert found.wanted == {item("a"): {"name": "a", "value": "1"}}
    assert found.traits == {ITEM: TRAITS}
    assert found.observations == {item("a"): Seen({"name": "a", "value": "1"}, {"id": "outside-a"})}
    assert found.desired == bench.desired
