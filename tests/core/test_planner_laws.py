"""What holds for every plan, tried on random histories: an order that the world can bear, no word
about protected or unknown objects broken, and nothing left to do once it is carried out.

`Play` carries a plan out on paper: steps in any order that their needs allow, each on a world that
knows what rests on what.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json, canonical
from gamma_orch.core.change import Action
from gamma_orch.core.event import Event, Type
from gamma_orch.core.fingerprint import Fingerprint, fingerprint, in_order
from gamma_orch.core.kind import Traits
from gamma_orch.core.leaves import Ref, encode, is_unknown, replace_leaves
from gamma_orch.core.ledger import Entry, Ledger, fold
from gamma_orch.core.observation import ABSENT, Observation, Seen, Unreadable
from gamma_orch.core.plan import Plan, Step
from gamma_orch.core.planner import asked_record, plan
from gamma_orch.core.provider import Opcode
from gamma_orch.core.record import Record
from gamma_orch.core.resource import Lifecycle, Replace, Resource
from tests.core.reading import place

NAMES = "abcdef"
TRAITS = {"Thing": Traits(immutable=frozenset({"fixed"}), stable=frozenset({"id"}))}
BLOCKED = (Action.REFUSE, Action.WAIT)

lifecycles = st.builds(
    Lifecycle,
    protect=st.sampled_from([False, False, False, True]),
    retain=st.sampled_from([False, False, False, True]),
    replace=st.sampled_from([None, None, Replace.CREATE_FIRST]),
)


@st.composite
def generations(draw: st.DrawFn, names: str = NAMES) -> dict[Address, Resource]:
    """Some of the names, each needing and citing some that come before it in a random order."""
    order = draw(st.permutations(list(names)))
    chosen = [name for name in order if draw(st.booleans()) or draw(st.booleans())]
    found = {}
    for position, name in enumerate(chosen):
        needs = [other for other in chosen[:position] if draw(st.booleans())]
        spec = {"size": draw(st.sampled_from([1, 2])), "fixed": draw(st.sampled_from(["x", "x", "y"]))}
        if draw(st.booleans()) and needs:
            spec["up"] = Ref(place(needs[0]), "id")
        found[place(name)] = Resource(
            place(name),
            spec,
            tuple(sorted(map(place, needs))),
            draw(lifecycles),
            has_leaves="up" in spec,
        )
    return found


@dataclass
class History:
    desired: dict[Address, Resource]
    ledger: Ledger
    world: dict[Address, Observation]

    def plan(self) -> Plan:
        return plan("dev", self.desired, self.ledger, self.world, TRAITS)


@st.composite
def histories(draw: st.DrawFn) -> History:
    """One generation applied, another one wanted; some renamed; the world as it was left, or not."""
    applied, desired = draw(generations()), draw(generations())
    desired = _renamed(desired, draw(st.sets(st.sampled_from(NAMES), max_size=2)), applied)
    ledger = _ledger(applied, draw(st.sets(st.sampled_from(NAMES), max_size=2)))
    now = {r.moved_from: a for a, r in desired.items() if r.moved_from}
    world: dict[Address, Observation] = dict.fromkeys(desired, ABSENT)
    for address, entry in ledger.entries.items():
        if entry.record is not None:
            found = draw(st.sampled_from(["there"] * 7 + ["drifted", "gone", "unreadable"]))
            world[now.get(address, address)] = _seen(address, entry.record, found)
    for address in desired:
        if world[address] == ABSENT and draw(st.integers(0, 9)) == 0:
            world[address] = Seen({"size": 1, "fixed": "x"}, {"id": f"found-{address.name}"})
    return History(desired, ledger, world)


def _renamed(desired, names, applied) -> dict[Address, Resource]:
    """Resources that go by a new name from now on; their old one must not be wanted any more."""
    new = {
        place(name): place(f"{name}-new")
        for name in names
        if place(name) in desired and place(name) in applied
    }

    def renamed(tree):
        return replace_leaves(tree, lambda leaf: Ref(new.get(leaf.address, leaf.address), leaf.output))

    return {
        new.get(a, a): replace(
            r,
            address=new.get(a, a),
            spec=renamed(r.spec),
            needs=tuple(sorted(new.get(need, need) for need in r.needs)),
            moved_from=a if a in new else None,
        )
        for a, r in desired.items()
    }


def _ledger(applied: dict[Address, Resource], consents) -> Ledger:
    prints = fingerprint(applied, in_order(applied))
    events = [
        Event(Type.DONE, a, data={"record": _record(r, prints[a]).encoded()}) for a, r in applied.items()
    ]
    events += [Event(Type.APPROVED, place(name), data={"consent": "ada"}) for name in sorted(consents)]
    return fold(Ledger("dev"), [replace(event, seq=n) for n, event in enumerate(events, start=1)])


def _record(resource: Resource, print_: Fingerprint) -> Record:
    spec = replace_leaves(resource.spec, lambda leaf: f"id-{leaf.address.name}")
    life = resource.lifecycle
    outputs = {"id": f"id-{resource.address.name}"}
    return Record(spec, outputs, print_, resource.needs, life.protect, life.retain, life.replace)


def _seen(address: Address, record: Record, found: str) -> Observation:
    match found:
        case "gone":
            return ABSENT
        case "unreadable":
            return Unreadable("no route to it")
        case "drifted":
            return Seen({**record.fields, "size": 9}, record.outputs)
        case _:
            return Seen(record.fields, record.outputs)


@dataclass
class Play:
    history: History
    plan: Plan
    world: dict[Address, Observation] = field(default_factory=dict)
    rests_on: dict[Address, set[Address]] = field(default_factory=dict)  # only what exists
    made: int = 0

    def __post_init__(self) -> None:
        self.world = dict(self.history.world)
        self.ledger = self.history.ledger
        now = {r.moved_from: a for a, r in self.history.desired.items() if r.moved_from}
        for address, entry in self.ledger.entries.items():
            here = now.get(address, address)
            if entry.record is not None and self.world[here] != ABSENT:
                self.rests_on[here] = {now.get(need, need) for need in entry.record.needs}

    def all(self, chance: random.Random) -> None:
        done: set[int] = set()
        while len(done) < len(self.plan.steps):
            free = [s for s in self.plan.steps if s.index not in done and done.issuperset(s.needs)]
            assert free, "the steps wait for each other"
            step = chance.choice(free)
            self.step(step)
            done.add(step.index)

    def step(self, step: Step) -> None:
        record = None
        if step.opcode is Opcode.DELETE:
            below = [a for a, parents in self.rests_on.items() if step.address in parents]
            assert not below, f"{step.address} is deleted from under {below}"
            assert isinstance(self.world.pop(step.address), Seen)
            self.rests_on.pop(step.address)
        elif step.opcode is Opcode.FORGET:
            self.rests_on.pop(step.address, None)
        else:
            record = self._make(step)
        data = {"record": record, "movedFrom": str(step.moved_from) if step.moved_from else None}
        event = Event(Type.DONE, step.address, data=data, seq=1000 + step.index)
        self.ledger = fold(self.ledger, [event])

    def _make(self, step: Step):
        resource = self.history.desired[step.address]
        for need in resource.needs:
            assert self.ledger.record(need) is not None, f"{step.address} acts before {need}"
            assert isinstance(self.world[need], Seen), f"{step.address} rests on nothing"
        fields = encode(replace_leaves(resource.spec, self._output))
        for name, value in step.planned.items():
            assert is_unknown(value) or value == fields[name], "the plan promised something else"
        before = self.world.get(step.address, ABSENT)
        if step.opcode is Opcode.CREATE:
            assert not isinstance(before, Seen)
        else:
            assert isinstance(before, Seen)
        self.made += 1
        outputs: Mapping[str, Json] = {"id": f"made-{self.made}"}
        if step.opcode in (Opcode.UPDATE, Opcode.RECORD):
            assert isinstance(before, Seen)
            assert step.opcode is Opcode.UPDATE or before.fields.items() >= fields.items()
            outputs = before.outputs
        self.world[step.address] = Seen(fields, outputs)
        self.rests_on[step.address] = set(resource.needs)
        return {**step.record, "fields": fields, "outputs": outputs}

    def _output(self, leaf: Ref):
        found = self.world[leaf.address]
        assert isinstance(found, Seen)
        return found.outputs[leaf.output]


@given(histories(), st.randoms(use_true_random=False))
def test_a_plan_carried_out_leaves_nothing_to_do(history: History, chance: random.Random) -> None:
    """Law 4, in every order that the steps allow; and the order is one that the world can bear."""
    made = history.plan()
    play = Play(history, made)
    play.all(chance)
    again = plan("dev", history.desired, play.ledger, play.world, TRAITS)
    # What was refused or had to wait may be free to go now; nothing else has anything to do.
    left = {c.address for c in made.changes if c.action in BLOCKED}
    assert {c.address for c in again.changes if c.action is not Action.KEEP} <= left


@given(histories())
def test_every_resource_has_a_change_that_says_why(history: History) -> None:
    """One for each wanted and each recorded object, in the order of addresses."""
    made = history.plan()
    addresses = [change.address for change in made.changes]
    old = {r.moved_from for r in history.desired.values()}
    assert addresses == sorted(
        {*history.desired, *(history.ledger.entries.keys() - old)} & set(_known(history))
    )
    assert all(change.reason for change in made.changes)
    assert all(change.detail for change in made.changes if change.action in BLOCKED)


def _known(history: History) -> set[Address]:
    return {*history.desired, *(a for a, e in history.ledger.entries.items() if e.record)}


@given(histories())
def test_steps_are_just_for_what_changes(history: History) -> None:
    """Law 5's first half: what is kept, refused or waits has no step; all others end in one."""
    made = history.plan()
    act = {c.address for c in made.changes if c.action not in (Action.KEEP, *BLOCKED)}
    assert {step.address for step in made.steps} == act
    assert [step.index for step in made.steps] == list(range(len(made.steps)))
    twice = [s.address for s in made.steps if s.opcode is Opcode.DELETE]
    twice += [s.address for s in made.steps if s.opcode is not Opcode.DELETE]
    assert len(twice) == len({(s.address, s.opcode is Opcode.DELETE) for s in made.steps})


