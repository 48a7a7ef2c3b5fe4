"""The kind `Thing`: everything a kind can have, on a world that is one file.

For benchmarks, crash tests and tests of the command line, in processes of their own: set
`GAMMA_PLUGINS=gamma_orch.testing.thing`. The world lies at `<state>/<environment>/world.jsonl`.
Faults are injected from outside, by the constructor or as JSON in `GAMMA_THING_FAULTS`, for example
`{"unreadable": ["a"], "temporary": {"b": 2}, "permanent": ["c"], "lost": {"d": 1}, "slow": {"e": 0.5}}`.
"""

import asyncio
import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, Self

from pydantic import field_validator

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Of, Traits
from gamma_orch.core.leaves import encode, is_leaf, is_secret
from gamma_orch.core.observation import ABSENT, Observation, Seen, Unreadable
from gamma_orch.core.provider import Asked, Permanent, Task, Temporary
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.model import Names, Spec
from gamma_orch.testing.world import KIND as NAME
from gamma_orch.testing.world import Conflict, World, WorldBroken

FAULTS = "GAMMA_THING_FAULTS"


class Place(Protocol):
    """What a thing needs of the engine's targets."""

    environment: str
    state: Path


class ThingSpec(Spec):
    value: str = ""
    """Any text; the output `value` gives it back."""
    size: int = 0
    """Any number."""
    after: Annotated[str, Names(NAME)] | None = None
    """A thing that has to be there first."""
    secret: str | None = None
    """A secret, written as ${secret.name}. The world keeps only its sha256 and never shows it."""
    fixed: str = ""
    """A text that cannot change: another one makes another thing."""
    upstream: str | None = None
    """Any text, for example an output of another thing: ${Thing/a.id}."""

    @field_validator("secret")
    @classmethod
    def _by_name_only(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError("a secret is never written out; name it, as in ${secret.password}")  # noqa: TRY004
        return value


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    """What is not set is not owned."""
    return {key: value for key, value in spec.items() if value is not None}


def foresee(fields: Fields) -> Mapping[str, Json]:
    value = encode(fields["value"])
    return {} if is_leaf(value) else {"value": value}


def target(fields: Fields) -> str:
    return "things"


@dataclasses.dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, by the names of things. Counts are for one provider: one process."""

    unreadable: frozenset[str] = frozenset()
    temporary: Mapping[str, int] = dataclasses.field(default_factory=dict)  # so often, then it works
    permanent: frozenset[str] = frozenset()
    lost: Mapping[str, int] = dataclasses.field(default_factory=dict)  # the effect happens, the reply is lost
    slow: Mapping[str, float] = dataclasses.field(default_factory=dict)  # seconds before the effect

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the form of `GAMMA_THING_FAULTS`; the empty text is no fault."""
        given = json.loads(text) if text else {}
        for name in given.keys() & {"unreadable", "permanent"}:
            given[name] = frozenset(given[name])
        return cls(**given)


class ThingProvider:
    def __init__(self, world: World, faults: Faults | None = None) -> None:
        self.world = world
        self._faults = faults or Faults()
        self._temporary, self._lost = Counter(self._faults.temporary), Counter(self._faults.lost)

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        """One read for all. Things with Gamma's mark that nobody asked for are told too, unless a
        few are asked for out of very many: reading one back costs the same in every world."""
        try:
            things = self.world.things
        except WorldBroken as error:
            return {one.address: Unreadable(str(error)) for one in asked}
        found: dict[Address, Observation] = {}
        for one in asked:
            thing = things.get(one.address.name)
            found[one.address] = ABSENT if thing is None else _seen(thing)
        asked_about = sum(isinstance(observation, Seen) for observation in found.values())
        if asked_about < len(things) <= 100 + 10 * len(asked):
            for name, thing in things.items():
                address = Address(NAME, name)
                if address not in found and thing["marked"]:
                    found[address] = _seen(thing)
        for name in self._faults.unreadable:
            if (address := Address(NAME, name)) in found:
                found[address] = Unreadable(f"{address} does not answer; this fault was asked for")
        return found

    async def apply(self, task: Task) -> None:
        fields, secrets = _kept(task)
        await self._effect(task, fields, secrets)

    async def delete(self, task: Task) -> None:
        await self._effect(task, {}, {})

    async def _effect(self, task: Task, fields: Fields, secrets: Mapping[str, str]) -> None:
        name = task.address.name
        if name in self._faults.slow:
            await asyncio.sleep(self._faults.slow[name])
        if name in self._faults.permanent:
            raise Permanent(f"{task.address} will not do that; this fault was asked for")
        if name in self._faults.unreadable or self._temporary[name] > 0:
            self._temporary[name] -= 1
            raise Temporary(f"{task.address} is busy; this fault was asked for")
        try:
            self.world.effect(task.opcode.value, name, fields, secrets, task.key)
        except WorldBroken as error:
            raise Temporary(str(error)) from error
        except Conflict as error:
            raise Permanent(f"{task.address}: {error}") from error
        if self._lost[name] > 0:
            self._lost[name] -= 1
            raise Temporary(f"the reply of {task.address} was lost; this fault was asked for")


def _seen(thing: Mapping[str, Any]) -> Seen:
    fields = thing["fields"]
    outputs = {"id": thing["id"]}
    if "value" in fields:
        outputs["value"] = fields["value"]
    return Seen(fields, outputs)


def _kept(task: Task) -> tuple[Fields, Mapping[str, str]]:
    """What the world is to hold: values to be seen, and digests of those that are not.

    Fields that neither Gamma wants nor ever applied stay, and so do those that somebody else has
    taken over since.
    """
    recorded = task.recorded or {}
    kept = {
        key: value
        for key, value in (task.live or {}).items()
        if key not in task.fields and (key not in recorded or recorded[key] != value)
    }
    hidden = {key for key, value in task.fields.items() if key == "secret" or is_secret(encode(value))}
    revealed = task.reveal(task.fields)
    shown = {key: value for key, value in revealed.items() if key not in hidden}
    return {**kept, **shown}, {key: _sha256(revealed[key]) for key in hidden}


def _sha256(secret: str | bytes) -> str:
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).hexdigest()


def provider(targets: Place) -> ThingProvider:
    world = World(targets.state / targets.environment / "world.jsonl")
    return ThingProvider(world, Faults.parse(os.environ.get(FAULTS, "")))


KIND = Kind(
    name=NAME,
    family="testing",
    summary="A thing without a meaning, kept in a file; for tests and benchmarks.",
    spec=ThingSpec,
    provider=provider,
    traits=Traits(
        normalise=normalise,
        immutable=frozenset({"fixed"}),
        foresee=foresee,
        stable=frozenset({"id"}),
        target=target,
    ),
    outputs={
        "id": "Given by the world when the thing is made; another one once it is made again.",
        "value": "The value it was given.",
    },
)
KINDS = [KIND]
