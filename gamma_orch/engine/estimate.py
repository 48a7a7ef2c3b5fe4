"""What a change is likely to cost: what its provider foresees, else the median of past runs of that
action on that kind, read from the log's Done events.
"""

import contextlib
from collections import defaultdict
from statistics import median

from gamma_orch.core.address import Address
from gamma_orch.core.change import Action, Impact, Impacts
from gamma_orch.core.event import Type
from gamma_orch.core.kind import Fields
from gamma_orch.core.plan import Plan
from gamma_orch.core.provider import Forecasts, GammaError, Opcode
from gamma_orch.engine.world import World
from gamma_orch.store.database import Database
from gamma_orch.store.ledger import latest

LOOK_BACK = 1000  # events; older runs say little about today's servers


def impacts(database: Database, plan: Plan, world: World) -> Impacts:
    """By address. Empty for a plan without steps, which needs no estimate."""
    if not plan.steps:
        return {}
    medians = past(database, plan.environment)
    changing = {step.address: step for step in plan.steps}
    found = {
        change.address: medians[change.address.kind, change.action]
        for change in plan.changes
        if change.address in changing and (change.address.kind, change.action) in medians
    }
    planned: dict[str, dict[Address, Fields]] = defaultdict(dict)
    for address, step in changing.items():
        if step.opcode in (Opcode.CREATE, Opcode.UPDATE, Opcode.REPLACE) and step.planned is not None:
            planned[address.kind][address] = step.planned
    for kind, fields in planned.items():
        provider = world.provider(kind)
        if isinstance(provider, Forecasts):
            with contextlib.suppress(GammaError):  # an estimate is never worth a plan
                found.update(provider.estimate(fields))
    return found


def past(database: Database, environment: str) -> dict[tuple[str, Action], Impact]:
    """The median of past runs, by kind and action."""
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in latest(database, environment, LOOK_BACK):
        if event.type is Type.DONE and event.address and "seconds" in event.data:
            seconds[event.address.kind, event.data["opcode"]].append(float(event.data["seconds"]))
    found: dict[tuple[str, Action], Impact] = {}
    for (kind, opcode), values in seconds.items():
        impact = Impact(seconds=round(median(values), 3), runs=len(values))
        if opcode in set(Action):
            found[kind, Action(opcode)] = impact
        if opcode == "update":  # an adoption that changes something runs as one
            found.setdefault((kind, Action.ADOPT), impact)
    return found
