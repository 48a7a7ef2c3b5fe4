"""The gatekeeper, attacked: what it takes, what it refuses, and what it lets out when it refuses."""

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from gamma_orch.app import auth as module
from gamma_orch.app.auth import (
    EXPIRED,
    MALFORMED,
    MISSING,
    NOT_TAKEN,
    Gatekeeper,
    Principal,
    own_issuer,
    secret_key,
)
from gamma_orch.app.bundle import Algorithm, ApiKey, Auth, Issuer, User
from gamma_orch.app.errors import Unauthenticated

NOW = 1_800_000_000.0
SECRET = "CANARY-shared-secret-of-forty-characters"
TOKENS = "CANARY-tokens-secret-of-forty-characters"
SECRETS = {"partner": SECRET, "tokens": TOKENS}
API_KEY = b"gk_CANARY-5f0c9f7e0d8b4f9bb0c1"
HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$CANARYAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

RSA = RSAKey.generate_key(2048)
RSA_NEXT = RSAKey.generate_key(2048)
EC = ECKey.generate_key("P-256")
ED = OKPKey.generate_key("Ed25519")
HMAC = OctKey.import_key(SECRET)
OWN = OctKey.import_key(TOKENS)

IDP = "https://idp.example"  # RS256, ES256 and EdDSA
PARTNER = "https://partner.example"  # HS256
MINE = own_issuer("shop").issuer


def jwk(key: Key, kid: str, **more: object) -> dict[str, object]:
    return {**key.as_dict(private=False), "kid": kid, **more}


def idp(
    *keys: Mapping[str, object], algorithms: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA")
) -> Issuer:
    listed = keys or (jwk(RSA, "rsa"), jwk(EC, "ec"), jwk(ED, "ed"))
    return Issuer(issuer=IDP, audience="gamma", algorithms=algorithms, jwks={"keys": list(listed)})


def partner(secret: str = "partner", leeway: float = 10.0) -> Issuer:
    return Issuer(issuer=PARTNER, audience="gamma", algorithms=("HS256",), secret=secret, leeway=leeway)


def auth(**fields: Any) -> Auth:
    return Auth(
        **{
            "keys": (
                ApiKey(
                    name="ci",
                    sha256=hashlib.sha256(API_KEY).hexdigest(),
                    scopes=("predict",),
                    tenant="red",
                ),
            ),
            "users": (User(name="alice", hash=HASH, scopes=("predict:sentiment",), tenant="blue"),),
            "issuers": (idp(), partner()),
            "roles": {"caller": ("predict", "models"), "watcher": ("live",)},
            **fields,
        }
    )


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def gate(clock: Callable[[], float] = lambda: NOW, **fields: Any) -> Gatekeeper:
    return Gatekeeper(auth(**fields), SECRETS, clock, service="shop")


GATE = gate()


def part(value: object) -> bytes:
    return urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).rstrip(b"=")


def signed(header: object, claims: object, key: Key | None, algorithm: str) -> bytes:
    text = part(header) + b"." + part(claims)
    signature = JWSRegistry.algorithms[algorithm].sign(text, key) if key else b""
    return text + b"." + part(signature)


def claims(**fields: object) -> dict[str, object]:
    """A field that is None is left out."""
    given = {
        "iss": PARTNER,
        "aud": "gamma",
        "sub": "bob",
        "iat": int(NOW) - 5,
        "exp": int(NOW) + 600,
        "roles": ["caller"],
        **fields,
    }
    return {name: value for name, value in given.items() if value is not None}


def hs256(header: Mapping[str, object] | None = None, key: Key = HMAC, **fields: object) -> bytes:
    said = {"alg": "HS256", "typ": "JWT", **(header or {})}
    return signed(
        {name: value for name, value in said.items() if value is not None}, claims(**fields), key, "HS256"
    )


PAIRS: dict[str, tuple[str, Key]] = {"RS256": ("rsa", RSA), "ES256": ("ec", EC), "EdDSA": ("ed", ED)}


