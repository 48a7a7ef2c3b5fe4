"""The plan: what would be done, in which order, and why. Its id is the digest of its content.

`plan` is pure: the same desired state, ledger and observations give the same plan and the same id,
whatever the order of files or the number of workers (law 8), and for a converged world a plan
without steps (law 4). Callers: the CLI, Dagster and CI, all through `engine.survey`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json, digest
from gamma_orch.core.change import Action, Change
from gamma_orch.core.provider import Opcode


@dataclass(frozen=True, slots=True)
class Step:
    index: int
    key: str  # idempotency key, 32 hex digits
    opcode: Opcode
    address: Address
    needs: tuple[int, ...]  # indexes of the steps that must be done first
    expects: str  # digest of what was observed; admit refuses the step if it is no longer so
    planned: Json  # the fields to be found afterwards, encoded; None: absent
    before: Json  # the fields found at planning; None: absent
    record: Json  # what the ledger will hold; fields with Unknown in them are filled in at apply
    moved_from: Address | None = None

    def encoded(self) -> Json:
        return {
            "index": self.index,
            "key": self.key,
            "opcode": self.opcode.value,
            "address": str(self.address),
            "needs": list(self.needs),
            "expects": self.expects,
            "planned": self.planned,
            "record": self.record,
            "movedFrom": str(self.moved_from) if self.moved_from else None,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    environment: str
    parent: int  # the ledger's state sequence that it was made from
    commit: str  # of the specs; "" outside git
    desired: str  # digest of everything wanted: a dirty working tree has a commit, and differs
    changes: tuple[Change, ...]  # one for each resource, by address
    steps: tuple[Step, ...]
    extras: tuple[Address, ...] = ()  # carry Gamma's mark, are neither wanted nor recorded
    id: str = ""

    def encoded(self) -> Json:
        return {
            "environment": self.environment,
            "parent": self.parent,
            "commit": self.commit,
            "desired": self.desired,
            "changes": [change.encoded() for change in self.changes],
            "steps": [step.encoded() for step in self.steps],
            "extras": [str(extra) for extra in self.extras],
        }

    @property
    def refused(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.action is Action.REFUSE)

    def summary(self) -> dict[str, int]:
        """How many changes of each action, zeros included."""
        counted = Counter(change.action for change in self.changes)
        return {action.value: counted[action] for action in Action}


def up_to(plan: Plan, address: Address) -> frozenset[int]:
    """The steps of one address, and all that must be done before them; empty where it has none."""
    found: set[int] = set()
    queue = [step.index for step in plan.steps if step.address == address]
    while queue:
        index = queue.pop()
        if index not in found:
            found.add(index)
            queue.extend(plan.steps[index].needs)
    return frozenset(found)


def identified(plan: Plan) -> Plan:
    """The plan with its id: 64 hex digits over everything but the id."""
    import dataclasses

    return dataclasses.replace(plan, id=digest(plan.encoded()))


def dependents(needs: Mapping[Address, Iterable[Address]]) -> dict[Address, list[Address]]:
    """The arrows turned round: for each address, who needs it, in address order."""
    turned: dict[Address, list[Address]] = {}
    for address in sorted(needs):
        for need in needs[address]:
            turned.setdefault(need, []).append(address)
    return turned
