"""Group commit: many append at once, one transaction carries them, and nobody is told too early."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

import pytest

from gamma_orch.core.event import Event, Type
from gamma_orch.engine.journal import Journal
from gamma_orch.store.database import Database
from gamma_orch.store.errors import LeaseLost, StoreError
from gamma_orch.store.lease import acquire, release
from gamma_orch.store.ledger import Log, events, verify
from tests.engine.bench import Bench, item


class Watched(Log):
    """The log of the environment, and which batches it was given. `gate` holds a transaction up."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.database, acquire(bench.database, "dev", "test"), "t")
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()
        self.fails: list[Exception] = []

    def append(self, batch: Sequence[Event], now: datetime) -> list[Event]:
        self.batches.append([event.plan for event in batch])
        self.reached.set()
        assert self.gate.wait(10)
        if self.fails:
            raise self.fails.pop(0)
        return super().append(batch, now)


def event(name: str) -> Event:
    return Event(Type.APPROVED, item("a"), plan=name, data={"consent": name})


@asynccontextmanager
async def journal(bench: Bench) -> AsyncIterator[tuple[Journal, Watched]]:
    log = Watched(bench)
    async with Journal(log, lambda: bench.clock) as opened:
        yield opened, log


async def held_up(opened: Journal, log: Watched, *names: str) -> list[asyncio.Task[list[Event]]]:
    """A first append that stands at the gate, and others that come while it does."""
    log.gate.clear()
    log.reached.clear()
    first = asyncio.create_task(opened.append(event("first")))
    await asyncio.to_thread(log.reached.wait, 10)
    others = [asyncio.create_task(opened.append(event(name))) for name in names]
    await asyncio.sleep(0.01)
    return [first, *others]


async def test_many_at_once_are_few_transactions_in_their_order(bench: Bench):
    names = [f"e{n}" for n in range(200)]
    async with journal(bench) as (opened, log):
        stored = await asyncio.gather(*(opened.append(event(name)) for name in names))
    assert len(log.batches) <= 2
    assert [e.plan for e in bench.log()] == names
    assert [[e.plan for e in some] for some in stored] == [[name] for name in names]
    assert [e.seq for (e,) in stored] == list(range(1, 201))
    assert stored[7] == [bench.log()[7]], "an append returns the event as it was stored"
    assert opened.ledger.entries[item("a")].consent == "e199"
    assert verify(bench.database, "dev") == []


async def test_what_comes_during_a_transaction_goes_together_in_the_next(bench: Bench):
    async with journal(bench) as (opened, log):
        tasks = await held_up(opened, log, "b", "c", "d")
        assert not any(task.done() for task in tasks)
        log.gate.set()
        await asyncio.gather(*tasks)
        await opened.append(event("last"))
    assert log.batches == [["first"], ["b", "c", "d"], ["last"]]


async def test_each_gets_its_own(bench: Bench):
    async with journal(bench) as (opened, _):
        one, none, two = await asyncio.gather(
            opened.append(event("a")), opened.append(), opened.append(event("b"), event("c"))
        )
    assert [e.plan for e in one] == ["a"]
    assert none == []
    assert [(e.plan, e.seq, e.by) for e in two] == [("b", 2, "t"), ("c", 3, "t")]


async def test_durable_when_it_returns(bench: Bench):
    async with journal(bench) as (opened, _):
        await opened.append(event("a"))
        other = Database(bench.database.url)
        assert [e.plan for e in events(other, "dev")] == ["a"]
        other.close()


@pytest.mark.parametrize("error", [StoreError("The disk is full."), LeaseLost("It went to another.")])
async def test_an_error_of_the_ledger_reaches_every_waiter_and_all_that_come(bench: Bench, error: StoreError):
    async with journal(bench) as (opened, log):
        tasks = await held_up(opened, log, "b", "c")
        log.fails = [error]
        log.gate.set()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert results == [error] * 3
        with pytest.raises(type(error)):
            await asyncio.wait_for(opened.append(event("later")), 10)
    assert log.batches == [["first"]], "tried again after the ledger had refused"
    assert bench.log() == []


