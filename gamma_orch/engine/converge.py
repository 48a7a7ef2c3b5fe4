"""Apply: under a lease, settle what was left open, admit the plan, carry it out, record the release.

The order is the whole point: nothing acts before `admit`, and what is admitted is a plan made from a
read of this moment. A plan that was saved earlier must come out the same again, or it is refused with
the reasons and without any effect (law 9).
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from gamma_orch.core.address import Address
from gamma_orch.core.admit import Ground, Now, Refusal, admit
from gamma_orch.core.canonical import Json
from gamma_orch.core.change import Action, Reason
from gamma_orch.core.event import Event, Type
from gamma_orch.core.plan import Plan
from gamma_orch.core.resource import Resource
from gamma_orch.engine.progress import Silent, Status, StepResult, Watcher
from gamma_orch.engine.secrets import Secrets
from gamma_orch.engine.survey import Survey, survey
from gamma_orch.engine.world import World
from gamma_orch.spec.reconcile import ReconcileSpec
from gamma_orch.store import lease as leases
from gamma_orch.store.database import Database
from gamma_orch.store.errors import LeaseLost, StoreError
from gamma_orch.store.lease import Lease
from gamma_orch.store.ledger import Log, present, released

RENEW_SECONDS = leases.SECONDS / 3
# A scheduler may need this long between two steps of one run; then the lease is anybody's.
LINGER_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Site:
    """Everything that the engine works on and with, for one environment."""

    environment: str
    desired: Mapping[Address, Resource]
    commit: str
    database: Database
    world: World
    secrets: Secrets
    now: Callable[[], datetime] = leases.utc_now
    reconcile: ReconcileSpec = field(default_factory=ReconcileSpec)


@dataclass(frozen=True, slots=True)
class Outcome:
    plan: Plan
    results: Sequence[StepResult] = ()
    refusals: Sequence[Refusal] = ()
    settled: Sequence[Event] = field(default=())  # what became of steps left open by an earlier run
    stopped: bool = False

    @property
    def failed(self) -> bool:
        return any(result.status is Status.FAILED for result in self.results)


async def look(site: Site) -> Survey:
    """Observe and plan, without the lease and without writing anything."""
    ledger, seq = present(site.database, site.environment)
    return await survey(site.environment, site.desired, site.commit, ledger, seq, site.world)


async def apply(
    site: Site,
    saved: Plan | None = None,
    consents: Sequence[Address] = (),
    watcher: Watcher | None = None,
    stop: asyncio.Event | None = None,
    purpose: str = "apply",
    despite_freeze: bool = False,
) -> Outcome:
    """Converge. `saved`: carry out exactly this plan, or refuse. `stop`: set it to let the running
    steps finish and start no more. `despite_freeze`: act in a freeze window too.

    Raises LeaseHeld if somebody else is at work, StoreError if the ledger fails.
    """
    from gamma_orch.engine.execute import Execution
    from gamma_orch.engine.journal import Journal

    watcher = watcher or Silent()
    site.secrets.require_digests()
    async with held(site, purpose) as hold, Journal(hold.log, site.now) as journal:
        if consents:
            await journal.append(*[_consent(address) for address in consents])
        found = await survey(
            site.environment, site.desired, site.commit, hold.log.ledger, hold.log.seq, site.world
        )
        if saved is not None and (refusals := _stale(saved, found)):
            return Outcome(found.plan, refusals=refusals)
        if found.settled:
            await journal.append(*found.settled)
        watcher.planned(found.plan)
        if not found.plan.steps:
            # Nothing to do, and that may be news: another commit, or the end of a run that was cut off.
            news = found.settled or released(site.database, site.environment) != site.commit
            if news and not held_back(found.plan):
                await journal.append(release_of(found.plan))
            return Outcome(found.plan, settled=found.settled)
        if not despite_freeze and (refusal := frozen(site)):
            return Outcome(found.plan, refusals=[refusal], settled=found.settled)
        await journal.append(
            planned(found.plan, purpose), *drifts_of(found.plan, {step.address for step in found.plan.steps})
        )
        stop = stop or asyncio.Event()
        execution = Execution(found, site.world, journal, site.secrets, watcher, stop)
        async with stopped_when(hold.lost, stop):
            results = await execution.run()
        if not held_back(found.plan) and all(result.status is Status.DONE for result in results):
            await journal.append(release_of(found.plan))
        return Outcome(found.plan, results, settled=found.settled, stopped=stop.is_set())


def _stale(saved: Plan, found: Survey) -> list[Refusal]:
    """Why a saved plan may not be carried out any more; empty when it came out the same again."""
    if saved.id == found.plan.id:
        return []
    now = Now(found.plan.parent, found.plan.commit, found.plan.desired, found.observations)
    return admit(saved, now) or [
        Refusal(
            Ground.WORLD_MOVED, "planning again gives another plan: the world changed since this one was made"
        )
    ]


def frozen(site: Site) -> Refusal | None:
    """Why nothing may be changed at this moment; None where it may."""
    found = site.reconcile.frozen(site.now())
    if found is None:
        return None
    window, end = found
    return Refusal(
        Ground.FROZEN, f"{site.environment} is frozen until {leases.rfc3339(end)[:16]}Z: {window.reason}"
    )


def held_back(plan: Plan) -> bool:
    """Whether something that is wanted is not in the plan's steps."""
    return any(change.action in (Action.REFUSE, Action.WAIT) for change in plan.changes)