@given(histories())
def test_nothing_protected_is_deleted(history: History) -> None:
    """Law 6: no deletion of what the specs or the ledger protect, unless its name was consented to."""
    for step in history.plan().steps:
        if step.opcode is not Opcode.DELETE:
            continue
        resource = history.desired.get(step.address)
        old = step.moved_from or step.address
        entry, own = history.ledger.entries[old], history.ledger.entries.get(step.address, Entry())
        assert entry.record is not None
        protect = entry.record.protect or (resource is not None and resource.lifecycle.protect)
        assert not protect or entry.consent or own.consent
        assert not (resource is None and entry.record.retain), "retained, and deleted"


@given(histories())
def test_what_is_not_ours_is_not_deleted(history: History) -> None:
    """Only what the ledger has is ever deleted or replaced."""
    for step in history.plan().steps:
        if step.opcode in (Opcode.DELETE, Opcode.REPLACE):
            assert history.ledger.record(step.moved_from or step.address) is not None


@given(histories())
def test_what_cannot_be_read_has_no_effect(history: History) -> None:
    """An effect on it would be a guess; to forget it needs no look."""
    for step in history.plan().steps:
        if isinstance(history.world.get(step.address), Unreadable):
            assert step.opcode is Opcode.FORGET


@given(histories(), st.randoms(use_true_random=False))
def test_the_id_depends_on_no_order(history: History, chance: random.Random) -> None:
    """Law 8: the same inputs, written down in another order, give the same plan and the same id."""

    def shuffled(mapping):
        items = list(mapping.items())
        chance.shuffle(items)
        return dict(items)

    ledger = replace(history.ledger, entries=shuffled(history.ledger.entries))
    other = History(shuffled(history.desired), ledger, shuffled(history.world))
    one, two = history.plan(), other.plan()
    assert canonical(one.encoded()) == canonical(two.encoded())
    assert one.id == two.id