def paired(algorithm: str = "RS256", header: Mapping[str, object] | None = None, **fields: object) -> bytes:
    kid, key = PAIRS[algorithm]
    said = {"alg": algorithm, "typ": "at+jwt", "kid": kid, **(header or {})}
    said = {name: value for name, value in said.items() if value is not None}
    return signed(said, claims(**{"iss": IDP, **fields}), key, algorithm)


def who(token: bytes, gate: Gatekeeper = GATE) -> Principal:
    return gate.who(b"Bearer " + token, None)


def refused(token: bytes, gate: Gatekeeper = GATE) -> str:
    """Twice, because the second answer is from the cache."""
    details = []
    for _ in range(2):
        with pytest.raises(Unauthenticated) as caught:
            who(token, gate)
        details.append(caught.value.detail)
        assert caught.value.headers["WWW-Authenticate"].endswith('error="invalid_token"')
        assert caught.value.__context__ is None  # it would hold what the decoder saw
    assert details[0] == details[1]
    return details[0]


# --- what is taken --------------------------------------------------------------------------------


def test_an_api_key_in_either_header() -> None:
    expected = Principal("ci", "red", frozenset({"predict"}), "key")
    assert GATE.who(b"Bearer " + API_KEY, None) == GATE.who(None, API_KEY) == expected
    assert GATE.who(b"bEARER " + API_KEY, None) == expected
    for wrong in (
        API_KEY[:-1],
        API_KEY + b"x",
        API_KEY.upper(),
        b"gk_",
        hashlib.sha256(API_KEY).digest(),
    ):
        with pytest.raises(Unauthenticated, match="not taken"):
            GATE.who(None, wrong)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_token_of_each_algorithm(algorithm: str) -> None:
    found = who(paired(algorithm, tenant="green"))
    scopes = frozenset({"predict", "models"})
    assert found == Principal(f"{IDP}#bob", "green", scopes, "token", NOW + 610)


def test_a_token_with_a_shared_secret() -> None:
    assert who(hs256()) == Principal(
        f"{PARTNER}#bob", "", frozenset({"predict", "models"}), "token", NOW + 610
    )


def test_a_token_of_ours_says_who_and_the_bundle_says_what() -> None:
    mine: dict[str, Any] = {
        "iss": MINE,
        "aud": "shop",
        "sub": "alice",
        "roles": ["caller"],
        "tenant": "green",
    }
    assert who(hs256(key=OWN, **mine)) == Principal(
        "alice", "blue", frozenset({"predict:sentiment"}), "user", NOW + 610
    )
    assert refused(hs256(key=OWN, **{**mine, "sub": "mallory"})) == NOT_TAKEN
    assert refused(hs256(key=OWN, **{**mine, "aud": "other-service"})) == NOT_TAKEN
    # A user who is gone is nobody at once.
    assert refused(hs256(key=OWN, **mine), gate(users=())) == NOT_TAKEN


def test_nothing_presented_is_anonymous_only_where_that_is_allowed() -> None:
    with pytest.raises(Unauthenticated) as caught:
        GATE.who(None, None)
    assert caught.value.detail == MISSING
    assert caught.value.headers == {"WWW-Authenticate": 'Bearer realm="gamma"'}
    open_to_all = gate(anonymous=("models",))
    assert open_to_all.who(None, None) == Principal("anonymous", "", frozenset({"models"}), "anonymous")
    assert refused(b"x.y.z", open_to_all) == MALFORMED  # and never anonymous
    with pytest.raises(Unauthenticated):
        open_to_all.who(b"", None)


def test_roles_that_are_unknown_give_nothing_and_scopes_are_not_asked() -> None:
    roles: object
    for roles in (["nobody"], "nobody", None, [], {}, 7, [["caller"]], [{"caller": 1}], [None]):
        assert who(hs256(roles=roles, scope="predict models")).scopes == frozenset()
    assert who(hs256(roles=["nobody", "watcher", 3])).scopes == {"live"}
    assert who(hs256(roles="watcher")).scopes == {"live"}


