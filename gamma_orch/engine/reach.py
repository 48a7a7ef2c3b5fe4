"""What artifacts must stay: those that any environment points at, or pointed at in the time that a rollback
may reach back to. Asked by `gamma models gc`.
"""

from collections.abc import Iterable
from datetime import datetime

from gamma_orch.core.canonical import Json
from gamma_orch.core.event import Event, Type
from gamma_orch.store.database import Database
from gamma_orch.store.ledger import events


def reachable(database: Database, environments: Iterable[str], since: datetime) -> set[str]:
    """The keys of artifacts that a record names now, or has named at some moment since `since`."""
    found: set[str] = set()
    for environment in environments:
        found |= _named_since(events(database, environment), since)
    return found


def _named_since(told: Iterable[Event], since: datetime) -> set[str]:
    """What was recorded after `since`, and what stood recorded at that moment."""
    earlier: dict[str, set[str]] = {}
    found: set[str] = set()
    for event in told:
        if event.type is not Type.DONE or event.address is None:
            continue
        record = event.data.get("record")
        named = keys(record.get("outputs", {})) if record else set()
        if datetime.fromisoformat(event.at) < since:
            earlier[str(event.address)] = named
        else:
            found |= named
    return found.union(*earlier.values())


def keys(outputs: Json) -> set[str]:
    """The keys of artifacts that a resource's outputs name: by convention `key`, and those in `keys`."""
    named = {outputs.get("key"), *(outputs.get("keys") or ())}
    return {key for key in named if isinstance(key, str) and key}
