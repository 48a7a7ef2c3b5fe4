"""Which steps may start: `Frontier`, event by event, against a definition that searches anew."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.core.address import Address
from gamma_orch.core.event import Event, Type
from gamma_orch.core.plan import Plan, Step
from gamma_orch.core.provider import Opcode
from gamma_orch.core.ready import Frontier, Phase, ready


def plan(needs: list[tuple[int, ...]]) -> Plan:
    steps = [
        Step(
            index,
            f"key{index}",
            Opcode.CREATE,
            Address("Thing", f"n{index}"),
            wanted,
            "absent",
            {},
            None,
            None,
        )
        for index, wanted in enumerate(needs)
    ]
    return Plan("dev", 0, "", "", (), tuple(steps), id="p")


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Needs may point forwards too: a deletion waits for a child that is changed later in the list."""
    order = draw(st.permutations(range(draw(st.integers(1, 7)))))
    needs: list[tuple[int, ...]] = [()] * len(order)
    for position, index in enumerate(order):
        needs[index] = tuple(sorted(other for other in order[:position] if draw(st.booleans())))
    return plan(needs)


@st.composite
def runs(draw: st.DrawFn) -> tuple[Plan, list[Event]]:
    """Any events of the plan, in any order, twice too, with those of other plans and steps among them.
    A step ends in one way only; one that was skipped never starts, and so never ends."""
    made = draw(plans())
    ends = draw(st.lists(st.sampled_from([Type.DONE, Type.DONE, Type.FAILED]), min_size=7, max_size=7))
    count = len(made.steps) - 1
    picks = draw(st.lists(st.tuples(st.integers(0, count), st.booleans(), st.integers(0, 9)), max_size=14))
    events = []
    known: set[int] = set()
    skipped: set[int] = set()
    for index, end, odd in picks:
        kind = ends[index] if end else Type.BEGUN
        if odd > 1:
            if index in skipped:
                continue
            known.add(index)
            if kind is Type.FAILED:
                skipped |= _below(made, index, known)
        events.append(
            Event(kind, plan="other" if odd == 0 else "p", step="other" if odd == 1 else f"key{index}")
        )
    return made, events


def _below(made: Plan, index: int, known: set[int]) -> set[int]:
    """What needs a step, through any number of steps of which nothing is known."""
    found = {index}
    for _ in made.steps:
        found |= {s.index for s in made.steps if found.intersection(s.needs) and s.index not in known}
    return found - {index}


def naive(made: Plan, events: list[Event]) -> list[int]:
    """A step is ready when nothing is known of it and each step it needs is done."""
    own = [e for e in events if e.plan == made.id]
    done = {e.step for e in own if e.type is Type.DONE}
    known = {e.step for e in own}
    keys = [step.key for step in made.steps]
    return [s.index for s in made.steps if s.key not in known and {keys[n] for n in s.needs} <= done]


@given(runs())
def test_ready_is_its_definition(run: tuple[Plan, list[Event]]) -> None:
    """After any events."""
    made, events = run
    assert [step.index for step in ready(made, events)] == naive(made, events)


@given(runs())
def test_taking_as_it_goes_finds_each_step_once(run: tuple[Plan, list[Event]]) -> None:
    """The scheduler asks after each event; together it gets what ever became ready, and none twice."""
    made, events = run
    frontier = Frontier(made)
    taken = [step.index for step in frontier.take()]
    ever = set(naive(made, []))
    for position, event in enumerate(events, start=1):
        frontier.feed(event)
        now = [step.index for step in frontier.take()]
        assert now == sorted(now), "in the plan's order"
        taken += now
        ever |= set(naive(made, events[:position]))
    assert sorted(taken) == sorted(ever)


@given(plans(), st.data())
def test_a_failure_skips_all_below_it_and_nothing_else(made: Plan, data: st.DataObject) -> None:
    """Once, at once, and through any number of steps."""
    index = data.draw(st.integers(0, len(made.steps) - 1))
    frontier = Frontier(made)
    frontier.feed(Event(Type.FAILED, plan="p", step=f"key{index}"))
    below: set[int] = set()
    for _ in made.steps:
        below |= {s.index for s in made.steps if {index, *below}.intersection(s.needs)}
    expected = [
        Phase.FAILED if n == index else Phase.SKIPPED if n in below else Phase.PENDING
        for n in range(len(made.steps))
    ]
    assert frontier.phase == expected


@given(runs())
def test_what_was_skipped_never_starts(run: tuple[Plan, list[Event]]) -> None:
    """Whatever else is told afterwards."""
    made, events = run
    frontier = Frontier(made)
    skipped: set[int] = set()
    for event in events:
        frontier.feed(event)
        assert not skipped.intersection(step.index for step in frontier.take())
        skipped |= {s.index for s in made.steps if frontier.phase[s.index] is Phase.SKIPPED}


@pytest.mark.parametrize(("kind", "phase"), [(Type.BEGUN, Phase.RUNNING), (Type.DONE, Phase.DONE)])
def test_what_has_begun_is_not_skipped_any_more(kind: Type, phase: Phase) -> None:
    """A failure that is told late does not undo what happened."""
    frontier = Frontier(plan([(), (0,), (1,)]))
    frontier.feed(Event(kind, plan="p", step="key1"))
    frontier.feed(Event(Type.FAILED, plan="p", step="key0"))
    assert frontier.phase == [Phase.FAILED, phase, Phase.PENDING]


@pytest.mark.parametrize("end", [Type.DONE, Type.FAILED])
def test_a_step_said_twice_counts_once(end: Type) -> None:
    """Law 2: one parent done twice is not two parents done."""
    made = plan([(), (), (0, 1)])
    assert [s.index for s in ready(made, [Event(end, plan="p", step="key0")] * 2)] == [1]


def test_a_chain_fails_without_recursion() -> None:
    """However long it is."""
    length = 20_000
    made = plan([(), *[(index,) for index in range(length - 1)]])
    frontier = Frontier(made)
    frontier.feed(Event(Type.FAILED, plan="p", step="key0"))
    assert frontier.phase.count(Phase.SKIPPED) == length - 1
    assert frontier.take() == []