@given(histories(), histories())
def test_the_id_is_that_of_the_content(one: History, two: History) -> None:
    """Plans with one id are one plan."""
    first, second = one.plan(), two.plan()
    assert (first.id == second.id) == (canonical(first.encoded()) == canonical(second.encoded()))


@given(histories())
def test_keys_are_unique_and_the_same_when_planned_again(history: History) -> None:
    """The idempotency key is reproducible, and no two steps of a plan have one."""
    first, second = history.plan(), replace(history, desired=dict(history.desired)).plan()
    keys = [step.key for step in first.steps]
    assert keys == [step.key for step in second.steps]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in keys)


@pytest.mark.parametrize("opcode", list(Opcode))
def test_a_key_survives_a_crash_and_nothing_else(opcode: Opcode) -> None:
    """Cut off and settled, the effect may still be under way: the same key. Once the process itself
    saw it fail or done, the next one is another effect."""
    a = place("a")
    spec = {"size": 1, "fixed": "x"}
    retain = Lifecycle(retain=opcode is Opcode.FORGET, replace=Replace.CREATE_FIRST)
    desired = {a: Resource(a, spec, lifecycle=retain)}
    history = History(desired, _ledger(desired, ()), {a: Seen(spec)})
    match opcode:
        case Opcode.CREATE:
            history.world[a] = ABSENT
        case Opcode.UPDATE:
            history.world[a] = Seen({"size": 9, "fixed": "x"})
        case Opcode.REPLACE:
            history.world[a] = Seen({"size": 1, "fixed": "z"})
        case Opcode.RECORD:
            history.desired = {a: replace(desired[a], owner="ada")}
        case _:
            history.desired = {}
    (step,) = history.plan().steps
    assert step.opcode is opcode

    def key_after(kind: Type, **data) -> str:
        history.ledger = fold(known, [Event(kind, a, data=data, seq=900)])
        return history.plan().steps[0].key

    known = history.ledger
    assert key_after(Type.FAILED, error="cut off", settled=True) == step.key
    assert key_after(Type.APPROVED, consent="ada") == step.key
    assert key_after(Type.FAILED, error="no") != step.key
    record = known.record(a)
    assert record is not None
    assert key_after(Type.DONE, record=record.encoded()) != step.key


