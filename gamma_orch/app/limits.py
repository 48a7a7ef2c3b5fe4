"""How often one may ask: exact rate limits, counted by all workers together. Called by `edge`.

A limit is a bucket that leaks. Each request pours in its drops, and where they do not fit it is refused.
This is GCRA, told by the level of the bucket rather than by the time at which it will be empty, so that all
of it is whole numbers. Always:

- A request passes all limits that apply to it, or none counts it: one script in Valkey, by Valkey's clock.
- In any time `t` no more than `burst + rate * t` pass, and nobody is refused who would not be one too many.
- Valkey and this process count by the same arithmetic. Where Valkey is gone, each limit says what then.
- Keys name nobody: who asks is hashed.
"""

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from gamma_orch.app.address import place
from gamma_orch.app.bundle import Limit
from gamma_orch.app.valkey import Gone, Script, Valkey

# Buckets that a process keeps for itself. Beyond them the one that was asked longest ago is taken for empty.
BUCKETS = 100_000
_AGAIN = 1.0  # seconds until it is worth asking again, where Valkey is gone and the limit is closed then

# The key of a bucket holds its level and when it had it (microseconds), and is gone when it is empty.
# ARGV: 1 where it is taken whatever the level; then for each key what `Want` has.
CLOCK = "local time = redis.call('TIME'); local now = time[1] * 1000000 + time[2]"
LUA = """
CLOCK
local passes, levels, size = true, {}, {}
for i, key in ipairs(KEYS) do
  local rate, capacity, need = tonumber(ARGV[4*i-2]), tonumber(ARGV[4*i-1]), tonumber(ARGV[4*i])
  local level = 0
  local kept = redis.call('GET', key)
  if kept then
    local before, at = string.match(kept, '^(%d+) (%d+)$')
    at = tonumber(at)
    level = math.max(0, tonumber(before) - math.max(0, now - at) * rate)
    if at > now then  -- the clock was put back: nothing leaks until then, unless it counts from now on
      redis.call('SET', key, string.format('%.0f %.0f', level, now), 'KEEPTTL')
    end
  end
  levels[i] = level
  passes = passes and level + need <= capacity
end
if passes or ARGV[1] == '1' then
  for i, key in ipairs(KEYS) do
    local rate, take = tonumber(ARGV[4*i-2]), tonumber(ARGV[4*i+1])
    if take > 0 then
      local level = levels[i] + take
      local empty = math.ceil(level / rate / 1000) + 1  -- keys expire by whole ms
      redis.call('SET', key, string.format('%.0f %.0f', level, now), 'PX', empty)
    end
  end
end
return {passes and 1 or 0, levels}
"""
SCRIPT = Script(LUA.replace("CLOCK", CLOCK))


class Who(NamedTuple):
    """Who asks. Who has no tenant counts as one of their own, and who has no name by their address."""

    principal: str
    tenant: str
    address: str


class Verdict(NamedTuple):  # a tuple, as the others: a frozen dataclass costs three times as much to make
    allowed: bool
    name: str
    """Of the limit that decides: that with the least left, or the one to be waited for longest."""
    limit: int
    """What it lets through at once."""
    remaining: int
    reset: float
    """Seconds until all of it is there again."""
    retry: float
    """Seconds until it is worth asking again: 0 where it is allowed."""


