"""Limits are exact: not one too many, and not one too few; in Valkey and here by the same arithmetic."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.app.bundle import Limit
from gamma_orch.app.limits import (
    LUA,
    Buckets,
    Limiter,
    Rule,
    Taken,
    Verdict,
    Want,
    Who,
    headers,
    verdict,
)
from gamma_orch.app.valkey import TIMEOUT, Script, Valkey
from tests.app.server import Server, until

ALICE = Who("alice", "acme", "203.0.113.7")
BOB = Who("bob", "acme", "203.0.113.8")
SLACK = 0.3  # seconds: the machine is shared


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def wants(rules: Sequence[Rule], cost: int) -> list[Want]:
    return [
        Want(b"%d" % number, rule, cost * rule.drops, cost * rule.drops) for number, rule in enumerate(rules)
    ]


# From one in 50 minutes to a thousand a microsecond.
RULES = st.builds(
    lambda rate, per, burst: Rule.of(Limit(name="x", by="everyone", rate=rate, per=per, burst=burst)),
    st.integers(1, 1_000_000_000),
    st.floats(0.001, 3000),
    st.integers(1, 1000),
)
COSTS = st.integers(1, 5)


@given(RULES, st.lists(st.tuples(st.floats(0, 1.5), COSTS), min_size=1, max_size=60))
def test_a_limit_lets_through_what_it_says(rule: Rule, asked: list[tuple[float, int]]) -> None:
    """Against a token bucket in fractions, which is what `burst + rate * t` means."""
    one = Fraction(rule.drops, rule.rate)  # microseconds until one comes back
    buckets, now, tokens, burst = Buckets(), 0, Fraction(rule.limit.burst or 0), rule.limit.burst or 0
    for pause, cost in asked:
        passed = round(pause * float(one))
        now, tokens = now + passed, min(Fraction(burst), tokens + passed / one)
        wanted = wants([rule], cost)
        taken = buckets.take(wanted, now)
        assert taken[0] == (tokens >= cost)
        tokens -= cost if taken[0] else 0
        said = verdict(wanted, taken)
        assert said.remaining == int(tokens)
        assert said.limit == burst
        assert said.reset * 1e6 == pytest.approx(float((burst - tokens) * one))
        if not taken[0] and cost <= burst:
            assert said.retry * 1e6 == pytest.approx(float((cost - tokens) * one))


@given(RULES, COSTS, st.integers(0, 10))
def test_it_is_worth_asking_again_when_it_says(rule: Rule, cost: int, debt: int) -> None:
    wanted = wants([rule], min(cost, rule.limit.burst or 0))
    full = Want(b"0", rule, 0, rule.capacity + debt * rule.drops)

    def later(micro: int) -> Taken:
        buckets = Buckets()
        buckets.take([full], 0, whatever=True)
        return buckets.take(wanted, micro)

    again = verdict(wanted, later(0)).retry * 1e6
    exact = -(-(wanted[0].need + debt * rule.drops) // rule.rate)
    assert again == pytest.approx(exact, abs=1)
    assert later(exact)[0]
    assert not later(exact - 1)[0]


@given(
    st.lists(RULES, min_size=2, max_size=4), st.lists(st.tuples(st.integers(0, 10_000), COSTS), max_size=40)
)
def test_all_or_nothing(rules: list[Rule], asked: list[tuple[int, int]]) -> None:
    buckets, now = Buckets(), 0
    for pause, cost in asked:
        now += pause
        wanted = wants(rules, cost)
        only_look = [Want(want.key, want.rule, 0, 0) for want in wanted]
        before = buckets.take(only_look, now)[1]
        taken = buckets.take(wanted, now)
        full = [level + want.need > want.rule.capacity for level, want in zip(before, wanted, strict=True)]
        assert taken == (not any(full), before)
        more = [want.take if taken[0] else 0 for want in wanted]
        after = [level + one for level, one in zip(before, more, strict=True)]
        assert buckets.take(only_look, now)[1] == after
        said = verdict(wanted, taken)
        assert (said.retry == 0) == said.allowed == taken[0]


# Whole in Lua, and slow enough for no key of Valkey's to expire while the clock of the test stands still.
SLOW = st.builds(
    lambda rate, per, burst: Rule.of(Limit(name="x", by="everyone", rate=rate, per=per, burst=burst)),
    st.integers(1, 50),
    st.integers(5000, 100_000).map(float),
    st.integers(1, 50),
)
ASKED = st.lists(st.tuples(st.integers(0, 10**10), COSTS, st.sampled_from(["ask", "only ask", "spend"])))


def test_valkey_counts_as_we_do(server: Server) -> None:
    # A clock of the test's own, in place of Valkey's.
    script = Script(LUA.replace("CLOCK", "local now = tonumber(ARGV[#ARGV])"))

    async def scenario(valkey: Valkey, rules: list[Rule], asked: list[tuple[int, int, str]]) -> None:
        await valkey.send("FLUSHALL")
        buckets, now = Buckets(), 1_800_000_000_000_000
        for pause, cost, how in asked:
            now += pause
            wanted = [
                Want(w.key, w.rule, 0 if how == "spend" else w.need, 0 if how == "only ask" else w.take)
                for w in wants(rules, cost)
            ]
            words = [word for w in wanted for word in (w.rule.rate, w.rule.capacity, w.need, w.take)]
            keys = [w.key for w in wanted]
            passes, levels = await valkey.call(script, keys, int(how == "spend"), *words, now)
            assert (bool(passes), levels) == buckets.take(wanted, now, whatever=how == "spend")

    with asyncio.Runner() as runner:
        valkey = Valkey(server.url)
        runner.run(valkey.start())

        @given(st.lists(SLOW, min_size=1, max_size=3), ASKED)
        def law(rules: list[Rule], asked: list[tuple[int, int, str]]) -> None:
            runner.run(scenario(valkey, rules, asked))

        law()
        runner.run(valkey.aclose())


def test_a_clock_that_is_put_back_stops_nobody_for_long(server: Server) -> None:
    script = Script(LUA.replace("CLOCK", "local now = tonumber(ARGV[#ARGV])"))
    rule = Rule.of(Limit(name="x", by="everyone", rate=1, per=10))

    async def scenario() -> None:
        valkey = Valkey(server.url)
        await valkey.start()

        async def passes(now: int) -> bool:
            words = (rule.rate, rule.capacity, rule.drops, rule.drops)
            return bool((await valkey.call(script, ["k"], 0, *words, now))[0])

        later, hour, second = 1_800_000_000_000_000, 3_600_000_000, 1_000_000
        assert await passes(later)
        assert not await passes(later - hour)
        assert not await passes(later - hour + 9 * second)
        assert await passes(later - hour + 10 * second)
        await valkey.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize("burst", [1, 600])
def test_two_clients_never_get_more_than_there_is_and_never_less(server: Server, burst: int) -> None:
    rate = 300
    limit = Limit(name="x", by="principal", rate=rate, burst=burst)

    async def scenario() -> None:
        clients = [Valkey(server.url) for _ in range(2)]
        limiters = [Limiter([limit], valkey, "l:") for valkey in clients]
        for valkey in clients:
            await valkey.start()
        ends = time.monotonic() + 2

        async def clock() -> float:
            seconds, micro = await clients[0].send("TIME")
            return int(seconds) + int(micro) / 1e6

        async def ask(limiter: Limiter, cost: int = 1) -> int:
            said = await limiter.check("predict", "m", ALICE, cost)
            assert said is not None
            return cost if said.allowed else 0

        before = await clock()
        passed = await ask(limiters[0], burst)  # all that is there: what comes from now on is the rate
        began = await clock()

        async def client(limiter: Limiter) -> None:
            nonlocal passed
            while time.monotonic() < ends:
                one = await ask(limiter)
                passed += one
                if not one:
                    await asyncio.sleep(0.001)

        await asyncio.gather(*(client(limiters[number % 2]) for number in range(40)))
        while True:  # to the last that there is
            last = await clock()
            if not await ask(limiters[1]):
                break
            passed += 1
        after = await clock()
        assert passed <= burst + rate * (after - before)
        if burst > 1:  # a pause of the machine does not fill this bucket, so none of the rate is lost
            assert passed >= burst + rate * (last - began) - 1
        assert sum(limiter.gone for limiter in limiters) == 0
        for valkey in clients:
            await valkey.aclose()

    asyncio.run(scenario())


async def check(
    limiter: Limiter, who: Who = ALICE, route: str = "predict", model: str = "m"
) -> Verdict | None:
    return await limiter.check(route, model, who)


async def passes(limiter: Limiter, who: Who = ALICE, route: str = "predict", model: str = "m") -> bool:
    said = await check(limiter, who, route, model)
    return said is None or said.allowed


def one(by: str, burst: int = 1, **more: object) -> Limit:
    return Limit.model_validate({"name": "x", "by": by, "rate": 1, "per": 3600, "burst": burst, **more})


@pytest.mark.parametrize(
    ("by", "shared"),
    [
        ("everyone", [(ALICE, "predict"), (BOB, "chat")]),
        ("route", [(ALICE, "predict"), (BOB, "predict")]),
        ("tenant", [(ALICE, "predict"), (BOB, "chat")]),
        ("principal", [(ALICE, "predict"), (Who("alice", "other", "::1"), "chat")]),
        ("address", [(ALICE, "predict"), (Who("", "", "::ffff:203.0.113.7"), "predict")]),
        (
            "address",
            [(Who("a", "", "2001:db8:1:2:3::4"), "predict"), (Who("b", "", "2001:db8:1:2::9"), "chat")],
        ),
        ("principal", [(Who("", "", "::1"), "predict"), (Who("", "t", "::2"), "predict")]),
    ],
)
def test_who_shares_a_limit(by: str, shared: list[tuple[Who, str]]) -> None:
    limiter = Limiter([one(by)], None, "l:")
    (first, route), (second, other) = shared
    assert asyncio.run(passes(limiter, first, route))
    assert not asyncio.run(passes(limiter, second, other))


@pytest.mark.parametrize(
    ("by", "apart"),
    [
        ("route", [(ALICE, "predict"), (ALICE, "chat")]),
        ("principal", [(ALICE, "predict"), (BOB, "predict")]),
        ("tenant", [(Who("a", "", "::1"), "predict"), (Who("b", "", "::1"), "predict")]),
        ("tenant", [(Who("a", "b", "::1"), "predict"), (Who("b", "", "::1"), "predict")]),
        ("address", [(Who("", "", "2001:db8:1:2::"), "predict"), (Who("", "", "2001:db8:1:3::"), "predict")]),
        ("address", [(ALICE, "predict"), (BOB, "predict")]),
        ("address", [(Who("", "", "what: ever"), "predict"), (Who("", "", "what: else"), "predict")]),
    ],
)
def test_who_does_not(by: str, apart: list[tuple[Who, str]]) -> None:
    limiter = Limiter([one(by)], None, "l:")
    for who, route in apart:
        assert asyncio.run(passes(limiter, who, route))
        assert not asyncio.run(passes(limiter, who, route))


def test_where_a_limit_applies() -> None:
    limiter = Limiter([one("route", routes=["chat", "predict:a", "predict:b"])], None, "l:")

    async def scenario() -> None:
        assert await check(limiter, route="predict", model="c") is None
        assert await check(limiter, route="models", model="a") is None
        for route, model in (("predict", "a"), ("predict", "b"), ("chat", "a")):
            assert await passes(limiter, route=route, model=model)
            assert not await passes(limiter, route=route, model=model)
        assert not await passes(limiter, route="chat", model="b")

    asyncio.run(scenario())


def test_the_limit_that_decides(server: Server) -> None:
    wide, narrow = one("everyone", 5), Limit(name="narrow", by="principal", rate=2, per=10)

    async def scenario() -> None:
        valkey = Valkey(server.url)
        await valkey.start()
        for limiter in (Limiter([wide, narrow], valkey, "l:"), Limiter([wide, narrow], None, "l:")):
            said = await check(limiter)
            assert said is not None
            assert (said.allowed, said.name, said.limit, said.remaining) == (True, "narrow", 2, 1)
            assert headers(said) == [
                (b"ratelimit-limit", b"2"),
                (b"ratelimit-remaining", b"1"),
                (b"ratelimit-reset", b"5"),
            ]
            assert await passes(limiter)
            said = await check(limiter)
            assert said is not None
            assert (said.allowed, said.name, said.remaining) == (False, "narrow", 0)
            assert 4 < said.retry <= 5
            assert 9 < said.reset <= 10
            assert headers(said)[-1] == (b"retry-after", b"5")
            assert await passes(limiter, BOB)  # what was refused was not counted by the other limit either
            assert await passes(limiter, BOB)
            said = await check(limiter, Who("eve", "", ""))
            assert said is not None
            assert (said.allowed, said.name, said.remaining) == (True, "x", 0)
        keys = b" ".join(await valkey.send("KEYS", "*"))
        assert keys.count(b"l:") == 4
        for word in (b"alice", b"bob", b"eve", b"acme", b"203"):
            assert word not in keys
        await valkey.aclose()

    asyncio.run(scenario())


def test_a_limit_that_was_changed_begins_anew(server: Server) -> None:
    async def scenario() -> None:
        valkey = Valkey(server.url)
        await valkey.start()
        for per in (3600, 7200):
            limiter = Limiter([one("everyone", per=per)], valkey, "l:")
            assert await passes(limiter)
            assert not await passes(Limiter([one("everyone", per=per)], valkey, "l:"))
        await valkey.aclose()

    asyncio.run(scenario())


def test_keys_go_when_their_buckets_are_empty(server: Server) -> None:
    limiter_limit = Limit(name="x", by="everyone", rate=1000, burst=50)

    async def scenario() -> None:
        valkey = Valkey(server.url)
        await valkey.start()
        limiter = Limiter([limiter_limit], valkey, "l:")
        for _ in range(50):
            await check(limiter)
        await asyncio.sleep(0.08)
        assert await valkey.send("KEYS", "*") == []
        await valkey.aclose()

    asyncio.run(scenario())


def test_what_costs_more_than_the_burst_can_pass() -> None:
    limiter = Limiter([Limit(name="x", by="everyone", rate=10, burst=5)], None, "l:")

    async def scenario() -> None:
        first = await limiter.check("predict", "m", ALICE, 100)
        second = await limiter.check("predict", "m", ALICE, 100)
        assert first is not None
        assert second is not None
        assert (first.allowed, first.remaining) == (True, 0)
        assert not second.allowed
        assert second.retry == pytest.approx(0.5, abs=0.1)
        await asyncio.sleep(second.retry)
        assert (await limiter.check("predict", "m", ALICE, 100)).allowed  # type: ignore[union-attr]

    asyncio.run(scenario())


@pytest.mark.parametrize("with_valkey", [True, False])
def test_tokens_are_counted_when_they_are_known(server: Server, with_valkey: bool) -> None:
    limit = Limit(name="t", by="tenant", rate=100, per=1, burst=100, counts="tokens")

    async def scenario() -> None:
        valkey = Valkey(server.url)
        await valkey.start()
        limiter = Limiter([limit], valkey if with_valkey else None, "l:")
        for _ in range(5):  # asking counts nothing
            said = await check(limiter)
            assert said is not None
            assert (said.allowed, said.remaining) == (True, 100)
        await limiter.spend("predict", "m", BOB, 0)
        await limiter.spend("predict", "m", BOB, 150)
        said = await check(limiter)
        assert said is not None
        assert (said.allowed, said.remaining) == (False, 0)
        assert 0.2 < said.retry <= 0.51
        await asyncio.sleep(said.retry + 0.01)
        assert await passes(limiter)
        await valkey.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_without_valkey_each_limit_says_what_then(server: Server, how: str) -> None:
    async def scenario() -> None:
        valkey = Valkey(server.url)
        await valkey.start()
        local = Limiter([one("principal", 2), one("everyone", 1, name="open", without="open")], valkey, "l:")
        opened = Limiter([one("everyone", without="open")], valkey, "l:")
        closed = Limiter([one("principal", 9), one("everyone", name="no", without="closed")], valkey, "l:")
        assert await passes(local)
        getattr(server, how)()
        began = time.monotonic()
        verdicts = [await passes(local) for _ in range(3)]
        assert verdicts == [True, True, False]  # a burst of this process's own, and no more
        assert time.monotonic() - began < 1.2 * TIMEOUT + SLACK
        assert [await check(opened) for _ in range(3)] == [None] * 3
        assert await check(closed) == Verdict(False, "no", 1, 0, 1.0, 1.0)
        assert local.gone == 3
        if how == "freeze":
            server.thaw()
        else:
            await asyncio.to_thread(server.start)
        await until(lambda: valkey.up)
        assert await passes(closed)
        await valkey.aclose()

    asyncio.run(scenario())


def test_a_full_valkey_is_one_that_is_gone(server: Server) -> None:
    async def scenario() -> None:
        valkey = Valkey(server.url)
        await valkey.start()
        await valkey.send("CONFIG", "SET", "maxmemory", "1")
        limiter = Limiter([one("everyone")], valkey, "l:")
        assert await passes(limiter)
        assert not await passes(limiter)
        assert limiter.gone == 2
        await valkey.aclose()

    asyncio.run(scenario())


def test_what_is_kept_here_is_bounded() -> None:
    buckets = Buckets(100)
    rule = Rule.of(one("everyone"))
    for number in range(1000):
        buckets.take([Want(b"%d" % number, rule, rule.drops, rule.drops)], 0)
    assert len(buckets) == 100
    assert not buckets.take([Want(b"999", rule, rule.drops, rule.drops)], 0)[0]
