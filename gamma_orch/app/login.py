"""Logging in: a name and a password are exchanged for a token that lives shortly.

`POST /v1/token` calls `Login.login`; `auth.Gatekeeper` takes the token. One is built for each bundle that has
users. The token says who it is and no more: what the user may do is looked up at each use, so that it ends
with the bundle that says so. Always:

- A name that is unknown is answered as a wrong password is: with the same words, and after the same time.
  It is compared with the hash of one of the users, always the same one, so that the cost of a name tells
  nothing even where the users' hashes cost differently.
- An account that has failed often waits, twice as long each time, and the right password waits too. Whoever
  knows a name can therefore keep its owner out, until a minute after they stop.
- Each worker counts for itself, so that with n workers n times as much can be tried; and one password may be
  tried with many names. Against both, `limits` counts logins by address, ahead of this.
"""

import hmac
import time
import uuid
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field

from cachetools import LRUCache
from joserfc import jwt

from gamma_orch.app import passwords
from gamma_orch.app.auth import TOKENS, own_issuer, secret_key
from gamma_orch.app.bundle import Auth, User
from gamma_orch.app.errors import TooMany, Unauthenticated
from gamma_orch.app.security import Sign

FREE = 5  # failures without a wait
LONGEST_WAIT = 60.0  # seconds
FORGOTTEN = 900.0  # seconds without a failure
UNKNOWN = 10_000  # names that are no user's, of which failures are kept
_LONGEST_NAME = 128  # characters of a user's, by the bundle

WRONG = "The name or the password is wrong."


@dataclass(frozen=True, slots=True)
class Token:
    value: str = field(repr=False)
    seconds: int
    """Its life."""


class Attempts:
    """Failed logins, by account. It may outlive a bundle."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, tuple[int, float]] = {}
        # Apart: made-up names, however many, push no user's failures out.
        self._unknown: LRUCache[str, tuple[int, float]] = LRUCache(UNKNOWN)

    def begin(self, name: str, *, known: bool) -> None:
        """Counts an attempt as failed until it has `succeeded`: many at once, and those that are broken off,
        count as well. Raises TooMany where the account must wait."""
        now = self._clock()
        kept: MutableMapping[str, tuple[int, float]] = self._known if known else self._unknown
        failed, last = kept.get(name, (0, now))
        if now - last > FORGOTTEN:
            failed = 0
        again = last + _wait(failed) - now
        if again > 0:
            raise TooMany("This account has failed to log in too often: it waits.", again)
        kept[name] = failed + 1, now

    def succeeded(self, name: str) -> None:
        self._known.pop(name, None)


def _sign(reason: str, user: User | None, name: str) -> Sign:
    """What is no user's name may be a password, and is not kept."""
    return Sign("login", reason, principal=user.name if user else "", tried=name)


def _wait(failed: int) -> float:
    # min, because 2.0**1024 is no float.
    return min(2.0 ** min(failed - FREE, 10), LONGEST_WAIT) if failed >= FREE else 0.0


class Login:
    def __init__(
        self,
        service: str,
        auth: Auth,
        secrets: Mapping[str, str],
        clock: Callable[[], float] = time.time,
        attempts: Attempts | None = None,
    ) -> None:
        """Raises ValueError with every fault, a sentence a line, none with a byte of a secret."""
        self._issuer = own_issuer(service)
        self._life = auth.token
        self._users = {user.name: user for user in auth.users}
        self._clock = clock
        self._attempts = attempts or Attempts()
        faults = [
            f"The hash of the user {user.name} is neither argon2id nor bcrypt, or not whole."
            for user in auth.users
            if not passwords.readable(user.hash)
        ]
        if not auth.users:
            faults.append("There are no users who could log in.")
        try:
            self._key = secret_key(TOKENS, secrets)
        except ValueError as error:
            faults.append(str(error))
        if faults:
            raise ValueError("\n".join(faults))

    async def login(self, name: str, password: str) -> Token:
        """Raises Unauthenticated, TooMany where the account waits, and Unavailable under too many logins."""
        name = name[: _LONGEST_NAME + 1]  # one more than a user's, so that no beginning of a name is a user
        user = self._users.get(name)
        try:
            self._attempts.begin(name, known=user is not None)
        except TooMany as problem:
            raise problem.noted(_sign("waits", user, name)) from None
        right = await passwords.verify(password, (user or self._decoy(name)).hash)
        if user is None or not right:
            raise Unauthenticated(WRONG).noted(_sign("wrong", user, name))
        self._attempts.succeeded(name)
        return self._token(user)

    def _decoy(self, name: str) -> User:
        # The space keeps it apart from what a token's signature is made over.
        asked = b"decoy " + name.encode("utf-8", "surrogatepass")
        digest = hmac.digest(self._key.raw_value, asked, "sha256")
        users = list(self._users.values())
        return users[int.from_bytes(digest[:8], "big") % len(users)]

    def _token(self, user: User) -> Token:
        now = int(self._clock())
        seconds = max(1, int(self._life))
        claims: dict[str, object] = {
            "iss": self._issuer.issuer,
            "aud": self._issuer.audience,
            "sub": user.name,
            "iat": now,
            "exp": now + seconds,
            "jti": uuid.uuid4().hex,
        }
        return Token(jwt.encode({"alg": "HS256"}, claims, self._key, ["HS256"]), seconds)
