"""A kind whose normalisation refers to an output of what it needs: made from what came out, not from how
that was written."""

from dataclasses import replace

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.change import Action, Reason
from gamma_orch.core.kind import Fields, Of
from gamma_orch.core.leaves import Ref
from gamma_orch.core.provider import Task
from tests.engine.bench import TRAITS, Bench, item, normalise, statuses


@pytest.fixture
def learner(bench: Bench) -> Bench:
    """An item that `learns` from another has that one's id among its fields."""

    def refer(address: Address, spec: Json, of: Of) -> Fields:
        fields = dict(normalise(address, spec, of))
        if "learns" in fields:
            fields["from"] = {"id": Ref(item(fields["learns"]), "id")}
        return fields

    bench.rules(replace(TRAITS, normalise=refer, refers=True))
    return bench


async def changes(bench: Bench) -> dict[str, tuple[Action, Reason]]:
    return {c.address.name: (c.action, c.reason) for c in (await bench.look()).changes}


async def test_it_is_made_from_what_came_out(learner: Bench):
    learner.want("data")
    learner.want("model", needs=["data"], learns="data")
    plan = await learner.look()
    [step] = [step for step in plan.steps if step.address == item("model")]
    assert step.planned["from"]["id"] == {"$unknown": "known after Item/data is applied"}
    await learner.made()
    assert learner.place.objects["model"]["from"] == {"id": learner.place.ids["data"]}
    assert not (await learner.look()).steps


async def test_another_result_makes_it_anew(learner: Bench):
    learner.want("data", value="a")
    learner.want("model", needs=["data"], learns="data")
    await learner.made()
    learner.place.renewed.add("data")
    learner.want("data", value="b")
    assert await changes(learner) == {
        "data": (Action.UPDATE, Reason.SPEC_CHANGED),
        "model": (Action.UPDATE, Reason.KNOWN_LATER),
    }
    await learner.made()
    assert learner.place.objects["model"]["from"] == {"id": learner.place.ids["data"]}


async def test_the_same_result_makes_nothing_anew(learner: Bench):
    """The data was written otherwise and came out the same: what was made from it stands."""
    learner.want("data", value="a")
    learner.want("model", needs=["data"], learns="data")
    await learner.made()
    learner.want("data", value="b")
    outcome = await learner.apply()
    assert statuses(outcome) == {"data": "done", "model": "done"}
    assert learner.place.effects == [("update", "data")]


async def test_a_result_that_changed_outside_is_a_change(learner: Bench):
    learner.want("data")
    learner.want("model", needs=["data"], learns="data")
    await learner.made()
    learner.place.ids["data"] = "another"
    plan = await learner.look()
    [change] = [c for c in plan.changes if c.address == item("model")]
    assert (change.action, change.reason) == (Action.UPDATE, Reason.SPEC_CHANGED)
    assert [(field.was, field.wanted) for field in change.fields] == [("id-1", "another")]


async def test_an_effect_may_tell_how_far_it_is(bench: Bench):
    async def talk(task: Task) -> None:
        task.tell("epoch 1 of 2", 0.5)

    bench.want("model")
    bench.place.before["model"] = talk
    await bench.apply()
    assert bench.told.lines[1:] == [("started", "model"), ("epoch 1 of 2", "model"), ("finished", "model")]
