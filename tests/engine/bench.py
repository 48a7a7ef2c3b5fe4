"""A world of dictionaries around the real engine and store: every effect can be watched, held up, or
made to fail, and every read made to lie."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.event import Event
from gamma_orch.core.kind import Fields, Of, Traits
from gamma_orch.core.leaves import Ref, Secret, leaves
from gamma_orch.core.observation import ABSENT, Observation, Seen
from gamma_orch.core.plan import Plan, Step
from gamma_orch.core.provider import Asked, Opcode, Provider, Task
from gamma_orch.core.resource import NO_LIFECYCLE, Lifecycle, Resource
from gamma_orch.engine import converge
from gamma_orch.engine.converge import Outcome, Site
from gamma_orch.engine.progress import StepResult, Watcher
from gamma_orch.engine.secrets import Secrets
from gamma_orch.engine.world import World
from gamma_orch.spec.environment import SecretSource
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.model import Spec
from gamma_orch.store.database import Database
from gamma_orch.store.ledger import events, present

ITEM = "Item"
Hook = Callable[[Task], Awaitable[None]]


def item(name: str) -> Address:
    return Address(ITEM, name)


@dataclass
class Place:
    objects: dict[str, dict[str, Json]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, Json] = field(default_factory=dict)  # the bytes that arrived
    unwell: dict[str, str] = field(default_factory=dict)  # exists, does not work, and why
    effects: list[tuple[str, str]] = field(default_factory=list)  # (opcode, name), in their order
    tasks: list[Task] = field(default_factory=list)  # every attempt
    fails: dict[str, list[BaseException]] = field(default_factory=dict)  # one for each attempt
    before: dict[str, Hook] = field(default_factory=dict)
    after: dict[str, Hook] = field(default_factory=dict)
    reads: dict[str, list[Observation]] = field(default_factory=dict)  # told instead, one a read
    renewed: set[str] = field(default_factory=set)  # get another id at every update
    asked: list[list[Asked]] = field(default_factory=list)
    running: int = 0
    peak: int = 0
    made: int = 0

    def put(self, name: str, **fields: Json) -> None:
        """As if somebody made or changed it outside."""
        self.objects[name] = {"name": name, **fields}
        self.ids.setdefault(name, f"outside-{name}")

    def look(self, one: Asked) -> Observation:
        name = one.address.name
        if self.reads.get(name):
            return self.reads[name].pop(0)
        for fields in (one.recorded, one.wanted):
            found = str(fields["name"]) if fields else name
            if found in self.objects:
                well = found not in self.unwell
                outputs = {"id": self.ids[found]}
                return Seen(dict(self.objects[found]), outputs, well, self.unwell.get(found, ""))
        return ABSENT

    async def effect(self, task: Task) -> None:
        name = task.address.name
        self.tasks.append(task)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            if name in self.before:
                await self.before[name](task)
            if self.fails.get(name):
                raise self.fails[name].pop(0)
            self.effects.append((task.opcode.value, name))
            self._change(task)
            if name in self.after:
                await self.after[name](task)
        finally:
            self.running -= 1

    def _change(self, task: Task) -> None:
        name = task.address.name
        old = str((task.recorded or {}).get("name", name))
        there = self.objects.pop(old, None)
        self.unwell.pop(old, None)
        if task.opcode is Opcode.DELETE:
            return
        plain = {key: value for key, value in task.fields.items() if not list(leaves(value))}
        hidden = {key: value for key, value in task.fields.items() if key not in plain}
        if hidden:
            self.secrets[name] = task.reveal(hidden)
        self.objects[name] = plain
        if there is None or name in self.renewed or task.opcode is not Opcode.UPDATE:
            self.made += 1
            self.ids[name] = f"id-{self.made}"
        else:
            self.ids[name] = self.ids[old]

    def touched(self, name: str) -> list[str]:
        return [opcode for opcode, whom in self.effects if whom == name]


class PlaceProvider:
    def __init__(self, place: Place) -> None:
        self.place = place

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        self.place.asked.append(list(asked))
        return {one.address: self.place.look(one) for one in asked}

    async def apply(self, task: Task) -> None:
        assert task.opcode is not Opcode.DELETE
        await self.place.effect(task)

    async def delete(self, task: Task) -> None:
        assert task.opcode is Opcode.DELETE
        await self.place.effect(task)


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    fields = {"name": address.name, **spec}
    if "copies" in spec:
        fields["copied"] = of(item(spec["copies"])).get("value")
    return fields


TRAITS = Traits(
    normalise=normalise,
    immutable=frozenset({"fixed"}),
    target=lambda fields: str(fields.get("target", "")),
)


class Anything(Spec):
    value: str = ""


def kind(provider: Callable[[Any], Provider], name: str = ITEM, traits: Traits = TRAITS) -> Kind:
    return Kind(name, "testing", "A thing of these tests.", Anything, provider, traits)


class Limits:
    """Targets that bound and do nothing else."""

    def __init__(self, limits: Mapping[str, int] | None = None) -> None:
        self.limits = dict(limits or {})
        self.closed = 0

    def limit(self, target: str) -> int:
        return self.limits[target]

    async def aclose(self) -> None:
        self.closed += 1


class Told(Watcher):
    """Writes down what a watcher is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.retries: list[tuple[str, str, float]] = []
        self.results: list[StepResult] = []

    def planned(self, plan: Plan) -> None:
        self.lines.append(("planned", plan.id))

    def started(self, step: Step) -> None:
        self.lines.append(("started", step.address.name))

    def retrying(self, step: Step, error: str, seconds: float) -> None:
        self.retries.append((step.address.name, error, seconds))

    def progress(self, step: Step, text: str, fraction: float | None) -> None:
        self.lines.append((text, step.address.name))

    def finished(self, result: StepResult) -> None:
        self.lines.append(("finished", result.step.address.name))
        self.results.append(result)


