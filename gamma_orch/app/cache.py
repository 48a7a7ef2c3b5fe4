"""Answers that were made before. Called by whoever answers predictions; `near` is on the hot path.

An answer lies here (L1) and, where workers share them, in Valkey (L2). Its key has the digest of the model,
so another model never answers from it. Always:

- What is asked at one moment is made once: by one task of this worker and, as a rule, by one worker. Who
  waits for another's answer waits a bounded time, and then makes it.
- Valkey tells each worker what others change. What was read or made before an invalidation is stored nowhere
  after it; when the connection is lost, and when it is there again, all of L1 goes.
- So an answer is given for `ttl + stale` seconds after it was made, at most. After an invalidation it is
  given no more: by workers that hear Valkey, at once; by one whose connection died in silence, in less than
  two seconds; and by one that knows that Valkey is gone, at the end of the answer's time.
- No error is kept, but for what the model cannot answer (422), and that for as long as the bundle says.
- A Valkey that is gone costs the answers of the other workers, and nothing else.
"""

import asyncio
import hashlib
import json
import os
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from gamma_orch.app.bundle import Cache
from gamma_orch.app.errors import Unprocessable
from gamma_orch.app.valkey import Gone, Script, Valkey

Level = Literal["l1", "l2", "made", "stale", "shared"]
Make = Callable[[], Awaitable[bytes]]

# Seconds for which a worker has the making of an answer to itself, and for which others wait for it. What
# takes longer is made by each worker that wants it; what its maker died of is late by this.
LEASE = 2.0
_PAUSE, _LONGEST_PAUSE = 0.004, 0.05  # seconds between two looks for what another makes
_OVERHEAD = 500  # bytes that an entry of L1 takes besides its key and its body
_EPOCH = 8  # bytes

# A look for an answer. Where it finds none with more than the given time left, it tries to become the one who
# makes it, in the same round trip. A kept answer begins with the epoch of its model, which `forget` changes:
# what was made before and written after is never taken for an answer.
# KEYS: the answer, the epoch, the lease. ARGV: who looks, the lease's ms, the ms that must be left.
LOOK = Script("""
local epoch = redis.call('GET', KEYS[2]) or '00000000'
local kept, left = redis.call('GET', KEYS[1]), 0
if kept and string.sub(kept, 1, 8) == epoch then
  left = redis.call('PTTL', KEYS[1])
else
  kept = false
end
local mine = 0
if left <= tonumber(ARGV[3]) and redis.call('SET', KEYS[3], ARGV[1], 'NX', 'PX', ARGV[2]) then
  mine = 1
end
local time = redis.call('TIME')
return {epoch, kept, left, mine, time[1] * 1000 + math.floor(time[2] / 1000)}
""")
# Sent in full: it is short, and nobody waits for it who could send it again.
_RELEASE = b"if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


@dataclass(frozen=True, slots=True)
class Answer:
    body: bytes
    """The bytes of the response. Of a negative one: what `refusal` reads."""
    level: Level
    negative: bool = False

    def refusal(self) -> Unprocessable:
        """What a negative answer says, to be raised again."""
        detail, faults = json.loads(self.body)
        return Unprocessable(detail, faults=faults)


@dataclass(slots=True)
class Counts:
    """For metrics. Each request is one of the first six."""

    l1: int = 0
    l2: int = 0
    made: int = 0
    stale: int = 0
    shared: int = 0
    failed: int = 0  # it could not be made
    refreshed: int = 0  # made anew behind a stale one
    worn: int = 0  # could not be made anew
    gone: int = 0  # times that Valkey would have helped, and was not there
    invalidated: int = 0  # entries of L1 that went because others changed them
    cleared: int = 0  # times that all of L1 went
    entries: int = 0  # of L1, now
    size: int = 0  # and their bytes

    def answered(self, answer: Answer) -> Answer:
        setattr(self, answer.level, getattr(self, answer.level) + 1)
        return answer


class _Entry(NamedTuple):
    answer: Answer  # as L1 gives it
    until: float  # it is fresh
    end: float