@pytest.mark.parametrize(
    ("scopes", "scope", "model", "allowed"),
    [
        ({"predict"}, "predict", "", True),
        ({"predict"}, "predict", "sentiment", True),
        ({"predict:sentiment"}, "predict", "sentiment", True),
        ({"predict:sentiment"}, "predict", "sentiments", False),
        ({"predict:sentiment"}, "predict", "", False),
        ({"predict:team-a.*"}, "predict", "team-a.sentiment", True),
        ({"predict:team-a.*"}, "predict", "team-b.sentiment", False),
        ({"predict:team-a.*"}, "chat", "team-a.sentiment", False),
        ({"predict:*"}, "predict", "any", True),
        ({"predict:*"}, "predict", "", False),
        ({"*"}, "predict", "sentiment", False),
        ({"*"}, "predict", "", False),
        ({"pre*"}, "predict", "sentiment", False),
        ({"*:sentiment"}, "predict", "sentiment", False),
        ({"predict:*ment"}, "predict", "sentiment", False),
        (set(), "predict", "sentiment", False),
        (set(), "", "", False),
    ],
)
def test_scopes(scopes: set[str], scope: str, model: str, allowed: bool) -> None:
    assert Principal("one", "", frozenset(scopes), "key").may(scope, model) is allowed


# --- the form -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        (b"Bearer " + API_KEY, API_KEY),
        (b"Bearer " + hs256(), b""),
        (b"", None),
        (b"Bearer", None),
        (b"Bearer ", None),
        (b"Basic YWxpY2U6cGFzc3dvcmQ=", None),
        (b"Basic " + API_KEY, None),
        (b"Token " + hs256(), None),
        (API_KEY, None),
        (hs256(), None),
        (b"Bearer Bearer " + hs256(), None),
        (b"Bearer  " + hs256(), None),
        (b"Bearer " + hs256() + b" ", None),
        (b"Bearer " + hs256() + b", Bearer " + hs256(), None),
        (b"Bearer ...", None),
        (b"Bearer ..", None),
        (b"Bearer a.b", None),
        (b"Bearer a.b.c.d.e", None),
        ("Bearer é.ü.ß".encode(), None),
        (b"Bearer \xff\x00.\xfe.\xfd", None),
        (b"Bearer " + b"a" * 100_000, None),
        (b"Bearer gk_" + b"a" * 100_000, None),
        (b"Bearer " + b"a." * 50_000, None),
        (None, b"a" * 100_000),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_malformed(authorization: bytes | None, api_key: bytes | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        GATE.who(authorization, api_key)
    assert caught.value.detail == MALFORMED


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ([], claims()),
        ("alg", claims()),
        (1, claims()),
        (None, claims()),
        ({"alg": "HS256", "typ": "JWT"}, []),
        ({"alg": "HS256", "typ": "JWT"}, "iss"),
        ({"alg": "HS256", "typ": "JWT"}, b"\xff\xfe"),
        ({"alg": "HS256", "typ": "JWT"}, b""),
        ({"alg": "HS256", "typ": "JWT"}, b'{"a":' * 1000),
        (b"[" * 2000, claims()),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_signed_and_no_token(header: object, body: object) -> None:
    assert refused(signed(header, body, HMAC, "HS256")) == MALFORMED


def test_a_token_has_one_spelling() -> None:
    token = hs256()
    who(token)
    head, body, signature = token.split(b".")
    assert refused(token + b"=") == MALFORMED
    # The last letter of 32 bytes carries two bits that nothing reads.
    last = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(signature[-1:])
    twin = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last + 1 : last + 2]
    other = b".".join([head, body, signature[:-1] + twin])
    assert urlsafe_b64decode(other.split(b".")[2] + b"=") == urlsafe_b64decode(signature + b"=")
    assert refused(other) == MALFORMED


# --- signatures and keys --------------------------------------------------------------------------


def test_alg_none() -> None:
    for name in ("none", "None", "NONE", "nOnE", "", None, 0, ["HS256"]):
        for issuer in (PARTNER, IDP, MINE):
            header = {"alg": name, "typ": "JWT", "kid": "rsa"}
            assert refused(signed(header, claims(iss=issuer), None, "HS256")) == NOT_TAKEN
    assert refused(signed({"typ": "JWT"}, claims(), HMAC, "HS256")) == NOT_TAKEN