class Closed(Verdict):
    """Nobody may: Valkey is gone, and the limit says that then none pass."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """A limit in drops: whole numbers, so that nothing is ever rounded."""

    limit: Limit
    rate: int  # drops that leak in a microsecond
    drops: int  # of one request or token
    capacity: int

    @classmethod
    def of(cls, limit: Limit) -> "Rule":
        per = max(1, round(limit.per * 1e6))
        common = math.gcd(limit.rate, per)  # small numbers: Lua's are whole up to 2^53
        drops = per // common
        return cls(limit, limit.rate // common, drops, (limit.burst or limit.rate) * drops)

    def applies(self, route: str, model: str) -> str | None:
        """The name by which it applies; None where it does not."""
        routes = self.limit.routes
        if not routes or route in routes:
            return route
        name = f"{route}:{model}"
        return name if name in routes else None


class Want(NamedTuple):
    """What is asked of one bucket, in drops."""

    key: bytes
    rule: Rule
    need: int  # so much must fit
    take: int  # and so much is poured in


Taken = tuple[bool, Sequence[int]]  # whether all fitted, and the levels before


def leaked(level: int, at: int, now: int, rate: int) -> int:
    """The level of a bucket that had `level` at a time before; microseconds."""
    return max(0, level - max(0, now - at) * rate)


def verdict(wants: Sequence[Want], taken: Taken) -> Verdict:
    """What the levels of the buckets mean."""
    allowed, levels = taken
    found = [(want, level) for want, level in zip(wants, levels, strict=True)]

    def left(one: tuple[Want, int]) -> int:
        want, level = one
        after = level + want.take if allowed else level
        return max(0, want.rule.capacity - after) // want.rule.drops

    def wait(one: tuple[Want, int]) -> float:
        want, level = one
        return max(0, level + want.need - want.rule.capacity) / want.rule.rate / 1e6

    want, level = one = min(found, key=left) if allowed else max(found, key=wait)
    rule = want.rule
    return Verdict(
        allowed=allowed,
        name=rule.limit.name,
        limit=rule.limit.burst or rule.limit.rate,
        remaining=left(one),
        reset=(level + want.take if allowed else level) / rule.rate / 1e6,
        retry=0.0 if allowed else wait(one),
    )


class Buckets:
    """The same in this process: what the script does, by the clock of whoever calls."""

    def __init__(self, most: int = BUCKETS) -> None:
        self._most = most
        self._kept: OrderedDict[bytes, tuple[int, int]] = OrderedDict()  # level, and when

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, wants: Sequence[Want], now: int, whatever: bool = False) -> Taken:
        levels = [leaked(*self._kept.get(want.key, (0, now)), now, want.rule.rate) for want in wants]
        passes = all(
            level + want.need <= want.rule.capacity for want, level in zip(wants, levels, strict=True)
        )
        if passes or whatever:
            for want, level in zip(wants, levels, strict=True):
                if want.take:
                    self._kept[want.key] = (level + want.take, now)
                    self._kept.move_to_end(want.key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return passes, levels


class Limiter:
    """The limits of a bundle. Without any Valkey, each worker counts for itself, whatever a limit says."""

    def __init__(self, limits: Sequence[Limit], valkey: Valkey | None, prefix: str) -> None:
        """`prefix`: of all keys."""
        self._valkey, self._prefix = valkey, prefix
        self._requests = [Rule.of(limit) for limit in limits if limit.counts == "requests"]
        self._tokens = [Rule.of(limit) for limit in limits if limit.counts == "tokens"]
        self._own = Buckets()
        self._named = lru_cache(maxsize=10_000)(self._name)
        self.gone = 0
        """Checks that Valkey had no part in, for metrics."""

    async def check(self, route: str, model: str, who: Who, cost: int = 1) -> Verdict | None:
        """Whether they may; it is counted where they may. None: no limit applies.

        What costs more than a limit's burst counts there as the burst, or it could never pass. A limit of
        tokens is not counted, for nobody knows how many it will be: it is only asked whether one is left.
        """
        wants = [
            Want(key, rule, taken := min(cost * rule.drops, rule.capacity), taken)
            for key, rule in self._keys(self._requests, route, model, who)
        ]
        wants += [Want(key, rule, rule.drops, 0) for key, rule in self._keys(self._tokens, route, model, who)]
        if not wants:
            return None
        if self._valkey is not None:
            try:
                return verdict(wants, await self._take(self._valkey, wants, 0))
            except Gone:
                self.gone += 1
            for want in wants:
                limit = want.rule.limit
                if limit.without == "closed":
                    return Closed(False, limit.name, limit.burst or limit.rate, 0, _AGAIN, _AGAIN)
            wants = [want for want in wants if want.rule.limit.without == "local"]
            if not wants:
                return None
        return verdict(wants, self._own.take(wants, _now()))

    async def spend(self, route: str, model: str, who: Who, tokens: int) -> None:
        """Count tokens that were used, however many were left: who took more waits until they are paid."""
        keys = self._keys(self._tokens, route, model, who)
        wants = [Want(key, rule, 0, tokens * rule.drops) for key, rule in keys]
        if not wants or tokens <= 0:
            return
        if self._valkey is not None:
            try:
                await self._take(self._valkey, wants, 1)
            except Gone:
                self.gone += 1
            else:
                return
        self._own.take(wants, _now(), whatever=True)

    async def _take(self, valkey: Valkey, wants: Sequence[Want], whatever: int) -> Taken:
        words = [
            word for want in wants for word in (want.rule.rate, want.rule.capacity, want.need, want.take)
        ]
        passes, levels = await valkey.call(SCRIPT, [want.key for want in wants], whatever, *words)
        return bool(passes), levels

    def _keys(self, rules: Sequence[Rule], route: str, model: str, who: Who) -> list[tuple[bytes, Rule]]:
        return [
            (self._key(rule, name, who), rule)
            for rule in rules
            if (name := rule.applies(route, model)) is not None
        ]

    def _key(self, rule: Rule, name: str, who: Who) -> bytes:
        return self._named(rule.limit.name, rule.rate, rule.drops, _subject(rule.limit, name, who))

    def _name(self, limit: str, rate: int, drops: int, subject: str) -> bytes:
        # With its arithmetic: a limit that was changed begins anew, its old levels mean nothing.
        said = f"{rate} {drops} {subject}"
        hashed = hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return f"{self._prefix}{limit}:{hashed}".encode()


def headers(verdict: Verdict) -> list[tuple[bytes, bytes]]:
    found = [
        (b"ratelimit-limit", b"%d" % verdict.limit),
        (b"ratelimit-remaining", b"%d" % verdict.remaining),
        (b"ratelimit-reset", b"%d" % math.ceil(verdict.reset)),
    ]
    if not verdict.allowed:
        found.append((b"retry-after", b"%d" % max(1, math.ceil(verdict.retry))))
    return found


def _subject(limit: Limit, name: str, who: Who) -> str:
    """Whose bucket it is. Its first letter keeps a principal from having the name of a tenant."""
    match limit.by:
        case "everyone":
            return "e"
        case "route":
            return f"r{name}"
        case "tenant" if who.tenant:
            return f"t{who.tenant}"
        case "tenant" | "principal" if who.principal:
            return f"p{who.principal}"
        case _:
            return f"a{place(who.address)}"


def _now() -> int:
    return time.monotonic_ns() // 1000
