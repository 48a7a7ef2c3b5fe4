"""From the fields of a service to its bundle: what goes in, what must not, and what is another one."""

import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.app import bundle as contract
from gamma_orch.app import passwords
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.core.leaves import encode
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.serving.compiling import Artifact, Compiled, compiled
from gamma_orch.kinds.serving.credentials import Secrets
from gamma_orch.kinds.serving.house import House
from tests.kinds.serving.specs import AUTH, SECRETS, WHOLE, cache, fields, revealed, secret, service
from tests.spec.shown import compare

GOLDEN = Path(__file__).parents[2] / "golden" / "serving" / "bundle.json"
HASH = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$0123456789012345678901234567890123456789012"
OTHERS = {
    "frontend-key": "gk_frontend_another_0123456789",
    "partner": "another-secret-of-more-than-32-bytes",
    "database": "postgresql://log:another@db.internal/log",
    "valkey": "redis://app:another@valkey.internal:6379/0",
    "tokens": "another-secret-of-more-than-32-bytes-",
    "columns": "YW5vdGhlci1zZWNyZXQtb2YtMzItYnl0ZXMtaW4tYjY=",
}


def artifact(key: str) -> Artifact:
    """By the key that `specs.fields` gave it, which begins with its model's name."""
    classifies = key.startswith(b"sentiment".hex())
    return Artifact(
        f"/artifacts/{key[:16]}",
        {"model.onnx": key},
        "text-classification" if classifies else "text-generation",
    )


def hashed(user: str, password: str) -> str:
    return HASH


def made(
    given: Fields, secrets: Mapping[str, str] = SECRETS, hashing: Any = hashed, valkey: str | None = None
) -> Compiled:
    """As the provider does it: the service's own secrets are beside the fields."""
    own = {"tokens": secrets["tokens"], "columns": secrets["columns"]}
    with_secrets = {**revealed(dict(given), secrets), **own}
    url = str(with_secrets.get("valkey", "")) if valkey is None else valkey
    return compiled("api", with_secrets, artifact, hashing, url, "1.0+abc")


def whole(**changed: Any) -> Fields:
    return fields(service(**{**WHOLE, **changed}), cache(size="128MB", stale="30s", jitter=0.2))


def refused(given: Fields, **more: Any) -> str:
    with pytest.raises(Permanent) as error:
        made(given, **more)
    return str(error.value)


def test_the_bundle_of_one_of_everything():
    shown = json.dumps(json.loads(made(whole()).bundle.encoded()), indent=1, sort_keys=True) + "\n"
    compare(GOLDEN, shown, GOLDEN.read_text() if GOLDEN.exists() else "", shown)


def test_no_byte_of_a_secret_is_in_bundle_or_fields():
    given = whole()
    found = made(given)
    kept = found.bundle.encoded() + json.dumps(encode(dict(given))) + repr(found) + repr(Secrets({**SECRETS}))
    parts = chain(SECRETS.values(), ("d4tabase-password", "v4lkey-password"))
    assert [part for part in parts if part in kept] == []


def test_the_workers_get_the_bytes_that_the_bundle_names():
    found = made(whole())
    assert found.secrets.values == {
        "cache": SECRETS["valkey"],
        "database": SECRETS["database"],
        "columns": SECRETS["columns"],
        "tokens": SECRETS["tokens"],
        "issuer-0": SECRETS["partner"],
    }
    assert found.bundle.secrets.keys() == found.secrets.values.keys()


def test_keys_for_columns_go_only_to_whom_keeps_texts():
    found = made(whole(log={"database": secret("database"), "predictions": "digests"}))
    assert "columns" not in found.secrets.values


def test_a_service_without_needs_has_no_secrets():
    found = made(fields(service()))
    assert found.secrets.values == {}
    assert found.bundle.cache == contract.Cache(entries=0, shared=False)
    assert found.bundle.log == contract.Log()


@pytest.mark.parametrize("name", OTHERS)
def test_a_secret_that_changed_is_another_bundle(name: str):
    other = made(whole(), {**SECRETS, name: OTHERS[name]})
    assert other.bundle.digest != made(whole()).bundle.digest