def test_a_public_key_as_a_secret() -> None:
    """The oldest confusion: the verifier's public key is known to all, and signs with HMAC."""
    for text in (RSA.as_pem(), RSA.as_pem().strip(), RSA.as_der(), json.dumps(jwk(RSA, "rsa")).encode()):
        attacker = OctKey(text, text)
        for alg in ("HS256", "RS256"):
            header = {"alg": alg, "typ": "JWT", "kid": "rsa"}
            assert refused(signed(header, claims(iss=IDP), attacker, "HS256")) == NOT_TAKEN
    for pair in (RSA.as_pem(), RSA.as_pem(private=True), EC.as_pem()):
        with pytest.raises(ValueError, match="a key of a pair"):
            Gatekeeper(Auth(issuers=(partner(),)), {"partner": pair.decode()})


def test_the_algorithm_is_the_keys() -> None:
    for alg in ("RS384", "PS256", "ES256", "EdDSA", "Ed25519", "HS256", "rs256"):
        assert refused(paired("RS256", {"alg": alg})) == NOT_TAKEN
    # The right signature with the header of another key.
    assert refused(paired("RS256", {"kid": "ec"})) == NOT_TAKEN
    assert refused(hs256({"alg": "HS512"})) == NOT_TAKEN


def test_the_key_of_another_issuer() -> None:
    assert refused(hs256(iss=IDP)) == NOT_TAKEN
    assert refused(hs256({"kid": "rsa"}, iss=IDP)) == NOT_TAKEN
    assert refused(paired(iss=PARTNER)) == NOT_TAKEN
    assert refused(hs256(iss=MINE, aud="shop", sub="alice")) == NOT_TAKEN
    assert refused(hs256(key=OWN)) == NOT_TAKEN


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_signature_stripped_cut_or_of_something_else(algorithm: str) -> None:
    head, body, signature = paired(algorithm).split(b".")
    other = paired(algorithm, sub="root").split(b".")
    assert refused(b".".join([head, body, b""])) == NOT_TAKEN
    assert refused(b".".join([head, other[1], signature])) == NOT_TAKEN
    assert refused(b".".join([head, body, part(bytes(64))])) == NOT_TAKEN
    assert refused(b".".join([head, body, part(b"x")])) == NOT_TAKEN
    assert refused(b".".join([head, body])) == MALFORMED


def test_kids() -> None:
    for kid in (None, "", "unknown", "../../dev/null", "' OR 1=1 --", 7, ["rsa"], {"rsa": 1}):
        assert refused(paired(header={"kid": kid})) == NOT_TAKEN
    one = gate(issuers=(idp(jwk(RSA, "rsa")),))
    who(paired(), one)
    assert refused(paired(header={"kid": None}), one) == NOT_TAKEN  # even where there is one key only
    # Of a shared secret there is one.
    who(hs256({"kid": "whatever"}))


def test_keys_in_the_header_are_not_looked_at() -> None:
    attacker = RSAKey.generate_key(2048)
    for more in (
        {"jwk": jwk(attacker, "rsa")},
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"x5c": ["MIIB"]},
    ):
        header = {"alg": "RS256", "typ": "JWT", "kid": "rsa", **more}
        assert refused(signed(header, claims(iss=IDP), attacker, "RS256")) == NOT_TAKEN
        who(paired(header=more))  # nor are they a fault


def test_rotation() -> None:
    """Old alone, both, new alone; tokens of the old key are taken until it goes."""
    old, new = jwk(RSA, "2026-10"), jwk(RSA_NEXT, "2026-11")
    before, overlap, after = (gate(issuers=(idp(*keys),)) for keys in ([old], [new, old], [new]))
    first = paired(header={"kid": "2026-10"})
    header = {"alg": "RS256", "typ": "JWT", "kid": "2026-11"}
    second = signed(header, claims(iss=IDP), RSA_NEXT, "RS256")
    who(first, before)
    assert refused(second, before) == NOT_TAKEN
    who(first, overlap)
    who(second, overlap)
    assert refused(first, after) == NOT_TAKEN
    who(second, after)


