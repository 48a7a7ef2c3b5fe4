"""Who may ask, as the bundle has it. Secrets end here: of an API key only its sha256 goes on, of a password
its argon2 hash, of all others a keyed digest, and their bytes into the file that the workers alone may read.
"""

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from gamma_orch.app import bundle as contract
from gamma_orch.app.auth import Gatekeeper
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.spec.quantities import seconds_of

LEAST = 20  # characters of an API key: it is not slowed down as a password is, so it must not be guessable
KEY = re.compile(r"[A-Za-z0-9_~+/=-]*")  # what a header takes; by a dot the API tells tokens from keys
Hashed = Callable[[str, str], str]  # the argon2 hash of a user's password, the same while it is the same


@dataclass(frozen=True, slots=True)
class Secrets:
    """Those that a bundle names."""

    values: dict[str, str] = field(default_factory=dict, repr=False)

    def keep(self, name: str, value: str) -> None:
        self.values[name] = value

    def digests(self) -> dict[str, str]:
        """Keyed by the secret itself: it tells that one changed, and nothing of what it is."""
        return {
            name: hmac.new(value.encode(), name.encode(), hashlib.sha256).hexdigest()[:32]
            for name, value in self.values.items()
        }


def allowed(name: str, fields: Fields, secrets: Secrets, hashed: Hashed, faults: list[str]) -> contract.Auth:
    """Adds to `secrets` and `faults`."""
    auth = fields["auth"]
    made = contract.Auth(
        keys=tuple(_key(who, said, auth, faults) for who, said in sorted(auth["keys"].items())),
        users=tuple(_users(auth, hashed, faults)),
        issuers=tuple(_issuer(number, said, secrets) for number, said in enumerate(auth["issuers"])),
        roles={role: tuple(scopes) for role, scopes in auth["roles"].items()},
        anonymous=_scopes(auth, auth["anonymous"]),
        token=seconds_of(auth["token"]),
        revoked=tuple(auth["revoked"]),
    )
    if made.users:
        secrets.keep("tokens", fields["tokens"])
    # What the workers would refuse is refused before one of them is asked.
    try:
        Gatekeeper(made, secrets.values, service=name)
    except ValueError as error:
        faults += str(error).splitlines()
    return made


def _key(principal: str, said: Json, auth: Json, faults: list[str]) -> contract.ApiKey:
    key = said["secret"]
    if len(key) < LEAST:
        faults.append(f"The key of {principal} is shorter than {LEAST} characters.")
    if not KEY.fullmatch(key):
        faults.append(f"The key of {principal} has other characters than letters, digits and _~+/=-.")
    return contract.ApiKey(
        name=principal,
        sha256=hashlib.sha256(key.encode()).hexdigest(),
        scopes=_scopes(auth, said["roles"]),
        tenant=said["tenant"],
    )


def _users(auth: Json, hashed: Hashed, faults: list[str]) -> list[contract.User]:
    users = []
    for user, said in sorted(auth["users"].items()):
        try:
            kept = hashed(user, said["password"])
        except ValueError as error:
            faults.append(f"The password of {user}: {error}")
            continue
        users.append(
            contract.User(name=user, hash=kept, scopes=_scopes(auth, said["roles"]), tenant=said["tenant"])
        )
    return users


def _issuer(number: int, said: Json, secrets: Secrets) -> contract.Issuer:
    name = None
    if said["secret"] is not None:
        name = f"issuer-{number}"
        secrets.keep(name, said["secret"])
    return contract.Issuer(
        issuer=said["issuer"],
        audience=said["audience"],
        algorithms=tuple(said["algorithms"]),
        secret=name,
        jwks={"keys": said["keys"]} if said["keys"] else None,
        roles=said["roles"],
        tenant=said["tenant"],
    )


def _scopes(auth: Json, roles: list[str]) -> tuple[str, ...]:
    return tuple(sorted({scope for role in roles for scope in auth["roles"][role]}))
