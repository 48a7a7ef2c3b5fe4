"""A plan carried out address by address, by somebody else's scheduler: a Dagster run.

A session is one process's hold on an environment. Where one process carries out the whole run, it
has one session, and the lease ends with it. Where each step of the run is a process of its own
(`sharing`), each has a session; they join one lease by the name of the run, plan anew what is left,
and go on under the plan id of the first.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.event import Type
from gamma_orch.core.ledger import Begun, Ledger
from gamma_orch.core.plan import Plan, dependents, up_to
from gamma_orch.core.provider import GammaError
from gamma_orch.core.ready import Phase
from gamma_orch.engine.converge import (
    Hold,
    Site,
    drifts_of,
    frozen,
    held,
    held_back,
    planned,
    release_of,
    stopped_when,
)
from gamma_orch.engine.execute import Execution
from gamma_orch.engine.journal import Journal
from gamma_orch.engine.progress import Silent, StepResult, Watcher
from gamma_orch.engine.survey import Survey, survey
from gamma_orch.store.lease import Sharing
from gamma_orch.store.ledger import events, present, released


class Frozen(GammaError):
    """Nothing may be changed at this moment."""


@dataclass(slots=True)
class Session:
    site: Site
    survey: Survey
    execution: Execution
    joined: bool = False  # another process of the run was first

    @property
    def plan(self) -> Plan:
        return self.survey.plan

    async def carry_out(self, address: Address) -> list[StepResult]:
        """The steps of one address, after those that they need and nobody has carried out yet.

        Empty where nothing is to be done. Raises StoreError when nothing can be recorded any more.
        """
        asked = up_to(self.plan, address)
        phase = self.execution.frontier.phase
        fresh = {self.plan.steps[index].address for index in asked if phase[index] is Phase.PENDING}
        if drifts := drifts_of(self.plan, fresh):
            await self.execution.journal.append(*drifts)
        return await self.execution.run(asked)

    @property
    def finished(self) -> bool:
        """Whether every step of the plan is done."""
        return all(phase is Phase.DONE for phase in self.execution.frontier.phase)


@contextlib.asynccontextmanager
async def session(
    site: Site,
    purpose: str,
    watcher: Watcher | None = None,
    stop: asyncio.Event | None = None,
    sharing: Sharing | None = None,
    address: Address | None = None,
    told: Mapping[str, Json] | None = None,
) -> AsyncIterator[Session]:
    """Hold an environment for a run. `address`: the only one that a process of a shared run carries out.
    `told`: what else the Planned event shall say of the run.

    Raises LeaseHeld if somebody else is at work, Frozen in a freeze window, StoreError if the ledger
    fails.
    """
    site.secrets.require_digests()
    watcher, stop = watcher or Silent(), stop or asyncio.Event()
    async with held(site, purpose, sharing) as hold, Journal(hold.log, site.now) as journal:
        found = await _surveyed(site, hold, address)
        if found.settled:
            await journal.append(*found.settled)
        if found.plan.steps and (refusal := frozen(site)):
            raise Frozen(f"{refusal.message}.")
        unsure = _open(found.ledger)  # what others of the run are at work on looks in doubt from here
        found = await _announced(site, hold, journal, found, purpose, told or {})
        watcher.planned(found.plan)
        execution = Execution(found, site.world, journal, site.secrets, watcher, stop)
        opened = Session(site, found, execution, hold.lease.joined)
        async with stopped_when(hold.lost, stop):
            yield opened
        said = bool(sharing) and _caught_up(site, hold, opened)
        left = await _left(site, opened, unsure=bool(sharing) and unsure)
        hold.over = left is Left.NOTHING or left is Left.HELD_BACK
        if left is Left.NOTHING and not said:
            news = found.plan.steps or found.settled
            if news or released(site.database, site.environment) != site.commit:
                await journal.append(release_of(found.plan))


def _caught_up(site: Site, hold: Hold, opened: Session) -> bool:
    """Take in what the other workers of the run have done meanwhile. Whether one of them was the last."""
    said = events(site.database, site.environment, after=hold.lease.seq)
    for event in said:
        opened.execution.frontier.feed(event)
    return any(event.type is Type.RELEASED and event.plan == opened.plan.id for event in said)


class Left(Enum):
    """What a session leaves to do."""

    NOTHING = auto()  # everything is as wanted
    HELD_BACK = auto()  # what could not be changed, and nothing else
    STEPS = auto()  # for other processes of the run, or for another run


async def _left(site: Site, opened: Session, unsure: bool) -> Left:
    """`unsure`: the plan was made while others were at work, whose steps looked in doubt. Look again."""
    if not opened.finished:
        return Left.STEPS
    plan = opened.plan
    if unsure:
        ledger, seq = present(site.database, site.environment)
        if _open(ledger):
            return Left.STEPS
        plan = (await survey(site.environment, site.desired, site.commit, ledger, seq, site.world)).plan
        if plan.steps:
            return Left.STEPS
    return Left.HELD_BACK if held_back(plan) else Left.NOTHING


def _open(ledger: Ledger) -> bool:
    return any(entry.begun for entry in ledger.entries.values())


async def _surveyed(site: Site, hold: Hold, address: Address | None) -> Survey:
    ledger, lease = hold.log.ledger, hold.lease
    related = _related(site, ledger, address) if address else frozenset()

    def abandoned(open_step: Address, begun: Begun) -> bool:
        """Begun by nobody of this run; or by one whose place this process takes."""
        if lease.joined:
            return open_step in related
        return begun.seq <= lease.seq

    return await survey(
        site.environment, site.desired, site.commit, ledger, hold.log.seq, site.world, abandoned
    )


def _related(site: Site, ledger: Ledger, address: Address) -> frozenset[Address]:
    """Whatever stands above or below an address, as wanted and as recorded. No other worker of the run
    is on these: those above are done before it starts, those below wait for it."""
    needs: dict[Address, set[Address]] = {a: set(r.needs) for a, r in site.desired.items()}
    for recorded, entry in ledger.entries.items():
        if entry.record:
            needs.setdefault(recorded, set()).update(entry.record.needs)
    below = dependents(needs)
    found = {address}
    for arrows in (needs, below):
        queue = [address]
        while queue:
            for other in arrows.get(queue.pop(), ()):
                if other not in found:
                    found.add(other)
                    queue.append(other)
    return frozenset(found)


async def _announced(
    site: Site, hold: Hold, journal: Journal, found: Survey, purpose: str, told: Mapping[str, Json]
) -> Survey:
    """The plan in the log: once a run. Later processes of a run go on under the id of the first."""
    if not found.plan.steps:
        return found
    event = planned(found.plan, purpose, told)
    if not hold.lease.run:
        await journal.append(event)
        return found
    first = await asyncio.to_thread(hold.log.announce, event, site.now())
    return replace(found, plan=replace(found.plan, id=first.plan))