# --- header and claims ----------------------------------------------------------------------------


def test_crit() -> None:
    more: Mapping[str, object]
    for more in (
        {"crit": ["exp"], "exp": 1},
        {"crit": ["b64"], "b64": False},
        {"crit": ["b64"], "b64": True},
        {"crit": ["alg"]},
        {"crit": []},
        {"crit": None},
    ):
        header = {"alg": "HS256", "typ": "JWT", **more}
        assert refused(signed(header, claims(), HMAC, "HS256")) == NOT_TAKEN
    who(hs256({"x-nonce": "1"}))  # what is not critical is passed over


def test_typ() -> None:
    for typ in ("JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"):
        who(hs256({"typ": typ}))
    wrong: object
    for wrong in (None, "", "JWE", "logout+jwt", "dpop+jwt", "application/json", 1, ["JWT"], {}):
        assert refused(hs256({"typ": wrong})) == NOT_TAKEN


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": None},
        {"iss": "https://other.example"},
        {"iss": PARTNER + "/"},
        {"iss": [PARTNER]},
        {"iss": {}},
        {"aud": None},
        {"aud": "other"},
        {"aud": ["other", "another"]},
        {"aud": []},
        {"aud": {"gamma": 1}},
        {"aud": [["gamma"]]},
        {"aud": "gamma2"},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": ["bob"]},
        {"sub": "b" * 257},
        {"sub": "bob\x00"},
        {"sub": "bob\nroot"},
        {"sub": "\ud800"},
        {"tenant": 7},
        {"tenant": ["red"]},
        {"tenant": "red\x00"},
        {"exp": None},
        {"exp": "never"},
        {"exp": True},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": [NOW + 600]},
        {"iat": None},
        {"iat": NOW + 11},
        {"iat": "now"},
        {"nbf": NOW + 11},
        {"nbf": 10**400},
        {"nbf": "now"},
        {"nbf": float("nan")},
        {"jti": 7},
        {"jti": ["one"]},
    ],
)
def test_claims_that_are_not_taken(wrong: dict[str, Any]) -> None:
    assert refused(hs256(**wrong)) == NOT_TAKEN


@pytest.mark.parametrize(
    "right",
    [
        {"aud": ["other", "gamma"]},
        {"exp": NOW - 9},
        {"exp": 10**400},
        {"exp": 1e300},
        {"iat": NOW + 9},
        {"iat": 0},
        {"nbf": NOW + 9},
        {"nbf": NOW - 100},
        {"jti": "one"},
        {"sub": "bob smith <bob@example.com>"},
        {"tenant": "größe"},
    ],
)
def test_claims_that_are_taken(right: dict[str, Any]) -> None:
    who(hs256(**right))


def test_a_token_ends_with_its_leeway_and_no_later() -> None:
    clock = Clock()
    keeper = gate(clock, issuers=(partner(leeway=2.0),))
    token = hs256(exp=NOW + 5)
    for later in (0, 4.9, 5, 6.9):
        clock.now = NOW + later
        assert who(token, keeper).expires == NOW + 7
    for later in (7, 7.1, 60, 1e6):
        clock.now = NOW + later
        assert refused(token, keeper) == EXPIRED
    assert refused(hs256(exp=0)) == EXPIRED
    assert refused(hs256(exp=-(10**400))) == EXPIRED


def test_a_token_begins_with_its_leeway() -> None:
    clock = Clock()
    keeper = gate(clock)
    token = hs256(nbf=NOW + 30)
    assert refused(token, keeper) == NOT_TAKEN
    clock.now = NOW + 21
    who(token, keeper)


def test_a_revoked_token_is_refused_though_it_was_cached() -> None:
    """Revocation is a new bundle, and a new bundle is a new gatekeeper: nothing is left of the old cache."""
    token = hs256(jti="7f3a")
    who(token)
    who(token)
    revoking = gate(revoked=("7f3a",))
    assert refused(token, revoking) == NOT_TAKEN
    who(hs256(jti="7f3b"), revoking)
    who(hs256(), revoking)  # one without a jti cannot be revoked


