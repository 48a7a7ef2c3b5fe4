"""Who asks, and what they may: by an API key, by a token (JWT), or by saying nothing.

`edge` asks a `Gatekeeper` for the `Principal` of each request, and `login` makes tokens that it takes. One is
built for each bundle and thrown away with it, so a new bundle starts with empty caches: a key taken away, a
`jti` revoked or a scope withdrawn counts from the first request under that bundle. It is used by one thread,
the event loop's. Always:

- Everything is refused that is not expressly taken, and what is presented and refused never falls back to
  the anonymous principal.
- The algorithm is the one of the key that was found, never what the header says; the header must agree.
  Keys come from the bundle alone: `jwk`, `jku`, `x5u` and `x5c` of a header are not looked at.
- A refusal has one of four texts, and neither it nor what it was raised from holds a byte of the token. Why
  exactly, only the log of security is told (`Sign`); whose token it is, where its signature is good.

Decisions:

- What a token may do comes from its roles, by `auth.roles`. A `scope` claim gives nothing: scopes belong to
  the issuer's vocabulary and are often the client's to choose, and what anybody may do shall stand in the
  bundle, where it is reviewed and where it can be withdrawn.
- A token of ours (`own_issuer`) names the user and no more. The scopes are those of the user in the bundle.
- A token needs `iss`, `aud`, `sub`, `iat`, `exp`, and a `typ` that is `JWT` or `at+jwt`: the other kinds of
  JWT (logout, DPoP) of the same issuer are no access tokens. `nbf` and `jti` count where they are there.
- No extension of JWS is understood, so every `crit` is refused.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, cast

from cachetools import LRUCache
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import ClaimError, ExpiredTokenError, JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry
from joserfc.util import urlsafe_b64decode

from gamma_orch.app.bundle import ApiKey, Auth, Issuer
from gamma_orch.app.errors import Unauthenticated
from gamma_orch.app.security import Kind, Sign

TOKENS = "tokens"  # the secret that our own tokens are signed with
ANONYMOUS = "anonymous"
LEAST_SECRET = 32  # bytes: what an HMAC with SHA-256 needs (RFC 7518, 3.2)
LEAST_RSA = 2048  # bits
LONGEST = 8192  # bytes of a credential: proxies allow no longer header either
LONGEST_NAME = 256  # characters of `sub` and of the tenant
VERIFIED, VERIFIED_FOR = 20_000, 60.0  # tokens, seconds
# Beside the verified ones, so that a flood of bad tokens drives no good one out.
REFUSED, REFUSED_FOR = 5_000, 5.0
_YEAR_9999 = 253_402_300_799  # a later `exp` may not fit a float

MISSING = "This needs an API key or a token: send it as `Authorization: Bearer ...` or as `X-Api-Key`."
MALFORMED = "The credentials are malformed: send one of `Authorization: Bearer ...` and `X-Api-Key`, once."
NOT_TAKEN = "The API key or token is not taken here."
EXPIRED = "The token has expired."

_PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `name` is unique: two issuers may both know an alice, so a token's is `issuer#sub`, and a key
    and a user of one name are refused."""

    name: str
    tenant: str
    scopes: frozenset[str]
    kind: Literal["key", "token", "user", "anonymous"]
    expires: float | None = None
    """From then on (seconds since 1970, leeway included) it is nobody: a long connection ends."""

    def may(self, scope: str, model: str = "") -> bool:
        """`predict` covers every model, `predict:sentiment` that one, and `predict:team-a.*` those whose name
        begins so. Without a model only `predict` itself does. A `*` anywhere else is a letter like others: no
        scope means everything."""
        if scope in self.scopes:
            return True
        wanted = f"{scope}:{model}"
        return bool(model) and (
            wanted in self.scopes
            or any(
                one.endswith("*") and one.startswith(f"{scope}:") and wanted.startswith(one[:-1])
                for one in self.scopes
            )
        )


@dataclass(frozen=True, slots=True)
class _Key:
    algorithm: str
    verifies: Callable[[bytes, bytes], bool] = field(repr=False)  # signed bytes, signature


@dataclass(frozen=True, slots=True)
class _Trust:
    """An issuer, made ready."""

    issuer: Issuer
    claims: JWTClaimsRegistry
    keys: Mapping[str | None, _Key]  # by `kid`; a secret stands alone, under None
    own: bool

    def unsigned(self, header: Mapping[str, Any], signed: bytes, signature: bytes) -> str:
        """Why it is not signed as it has to be; empty: it is."""
        if "crit" in header or not _is_access(header.get("typ")):
            return "header"
        kid = None
        if self.issuer.jwks is not None:
            kid = header.get("kid")
            if not isinstance(kid, str):
                return "key"
        key = self.keys.get(kid)
        if key is None:
            return "key"
        if header.get("alg") != key.algorithm:
            return "algorithm"
        return "" if key.verifies(signed, signature) else "signature"