def test_a_digest_of_a_secret_tells_nothing_of_another_with_the_same_bytes():
    same = {**SECRETS, "partner": SECRETS["tokens"]}
    kept = made(whole(), same).bundle.secrets
    assert kept["issuer-0"] != kept["tokens"]


def test_the_same_fields_are_the_same_bundle(tmp_path: Path):
    """Although argon2 has a salt: the hash in the current bundle is kept while it fits."""
    house = House(tmp_path)
    first = made(whole(), hashing=house.hashed)
    house.store(first.bundle, first.secrets, whole())
    house.settle(first.bundle.digest)
    again = made(whole(), hashing=house.hashed)
    assert again.bundle.digest == first.bundle.digest
    other = made(whole(), {**SECRETS, "anna-password": "another horse battery"}, house.hashed)
    assert other.bundle.digest != first.bundle.digest
    [user] = other.bundle.auth.users
    assert passwords.verified("another horse battery", user.hash)


def reversed_(tree: Json) -> Json:
    """The same, its maps written the other way round."""
    if isinstance(tree, dict):
        return {key: reversed_(tree[key]) for key in reversed(tree)}
    return [reversed_(one) for one in tree] if isinstance(tree, list) else tree


def test_the_order_in_which_a_spec_is_written_is_no_change():
    given = whole(auth={**WHOLE["auth"], "keys": {**AUTH["keys"], "a": {"secret": secret("operator-key")}}})
    assert made(reversed_(given)).bundle.digest == made(given).bundle.digest