# --- the caches -----------------------------------------------------------------------------------


def counted(keeper: Gatekeeper, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    seen: list[bytes] = []
    verify = keeper._verify

    def counting(token: bytes) -> Any:
        seen.append(token)
        return verify(token)

    monkeypatch.setattr(keeper, "_verify", counting)
    return seen


def test_a_token_is_verified_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    keeper = gate(clock)
    seen = counted(keeper, monkeypatch)
    good, bad = hs256(), hs256(aud="other")
    for later in (0, 1, 59.9):
        clock.now = NOW + later
        who(good, keeper)
    assert len(seen) == 1
    clock.now = NOW + 60
    who(good, keeper)
    assert len(seen) == 2
    refused(bad, keeper)
    refused(bad, keeper)
    assert len(seen) == 3
    clock.now += 5
    refused(bad, keeper)
    assert len(seen) == 4


def test_a_flood_of_bad_tokens_takes_no_room_and_drives_no_good_one_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REFUSED", 10)
    keeper = gate()
    good = hs256()
    who(good, keeper)
    seen = counted(keeper, monkeypatch)
    for number in range(50):
        refused(hs256(aud=str(number)), keeper)
    assert len(keeper._refused) == 10
    who(good, keeper)
    assert len(seen) == 50
    monkeypatch.setattr(module, "VERIFIED", 10)
    keeper = gate()
    for number in range(50):
        who(hs256(sub=str(number)), keeper)
    assert len(keeper._verified) == 10


def test_an_oversized_token_is_neither_hashed_nor_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = gate()
    monkeypatch.setattr(module, "hashlib", None)
    with pytest.raises(Unauthenticated):
        keeper.who(b"Bearer " + b"a" * 100_000, None)
    assert not keeper._refused


# --- building one ---------------------------------------------------------------------------------


def faults(fields: Auth, secrets: Mapping[str, str] | None = None, service: str = "shop") -> list[str]:
    with pytest.raises(ValueError, match=r"\.$") as caught:
        Gatekeeper(fields, SECRETS if secrets is None else secrets, service=service)
    return str(caught.value).splitlines()


def test_all_faults_at_once() -> None:
    broken = auth(
        issuers=(
            idp({key: value for key, value in jwk(RSA, "x").items() if key != "kid"}, jwk(EC, "ec")),
            partner("absent"),
            Issuer(issuer="https://short", audience="a", algorithms=("HS256",), secret="short"),
        )
    )
    assert faults(broken, {"short": "x" * 31}) == [
        f"Issuer {IDP}: key 1 of `jwks` has no `kid`.",
        f"Issuer {PARTNER}: The secret `absent` is missing.",
        "Issuer https://short: The secret `short` is shorter than 32 bytes.",
        "Issuer gamma/shop: The secret `tokens` is missing.",
    ]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ([], "has no keys"),
        ("keys", "has no keys"),
        (None, "has no keys"),
        (["key"], "key 1 of `jwks` has no `kid`"),
        ([jwk(RSA, "")], "has no `kid`"),
        ([jwk(RSA, "a"), jwk(EC, "a")], "key 2 of `jwks` has the `kid` of one before it"),
        ([{**RSA.as_dict(private=True), "kid": "a"}], "is private or a secret"),
        ([{**ED.as_dict(private=True), "kid": "a"}], "is private or a secret"),
        ([{"kty": "oct", "k": part(b"CANARY" * 9).decode(), "kid": "a"}], "is private or a secret"),
        ([{"kty": "oct", "kid": "a"}], "is unusable"),
        ([jwk(RSA, "a", n="AQAB")], "is unusable"),
        ([jwk(RSA, "a", e=7)], "is unusable"),
        ([jwk(RSA, "a", use="enc")], "is unusable"),
        ([jwk(RSA, "a", key_ops=["sign"])], "is unusable"),
        ([jwk(RSA, "a", alg="PS256")], "is unusable"),
        ([jwk(EC, "a", x=EC.as_dict()["y"])], "is unusable"),
        ([{"kty": "new", "kid": "a"}], "is unusable"),
        ([{"kty": ["RSA"], "kid": "a"}], "is unusable"),
        ([{"kid": "a"}], "is unusable"),
        ([jwk(ED, "a", crv="Ed1")], "is unusable"),
        ([jwk(EC, "a", crv="P-1")], "is unusable"),
        ([jwk(EC, "a", crv=["P-256"])], "is unusable"),
        ([jwk(ECKey.generate_key("P-384"), "a")], "is of a kind, curve or size"),
        ([jwk(OKPKey.generate_key("X25519"), "a")], "is of a kind, curve or size"),
        ([jwk(OKPKey.generate_key("Ed448"), "a")], "is of a kind, curve or size"),
    ],
)
def test_public_keys_that_are_none(keys: object, says: str) -> None:
    issuer = Issuer(issuer=IDP, audience="a", algorithms=("RS256", "ES256", "EdDSA"), jwks={"keys": keys})
    (fault,) = faults(Auth(issuers=(issuer,)))
    assert says in fault
    assert "CANARY" not in fault


