"""What is refused before any effect: whatever differs from what the plan was made from."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gamma_orch.core.address import Address
from gamma_orch.core.admit import Ground, Now, admit, admit_step
from gamma_orch.core.evidence import Evidence, Gate, Judgement
from gamma_orch.core.observation import ABSENT, Observation, Seen, Unreadable
from gamma_orch.core.plan import Plan, Step
from gamma_orch.core.provider import Opcode
from tests.core.test_planner_laws import History, histories


def now(plan: Plan, history: History) -> Now:
    return Now(plan.parent, plan.commit, plan.desired, history.world)


@given(histories())
def test_the_moment_it_was_made_admits_it(history: History) -> None:
    """Nothing moved, nothing is refused."""
    plan = history.plan()
    assert admit(plan, now(plan, history)) == []


@given(histories(), st.sampled_from(["state", "commit", "desired"]))
def test_any_other_ground_is_refused(history: History, what: str) -> None:
    """The ledger, the commit, the specs: each by its own name."""
    plan = history.plan()
    other: dict[str, tuple[dict[str, Any], Ground]] = {
        "state": ({"state": plan.parent + 1}, Ground.LEDGER_MOVED),
        "commit": ({"commit": "another"}, Ground.COMMIT_MOVED),
        "desired": ({"desired": "another"}, Ground.SPECS_MOVED),
    }
    change, ground = other[what]
    assert [r.ground for r in admit(plan, replace(now(plan, history), **change))] == [ground]


@given(
    histories(),
    st.sampled_from(["change", "outputs", "health", "gone", "came", "unreadable", "missing"]),
    st.data(),
)
def test_any_difference_in_the_world_is_refused(history: History, what: str, data: st.DataObject) -> None:
    """Law 9, for each object that a step starts from; outputs are no part of what a step rests on."""
    plan = history.plan()
    steps = [s for s in plan.steps if not any(plan.steps[n].address == s.address for n in s.needs)]
    steps = [s for s in steps if s.opcode is not Opcode.FORGET]  # it does not touch the world
    assume(steps)
    step = data.draw(st.sampled_from(steps))
    seen = history.world[step.address]
    moved = dict(history.world)
    del moved[step.address]
    if what == "unreadable":
        moved[step.address] = Unreadable("no route")
    elif what == "came":
        assume(seen == ABSENT)
        moved[step.address] = Seen({})
    elif what != "missing":
        assume(isinstance(seen, Seen))
        assert isinstance(seen, Seen)
        others: dict[str, Observation] = {
            "change": replace(seen, fields={**seen.fields, "theirs": 1}),
            "outputs": replace(seen, outputs={"id": "other"}),
            "health": replace(seen, healthy=False),
            "gone": ABSENT,
        }
        moved[step.address] = others[what]
    refusals = admit(plan, replace(now(plan, history), observations=moved))
    if what == "outputs":
        assert refusals == []
        return
    (refusal,) = refusals
    assert refusal.address == step.address
    assert refusal.ground is (Ground.UNREADABLE if what in ("unreadable", "missing") else Ground.WORLD_MOVED)
    assert str(step.address) in refusal.message
    why = {"unreadable": "no route", "missing": "it was not observed"}
    assert why.get(what, "changed since the plan was made") in refusal.message


@given(histories())
def test_each_step_is_asked_again(history: History) -> None:
    """A creation after a deletion expects to find nothing, the others what was observed."""
    plan = history.plan()
    for step in plan.steps:
        follows = any(plan.steps[n].address == step.address for n in step.needs)
        seen = ABSENT if follows else history.world[step.address]
        assert admit_step(step, seen) == []
        if step.opcode is Opcode.CREATE:
            assert [r.ground for r in admit_step(step, Seen({}))] == [Ground.WORLD_MOVED]


def test_forgetting_touches_nothing_and_needs_no_look() -> None:
    """Whatever is there by now, and if nobody can look at all."""
    step = Step(0, "k", Opcode.FORGET, Address("Thing", "a"), (), "absent", None, None, None)
    for seen in (ABSENT, Seen({}), Unreadable("no route"), None):
        assert admit_step(step, seen) == []


def test_refusals_are_said_all_at_once() -> None:
    """With the numbers, the commits and the reasons that people need."""
    plan = Plan("dev", 3, "a" * 40, "d", (), ())
    moved = admit(plan, Now(7, "b" * 40, "e"))
    assert [r.ground for r in moved] == [Ground.LEDGER_MOVED, Ground.COMMIT_MOVED]
    assert "stood at 3, and it stands at 7" in moved[0].message
    assert "aaaaaaaaaaaa, and this is bbbbbbbbbbbb" in moved[1].message
    (out_of_git,) = admit(plan, Now(3, "", "d"))
    assert "from aaaaaaaaaaaa, and this is no commit" in out_of_git.message
    (into_git,) = admit(replace(plan, commit=""), Now(3, "b" * 40, "d"))
    assert "from no commit, and this is bbbbbbbbbbbb" in into_git.message


PASSED = Evidence("accuracy", "digest", "dev", 0.9, "", Judgement.PASSED, "suite", "2026-01-02", "2026-02-01")


@pytest.mark.parametrize(
    ("gate", "evidence", "at", "is_open"),
    [
        ({}, PASSED, "2026-01-03", True),
        ({}, None, "2026-01-03", False),
        ({}, replace(PASSED, verdict=Judgement.FAILED), "2026-01-03", False),
        ({}, replace(PASSED, verdict=Judgement.INCONCLUSIVE), "2026-01-03", False),
        ({}, PASSED, "2026-02-01", False),
        ({}, PASSED, "2026-01-31", True),
        ({}, replace(PASSED, expires_at=""), "2099-01-01", True),
        ({"not_before": "2026-01-02"}, PASSED, "2026-01-03", True),
        ({"not_before": "2026-01-03"}, PASSED, "2026-01-03", False),
        ({"least": 0.9}, PASSED, "2026-01-03", True),
        ({"least": 0.91}, PASSED, "2026-01-03", False),
        ({"most": 0.9}, PASSED, "2026-01-03", True),
        ({"most": 0.89}, PASSED, "2026-01-03", False),
        ({"least": 0.5, "most": 1.0}, PASSED, "2026-01-03", True),
        ({"least": 0.5}, replace(PASSED, value=None), "2026-01-03", False),
        ({}, replace(PASSED, value=None), "2026-01-03", True),
    ],
)
def test_gates(gate: dict[str, Any], evidence: Evidence | None, at: str, is_open: bool) -> None:
    """A gate is open by evidence that passed, is valid now, young enough and within its bounds."""
    asked = Gate("accuracy", "digest", **gate)
    assert asked.open(evidence, at) is is_open
    plan = Plan("dev", 0, "", "", (), ())
    known = {("accuracy", "digest"): evidence} if evidence else {}
    refusals = admit(plan, Now(0, "", "", gates=[asked], evidence=known, at=at))
    assert [r.ground for r in refusals] == ([] if is_open else [Ground.GATE_CLOSED])


def test_a_gate_asks_for_its_own_subject() -> None:
    """Evidence about other bytes opens nothing."""
    known = {("accuracy", "other"): PASSED}
    refusals = admit(
        Plan("dev", 0, "", "", (), ()), Now(0, "", "", gates=[Gate("accuracy", "digest")], evidence=known)
    )
    assert "there is no valid evidence for accuracy" in refusals[0].message