@dataclass
class Bench:
    folder: Path
    database: Database
    place: Place = field(default_factory=Place)
    limits: Limits = field(default_factory=Limits)
    kinds: dict[str, Kind] = field(default_factory=dict)
    desired: dict[Address, Resource] = field(default_factory=dict)
    commit: str = "c" * 40
    clock: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    told: Told = field(default_factory=Told)

    def __post_init__(self) -> None:
        self.secrets = Secrets(self.folder / "state", "dev", self.folder)
        self.rules(TRAITS)

    def rules(self, traits: Traits) -> None:
        """Other traits from now on."""
        self.kinds[ITEM] = kind(lambda targets: PlaceProvider(self.place), traits=traits)

    def want(
        self,
        name: str,
        /,
        needs: Sequence[str] = (),
        lifecycle: Lifecycle = NO_LIFECYCLE,
        moved_from: str | None = None,
        **spec: Json,
    ) -> Address:
        address = item(name)
        found = list(leaves(spec))
        needed = {*map(item, needs), *(leaf.address for leaf in found if isinstance(leaf, Ref))}
        if "copies" in spec:
            needed.add(item(spec["copies"]))
        self.desired[address] = Resource(
            address,
            spec,
            tuple(sorted(needed)),
            lifecycle,
            moved_from=item(moved_from) if moved_from else None,
            has_leaves=bool(found),
        )
        return address

    def drop(self, *names: str) -> None:
        for name in names:
            del self.desired[item(name)]

    def secret(self, name: str, source: SecretSource) -> Secret:
        return Secret(name, self.secrets.digest(name, source))

    def world(self) -> World:
        return World(self.kinds.get, self.limits)  # type: ignore[arg-type]

    def site(self) -> Site:
        return Site(
            "dev",
            dict(self.desired),
            self.commit,
            self.database,
            self.world(),
            self.secrets,
            lambda: self.clock,
        )

    async def look(self) -> Plan:
        return (await converge.look(self.site())).plan

    async def apply(self, *args: Any, **options: Any) -> Outcome:
        self.told = Told()
        options.setdefault("watcher", self.told)
        return await converge.apply(self.site(), *args, **options)

    async def made(self) -> Outcome:
        """Apply what must go well, and forget what it took."""
        outcome = await self.apply()
        assert {result.status.value for result in outcome.results} <= {"done"}, outcome.results
        self.place.effects.clear()
        self.place.tasks.clear()
        self.place.asked.clear()
        return outcome

    def log(self) -> list[Event]:
        return events(self.database, "dev")

    def written(self) -> list[str]:
        """The log in short: `begun a`, `released`."""
        return [f"{e.type.value} {e.address.name}" if e.address else e.type.value for e in self.log()]

    def record(self, name: str) -> Any:
        return present(self.database, "dev")[0].record(item(name))

    def entry(self, name: str) -> Any:
        return present(self.database, "dev")[0].entries.get(item(name))

    def holder(self) -> str:
        return str(self.database.read("SELECT holder FROM environments")[0][0])

    def bytes_of_ledger(self) -> bytes:
        return b"".join(file.read_bytes() for file in self.folder.glob("ledger.db*"))


def statuses(outcome: Outcome) -> dict[str, str]:
    return {result.step.address.name: result.status.value for result in outcome.results}


def errors(outcome: Outcome) -> dict[str, str]:
    return {r.step.address.name: r.error for r in outcome.results if r.error}