@pytest.mark.parametrize(
    "change",
    [
        {"workers": 4},
        {"cache": None},
        {"limits": {}},
        {"body": "3MB"},
        {"traces": {"endpoint": "http://127.0.0.1:4318/v1/traces", "sample": "6%"}},
        {"listen": {"port": 8444}},
        {"auth": {**WHOLE["auth"], "revoked": []}},
        {"log": None},
        {"models": [{**WHOLE["models"][0], "batch": 9}, *WHOLE["models"][1:]]},
        {"models": [*WHOLE["models"][:2], {**WHOLE["models"][2], "adapters": {"pirate": "novelist-sailor"}}]},
        {"models": [*WHOLE["models"][:2], {"model": "novelist"}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_an_answer_is_another_bundle(change: dict[str, Any]):
    assert made(whole(**change)).bundle.digest != made(whole()).bundle.digest


def test_how_it_is_rolled_out_is_not():
    assert made(whole(rollout={"watch": "9s"})).bundle.digest == made(whole()).bundle.digest


def test_who_comes_by_a_proxy_of_ours_is_believed():
    for changed, trusted in (({}, ()), ({"proxy": {}}, ("unix",)), ({"engine": "ray"}, ("unix",))):
        assert made(fields(service(**changed))).bundle.process.trusted == trusted


def test_roles_become_scopes():
    [key] = made(whole()).bundle.auth.keys
    [user] = made(whole()).bundle.auth.users
    assert key.scopes == ("models", "predict")
    assert user.scopes == ("live", "metrics", "models", "predict")
    assert made(fields(service())).bundle.auth.anonymous == ()


def test_weights_and_shadows_are_those_of_the_spec():
    versions = [{"model": "a", "weight": 9}, {"model": "b", "weight": 0}, {"model": "c", "shadow": True}]
    found = made(fields(service(models=[{"name": "m", "versions": versions, "threads": 2}])))
    kept = [(one.weight, one.shadow, one.threads) for one in found.bundle.models["m"].versions]
    assert kept == [(9, False, 2), (0, False, 2), (1, True, 2)]


def test_adapters_are_those_of_the_spec_by_the_names_of_the_api():
    [found] = made(fields(service(models=[WHOLE["models"][2]]))).bundle.models.values()
    base, kept = found.versions[0], found.adapters
    assert list(kept) == ["pirate", "sailor"]
    assert len({base.digest, *(one.digest for one in kept.values())}) == 3
    assert kept["pirate"].digest.startswith(b"novelist-pirate".hex())
    assert kept["pirate"].folder == "/artifacts/" + b"novelist".hex()


def test_every_fault_of_the_secrets_is_said_at_once_and_none_of_their_bytes(tmp_path: Path):
    wrong = {
        "frontend-key": "short",
        "anna-password": "anna1234",
        "partner": "p4rtner",
        "database": "mysql://db",
        "valkey": "http://v4lkey",
        "tokens": SECRETS["tokens"],
        "columns": SECRETS["columns"],
    }
    said = refused(whole(), secrets=wrong, hashing=House(tmp_path).hashed)
    assert said == (
        "Service/api: the key of frontend is shorter than 20 characters. "
        "The password of anna: A password has 12 characters or more. The name of the user is no password. "
        "Issuer https://id.partner.example: The secret `issuer-0` is shorter than 32 bytes. "
        "The URL of the log's database does not begin with postgresql://. "
        "The URL of Valkey cannot be used. Write redis://, rediss:// or unix://, percent-encode the "
        "password, and name certificates by files that are there (ValueError). "
        "Give other secrets, and apply again."
    )
    assert not [one for one in ("anna1234", "p4rtner", "v4lkey") if one in said]


@pytest.mark.parametrize(
    "key", ["gk_with.a.dot.0123456789", "gk_with a space 012345", "gk_wïth_0123456789012"]
)
def test_a_key_that_could_not_be_sent_is_refused(key: str):
    """By a dot the API tells a token from a key, so such a key would never be taken."""
    said = refused(whole(), secrets={**SECRETS, "frontend-key": key})
    assert "the key of frontend has other characters than letters, digits and _~+/=-." in said
    assert key not in said


def test_two_programs_with_one_key_are_refused():
    keys = {name: {"secret": secret("frontend-key"), "roles": []} for name in ("a", "b")}
    said = refused(fields(service(auth={**AUTH, "keys": keys})))
    assert "these API keys are one and the same: a, b." in said


def test_versions_of_different_tasks_are_refused():
    """Where the artifacts have other tasks than the specs say; `agreement` sees the specs only."""
    versions = [{"model": "sentiment"}, {"model": "writer"}]
    said = refused(fields(service(models=[{"name": "m", "versions": versions}])))
    assert said == (
        "The versions of one model have one task, and here are text-classification, text-generation."
    )


EDGES: dict[str, Json] = {
    "greatest": {
        "models": [
            {
                "name": "a" * 128,
                "versions": [{"model": "writer", "weight": 1000}],
                "batch": 1024,
                "queue": 1_000_000,
                "threads": 256,
                "deadline": "527040m",
                "texts": 100_000,
                "characters": 10**9,
                "newTokens": 10**9,
            }
        ],
        "listen": {"port": 65_535},
        "workers": 64,
        "limits": {"a" * 128: {"by": "route", "rate": "999999999/day", "burst": 10**9}},
        "auth": {**AUTH, "token": "527040m"},
        "body": "999TB",
        "drain": "5m",
        "cache": "answers",
    },
    "least": {
        "models": [
            {"name": "a", "versions": [{"model": "writer"}], "deadline": "0.001ms", "batch": 1, "queue": 1}
        ],
        "limits": {"a": {"by": "route", "rate": "1/day", "burst": 1}},
        "listen": {"port": 1},
        "auth": {**AUTH, "token": "0.001us"},
        "body": "1kB",
        "drain": "0s",
        "cache": "answers",
    },
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize(
    "policy",
    [
        {"entries": 10**9, "size": "999TB", "ttl": "527040m", "stale": "527040m", "jitter": "50%"},
        {"entries": 0, "size": "1MB", "ttl": "0s", "negative": "0s", "jitter": 0},
    ],
)
def test_what_a_spec_may_say_a_bundle_can_hold(edge: str, policy: dict[str, Any]):
    found = made(fields(service(**EDGES[edge]), cache(**policy)))
    assert contract.Bundle.decoded(found.bundle.encoded()) == found.bundle
