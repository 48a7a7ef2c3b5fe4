"""Thing beyond the laws: what it shows, what it keeps of others, and its faults."""

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.core.leaves import Ref, Secret, Template, replace_leaves
from gamma_orch.core.observation import ABSENT, Observation, Seen, Unreadable
from gamma_orch.core.provider import Asked, Opcode, Permanent, Task, Temporary
from gamma_orch.testing.thing import FAULTS, KIND, Faults, ThingProvider, ThingSpec, foresee, provider
from gamma_orch.testing.world import World

A, B, C = (Address("Thing", name) for name in "abc")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "dev" / "world.jsonl")


def reveal(tree: Json) -> Json:
    return replace_leaves(tree, lambda leaf: f"bytes of {leaf.name}")


def task(opcode: Opcode, address: Address, fields: Mapping[str, Any], key: str = "", **given: Any) -> Task:
    key = key or f"{opcode}-{address}-{sorted(map(str, fields.items()))}"
    return Task(key, opcode, address, fields, given.get("recorded"), given.get("live"), reveal)


def apply(world: World, *tasks: Task, faults: Faults | None = None) -> None:
    async def run() -> None:
        opened = ThingProvider(world, faults)
        for one in tasks:
            await opened.apply(one)

    asyncio.run(run())


def observe(world: World, *addresses: Address, faults: Faults | None = None) -> Mapping[Address, Observation]:
    asked = [Asked(address, None, None) for address in addresses]
    return asyncio.run(ThingProvider(world, faults).observe(asked))


def test_outputs(world: World) -> None:
    apply(world, task(Opcode.CREATE, A, {"value": "x"}))
    assert observe(world, A) == {A: Seen({"value": "x"}, {"id": "a#1", "value": "x"})}


@pytest.mark.parametrize(
    "fields",
    [
        {"value": "x", "secret": Secret("p", "d")},
        {"value": "x", "secret": Template(("a ", Secret("p", "d")))},
        {"value": "x", "upstream": Secret("p", "d")},
        {"value": Secret("p", "d")},
    ],
    ids=["alone", "in a text", "in another field", "in an output"],
)
def test_a_secret_is_kept_as_its_sha256(world: World, fields: dict[str, Any]) -> None:
    apply(world, task(Opcode.CREATE, A, fields))
    assert "bytes of" not in world.path.read_text()
    found = observe(world, A)[A]
    assert isinstance(found, Seen)
    hidden = next(key for key, value in fields.items() if not isinstance(value, str))
    assert hidden not in found.fields
    assert hidden not in found.outputs
    text = "a bytes of p" if isinstance(fields[hidden], Template) else "bytes of p"
    assert world.things["a"]["secrets"] == {hidden: hashlib.sha256(text.encode()).hexdigest()}


def test_a_secret_is_written_by_name_only() -> None:
    with pytest.raises(ValidationError, match="never written out"):
        ThingSpec(secret="hunter2")
    named: Any = Secret("p", "d")
    assert ThingSpec(secret=named).model_fields_set == {"secret"}


def test_an_update_leaves_alone_what_is_not_ours(world: World) -> None:
    live = {"value": "x", "foreign": 1, "ours": 2, "taken": 4}
    world.effect("create", "a", live)
    recorded = {"value": "x", "ours": 2, "taken": 3}
    apply(world, task(Opcode.UPDATE, A, {"value": "y"}, recorded=recorded, live=live))
    assert world.things["a"]["fields"] == {"value": "y", "foreign": 1, "taken": 4}


def test_marked_things_are_told_unasked(world: World) -> None:
    world.effect("create", "a", {}, key="ours")
    world.effect("create", "b", {})
    assert set(observe(world)) == {A}
    assert observe(world, C) == {C: ABSENT, A: Seen({}, {"id": "a#1"})}
    assert isinstance(observe(world, B)[B], Seen)


def test_a_broken_world_is_unreadable_and_temporary(world: World) -> None:
    world.path.mkdir(parents=True)
    found = observe(world, A, B)
    assert [type(one) for one in found.values()] == [Unreadable, Unreadable]
    with pytest.raises(Temporary, match="cannot be opened"):
        apply(world, task(Opcode.CREATE, A, {"value": ""}))


def test_what_does_not_fit_is_permanent(world: World) -> None:
    world.effect("create", "a", {})
    with pytest.raises(Permanent, match="Thing/a: a exists already"):
        apply(world, task(Opcode.CREATE, A, {"value": ""}))


def test_faults(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    given = '{"unreadable":["a"],"temporary":{"b":2},"permanent":["c"],"lost":{"d":1},"slow":{"e":0.01}}'
    monkeypatch.setenv(FAULTS, given)
    state = world.path.parent.parent
    opened = provider(SimpleNamespace(environment="dev", state=state))

    def attempt(name: str) -> str:
        try:
            asyncio.run(opened.apply(task(Opcode.CREATE, Address("Thing", name), {"value": ""})))
        except (Temporary, Permanent) as error:
            return type(error).__name__
        return "done"

    assert [attempt("a"), attempt("a")] == ["Temporary", "Temporary"]
    assert [attempt("b"), attempt("b"), attempt("b")] == ["Temporary", "Temporary", "done"]
    assert attempt("c") == "Permanent"
    assert "d" not in world.things
    assert attempt("d") == "Temporary"
    assert "d" in world.things
    assert attempt("d") == "done"
    assert attempt("e") == "done"
    assert world.effects == 3
    found = asyncio.run(opened.observe([Asked(A, None, None), Asked(B, None, None)]))
    assert isinstance(found[A], Unreadable)
    assert isinstance(found[B], Seen)


def test_unknown_faults_are_an_error() -> None:
    with pytest.raises(TypeError, match="lots"):
        Faults.parse('{"lots": ["a"]}')


def test_traits() -> None:
    traits = KIND.traits
    spec = {"value": "x", "after": None, "secret": None}
    parents: dict[Address, Fields] = {}
    assert traits.normalise(A, spec, parents.__getitem__) == {"value": "x"}
    assert foresee({"value": "x"}) == {"value": "x"}
    assert foresee({"value": Ref(B, "id")}) == {}
    assert foresee({"value": {"$unknown": "later"}}) == {}
    assert traits.target({}) == "things"