@dataclass(frozen=True, slots=True)
class _Refusal:
    detail: str  # what is answered
    sign: Sign

    def problem(self) -> Unauthenticated:
        return Unauthenticated(self.detail, "invalid_token").noted(self.sign)


class Gatekeeper:
    def __init__(
        self,
        auth: Auth,
        secrets: Mapping[str, str],
        clock: Callable[[], float] = time.time,
        *,
        service: str = "",
    ) -> None:
        """`service`: the bundle's, needed where there are users. Raises ValueError with every fault, a
        sentence a line, none with a byte of a secret."""
        self._clock = clock
        self._roles = auth.roles
        self._revoked = frozenset(auth.revoked)
        self._users = {user.name: user for user in auth.users}
        # A plain look-up by digest tells nothing by its time: who would approach a stored digest byte by byte
        # must find keys with chosen digests, and a key has far more random bits than can be tried.
        self._keys = {bytes.fromhex(key.sha256): _of_key(key) for key in auth.keys}
        self._anonymous = (
            Principal(ANONYMOUS, "", frozenset(auth.anonymous), "anonymous") if auth.anonymous else None
        )
        self._verified: LRUCache[bytes, tuple[Principal, float]] = LRUCache(VERIFIED)
        self._refused: LRUCache[bytes, tuple[_Refusal, float]] = LRUCache(REFUSED)

        faults = list(_confusions(auth, service))
        self._trusted: dict[str, _Trust] = {}
        issuers = [(issuer, False) for issuer in auth.issuers]
        if auth.users:
            issuers.append((own_issuer(service), True))
        for issuer, own in issuers:
            keys, wrong = _keys_of(issuer, secrets)
            faults += wrong
            self._trusted[issuer.issuer] = _Trust(issuer, _claims_of(issuer, clock), keys, own)
        if faults:
            raise ValueError("\n".join(dict.fromkeys(faults)))

    def who(self, authorization: bytes | None, api_key: bytes | None) -> Principal:
        """The principal of a request with these headers. Raises Unauthenticated, and nothing else."""
        if authorization is None:
            if api_key is None:
                if self._anonymous is None:
                    raise Unauthenticated(MISSING).noted(Sign("credentials", "missing"))
                return self._anonymous
            return self._by_key(api_key)
        if api_key is not None or len(authorization) > LONGEST:
            raise _refusal(MALFORMED, "credentials", "malformed").problem()
        scheme, _, presented = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise _refusal(MALFORMED, "credentials", "malformed").problem()
        # A JWT has two dots, and an API key none.
        return self._by_token(presented) if b"." in presented else self._by_key(presented)

    def _by_key(self, presented: bytes) -> Principal:
        if not 0 < len(presented) <= LONGEST:
            raise _refusal(MALFORMED, "key", "malformed").problem()
        principal = self._keys.get(hashlib.sha256(presented).digest())
        if principal is None:
            raise _refusal(NOT_TAKEN, "key", "unknown").problem()
        return principal

    def _by_token(self, token: bytes) -> Principal:
        now = self._clock()
        digest = hashlib.sha256(token).digest()
        if (taken := self._verified.get(digest)) and now < taken[1]:
            return taken[0]
        if (refused := self._refused.get(digest)) and now < refused[1]:
            raise refused[0].problem()
        found = self._verify(token)
        if isinstance(found, _Refusal):
            # Five seconds more for a token whose `nbf` comes meanwhile: it is no matter.
            self._refused[digest] = found, now + REFUSED_FOR
            raise found.problem()
        principal, expires = found
        self._verified[digest] = principal, min(expires, now + VERIFIED_FOR)
        return principal

    def _verify(self, token: bytes) -> tuple[Principal, float] | _Refusal:
        """The principal and when it ends, or why not. Returned rather than raised: an exception would carry
        the one before it, and a JSONDecodeError carries the whole text."""
        try:
            signed, _, last = token.rpartition(b".")
            head, body = signed.split(b".")
            # Strict: the unused bits of the last letter must be 0, so that a token has one spelling only.
            signature = urlsafe_b64decode(last)
            header, claims = json.loads(urlsafe_b64decode(head)), json.loads(urlsafe_b64decode(body))
        except (ValueError, RecursionError):
            return _refusal(MALFORMED, "token", "malformed")
        if not isinstance(header, dict) or not isinstance(claims, dict):
            return _refusal(MALFORMED, "token", "malformed")
        iss = claims.get("iss")
        trust = self._trusted.get(iss) if isinstance(iss, str) else None
        if trust is None:
            return _refusal(NOT_TAKEN, "token", "issuer")
        if reason := trust.unsigned(header, signed, signature):
            return _refusal(NOT_TAKEN, "token", reason)
        try:
            trust.claims.validate(claims)
        except ExpiredTokenError:
            return _refusal(EXPIRED, "token", "expired", _named(trust, claims))
        except JoseError as error:
            reason = "audience" if isinstance(error, ClaimError) and error.claim == "aud" else "claims"
            return _refusal(NOT_TAKEN, "token", reason, _named(trust, claims))
        expires = min(claims["exp"], _YEAR_9999) + trust.issuer.leeway
        if claims.get("jti") in self._revoked:
            return _refusal(NOT_TAKEN, "token", "revoked", _named(trust, claims))
        principal = self._user(claims, expires) if trust.own else self._bearer(trust.issuer, claims, expires)
        if principal is None:
            reason = "user" if trust.own else "claims"
            return _refusal(NOT_TAKEN, "token", reason, _named(trust, claims))
        return principal, expires

    def _user(self, claims: Mapping[str, Any], expires: float) -> Principal | None:
        user = self._users.get(claims["sub"])
        if user is None:
            return None
        return Principal(user.name, user.tenant, frozenset(user.scopes), "user", expires)

    def _bearer(self, issuer: Issuer, claims: Mapping[str, Any], expires: float) -> Principal | None:
        tenant = claims.get(issuer.tenant, "")
        if not _is_name(claims["sub"]) or not _is_name(tenant):
            return None
        named = claims.get(issuer.roles)
        roles = [named] if isinstance(named, str) else named if isinstance(named, list) else []
        scopes = (self._roles.get(role, ()) for role in roles if isinstance(role, str))
        name = _subject(issuer, claims["sub"])
        return Principal(
            name, tenant, frozenset(scope for some in scopes for scope in some), "token", expires
        )


