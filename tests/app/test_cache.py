"""Answers made before: made once, given no longer than they may be, and without Valkey too."""

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.app.bundle import Cache, Limit
from gamma_orch.app.cache import LEASE, Answer, Answers, Counts, _Entry, _Near, _size
from gamma_orch.app.errors import Unavailable, Unprocessable
from gamma_orch.app.limits import Limiter, Who
from gamma_orch.app.valkey import TIMEOUT, Gone, Valkey
from tests.app.server import Server, until

DIGEST, OTHER = "d" * 64, "e" * 64
SLACK = 0.3  # seconds: the machine is shared
SILENT = 1.0 + 1.2 * TIMEOUT + SLACK  # until a silent connection is noticed


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@asynccontextmanager
async def workers(
    server: Server, count: int = 1, **settings: object
) -> AsyncIterator[list[tuple[Answers, Valkey]]]:
    found = []
    for _ in range(count):
        valkey = Valkey(server.url)
        answers = Answers(Cache.model_validate(settings), valkey, "shop")
        await valkey.start()
        found.append((answers, valkey))
    try:
        yield found
    finally:
        for answers, valkey in found:
            await answers.aclose()
            await valkey.aclose()


class Model:
    """It counts how often it was asked, and takes its time."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.seconds, self.error, self.made = seconds, error, 0

    async def __call__(self) -> bytes:
        self.made += 1
        number = self.made
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return b"%d" % number


async def heard(*valkeys: Valkey) -> None:
    """Whatever was pushed before has arrived: pushes and replies keep their order."""
    for valkey in valkeys:
        await valkey.send("PING")


def levels(found: Sequence[Answer]) -> dict[str, int]:
    said = [answer.level for answer in found]
    return {level: said.count(level) for level in sorted(set(said))}


def test_from_where_an_answer_is(server: Server) -> None:
    async def scenario() -> None:
        async with workers(server, 2) as ((one, _), (two, valkey)):
            key, model = one.key(DIGEST, "", b"text"), Model()
            assert one.near(key) is None
            assert await one.answer(key, model) == Answer(b"1", "made")
            assert one.near(key) == Answer(b"1", "l1")
            assert await one.answer(key, model) == Answer(b"1", "l1")
            await heard(valkey)
            assert await two.answer(key, model) == Answer(b"1", "l2")
            assert await two.answer(key, model) == Answer(b"1", "l1")
            assert one.near(key) is not None  # its own writing did not invalidate it
            assert model.made == 1
            assert (one.counts.made, one.counts.l1, two.counts.l2, two.counts.l1) == (1, 3, 1, 1)
            assert await valkey.send("KEYS", "m:*") == []  # the lease was given back

    asyncio.run(scenario())


def test_keys() -> None:
    each = Answers(Cache(tenants=True), None, "shop")
    keys = [
        each.key(digest, tenant, body)
        for digest, tenant, body in [
            (DIGEST, "", b"x"),
            (OTHER, "", b"x"),
            (DIGEST, "a", b"x"),
            (DIGEST, "", b"ax"),
            (DIGEST, "", b"1:ax"),
        ]
    ]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(rb"a:shop:[0-9a-f]{64}:[0-9a-f]{40}", key) for key in keys)
    together = Answers(Cache(), None, "shop")
    assert together.key(DIGEST, "a", b"x") == together.key(DIGEST, "b", b"x")


def test_valkey_is_asked_in_the_tick_of_whatever_else_is_sent(server: Server) -> None:
    async def reads(valkey: Valkey) -> int:
        found = re.search(rb"total_reads_processed:(\d+)", await valkey.send("INFO", "stats"))
        assert found
        return int(found[1])

    async def scenario() -> None:
        async with workers(server, 2) as ((one, valkey), (two, other)):
            limiter = Limiter([Limit(name="x", by="everyone", rate=100)], valkey, "l:")
            who = Who("a", "", "")
            taken = 0
            for body in (b"1", b"2"):  # the first time the scripts are not known
                key = one.key(DIGEST, "", body)
                await two.answer(key, Model())
                before = await reads(other)
                await asyncio.gather(limiter.check("predict", "m", who), one.answer(key, Model()))
                taken = await reads(other) - before
            assert taken <= 3  # this, the INFO, and perhaps a PING

    asyncio.run(scenario())


@pytest.mark.parametrize("count", [1, 2])
def test_a_stampede_makes_it_once(server: Server, count: int) -> None:
    async def scenario() -> None:
        async with workers(server, count) as found:
            model = Model(0.2)
            key = found[0][0].key(DIGEST, "", b"text")
            answers = await asyncio.gather(
                *(found[number % count][0].answer(key, model) for number in range(200))
            )
            assert {answer.body for answer in answers} == {b"1"}
            assert levels(answers) == {"made": 1, "shared": 199}
            assert model.made == 1

    asyncio.run(scenario())


def test_without_valkey_a_stampede_makes_it_once() -> None:
    async def scenario() -> None:
        answers, model = Answers(Cache(), None, "shop"), Model(0.05)
        key = answers.key(DIGEST, "", b"text")
        assert levels(await asyncio.gather(*(answers.answer(key, model) for _ in range(200)))) == {
            "made": 1,
            "shared": 199,
        }
        await answers.aclose()

    asyncio.run(scenario())


MAKER = """
import asyncio, sys
from gamma_orch.app.bundle import Cache
from gamma_orch.app.cache import Answers
from gamma_orch.app.valkey import Valkey

