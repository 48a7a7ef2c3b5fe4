"""The laws on Thing, and each law on a provider that breaks it: a law that catches nothing is none."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.leaves import Secret
from gamma_orch.core.observation import ABSENT, Observation, Seen
from gamma_orch.core.provider import Asked, Permanent, Task, Temporary
from gamma_orch.testing import laws
from gamma_orch.testing.laws import LAWS, Law, LawBroken, Sample, Subject, check
from gamma_orch.testing.thing import KIND, Faults, ThingProvider, ThingSpec, normalise
from gamma_orch.testing.world import World

CANARY = "canary-5a1f0c77e2"
PASSWORD = Secret("password", "d1")
A, B = Address("Thing", "a"), Address("Thing", "b")


def spec(**given: Any) -> dict[str, Any]:
    model = ThingSpec(**given)
    return {name: getattr(model, name) for name in ThingSpec.model_fields}


SAMPLES = (
    Sample(
        A,
        spec(value="x", after="z"),
        changed=spec(value="y", size=2, upstream="b#1"),
        replaced=spec(value="y", fixed="other"),
    ),
    Sample(B, spec(value="x", secret=PASSWORD), changed=spec(value="x", secret=Secret("password", "d2"))),
)


def subject(tmp_path: Path, made: Callable[[World, Faults], Any] = ThingProvider) -> Subject:
    path = tmp_path / "dev" / "world.jsonl"
    hidden: set[str] = set()

    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        yield made(World(path), Faults(unreadable=frozenset(hidden)))

    @contextmanager
    def unreadable(address: Address) -> Iterator[frozenset[Address]]:
        hidden.add(address.name)
        yield frozenset({address})
        hidden.clear()

    return Subject(
        KIND.traits,
        opened,
        SAMPLES,
        unreadable,
        secrets={"password": CANARY},
        effects=lambda: World(path).effects,
    )


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_thing_keeps(law: Law, tmp_path: Path) -> None:
    check(law, subject(tmp_path))


def test_the_suite_asks_for_two_samples(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two samples"):
        check(laws.every_address_is_answered, replace(subject(tmp_path), samples=SAMPLES[:1]))


def test_a_secret_that_no_sample_uses_cannot_be_looked_for(tmp_path: Path) -> None:
    unused = replace(subject(tmp_path), secrets={"password": CANARY, "token": "another-secret"})
    with pytest.raises(ValueError, match="token"):
        check(laws.no_secret_is_shown, unused)


# One broken provider for each way of breaking a law -----------------------------------------------


class Forgets(ThingProvider):
    """Drops a field on its way to the world."""

    async def apply(self, task: Task) -> None:
        await super().apply(replace(task, fields={**task.fields, "size": 0}))


class KeepsWhatWasReleased(ThingProvider):
    async def apply(self, task: Task) -> None:
        await super().apply(replace(task, recorded=None))


class Sick(ThingProvider):
    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        found = await super().observe(asked)
        return {
            a: replace(o, healthy=False, why="a fever") if isinstance(o, Seen) else o
            for a, o in found.items()
        }


class AlwaysThere(ThingProvider):
    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        found = await super().observe(asked)
        return {a: Seen({}) if o is ABSENT else o for a, o in found.items()}


class IgnoresTheKey(ThingProvider):
    """Makes everything anew, whether or not it did so before."""

    async def apply(self, task: Task) -> None:
        op = "replace" if task.address.name in self.world.things else "create"
        self.world.effect(op, task.address.name, *kept(task))


class WritesAgain(ThingProvider):
    """Ends in the same state, by another effect."""

    async def apply(self, task: Task) -> None:
        await super().apply(task)
        self.world.effect("update", task.address.name, *kept(task))


class RefusesARepetition(ThingProvider):
    async def apply(self, task: Task) -> None:
        if not self.world.effect(task.opcode.value, task.address.name, *kept(task), key=task.key):
            raise Permanent("that was done before")


class RefusesToDeleteNothing(ThingProvider):
    async def delete(self, task: Task) -> None:
        if task.address.name not in self.world.things:
            raise Permanent("there is nothing to delete")
        await super().delete(task)


class NeverDeletes(ThingProvider):
    async def delete(self, task: Task) -> None:
        pass


class DeletesWithoutEnd(ThingProvider):
    """Writes a line for each deletion, of what is gone as well."""

    async def delete(self, task: Task) -> None:
        name = task.address.name
        if name not in self.world.things:
            self.world.effect("create", name, {})
        self.world.effect("delete", name, {})


class LooksOnlyForWhatIsWanted(ThingProvider):
    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        found = await super().observe(asked)
        return {a.address: found[a.address] if a.wanted is not None else ABSENT for a in asked}


class TrustsTheRecord(ThingProvider):
    """Believes that what is not recorded is not there."""

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        found = await super().observe(asked)
        return {a.address: found[a.address] if a.recorded is not None else ABSENT for a in asked}


class TakesUnreadableForAbsent(ThingProvider):
    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        found = await super().observe(asked)
        return {a: o if isinstance(o, Seen) else ABSENT for a, o in found.items()}


class RaisesOnRead(ThingProvider):
    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        if self._faults.unreadable:
            raise ConnectionError("gone")
        return await super().observe(asked)


class SpoilsTheOthers(ThingProvider):
    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        found = await super().observe(asked)
        bad = [o for o in found.values() if not isinstance(o, Seen) and o is not ABSENT]
        return dict.fromkeys(found, bad[0]) if bad else found


class AnswersOnlyWhatIsThere(ThingProvider):
    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        return {a: o for a, o in (await super().observe(asked)).items() if o is not ABSENT}


class NeedsAQuestion(ThingProvider):
    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        _ = asked[0]
        return await super().observe(asked)


class ShowsTheSecret(ThingProvider):
    """Keeps what is secret as if it were not."""

    async def apply(self, task: Task) -> None:
        revealed = task.reveal(task.fields)
        self.world.effect(task.opcode.value, task.address.name, revealed, key=task.key)


class PrintsTheSecret(ThingProvider):
    async def apply(self, task: Task) -> None:
        print("applying", task.reveal(task.fields))
        await super().apply(task)


class RaisesTheSecret(ThingProvider):
    """Chains an error whose text is the statement that failed, as database drivers do."""

    async def apply(self, task: Task) -> None:
        try:
            await super().apply(task)
        except Temporary:
            cause = RuntimeError(f"while running SET {task.reveal(task.fields)}")
            raise Permanent("it failed") from cause


class RaisesSomethingElse(ThingProvider):
    async def apply(self, task: Task) -> None:
        if self._faults.unreadable:
            raise OSError("connection refused")
        await super().apply(task)


def kept(task: Task) -> tuple[dict[str, Any], dict[str, str]]:
    return {key: value for key, value in task.fields.items() if key != "secret"}, {}


BROKEN: list[tuple[Law, type[ThingProvider], str]] = [
    (laws.a_read_after_apply_equals_the_plan, Forgets, r"differs in \['size'\]"),
    (laws.a_read_after_apply_equals_the_plan, KeepsWhatWasReleased, r"differs in \['after'\]"),
    (laws.a_read_after_apply_equals_the_plan, Sick, "not healthy: a fever"),
    (laws.a_read_after_apply_equals_the_plan, AlwaysThere, "before it was made"),
    (laws.a_read_after_apply_equals_the_plan, AnswersOnlyWhatIsThere, "gave no answer"),
    (laws.applying_twice_is_once, IgnoresTheKey, "create twice is not once"),
    (laws.applying_twice_is_once, WritesAgain, "create a second time had an effect"),
    (laws.applying_twice_is_once, RefusesARepetition, "create a second time is an error"),
    (laws.deleting_twice_is_once, RefusesToDeleteNothing, "delete of what never was is an error"),
    (laws.deleting_twice_is_once, NeverDeletes, "it was deleted, and is Seen"),
    (laws.deleting_twice_is_once, DeletesWithoutEnd, "deleting a second time had an effect"),
    (laws.a_record_is_enough, LooksOnlyForWhatIsWanted, "looked for by its record it is Absent"),
    (laws.a_record_is_enough, NeverDeletes, "deleted by its record, and is Seen"),
    (laws.an_effect_without_a_record_is_found, TrustsTheRecord, "made and not recorded it is Absent"),
    (
        laws.unreadable_is_not_absent,
        TakesUnreadableForAbsent,
        "Thing/a: it cannot be read, and the answer is Absent",
    ),
    (laws.unreadable_is_not_absent, RaisesOnRead, "observe raised ConnectionError"),
    (laws.unreadable_is_not_absent, SpoilsTheOthers, "Thing/b: while Thing/a cannot be read"),
    (laws.every_address_is_answered, AnswersOnlyWhatIsThere, "Thing/b: it is Absent, and the answer is None"),
    (laws.no_secret_is_shown, ShowsTheSecret, "secret 'password' is shown"),
    (laws.no_secret_is_shown, PrintsTheSecret, "secret 'password' is shown"),
    (laws.no_secret_is_shown, RaisesTheSecret, "secret 'password' is shown"),
    (laws.no_secret_is_shown, RaisesSomethingElse, "no ProviderError"),
]


@pytest.mark.parametrize(("law", "broken", "says"), BROKEN, ids=lambda p: getattr(p, "__name__", ""))
def test_a_law_catches(law: Law, broken: type[ThingProvider], says: str, tmp_path: Path) -> None:
    with pytest.raises(LawBroken, match=says):
        check(law, subject(tmp_path, broken))


def test_observing_nothing_must_work(tmp_path: Path) -> None:
    with pytest.raises(IndexError):
        check(laws.every_address_is_answered, subject(tmp_path, NeedsAQuestion))


def changes_its_argument(address: Address, spec: Any, of: Any) -> Any:
    spec["size"] = 7
    return normalise(address, spec, of)


def never_the_same(address: Address, spec: Any, of: Any, count: list[int] = [0]) -> Any:  # noqa: B006
    count[0] += 1
    return {**normalise(address, spec, of), "size": count[0]}


def not_idempotent(address: Address, spec: Any, of: Any) -> Any:
    return {**normalise(address, spec, of), "value": spec["value"] + " "}


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (changes_its_argument, "changed the spec"),
        (never_the_same, "two answers"),
        (not_idempotent, "normalising twice"),
    ],
)
def test_a_law_catches_normalise(broken: Any, says: str, tmp_path: Path) -> None:
    bad = replace(subject(tmp_path), traits=replace(KIND.traits, normalise=broken))
    with pytest.raises(LawBroken, match=says):
        check(laws.normalising_is_pure_and_idempotent, bad)


def test_fields_of_another_shape_are_not_normalised_again(tmp_path: Path) -> None:
    odd = replace(subject(tmp_path), spec_shaped=False, traits=replace(KIND.traits, normalise=not_idempotent))
    check(laws.normalising_is_pure_and_idempotent, odd)


def test_every_law_has_a_provider_that_breaks_it() -> None:
    assert {law for law, _, _ in BROKEN} | {laws.normalising_is_pure_and_idempotent} == set(LAWS)