def own_issuer(service: str) -> Issuer:
    """Whose tokens `login` makes. Other services may have the same secret, and take none of them."""
    return Issuer(issuer=f"gamma/{service}", audience=service or "-", algorithms=("HS256",), secret=TOKENS)


def secret_key(name: str, secrets: Mapping[str, str]) -> OctKey:
    """What tokens are signed with. Raises ValueError, which has no byte of it."""
    secret = secrets.get(name)
    if secret is None:
        raise ValueError(f"The secret `{name}` is missing.")
    encoded = secret.encode("utf-8", "surrogatepass")  # strict, the error would hold the secret
    if len(encoded) < LEAST_SECRET:
        raise ValueError(f"The secret `{name}` is shorter than {LEAST_SECRET} bytes.")
    key = None
    # joserfc refuses public keys in all their encodings, and only warns of private ones.
    if b"-----BEGIN" not in encoded:
        with contextlib.suppress(ValueError):
            key = OctKey.import_key(encoded)
    if key is None:
        raise ValueError(f"The secret `{name}` is a key of a pair, which does not sign with HS256.")
    return key


def _refusal(detail: str, kind: Kind, reason: str, whose: str = "") -> _Refusal:
    return _Refusal(detail, Sign(kind, reason, principal=whose))


def _subject(issuer: Issuer, sub: str) -> str:
    return f"{issuer.issuer}#{sub}"


def _named(trust: _Trust, claims: Mapping[str, Any]) -> str:
    """The principal of a token that is signed well, and refused for what it says."""
    sub = claims.get("sub")
    if not isinstance(sub, str) or not _is_name(sub):
        return ""
    return sub if trust.own else _subject(trust.issuer, sub)


def _of_key(key: ApiKey) -> Principal:
    return Principal(key.name, key.tenant, frozenset(key.scopes), "key")


def _is_access(typ: object) -> bool:
    # Media types know no case, and may leave out `application/` (RFC 7515, 4.1.9).
    return isinstance(typ, str) and typ.lower().removeprefix("application/") in ("jwt", "at+jwt")


def _is_name(value: object) -> bool:
    """It goes to logs, to keys of caches and to PostgreSQL, which take no NUL and no half of a surrogate."""
    return isinstance(value, str) and len(value) <= LONGEST_NAME and value.isprintable()