async def make():
    print("makes", flush=True)
    await asyncio.sleep(60)

async def main():
    valkey = Valkey(sys.argv[1])
    answers = Answers(Cache(), valkey, "shop")
    await valkey.start()
    await answers.answer(answers.key("d" * 64, "", b"text"), make)

asyncio.run(main())
"""


def test_a_maker_that_dies_is_waited_for_a_bounded_time(server: Server) -> None:
    maker = subprocess.Popen([sys.executable, "-c", MAKER, server.url], stdout=subprocess.PIPE)
    assert maker.stdout is not None
    assert maker.stdout.readline() == b"makes\n"
    os.kill(maker.pid, signal.SIGKILL)
    maker.wait()
    maker.stdout.close()

    async def scenario() -> None:
        async with workers(server, 2) as ((one, _), (two, _)):
            model, began = Model(0.1), time.monotonic()
            key = one.key(DIGEST, "", b"text")
            found = await asyncio.gather(
                *((one, two)[number % 2].answer(key, model) for number in range(200))
            )
            assert time.monotonic() - began < LEASE + 0.5 + SLACK
            assert model.made <= 2  # once by each
            assert levels(found)["made"] == model.made

    asyncio.run(scenario())


def test_what_takes_longer_than_the_lease_is_made_by_each(server: Server) -> None:
    async def scenario() -> None:
        async with workers(server, 2) as ((one, _), (two, valkey)):
            model = Model(LEASE + 1)
            key = one.key(DIGEST, "", b"text")
            first, second = await asyncio.gather(one.answer(key, model), two.answer(key, model))
            assert (first.level, second.level, model.made) == ("made", "made", 2)
            await heard(valkey)
            assert await valkey.send("KEYS", "m:*") == []

    asyncio.run(scenario())


def test_an_error_reaches_everybody_and_is_not_kept(server: Server) -> None:
    async def scenario() -> None:
        async with workers(server, 2, negative=100) as ((one, valkey), (two, _)):
            key, model = one.key(DIGEST, "", b"text"), Model(0.05, Unavailable("full", 1))
            found = await asyncio.gather(*(one.answer(key, model) for _ in range(20)), return_exceptions=True)
            assert all(isinstance(error, Unavailable) for error in found)
            assert (model.made, one.counts.failed) == (1, 20)
            assert await valkey.send("KEYS", "*") == []
            model.error = None
            assert await two.answer(key, model) == Answer(b"2", "made")

    asyncio.run(scenario())


def test_a_refusal_of_the_model_is_kept_for_as_long_as_it_says(server: Server) -> None:
    async def scenario() -> None:
        faults = [{"at": "/texts/0", "says": "no"}]
        async with workers(server, 2, negative=0.3, stale=100, jitter=0) as ((one, _), (two, valkey)):
            key, model = one.key(DIGEST, "", b"text"), Model(0, Unprocessable("It cannot.", faults=faults))
            with pytest.raises(Unprocessable):
                await one.answer(key, model)
            await heard(valkey)
            for answers, level in ((one, "l1"), (two, "l2"), (two, "l1")):
                found = await answers.answer(key, model)
                assert (found.level, found.negative) == (level, True)
                refusal = found.refusal()
                assert (refusal.detail, refusal.faults) == ("It cannot.", tuple(faults))
            assert model.made == 1
            await asyncio.sleep(0.35)
            model.error = None
            assert await two.answer(key, model) == Answer(b"2", "made")

    asyncio.run(scenario())


def test_a_refusal_is_not_kept_unless_it_is_said() -> None:
    async def scenario() -> None:
        answers, model = Answers(Cache(), None, "shop"), Model(0, Unprocessable("It cannot."))
        for _ in range(2):
            with pytest.raises(Unprocessable):
                await answers.answer(b"a:shop:d:1", model)
        assert model.made == 2

    asyncio.run(scenario())


@pytest.mark.parametrize("first", [True, False])
def test_one_who_is_cancelled_does_not_cancel_the_others(server: Server, first: bool) -> None:
    async def scenario() -> None:
        async with workers(server) as ((answers, _),):
            key, model = answers.key(DIGEST, "", b"text"), Model(0.1)
            waiting = [asyncio.create_task(answers.answer(key, model)) for _ in range(3)]
            await asyncio.sleep(0.03)
            cancelled = waiting.pop(0 if first else 1)
            cancelled.cancel()
            assert {answer.body for answer in await asyncio.gather(*waiting)} == {b"1"}
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            # And where nobody is left, it is there for the next.
            lonely = asyncio.create_task(answers.answer(answers.key(DIGEST, "", b"2"), model))
            await asyncio.sleep(0.03)
            lonely.cancel()
            await asyncio.sleep(0.15)
            assert answers.near(answers.key(DIGEST, "", b"2")) is not None

    asyncio.run(scenario())


def test_a_stale_answer_is_given_while_it_is_made_anew(server: Server) -> None:
    async def scenario() -> None:
        async with workers(server, 2, ttl=0.2, stale=5, jitter=0) as ((one, _), (two, valkey)):
            key, model = one.key(DIGEST, "", b"text"), Model(0.1)
            await one.answer(key, model)
            await two.answer(key, model)
            await asyncio.sleep(0.22)
            began = time.monotonic()
            found = [await (one, two)[number % 2].answer(key, model) for number in range(50)]
            assert levels(found) == {"stale": 50}
            assert time.monotonic() - began < 0.1
            await until(lambda: one.counts.refreshed + two.counts.refreshed == 1)
            await heard(valkey)
            again = [await answers.answer(key, model) for answers in (one, two)]
            assert {answer.body for answer in again} == {b"2"}
            assert model.made == 2
            assert await valkey.send("KEYS", "m:*") == []

            # One that does not have it itself gives a stale one of Valkey's.
            third = Answers(Cache(ttl=0.2, stale=5, jitter=0), valkey, "shop")
            await asyncio.sleep(0.25)
            assert await third.answer(key, model) == Answer(b"2", "stale")
            await until(lambda: third.counts.refreshed == 1)
            assert third.near(key) == Answer(b"3", "l1")
            await third.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize("with_valkey", [True, False])
def test_a_stale_answer_has_an_end(server: Server, with_valkey: bool) -> None:
    async def scenario() -> None:
        async with workers(server) as ((_, valkey),):
            answers = Answers(Cache(ttl=0.1, stale=0.3, jitter=0), valkey if with_valkey else None, "shop")
            key, model = answers.key(DIGEST, "", b"text"), Model(0)
            await answers.answer(key, model)
            await asyncio.sleep(0.15)
            model.error = Unavailable("full", 1)
            for _ in range(10):
                assert await answers.answer(key, model) == Answer(b"1", "stale")
                await asyncio.sleep(0.01)
            assert 1 <= answers.counts.worn <= 3  # not once a request
            await asyncio.sleep(0.2)
            with pytest.raises(Unavailable):
                await answers.answer(key, model)
            await answers.aclose()

    asyncio.run(scenario())


def test_what_others_change_is_given_no_more(server: Server) -> None:
    async def scenario() -> None:
        async with workers(server, 2) as ((one, valkey), (two, other)):
            keys = [one.key(DIGEST, "", b"%d" % number) for number in range(20)]
            kept, model = one.key(OTHER, "", b"text"), Model()
            for key in (*keys, kept):
                await one.answer(key, model)
                await heard(other)
                await two.answer(key, model)

            await other.send("DEL", keys[0])
            await heard(valkey)
            assert one.near(keys[0]) is None
            assert one.near(keys[1]) is not None

            await one.forget(DIGEST)
            await heard(other)
            for answers in (one, two):
                assert [answers.near(key) for key in keys] == [None] * len(keys)
                assert answers.near(kept) is not None
            assert len(await valkey.send("KEYS", "a:shop:*")) == 2  # the other's answer, and the epoch
            assert (await two.answer(keys[1], model)).level == "made"
            assert (await one.answer(keys[1], model)).level == "l2"

            await other.send("FLUSHALL")
            await heard(valkey)
            assert one.near(kept) is None
            assert one.counts.entries == one.counts.size == 0

    asyncio.run(scenario())


def test_an_invalidation_wins_over_what_is_being_made(server: Server) -> None:
    async def scenario() -> None:
        async with workers(server, 2) as ((one, valkey), (two, other)):
            model = Model(0.1)

            async def meanwhile(what: Callable[[], Awaitable[object]]) -> None:
                key = one.key(DIGEST, "", os.urandom(8))
                making = asyncio.create_task(one.answer(key, model))
                await asyncio.sleep(0.05)
                await what()
                await heard(valkey)
                later = await one.answer(key, model)  # does not join what began before
                first = await making
                assert int(later.body) > int(first.body)
                await heard(valkey)
                kept = await valkey.send("GET", key)
                assert kept is None or kept[9:] == later.body
                assert one.near(key) in (None, Answer(later.body, "l1"))

            await meanwhile(lambda: two.forget(DIGEST))
            await meanwhile(lambda: one.forget(DIGEST))
            await meanwhile(lambda: other.send("FLUSHALL"))

    asyncio.run(scenario())


def test_an_answer_of_before_that_is_written_late_is_no_answer(server: Server) -> None:
    async def scenario() -> None:
        async with workers(server, 2) as ((one, valkey), (two, _)):
            key, model = one.key(DIGEST, "", b"text"), Model()
            await one.answer(key, model)
            late = await valkey.send("GET", key)
            await two.forget(DIGEST)
            await valkey.send("SET", key, late, "PX", 60_000)
            assert await two.answer(key, model) == Answer(b"2", "made")

    asyncio.run(scenario())


def test_after_forgetting_nothing_of_before_is_given(server: Server) -> None:
    """The law, with three workers that ask, make and forget at random."""

    async def scenario(seed: int) -> None:
        async with workers(server, 3) as found:
            choice, version, ends = random.Random(seed), 0, time.monotonic() + 1.5
            known = [0] * len(found)  # no answer to worker n may be older from now on
            key = found[0][0].key(DIGEST, "", b"text")

            async def make() -> bytes:
                seen = version
                await asyncio.sleep(choice.random() * 0.01)
                return b"%d" % seen

            async def asks(number: int) -> None:
                while time.monotonic() < ends:
                    least = known[number]
                    answer = await found[number][0].answer(key, make)
                    assert int(answer.body) >= least, answer.level
                    await asyncio.sleep(choice.random() * 0.004)

            async def forgets() -> None:
                nonlocal version
                while time.monotonic() < ends:
                    await asyncio.sleep(choice.random() * 0.03)
                    version += 1
                    now, number = version, choice.randrange(len(found))
                    await found[number][0].forget(DIGEST)
                    known[number] = now
                    for other, (_, valkey) in enumerate(found):
                        await heard(valkey)
                        known[other] = now

            asked = [asks(number) for number in range(len(found)) for _ in range(8)]
            await asyncio.gather(forgets(), *asked)
            assert version > 20
            assert sum(answers.counts.l1 for answers, _ in found) > 100

    for seed in range(2):
        asyncio.run(scenario(seed))


def test_no_answer_is_older_than_it_may_be_while_the_server_comes_and_goes(server: Server) -> None:
    ttl, stale = 0.15, 0.1

    async def make() -> bytes:
        await asyncio.sleep(0.002)
        return b"%f" % time.monotonic()

    async def scenario() -> None:
        oldest, slowest = 0.0, 0.0
        async with workers(server, 2, ttl=ttl, stale=stale, jitter=0.1) as found:
            ends = time.monotonic() + 4

            async def asks(answers: Answers, choice: random.Random) -> None:
                nonlocal oldest, slowest
                while time.monotonic() < ends:
                    began = time.monotonic()
                    body = b"%d" % choice.randrange(20)
                    answer = await answers.answer(answers.key(DIGEST, "", body), make)
                    now = time.monotonic()
                    # It was on time if it was when it was asked for.
                    oldest, slowest = max(oldest, began - float(answer.body)), max(slowest, now - began)
                    await asyncio.sleep(0.003)

            async def trouble() -> None:
                for _ in range(2):
                    await asyncio.sleep(0.3)
                    server.freeze()
                    await asyncio.sleep(0.8)
                    server.thaw()
                    await asyncio.sleep(0.3)
                    await asyncio.to_thread(server.kill)
                    await asyncio.sleep(0.2)
                    await asyncio.to_thread(server.start)

            choice = random.Random(1)
            asked = [asks(found[number % 2][0], choice) for number in range(20)]
            await asyncio.gather(trouble(), *asked)
            assert oldest <= ttl + stale
            assert slowest < 20 * TIMEOUT  # bounded, on a busy machine too
            assert all(answers.counts.gone for answers, _ in found)
            assert all(answers.counts.l2 for answers, _ in found)

    asyncio.run(scenario())


def test_what_a_server_reads_late_does_not_live_longer(server: Server) -> None:
    async def scenario() -> None:
        async with workers(server, ttl=0.6) as ((one, _),):
            key = one.key(DIGEST, "", b"text")

            async def make() -> bytes:
                server.freeze()
                return b"1"

            await one.answer(key, make)  # it is sent, and lies in the socket
            await asyncio.sleep(0.8)
            server.thaw()
            async with workers(server) as ((_, valkey),):
                assert await valkey.send("EXISTS", key) == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_a_lost_connection_clears_what_is_here_and_it_goes_on(server: Server, how: str) -> None:
    async def scenario() -> None:
        async with workers(server, 2) as ((one, valkey), (two, other)):
            key, model = one.key(DIGEST, "", b"text"), Model()
            await one.answer(key, model)
            getattr(server, how)()
            await until(lambda: one.near(key) is None, SILENT)
            began = time.monotonic()
            assert await one.answer(key, model) == Answer(b"2", "made")
            assert await one.answer(key, model) == Answer(b"2", "l1")
            assert time.monotonic() - began < 0.1
            assert one.counts.gone == 1
            with pytest.raises(Gone):
                await one.forget(DIGEST)
            assert one.near(key) is None

            assert await one.answer(key, model) == Answer(b"3", "made")
            if how == "freeze":
                server.thaw()
            else:
                await asyncio.to_thread(server.start)
            await until(lambda: valkey.up)
            assert one.near(key) is None  # others may have changed it unheard
            level = "l2" if how == "freeze" else "made"
            assert (await one.answer(key, model)).level == level
            if how == "kill":  # a frozen one may have come back before the other noticed
                await until(lambda: other.up and two.counts.cleared == 3)

    asyncio.run(scenario())


def test_lives_differ_and_none_is_too_long(server: Server) -> None:
    async def scenario() -> None:
        async with workers(server, ttl=100, stale=10, jitter=0.2) as ((answers, valkey),):
            keys = [answers.key(DIGEST, "", b"%d" % number) for number in range(100)]
            await asyncio.gather(*(answers.answer(key, Model()) for key in keys))
            lives = [await valkey.send("PTTL", key) / 1000 for key in keys]
            assert 89 < min(lives) < 95
            assert 105 < max(lives) <= 110

    asyncio.run(scenario())


def test_what_is_not_shared_is_not_in_valkey(server: Server) -> None:
    async def scenario() -> None:
        for settings in ({"shared": False}, {"ttl": 0}):
            async with workers(server, 2, **settings) as ((one, valkey), (two, _)):
                key, model = one.key(DIGEST, "", b"text"), Model(0.05)
                found = await asyncio.gather(one.answer(key, model), one.answer(key, model))
                assert levels(found) == {"made": 1, "shared": 1}
                assert (await two.answer(key, model)).level == "made"
                assert await valkey.send("KEYS", "*") == []
                assert (one.near(key) is None) == ("ttl" in settings)
                await one.forget(DIGEST)
                assert one.near(key) is None

    asyncio.run(scenario())


def test_a_full_valkey_costs_nothing_else(server: Server) -> None:
    async def scenario() -> None:
        async with workers(server) as ((answers, valkey),):
            await valkey.send("CONFIG", "SET", "maxmemory", "1")
            key, model = answers.key(DIGEST, "", b"text"), Model()
            assert await answers.answer(key, model) == Answer(b"1", "made")
            assert await answers.answer(key, model) == Answer(b"1", "l1")

    asyncio.run(scenario())


@given(
    st.lists(st.tuples(st.sampled_from(["put", "get", "pop"]), st.integers(0, 9), st.integers(0, 3000))),
    st.integers(0, 6),
    st.integers(0, 10_000),
)
def test_what_is_kept_here_is_bounded(doings: list[tuple[str, int, int]], entries: int, size: int) -> None:
    counts = Counts()
    near = _Near(entries, size, counts)
    kept: dict[bytes, int] = {}  # in the order of their last use
    for doing, number, length in doings:
        key = b"%d" % number
        if doing == "get":
            assert (near.get(key) is not None) == (key in kept)
            if key in kept:
                kept[key] = kept.pop(key)
        elif doing == "pop":
            assert near.pop(key) == (kept.pop(key, None) is not None)
        else:
            entry = _Entry(Answer(b"x" * length, "l1"), 0, 0)
            near.put(key, entry)
            kept.pop(key, None)
            if entries and _size(key, entry) <= size:
                kept[key] = _size(key, entry)
            while len(kept) > entries or sum(kept.values()) > size:
                kept.pop(next(iter(kept)))
        assert (counts.entries, counts.size) == (len(kept), sum(kept.values()))
    assert near.under(b"") == list(kept)