@pytest.mark.parametrize("other", ["environment", "world", "spec", "metadata"])
def test_a_key_tells_effects_apart(other: str) -> None:
    """Another environment, another world found, another spec or another owner: another effect."""
    a = place("a")

    def key(environment="dev", size=1, owner="", live=ABSENT) -> str:
        desired = {a: Resource(a, {"size": size}, owner=owner)}
        return plan(environment, desired, Ledger(environment), {a: live}, TRAITS).steps[0].key

    changed: dict[str, dict[str, Any]] = {
        "environment": {"environment": "prod"},
        "world": {"live": Seen({"size": 5})},
        "spec": {"size": 2},
        "metadata": {"owner": "ada"},
    }
    assert key(**changed[other]) != key()


@pytest.mark.parametrize(("fixed", "size"), [("x", 7), ("y", 1)])
def test_what_is_ignored_is_planned_as_it_is(fixed: str, size: int) -> None:
    """The step plans, and the ledger will hold, what the world has; made anew, what the spec says."""
    a = place("a")
    old = Resource(a, {"size": 1, "fixed": "x", "deep": {}}, lifecycle=Lifecycle(ignore=("size",)))
    new = replace(old, spec={"size": 1, "fixed": fixed, "deep": {}}, owner="ada")
    history = History({a: new}, _ledger({a: old}, ()), {a: Seen({"size": 7, "fixed": "x", "deep": {}})})
    step = history.plan().steps[-1]
    assert step.planned == {"size": size, "fixed": fixed, "deep": {}}
    assert step.record["fields"] == step.planned


def test_who_speaks_for_an_address() -> None:
    """Its own record, else that of the name it had; what is not moved, or not known, has none."""
    a, b, old = place("a"), place("b"), place("old")
    known = _ledger({a: Resource(a, {"size": 1}), old: Resource(old, {"size": 2})}, ())
    assert asked_record(Resource(b, {}, moved_from=old), known, b) == known.record(old)
    assert asked_record(Resource(a, {}, moved_from=old), known, a) == known.record(a)
    assert asked_record(Resource(b, {}), known, b) is None
    assert asked_record(None, known, a) == known.record(a)
    assert asked_record(None, known, b) is None


def test_chains_are_as_deep_as_you_like() -> None:
    """Created, taken along by a rebuild of the first, deleted, held back: none of it by recursion."""
    depth = 5000
    names = [Address("Thing", f"n{number:05}") for number in range(depth)]
    desired = {
        a: Resource(a, {"fixed": "x"}, tuple(names[number - 1 : number])) for number, a in enumerate(names)
    }
    absent = dict.fromkeys(names, ABSENT)
    assert len(plan("dev", desired, Ledger("dev"), absent, TRAITS).steps) == depth
    ledger = _ledger(desired, ())
    there: dict[Address, Observation] = dict.fromkeys(names, Seen({"fixed": "x"}))
    gone = plan("dev", {}, ledger, there, TRAITS)
    assert [step.address for step in gone.steps] == names[::-1]
    rebuilt = plan("dev", {**desired, names[0]: Resource(names[0], {"fixed": "y"})}, ledger, there, TRAITS)
    assert len(rebuilt.steps) == 2 * depth
    held = plan("dev", {}, ledger, {**there, names[-1]: Unreadable("?")}, TRAITS)
    assert held.steps == ()
