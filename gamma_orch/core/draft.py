"""What has been decided so far in one call of `core.planner.plan`, and the questions that all its parts ask.

Local to that call: `decide` fills it, `spread` lets one decision act on others, `layout` turns it
into steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gamma_orch.core.address import Address
from gamma_orch.core.change import Action, Change, Reason
from gamma_orch.core.fingerprint import Fingerprint
from gamma_orch.core.kind import Fields, Traits
from gamma_orch.core.ledger import NOTHING, Ledger
from gamma_orch.core.observation import Absent, Observation
from gamma_orch.core.record import Record
from gamma_orch.core.resource import Resource

BLOCKED = frozenset({Action.REFUSE, Action.WAIT})


@dataclass(slots=True)
class Draft:
    """What has been decided so far. Local to one call of `plan`."""

    environment: str
    desired: Mapping[Address, Resource]
    ledger: Ledger
    observations: Mapping[Address, Observation]
    traits: Mapping[str, Traits]
    prints: Mapping[Address, Fingerprint]
    order: Sequence[Address]  # of the desired, parents first
    first: Mapping[Address, Fields]  # wanted fields with references still open
    moves: Mapping[Address, Address]  # new address -> the recorded old one
    resolved: set[Address] = field(default_factory=set)  # whose fields had to be made anew
    changes: dict[Address, Change] = field(default_factory=dict)
    wanted: dict[Address, Fields] = field(default_factory=dict)
    rebuilt: set[Address] = field(default_factory=set)  # deleted first, then created


def record_now(draft: Draft, address: Address) -> Record | None:
    """What the ledger knows of the object that has, or will have, this address."""
    return draft.ledger.record(draft.moves.get(address, address))


def is_unmanaged(draft: Draft, address: Address) -> bool:
    """It is there, and not ours; nobody knows what it rests on."""
    return record_now(draft, address) is None and draft.changes[address].action is not Action.CREATE


def held(draft: Draft, address: Address) -> bool:
    """Protected, by the specs or by the ledger, and nobody consented."""
    resource, record = draft.desired.get(address), record_now(draft, address)
    names = (address, draft.moves.get(address, address))
    if any(draft.ledger.entries.get(name, NOTHING).consent for name in names):
        return False
    return bool((resource and resource.lifecycle.protect) or (record and record.protect))


def rests_on(draft: Draft) -> dict[Address, tuple[Address, ...]]:
    """What each recorded object that is there needs in the world as it is, by the names of today."""
    now = {old: new for new, old in draft.moves.items()}
    return {
        now.get(a, a): tuple(now.get(need, need) for need in entry.record.needs)
        for a, entry in draft.ledger.entries.items()
        if entry.record and not isinstance(draft.observations.get(now.get(a, a)), Absent)
    }


def consent_first(address: Address, what: str) -> str:
    return (
        f"it is protected and would be {what}; take `protect` out of its lifecycle and apply that first, "
        f"or consent to this once: gamma apply --consent {address}"
    )


def records_only(change: Change) -> bool:
    """An adoption that finds everything as wanted: the ledger learns, the world stays."""
    changes = change.reason is Reason.UNHEALTHY or (change.reason is Reason.EXISTS and change.fields)
    return change.action is Action.ADOPT and not changes