@dataclass(slots=True, eq=False)
class _Flight:
    """An answer on its way."""

    name: str
    task: "asyncio.Task[Answer | None]" = field(init=False)
    epoch: bytes = b""  # of the model, in Valkey; empty where that is not known
    ahead: float = 0.0  # by how many seconds Valkey's clock is ahead of this process's, at least
    mine: bool = False  # this worker has the lease
    outdated: bool = False  # something was invalidated since Valkey was looked at


class Answers:
    """The answers by the settings of one bundle. With another bundle there is another, and L1 begins anew."""

    def __init__(self, settings: Cache, valkey: Valkey | None, service: str) -> None:
        self._settings = settings
        self._valkey = valkey if settings.shared and settings.ttl else None
        self._prefix = f"a:{service}:".encode()
        self.counts = Counts()
        self._near = _Near(settings.entries, settings.megabytes * 1_000_000, self.counts)
        self._flights: dict[bytes, _Flight] = {}  # somebody waits for them
        self._refreshes: dict[bytes, _Flight] = {}  # nobody does
        self._name, self._number = os.urandom(8).hex(), 0
        self._untrack = self._valkey.track(self._prefix, self._heard) if self._valkey else None

    async def aclose(self) -> None:
        """What requests wait for goes on; what nobody waits for ends."""
        if self._untrack is not None:
            self._untrack()
        if tasks := [flight.task for flight in self._refreshes.values()]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def key(self, digest: str, tenant: str, body: bytes) -> bytes:
        """Of what a model answers to a request: all tenants' or one's, as the settings have it."""
        whose = tenant.encode("utf-8", "surrogatepass") if self._settings.tenants else b""
        hashed = hashlib.blake2b(b"%d:%b%b" % (len(whose), whose, body), digest_size=20)
        return b"%b%b:%b" % (self._prefix, digest.encode(), hashed.hexdigest().encode())

    def near(self, key: bytes) -> Answer | None:
        """A fresh answer of L1, at once."""
        entry = self._near.get(key)
        if entry is None or time.monotonic() >= entry.until:
            return None
        self.counts.l1 += 1
        return entry.answer

    async def answer(self, key: bytes, make: Make) -> Answer:
        """The answer, from wherever it is; `make` makes it. Valkey is asked in the tick in which this begins.

        Raises what `make` raises, in everybody who waits for it. What is known to be refused is a negative
        answer. Who is cancelled leaves the others waiting, and the answer on its way.
        """
        if (found := self._kept(key, make)) is not None:
            return self.counts.answered(found)
        flight = self._flights.get(key)
        joins = flight is not None and not flight.outdated
        if flight is None or not joins:
            flight = _Flight(self._named())
            look = self._look(key, flight)
            self._start(self._flights, key, flight, asyncio.create_task(self._fly(key, make, flight, look)))
        try:
            found = await asyncio.shield(flight.task)
        except Exception:
            self.counts.failed += 1
            raise
        assert found is not None
        return self.counts.answered(Answer(found.body, "shared", found.negative) if joins else found)

    async def forget(self, digest: str) -> None:
        """No answer of this model that was made up to now is given any more, here or by any worker.

        Raises Gone where Valkey could not be told: then the other workers, and what lies there, go on."""
        mark = self._prefix + digest.encode()
        self._drop(mark)
        if self._valkey is None:
            return
        # First the epoch: it is what counts, and what the others hear. The rest is tidying up.
        await self._valkey.send("SET", mark, os.urandom(_EPOCH // 2).hex())
        cursor = b"0"
        while True:
            cursor, keys = await self._valkey.send("SCAN", cursor, "MATCH", mark + b":*", "COUNT", 1000)
            if keys:
                await self._valkey.send("UNLINK", *keys)
            if cursor == b"0":
                return

    def _kept(self, key: bytes, make: Make) -> Answer | None:
        """From L1, fresh or not."""
        entry, now = self._near.get(key), time.monotonic()
        if entry is None or now >= entry.end:
            return None
        if now < entry.until:
            return entry.answer
        self._refresh(key, make)
        return Answer(entry.answer.body, "stale")

    # --- on the way -------------------------------------------------------------------------------

    def _named(self) -> str:
        self._number += 1
        return f"{self._name}-{self._number}"

    def _start(
        self,
        where: dict[bytes, _Flight],
        key: bytes,
        flight: _Flight,
        task: "asyncio.Task[Answer | None]",
    ) -> None:
        def ended(_: object) -> None:
            if where.get(key) is flight:  # and not one that began because this one was outdated
                del where[key]

        where[key], flight.task = flight, task
        task.add_done_callback(ended)

    def _current(self, key: bytes, flight: _Flight) -> bool:
        """Whether what it brings may be kept: nothing was invalidated, and it would have been told."""
        return not flight.outdated and flight in (self._flights.get(key), self._refreshes.get(key))

    async def _fly(
        self, key: bytes, make: Make, flight: _Flight, look: Awaitable[_Entry | None] | None
    ) -> Answer:
        """The answer of Valkey, of another worker, or a new one."""
        level: Level = "l2"
        ends, pause = time.monotonic() + LEASE, _PAUSE
        try:
            while look is not None:
                try:
                    entry = await look
                except Gone:
                    self.counts.gone += 1
                    break
                now = time.monotonic()
                if entry is not None and now < entry.until:
                    return Answer(entry.answer.body, level, entry.answer.negative)
                if entry is not None and now < entry.end:
                    self._refresh(key, make)
                    return Answer(entry.answer.body, "stale")
                if flight.mine or now >= ends:
                    break
                await asyncio.sleep(pause)
                level, pause = "shared", min(1.5 * pause, _LONGEST_PAUSE)
                look = self._look(key, flight)
            return await self._make(key, make, flight)
        finally:
            self._release(key, flight)

    def _refresh(self, key: bytes, make: Make) -> None:
        """Have a stale answer made anew, once: nobody waits for it."""
        if key in self._refreshes:
            return
        flight = _Flight(self._named())
        look = self._look(key, flight, stale=True)
        self._start(self._refreshes, key, flight, asyncio.create_task(self._renew(key, make, flight, look)))

    async def _renew(
        self, key: bytes, make: Make, flight: _Flight, look: Awaitable[_Entry | None] | None
    ) -> None:
        try:
            if look is not None:
                try:
                    entry = await look
                except Gone:
                    self.counts.gone += 1
                else:
                    if entry is not None and time.monotonic() < entry.until:
                        return
                    if not flight.mine:  # another worker is at it
                        await asyncio.sleep(_LONGEST_PAUSE)
                        return
            await self._make(key, make, flight)
            self.counts.refreshed += 1
        except Exception:  # noqa: BLE001 - whatever it is, the stale answer is given to its end
            self.counts.worn += 1
            await asyncio.sleep(_LONGEST_PAUSE)  # or each request would try it once more
        finally:
            self._release(key, flight)

    async def _make(self, key: bytes, make: Make, flight: _Flight) -> Answer:
        try:
            body = await make()
        except Unprocessable as refused:
            said = json.dumps([refused.detail, refused.faults]).encode()
            self._keep(key, flight, Answer(said, "l1", negative=True), self._settings.negative, 0)
            raise
        self._keep(key, flight, Answer(body, "l1"), self._settings.ttl, self._settings.stale)
        return Answer(body, "made")

    def _keep(self, key: bytes, flight: _Flight, answer: Answer, life: float, stale: float) -> None:
        life *= 1 - self._settings.jitter * random.random()  # noqa: S311 - nothing to guess
        if life <= 0 or not self._current(key, flight):
            return
        now = time.monotonic()
        self._near.put(key, _Entry(answer, now + life, now + life + stale))
        if self._valkey is not None and flight.epoch:
            kept = flight.epoch + (b"-" if answer.negative else b"+") + answer.body
            # Until a moment, not for a time: a server that hung may read this much later than it was sent.
            end = int(1000 * (flight.ahead + now + life + stale))
            self._valkey.tell("SET", key, kept, "PXAT", end)

    # --- Valkey -----------------------------------------------------------------------------------

    def _look(self, key: bytes, flight: _Flight, stale: bool = False) -> Awaitable[_Entry | None] | None:
        """Look for an answer in Valkey, and take the lease where there is none, or where `stale` and it is no
        longer fresh. It is sent now. None without Valkey."""
        if self._valkey is None:
            return None
        flight.outdated = False
        must = round(1000 * self._settings.stale) if stale else 0
        keys = (key, key.rpartition(b":")[0], self._lease(key))
        sent = time.monotonic()  # and not when it is answered: an answer has less left by then
        return self._seen(
            key, flight, sent, self._valkey.call(LOOK, keys, flight.name, round(1000 * LEASE), must)
        )

    async def _seen(
        self,
        key: bytes,
        flight: _Flight,
        sent: float,
        reply: Awaitable[tuple[bytes, bytes | None, int, int, int]],
    ) -> _Entry | None:
        flight.epoch, kept, left, mine, clock = await reply
        flight.mine, flight.ahead = bool(mine), clock / 1000 - time.monotonic()
        if kept is None:
            return None
        negative = kept[_EPOCH : _EPOCH + 1] == b"-"
        end = sent + left / 1000
        until = end if negative else end - self._settings.stale
        entry = _Entry(Answer(kept[_EPOCH + 1 :], "l1", negative), until, end)
        if self._current(key, flight):
            self._near.put(key, entry)
        return entry

    def _lease(self, key: bytes) -> bytes:
        # Not under the prefix that all workers hear of.
        return b"m" + key[1:]

    def _release(self, key: bytes, flight: _Flight) -> None:
        if self._valkey is not None and flight.mine:
            self._valkey.tell("EVAL", _RELEASE, 1, self._lease(key), flight.name)

    def _heard(self, keys: Collection[bytes] | None) -> None:
        """Others changed these keys, or anything."""
        if keys is None:
            self._near.clear()
            for flights in (self._flights, self._refreshes):
                for flight in flights.values():
                    flight.outdated = True
            return
        for key in keys:
            if key.count(b":") == 2:  # the epoch of a model
                self._drop(key)
                continue
            self.counts.invalidated += self._near.pop(key)
            for flights in (self._flights, self._refreshes):
                if (one := flights.get(key)) is not None:
                    one.outdated = True

    def _drop(self, mark: bytes) -> None:
        """All of one model, here."""
        self.counts.invalidated += sum(self._near.pop(key) for key in self._near.under(mark + b":"))
        for flights in (self._flights, self._refreshes):
            for key, flight in flights.items():
                if key.startswith(mark + b":"):
                    flight.outdated = True


class _Near:
    """L1: what was asked for last, within its bounds."""

    def __init__(self, entries: int, size: int, counts: Counts) -> None:
        self._entries, self._size, self._counts = entries, size, counts
        self._kept: OrderedDict[bytes, _Entry] = OrderedDict()

    def get(self, key: bytes) -> _Entry | None:
        entry = self._kept.get(key)
        if entry is not None:
            self._kept.move_to_end(key)
        return entry

    def put(self, key: bytes, entry: _Entry) -> None:
        self.pop(key)
        size = _size(key, entry)
        if size > self._size or not self._entries:
            return
        self._kept[key] = entry
        self._counts.entries += 1
        self._counts.size += size
        while self._counts.entries > self._entries or self._counts.size > self._size:
            self.pop(next(iter(self._kept)))

    def pop(self, key: bytes) -> int:
        """How many went: 1 or 0."""
        entry = self._kept.pop(key, None)
        if entry is None:
            return 0
        self._counts.entries -= 1
        self._counts.size -= _size(key, entry)
        return 1

    def under(self, prefix: bytes) -> list[bytes]:
        return [key for key in self._kept if key.startswith(prefix)]

    def clear(self) -> None:
        self._kept.clear()
        self._counts.entries = self._counts.size = 0
        self._counts.cleared += 1


def _size(key: bytes, entry: _Entry) -> int:
    return len(key) + len(entry.answer.body) + _OVERHEAD
