"""The world as the engine asks it: every kind at once, and whoever fails, fails alone."""

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.kind import Traits
from gamma_orch.core.observation import ABSENT, Observation, Seen, Unreadable
from gamma_orch.core.provider import Asked, Permanent, Task
from gamma_orch.engine import world as module
from gamma_orch.engine.world import World
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.registry import Registry
from tests.engine.bench import Limits, kind

A, B = Address("One", "a"), Address("One", "b")
Z = Address("Other", "z")
PLACE = r" at [\w.]+:\d+"  # of a defect: module and line


def asked(*addresses: Address) -> list[Asked]:
    return [Asked(address, None, None) for address in addresses]


def why(observation: Observation) -> str:
    assert isinstance(observation, Unreadable)
    return observation.error


class Answers:
    """A provider that says what it is given to say."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.calls: list[list[Address]] = []

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        self.calls.append([one.address for one in asked])
        if isinstance(self.answer, BaseException):
            raise self.answer
        if callable(self.answer):
            return await self.answer()  # type: ignore[no-any-return]
        return self.answer  # type: ignore[no-any-return]

    async def apply(self, task: Task) -> None:
        raise NotImplementedError

    async def delete(self, task: Task) -> None:
        raise NotImplementedError


def world(**providers: Answers) -> World:
    def opening(provider: Answers) -> Callable[[Any], Answers]:
        return lambda targets: provider

    kinds = {name: kind(opening(provider), name) for name, provider in providers.items()}
    return World(kinds.get, Limits())  # type: ignore[arg-type]


WELL = {Z: Seen({"value": "1"})}


async def test_one_read_a_kind_and_all_of_them_at_once():
    both = asyncio.Barrier(2)

    def meeting(answer: Mapping[Address, Observation]) -> Any:
        async def meet() -> Mapping[Address, Observation]:
            await asyncio.wait_for(both.wait(), 10)
            return answer

        return meet

    one, other = Answers(meeting({A: ABSENT, B: Seen({})})), Answers(meeting(WELL))
    found = await world(One=one, Other=other).observe(asked(A, Z, B))
    assert found == {A: ABSENT, B: Seen({}), **WELL}
    assert one.calls == [[A, B]]
    assert other.calls == [[Z]]


async def test_nobody_asked_nobody_answers():
    one = Answers({})
    assert await world(One=one).observe([]) == {}
    assert one.calls == []


async def test_extras_are_told():
    extra = Address("One", "extra")
    assert await world(One=Answers({A: ABSENT, extra: Seen({})})).observe(asked(A)) == {
        A: ABSENT,
        extra: Seen({}),
    }


async def test_a_read_that_hangs_is_unreadable_for_its_kind_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "OBSERVE_SECONDS", 1.0)
    ended = False

    async def forever() -> Mapping[Address, Observation]:
        nonlocal ended
        try:
            await asyncio.sleep(100)
        finally:
            ended = True
        return {}

    before = time.monotonic()
    found = await world(One=Answers(forever), Other=Answers(WELL)).observe(asked(A, B, Z))
    assert time.monotonic() - before < 5
    assert found == {
        A: Unreadable("no answer within 1 s"),
        B: Unreadable("no answer within 1 s"),
        **WELL,
    }
    assert ended, "the read goes on behind our back"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Permanent("Target 'main' is not declared."), r"Target 'main' is not declared\."),
        (ValueError("postgresql://u:hunter2@h/d"), "the provider of One failed: ValueError" + PLACE),
        (KeyError("hunter2"), "the provider of One failed: KeyError" + PLACE),
        ({}, "the provider of One gave no answer"),
        (None, "the provider of One failed: TypeError" + PLACE),
    ],
    ids=["says why", "a defect", "another", "nothing", "no mapping"],
)
async def test_a_provider_that_fails_hides_no_other(answer: Any, says: str):
    found = await world(One=Answers(answer), Other=Answers(WELL)).observe(asked(A, Z))
    assert found == {A: found[A], **WELL}
    assert re.fullmatch(says, why(found[A]))


async def test_too_little_of_an_answer_is_completed_and_not_replaced():
    found = await world(One=Answers({A: Seen({"value": "1"})})).observe(asked(A, B))
    assert found == {A: Seen({"value": "1"}), B: Unreadable("the provider of One gave no answer")}


async def test_a_provider_that_cannot_be_opened_hides_no_other():
    def fails(targets: Any) -> Any:
        raise RuntimeError("hunter2")

    kinds = {"One": kind(fails, "One"), "Other": kind(lambda targets: Answers(WELL), "Other")}
    found = await World(kinds.get, Limits()).observe(asked(A, Z))  # type: ignore[arg-type]
    assert found == {A: found[A], **WELL}
    assert re.fullmatch("the provider of One failed: RuntimeError" + PLACE, why(found[A]))


async def test_a_kind_that_nobody_provides():
    found = await world(Other=Answers(WELL)).observe(asked(A, B, Z))
    assert found == {
        A: Unreadable("no installed plugin provides the kind One"),
        B: Unreadable("no installed plugin provides the kind One"),
        **WELL,
    }


async def test_a_kind_whose_plugin_cannot_be_imported():
    def broken() -> Kind:
        raise ImportError("no module named libfoo")

    kinds = Registry({"One": broken, "Other": kind(lambda targets: Answers(WELL), "Other")})
    there = World(kinds.get, Limits())  # type: ignore[arg-type]
    assert set(there.traits(["One", "Other", "Third"])) == {"Other"}
    found = await there.observe(asked(A, Z))
    assert found == {
        A: Unreadable(
            "The kind One is installed but cannot be imported: ImportError: no module named libfoo"
        ),
        **WELL,
    }


def test_a_provider_is_opened_once_and_with_the_targets():
    opened: list[Any] = []

    def open_one(targets: Any) -> Answers:
        opened.append(targets)
        return Answers()

    limits = Limits()
    there = World({"One": kind(open_one, "One")}.get, limits)  # type: ignore[arg-type]
    assert opened == [], "opened before it was needed"
    assert there.provider("One") is there.provider("One")
    assert opened == [limits]
    with pytest.raises(LookupError, match="Two"):
        there.provider("Two")


def test_traits_are_those_of_the_kinds_there_are():
    traits = Traits(derives=True)
    there = World({"One": kind(lambda targets: Answers(), "One", traits)}.get, Limits())  # type: ignore[arg-type]
    assert there.traits(["One", "Two"]) == {"One": traits}


async def test_closing_closes_the_targets():
    limits = Limits()
    await World({}.get, limits).aclose()  # type: ignore[arg-type]
    assert limits.closed == 1