async def test_a_lost_lease_is_found_by_the_real_log(bench: Bench):
    async with journal(bench) as (opened, _):
        await opened.append(event("a"))
        acquire(
            bench.database,
            "dev",
            "another",
            lambda: datetime.max.replace(tzinfo=bench.clock.tzinfo, year=9000),
        )
        with pytest.raises(LeaseLost):
            await opened.append(event("b"))
    assert [e.plan for e in bench.log()] == ["a"]


async def test_an_event_that_cannot_be_written_down_fails_alone(bench: Bench):
    wrong = Event(Type.APPROVED, item("a"), plan="wrong", data={"consent": object()})
    async with journal(bench) as (opened, log):
        tasks = await held_up(opened, log, "b")
        tasks.append(asyncio.create_task(opened.append(wrong)))
        tasks += [asyncio.create_task(opened.append(event(name))) for name in ("c", "d")]
        await asyncio.sleep(0.01)
        log.gate.set()
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        await opened.append(event("later"))
    assert [type(result) for result in done] == [list, list, TypeError, list, list]
    assert [e.plan for e in bench.log()] == ["first", "b", "c", "d", "later"]
    assert [some[0].plan for some in done if isinstance(some, list)] == ["first", "b", "c", "d"]
    assert verify(bench.database, "dev") == []


async def test_a_ledger_that_fails_in_between_fails_the_rest(bench: Bench):
    async with journal(bench) as (opened, log):
        tasks = await held_up(opened, log, "b", "c")
        log.gate.set()
        log.fails = [ValueError("first"), ValueError("both"), StoreError("b")]
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert [str(error) for error in done] == ["first", "b", "b"]
    assert log.batches == [["first"], ["b", "c"], ["b"]]


async def test_who_stops_waiting_disturbs_nobody(bench: Bench):
    async with journal(bench) as (opened, log):
        tasks = await held_up(opened, log, "b", "c")
        tasks[0].cancel()
        tasks[1].cancel()
        await asyncio.sleep(0)
        log.gate.set()
        stored = await asyncio.wait_for(tasks[2], 10)
    assert [e.plan for e in stored] == ["c"]
    assert [e.plan for e in bench.log()] == ["first", "b", "c"]


async def test_who_stops_waiting_for_an_error_disturbs_nobody(bench: Bench):
    async with journal(bench) as (opened, log):
        tasks = await held_up(opened, log, "b")
        tasks[0].cancel()
        await asyncio.sleep(0)
        log.fails = [StoreError("No.")]
        log.gate.set()
        with pytest.raises(StoreError):
            await asyncio.wait_for(tasks[1], 10)


async def test_leaving_waits_for_what_was_appended(bench: Bench):
    log = Watched(bench)
    async with Journal(log, lambda: bench.clock) as opened:
        tasks = await held_up(opened, log, "b")
        asyncio.get_running_loop().call_later(0.05, log.gate.set)
    assert [e.plan for e in bench.log()] == ["first", "b"]
    await asyncio.gather(*tasks)
    assert not [t for t in threading.enumerate() if t.name.startswith("journal")], "its thread is left behind"


async def test_the_time_is_that_of_the_append(bench: Bench):
    async with journal(bench) as (opened, _):
        await opened.append(event("a"))
        bench.clock = bench.clock.replace(hour=5)
        await opened.append(event("b"))
    assert [e.at[11:16] for e in bench.log()] == ["00:00", "05:00"]


async def test_a_released_lease_still_orders_the_tokens(bench: Bench):
    for name in ("a", "b"):
        lease = acquire(bench.database, "dev", "test")
        async with Journal(Log(bench.database, lease, "t"), lambda: bench.clock) as opened:
            await opened.append(event(name))
        release(bench.database, lease)
    assert [(e.plan, e.token) for e in bench.log()] == [("a", 1), ("b", 2)]