@pytest.mark.filterwarnings("ignore:Key size")
def test_a_short_rsa_key() -> None:
    (fault,) = faults(Auth(issuers=(idp(jwk(RSAKey.generate_key(1024), "a")),)))
    assert "2048 bits" in fault


def test_a_key_of_an_algorithm_that_the_issuer_does_not_use() -> None:
    (fault,) = faults(Auth(issuers=(idp(jwk(RSA, "a"), algorithms=("ES256",)),)))
    assert "is for RS256, which is not among" in fault


def test_confusions() -> None:
    (fault,) = faults(auth(issuers=(partner(), partner())))
    assert fault == f"The issuer {PARTNER} is there twice."
    assert any("needs another one" in fault for fault in faults(auth(issuers=(partner("tokens"),))))
    posing = Issuer(issuer=MINE, audience="shop", algorithms=("HS256",), secret="partner")
    assert faults(auth(issuers=(posing,))) == [f"The issuer {MINE} is there twice."]
    assert any("no name" in fault for fault in faults(auth(), service=""))
    ci = auth().keys[0]
    (fault,) = faults(auth(keys=(ci, ApiKey(name="cd", sha256=ci.sha256, scopes=()))))
    assert fault == "These API keys are one and the same: ci, cd."
    for name in ("alice", "anonymous"):
        (fault,) = faults(auth(keys=(ApiKey(name=name, sha256="0" * 64, scopes=()),)))
        assert fault.startswith(f"{name} is there twice")
    hashed = Issuer(issuer="a#b", audience="a", algorithms=("HS256",), secret="partner")
    assert any("parts an issuer" in fault for fault in faults(auth(issuers=(hashed,))))


def test_a_secret_of_any_letters() -> None:
    assert secret_key("a", {"a": "CANARY" * 9 + "\ud800"}).raw_value.startswith(b"CANARY")
    assert secret_key("a", {"a": "ä" * 16}).raw_value == ("ä" * 16).encode()


def test_without_users_no_name_and_no_secret_are_needed() -> None:
    Gatekeeper(Auth(), {})
    Gatekeeper(Auth(issuers=(partner(),)), SECRETS, lambda: NOW).who(b"Bearer " + hs256(), None)


# --- whatever comes -------------------------------------------------------------------------------

TOKENS_TAKEN = {"HS256": hs256(), **{algorithm: paired(algorithm) for algorithm in PAIRS}}


@given(algorithm=st.sampled_from(sorted(TOKENS_TAKEN)), data=st.data())
def test_no_byte_of_a_token_may_be_another(algorithm: str, data: st.DataObject) -> None:
    token = TOKENS_TAKEN[algorithm]
    place = data.draw(st.integers(0, len(token) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != token[place]))
    refused(token[:place] + bytes([byte]) + token[place + 1 :])


