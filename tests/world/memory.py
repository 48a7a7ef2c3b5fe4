"""A world in memory for the state machine: one kind, faults on demand, and eyes on every effect.

The provider checks laws 1, 2 and 6 at the only moment that counts: when the effect happens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Of, Traits
from gamma_orch.core.observation import ABSENT, Observation, Seen, Unreadable
from gamma_orch.core.provider import Asked, Opcode, Permanent, Task, Temporary
from gamma_orch.core.resource import Replace
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.model import Spec
from gamma_orch.store.database import Database
from gamma_orch.store.ledger import events, present

NAME = "Item"


class Killed(BaseException):
    """The process dies here: not an Exception, so nothing in the product may catch it."""


class Violation(AssertionError):
    """A law was broken."""


@dataclass
class Stored:
    fields: dict[str, Json]
    id: str
    secret: str | None = None  # what the world really holds; never read back


@dataclass
class Memory:
    database: Database
    environment: str
    objects: dict[str, Stored] = field(default_factory=dict)
    effects: list[tuple[str, str, str]] = field(default_factory=list)  # (key, opcode, name)
    applied_keys: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)
    permanent: set[str] = field(default_factory=set)
    temporary: dict[str, int] = field(default_factory=dict)
    lost_reply: dict[str, int] = field(default_factory=dict)
    stale: dict[str, Observation] = field(default_factory=dict)  # served once
    needs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    calls: int = 0
    kill_at: int | None = None
    made: int = 0

    def call(self) -> None:
        self.calls += 1
        if self.kill_at is not None and self.calls >= self.kill_at:
            self.kill_at = None
            raise Killed

    def observation(self, name: str) -> Observation:
        if name in self.unreadable:
            return Unreadable("the test says so")
        if name in self.stale:
            return self.stale.pop(name)
        found = self.objects.get(name)
        return ABSENT if found is None else Seen(dict(found.fields), {"id": found.id})


class MemoryProvider:
    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        self.memory.call()
        found: dict[Address, Observation] = {}
        for one in asked:
            name = str((one.recorded or one.wanted or {}).get("name", one.address.name))
            seen = self.memory.observation(name)
            if seen == ABSENT and one.wanted and one.wanted["name"] != name:
                seen = self.memory.observation(str(one.wanted["name"]))
            found[one.address] = seen
        return found

    async def apply(self, task: Task) -> None:
        self._before(task)
        fields = dict(task.fields)
        secret = task.reveal(fields.pop("secret")) if fields.get("secret") else None
        name = str(fields["name"])
        previous = self.memory.objects.pop(str((task.recorded or {}).get("name", name)), None)
        # An update keeps the identity; a creation or a replacement makes another.
        if previous is None or task.opcode is not Opcode.UPDATE:
            self.memory.made += 1
            identity = f"id-{self.memory.made}"
        else:
            identity = previous.id
        self.memory.objects[name] = Stored(fields, identity, secret)
        self._after(task)

    async def delete(self, task: Task) -> None:
        self._before(task)
        name = str((task.recorded or {}).get("name", task.address.name))
        self.memory.objects.pop(name, None)
        self._after(task)

    def _before(self, task: Task) -> None:
        memory, name = self.memory, task.address.name
        memory.call()
        if name in memory.permanent:
            raise Permanent("the test says so")
        if memory.temporary.get(name, 0) > 0:
            memory.temporary[name] -= 1
            raise Temporary("the test says so")
        log = events(memory.database, memory.environment)
        begun = [e for e in log if e.type == "begun" and e.step == task.key]
        if not begun:
            raise Violation(f"law 1: {task.opcode} {task.address} without a persisted Begun")
        ledger, _ = present(memory.database, memory.environment)
        if task.opcode is not Opcode.DELETE:
            for need in memory.needs.get(name, ()):
                if ledger.record(Address(NAME, need)) is None:
                    raise Violation(f"law 2: {task.address} acts before {need} is recorded")
        record = ledger.record(task.address)
        destroys = task.opcode in (Opcode.DELETE, Opcode.REPLACE)
        if destroys and record and record.protect and task.opcode is Opcode.DELETE:
            consents = [e for e in log if e.type == "approved" and e.address == task.address]
            if not consents:
                raise Violation(f"law 6: protected {task.address} deleted without consent")

    def _after(self, task: Task) -> None:
        memory = self.memory
        memory.effects.append((task.key, task.opcode.value, task.address.name))
        if memory.lost_reply.get(task.address.name, 0) > 0:
            memory.lost_reply[task.address.name] -= 1
            raise Temporary("the answer was lost")
        memory.call()


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    return {"name": address.name, **{k: v for k, v in spec.items() if v is not None}}


class ItemSpec(Spec):
    value: str = ""


def item_kind(memory: Memory, replace: Replace) -> Kind:
    traits = Traits(
        normalise=normalise, immutable=frozenset({"fixed"}), replace=replace, stable=frozenset({"id"})
    )
    return Kind(
        name=NAME,
        family="testing",
        summary="An object of the test world.",
        spec=ItemSpec,
        provider=lambda targets: MemoryProvider(memory),
        traits=traits,
        outputs={"id": "its identity"},
    )


class NoTargets:
    def limit(self, target: str) -> int:
        return 4

    async def aclose(self) -> None:
        return None