@dataclass(slots=True)
class Hold:
    """The lease while it is held, and the log under it."""

    lease: Lease
    log: Log
    lost: asyncio.Event
    over: bool = False  # nothing is left for the other processes of the run: give the lease back


@contextlib.asynccontextmanager
async def held(site: Site, purpose: str, sharing: leases.Sharing | None = None) -> AsyncIterator[Hold]:
    """The environment's log under a lease that is renewed until the end."""
    lease = leases.acquire(site.database, site.environment, purpose, site.now, sharing=sharing)
    lost = asyncio.Event()
    renewal = asyncio.create_task(_renew(site, lease, lost))
    over = sharing is None
    try:
        hold = Hold(lease, Log(site.database, lease, author()), lost)
        yield hold
        over = over or hold.over
    finally:
        renewal.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewal
        if over:
            leases.release(site.database, lease)
        else:
            with contextlib.suppress(LeaseLost):
                leases.renew(site.database, lease, site.now, LINGER_SECONDS)


async def _renew(site: Site, lease: Lease, lost: asyncio.Event) -> None:
    """Renew in time. A renewal that fails for another reason than a newer token is tried again:
    the token protects the log in any case."""
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        try:
            await asyncio.to_thread(partial(leases.renew, site.database, lease, site.now))
        except LeaseLost:
            lost.set()
            return
        except StoreError:
            continue


@contextlib.asynccontextmanager
async def stopped_when(lost: asyncio.Event, stop: asyncio.Event) -> AsyncIterator[None]:
    """Start no more steps once the lease is lost."""

    async def watch() -> None:
        await lost.wait()
        stop.set()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


def author() -> str:
    """Who to write into the log: GAMMA_ACTOR (a CI sets it), else the user of the machine."""
    return os.environ.get("GAMMA_ACTOR") or leases.user()


def drifts_of(plan: Plan, touched: Container[Address]) -> list[Event]:
    """What was found changed outside, and is about to be taken back: the rival's values, for whoever asks
    later who keeps writing what."""
    reasons = (Reason.DRIFTED, Reason.DELETED_OUTSIDE, Reason.UNHEALTHY, Reason.CONFLICT)
    return [
        Event(
            Type.DRIFTED,
            change.address,
            plan=plan.id,
            data={"reason": change.reason.value, "fields": [field.encoded() for field in change.fields]},
        )
        for change in plan.changes
        if change.reason in reasons and change.address in touched
    ]


def _consent(address: Address) -> Event:
    return Event(Type.APPROVED, address, data={"consent": author()})


def release_of(plan: Plan) -> Event:
    return Event(Type.RELEASED, plan=plan.id, data={"commit": plan.commit})


def planned(plan: Plan, purpose: str, told: Mapping[str, Json] | None = None) -> Event:
    """What the history shows of a plan: every change but the kept ones, without their fields."""
    changes = [
        {"address": str(c.address), "action": c.action.value, "reason": c.reason.value}
        for c in plan.changes
        if c.action is not Action.KEEP
    ]
    data = {"purpose": purpose, "commit": plan.commit, "summary": plan.summary(), "changes": changes}
    data.update(told or {})
    return Event(Type.PLANNED, plan=plan.id, data=data)
