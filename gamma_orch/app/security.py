"""Security events: what was refused because of who asked, from where, for what or how often.

Whoever refuses says of the `Problem` that it is a `Sign` (`Problem.noted`); `edge` hands it to the worker's
`Events` where it turns the problem into an answer, and `wire` does for what never became a request. A request
that is answered comes by none of this. From `Events` they go to the log, to the request log's database
(`records`) and to who listens at /v1/security. Always:

- Each is counted in a metric, at once, by the kinds and reasons of `REASONS` and nothing else.
- No event has a password, key or token in it, nor a name that is no user's: it may be a password in the wrong
  field. What was presented is known again by its fingerprint, under a key that only the service's folder has:
  of what was guessed wrongly a plain hash would give the guess away.
- Whoever is refused a million times fills neither memory nor database. Those of one group (kind, reason,
  principal, address) are told one by one up to `EACH` in a `WINDOW`, and the others as one event with their
  `count` at its end. Of groups beyond `GROUPS` only kind and reason are kept.

It is used by one thread, the event loop's.
"""

import asyncio
import fcntl
import hashlib
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from gamma_orch.app.address import place

WINDOW = 60.0  # seconds
EACH = 10  # of one group, in a window
GROUPS = 500  # in a window: at most 92 events a second, whatever comes
KEPT = 250  # that a worker remembers for who listens to another one: they fit into one `control.LINE`

Kind = Literal["login", "token", "key", "credentials", "forbidden", "limit", "wire"]
REASONS: Mapping[Kind, tuple[str, ...]] = {
    # An unknown name is `wrong`, too. `waits`: the account has failed too often; `busy`: all together have.
    "login": ("wrong", "waits", "busy"),
    "token": (
        "malformed",
        "issuer",  # that is not trusted
        "header",  # `typ` or `crit`
        "key",  # no `kid`, or one that the issuer has not
        "algorithm",  # another one than the key's
        "signature",
        "expired",
        "audience",
        "claims",  # any other that is missing or wrong
        "revoked",
        "user",  # who is none any more
    ),
    "key": ("malformed", "unknown"),
    "credentials": ("missing", "malformed"),  # nothing was presented; what is neither key nor token, or both
    "forbidden": ("scope", "origin"),
    # Whose limit it is; `tokens`: one of tokens; `closed`: Valkey is gone, and the limit lets nobody in.
    "limit": ("principal", "tenant", "address", "route", "everyone", "tokens", "closed"),
    # A head too large or with two hosts, a handshake that is none, no HTTP at all, what does not end.
    "wire": ("head", "host", "handshake", "http", "slow"),
}


@dataclass(frozen=True, slots=True)
class Sign:
    """What a problem is a sign of."""

    kind: Kind
    reason: str  # of `REASONS`
    detail: str = ""  # the name of the limit
    # No error shows these two.
    principal: str = field(default="", repr=False)  # whose account or token, where the request says nobody
    tried: str = field(default="", repr=False)  # the name of a login. Only its fingerprint is kept


@dataclass(frozen=True, slots=True)
class Event:
    """One, or `count` of one group of which nothing else was the same."""

    at: float  # seconds since 1970; of the first
    until: float  # of the last
    count: int
    service: str
    kind: Kind
    reason: str
    detail: str
    route: str
    method: str
    principal: str
    address: str
    fingerprint: str  # of what was presented; of a login, of the name
    request: str  # its id; of several, none


@dataclass(slots=True)
class _Group:
    first: float  # of those that are only counted
    last: float
    told: int = 0
    more: int = 0


_Key = tuple[Kind, str, str, str, str]  # kind, reason, detail, principal, place


class Events:
    def __init__(
        self,
        key: bytes,
        count: Callable[[Kind, str], None],
        tell: Callable[[Event], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`key`: of fingerprints. `count` is called for each, `tell` for what is left of a flood."""
        self.service = ""
        self.told = 0
        self._key, self._count, self._tell, self._clock = key, count, tell, clock
        self._groups: dict[_Key, _Group] = {}
        self._kept: deque[tuple[float, Event]] = deque(maxlen=KEPT)
        self._began = clock()

    def note(
        self,
        sign: Sign,
        *,
        request: str,
        address: str,
        route: str = "none",
        method: str = "",
        principal: str = "",
        presented: bytes | None = None,
    ) -> None:
        """`presented`: key or token, of which the fingerprint is taken."""
        self._count(sign.kind, sign.reason)
        now, who = self._clock(), sign.principal or principal
        group = self._group((sign.kind, sign.reason, sign.detail, who, place(address)), now)
        if group.told == EACH:
            if not group.more:
                group.first = now
            group.last, group.more = now, group.more + 1
            return
        group.told += 1
        given = sign.tried.encode("utf-8", "surrogatepass") or presented
        self._say(
            Event(
                at=now,
                until=now,
                count=1,
                service=self.service,
                kind=sign.kind,
                reason=sign.reason,
                detail=sign.detail,
                route=route,
                method=method,
                principal=who,
                address=address,
                fingerprint=self._fingerprint(given) if given else "",
                request=request,
            )
        )

    def turn(self) -> None:
        """The window is over: what was only counted is told, and another one begins."""
        groups, self._groups = self._groups, {}
        for (kind, reason, detail, principal, address), group in groups.items():
            if group.more:
                head = group.first, group.last, group.more, self.service, kind, reason, detail
                self._say(Event(*head, "", "", principal, address, "", ""))

    async def run(self) -> None:
        """Turn, window by window, until cancelled."""
        while True:
            await asyncio.sleep(WINDOW)
            self.turn()

    def since(self, began: float, after: int) -> dict[str, Any]:
        """What was told after the one with that number, with the second at which it was told. `began` is what
        was answered before: where another process answers, its numbers are others."""
        new = self.told - (after if began == self._began else 0)
        listed = list(self._kept)[-new:] if new else []
        return {
            "began": self._began,
            "last": self.told,
            "events": [{"told": told, **asdict(event)} for told, event in listed],
        }

    def _group(self, key: _Key, now: float) -> _Group:
        found = self._groups.get(key)
        if found is None:
            full = len(self._groups) >= GROUPS
            if full:  # a few more, for there are few kinds and reasons
                key = (*key[:2], "", "", "")
                found = self._groups.get(key)
            if found is None:
                found = self._groups[key] = _Group(now, now, EACH if full else 0)
        return found

    def _say(self, event: Event) -> None:
        self.told += 1
        self._kept.append((self._clock(), event))
        self._tell(event)

    def _fingerprint(self, presented: bytes) -> str:
        return hashlib.blake2b(presented, digest_size=8, key=self._key).hexdigest()


def key_in(home: Path) -> bytes:
    """The key of fingerprints, which all workers of a service share; the first one makes it."""
    descriptor = os.open(home / "fingerprints.key", os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        key = file.read()
        if len(key) != 32:
            key = secrets.token_bytes(32)
            file.seek(0)
            file.truncate()
            file.write(key)
            file.flush()  # before the lock goes
    return key
