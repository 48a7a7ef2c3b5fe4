"""How long a change is likely to take: the median of past runs of that action on that kind.

Read from the log's Done events; nothing is stored for it.
"""

from collections import defaultdict
from statistics import median

from gamma_orch.core.change import Action, Impact, Impacts
from gamma_orch.core.event import Type
from gamma_orch.core.plan import Plan
from gamma_orch.store.database import Database
from gamma_orch.store.ledger import latest

LOOK_BACK = 1000  # events; older runs say little about today's servers


def impacts(database: Database, plan: Plan) -> Impacts:
    """By kind and action. Empty for a plan without steps, which needs no estimate."""
    if not plan.steps:
        return {}
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in latest(database, plan.environment, LOOK_BACK):
        if event.type is Type.DONE and event.address and "seconds" in event.data:
            seconds[event.address.kind, event.data["opcode"]].append(float(event.data["seconds"]))
    found = {
        key: Impact(seconds=round(median(values), 3), runs=len(values)) for key, values in seconds.items()
    }
    # An adoption that changes something runs as an update.
    adopted = {(kind, Action.ADOPT.value): i for (kind, action), i in found.items() if action == "update"}
    return {**adopted, **found}