def _claims_of(issuer: Issuer, clock: Callable[[], float]) -> JWTClaimsRegistry:
    return JWTClaimsRegistry(
        # It says int and only subtracts: fractions of a second are as good.
        now=cast(Callable[[], int], clock),
        leeway=cast(int, issuer.leeway),
        iss={"essential": True, "value": issuer.issuer},
        aud={"essential": True, "value": issuer.audience},
        sub={"essential": True},
        iat={"essential": True},
        exp={"essential": True},
    )


def _confusions(auth: Auth, service: str) -> Iterator[str]:
    """What is each right alone, and wrong together."""
    issuers = [issuer.issuer for issuer in auth.issuers]
    if auth.users:
        if not service:
            yield "There are users, and the service has no name that their tokens could be for."
        issuers.append(own_issuer(service).issuer)
        if any(issuer.secret == TOKENS for issuer in auth.issuers):
            yield f"The secret `{TOKENS}` signs the tokens of users: an issuer needs another one."
    for twice in _twice(issuers):
        yield f"The issuer {twice} is there twice."
    for issuer in issuers:
        if "#" in issuer:
            yield f"The issuer {issuer} has a `#`, which parts an issuer from its subjects."
    for twice in _twice([ANONYMOUS, *(key.name for key in auth.keys), *(user.name for user in auth.users)]):
        yield f"{twice} is there twice: API keys, users and {ANONYMOUS} need names of their own."
    for digest in _twice([key.sha256 for key in auth.keys]):
        names = ", ".join(key.name for key in auth.keys if key.sha256 == digest)
        yield f"These API keys are one and the same: {names}."


def _twice(values: Sequence[str]) -> list[str]:
    return sorted({value for value in values if values.count(value) > 1})


def _keys_of(issuer: Issuer, secrets: Mapping[str, str]) -> tuple[Mapping[str | None, _Key], list[str]]:
    """And the faults."""
    where = f"Issuer {issuer.issuer}:"
    keys: dict[str | None, _Key] = {}
    if issuer.secret is not None:
        try:
            return {None: _ready("HS256", secret_key(issuer.secret, secrets))}, []
        except ValueError as error:
            return {}, [f"{where} {error}"]
    listed = (issuer.jwks or {}).get("keys")
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        return {}, [f"{where} `jwks` has no keys."]
    faults = []
    for place, jwk in enumerate(listed, 1):
        kid = jwk.get("kid") if isinstance(jwk, Mapping) else None
        if not isinstance(kid, str) or not kid:
            faults.append(f"{where} key {place} of `jwks` has no `kid`.")
        elif kid in keys:
            faults.append(f"{where} key {place} of `jwks` has the `kid` of one before it.")
        elif not _PRIVATE.isdisjoint(jwk):
            faults.append(
                f"{where} key {place} of `jwks` is private or a secret: take it out and replace it."
            )
        else:
            found = _public(jwk, issuer.algorithms)
            if isinstance(found, str):
                faults.append(f"{where} key {place} of `jwks` {found}.")
            else:
                keys[kid] = found
    return keys, faults


def _public(jwk: Mapping[str, Any], allowed: Collection[str]) -> _Key | str:
    """The key, or what is wrong with it."""
    try:
        key = JWKRegistry.import_key(dict(jwk))
        algorithm = _algorithm(key)
        if algorithm is None:
            return "is of a kind, curve or size that is not taken: RSA of 2048 bits or more, P-256 or Ed25519"
        if algorithm not in allowed:
            return f"is for {algorithm}, which is not among the issuer's algorithms"
        JWSRegistry.algorithms[algorithm].check_key(key)
        key.check_key_op("verify")
    except (JoseError, ValueError, TypeError, LookupError, UnsupportedAlgorithm):
        return "is unusable: it is no whole public key, or is not for signatures or for another algorithm"
    return _ready(algorithm, key)


def _algorithm(key: Key) -> str | None:
    """The one algorithm of a key: it follows from the key, whatever a token says."""
    match key:
        case RSAKey() if key.raw_value.key_size >= LEAST_RSA:
            return "RS256"
        case ECKey() if key.curve_name == "P-256":
            return "ES256"
        case OKPKey() if key.curve_name == "Ed25519":
            return "EdDSA"
        case _:
            return None


def _ready(algorithm: str, key: Key) -> _Key:
    # Not by joserfc.jws: that takes the algorithm from the header, beside a list of allowed ones, and warns
    # of EdDSA at each token.
    return _Key(algorithm, partial(JWSRegistry.algorithms[algorithm].verify, key=key))