def test_no_letter_of_a_signature_may_be_another() -> None:
    """Each of them, because those that matter are few."""
    token = TOKENS_TAKEN["HS256"]
    for place in range(token.rindex(b".") + 1, len(token)):
        for letter in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
            if letter != token[place]:
                with pytest.raises(Unauthenticated):
                    who(token[:place] + bytes([letter]) + token[place + 1 :])


HEADERS = st.none() | st.binary() | st.binary().map(lambda value: b"Bearer " + value)


@given(HEADERS, HEADERS)
def test_any_bytes_are_refused_and_nothing_else_happens(
    authorization: bytes | None, api_key: bytes | None
) -> None:
    with pytest.raises(Unauthenticated):
        GATE.who(authorization, api_key)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**300, 10**310)
    | st.floats()
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KNOWN = [
    "alg",
    "typ",
    "kid",
    "crit",
    "b64",
    "jwk",
    "jku",
    "iss",
    "aud",
    "sub",
    "exp",
    "nbf",
    "iat",
    "jti",
    "roles",
]


@given(
    st.sampled_from(["HS256", "RS256"]),
    st.dictionaries(st.sampled_from(KNOWN) | st.text(), JSON, max_size=4),
    st.dictionaries(st.sampled_from(KNOWN) | st.text(), JSON, max_size=4),
)
def test_any_signed_token_is_taken_or_refused_and_nothing_else_happens(
    algorithm: str, header: dict[str, object], fields: dict[str, object]
) -> None:
    """By the right key: what an issuer that went wrong may sign."""
    kid, key = PAIRS.get(algorithm, ("", HMAC))
    head = {"alg": algorithm, "typ": "JWT", "kid": kid, **header}
    body = {**claims(iss=IDP if kid else PARTNER), **fields}
    try:
        found = who(signed(head, body, key, algorithm))
    except Unauthenticated:
        return
    assert found.kind == "token"
    assert found.expires is not None
    assert found.expires > NOW
    assert found.scopes <= {"predict", "models", "live"}
    assert found.name.encode()
    assert found.tenant.encode() is not None


# --- nothing comes out ----------------------------------------------------------------------------


def said(error: BaseException | None) -> str:
    """All that a log could print of it, with what it was raised from."""
    text = ""
    while error is not None:
        text += f"{error}{error!r}{error.args}{vars(error)}"
        error = error.__cause__ or error.__context__
    return text


def test_no_canary() -> None:
    canary = part({"CANARY": 1}) + b".CANARY.CANARY"
    for authorization, api_key in (
        (b"Bearer " + canary, None),
        (b"Bearer CANARY", None),
        (b"Bearer gk_CANARY", None),
        (b"CANARY", None),
        (b"Bearer x", b"CANARY"),
        (None, b"CANARY"),
        (b"Bearer " + hs256(sub="CANARY", aud="CANARY"), None),
        (b"Bearer " + hs256(exp=1, sub="CANARY"), None),
        (b"Bearer " + hs256({"kid": "CANARY", "alg": "CANARY"}), None),
        (b"Bearer " + part(b'{"CANARY') + b"." + part(b"CANARY") + b".", None),
    ):
        with pytest.raises(Unauthenticated) as caught:
            GATE.who(authorization, api_key)
        assert "CANARY" not in said(caught.value)
        assert b"CANARY" not in caught.value.body("id")
        assert part(b"CANARY").decode() not in said(caught.value)
    keeper = gate(anonymous=("models",))
    who(hs256(), keeper)
    assert "CANARY" not in repr(keeper) + repr(who(hs256(), keeper)) + repr(keeper._trusted)
    for secrets in (
        {"partner": "CANARY", "tokens": "CANARY"},
        {"partner": "CANARY\ud800", "tokens": "-----BEGIN CANARY PRIVATE KEY-----"},
        {"partner": "CANARY" * 9 + "\ud800"},
    ):
        with pytest.raises(ValueError, match="secret") as failed:
            Gatekeeper(auth(), secrets, service="shop")
        assert "CANARY" not in said(failed.value)
