"""What may be written about a Service, what is refused at which place and in which words, and its fields."""

from typing import Any

import pytest

from gamma_orch.app import auth, edge
from gamma_orch.core.address import Address
from gamma_orch.core.diagnostic import written
from gamma_orch.core.leaves import Ref, Secret, Template
from gamma_orch.kinds.serving import auth_spec, bounds, programs
from gamma_orch.kinds.serving.bounds import rate_of
from gamma_orch.kinds.serving.cache_policy import CachePolicySpec
from gamma_orch.kinds.serving.scaling_policy import ScalingPolicySpec
from gamma_orch.kinds.serving.service_spec import ServiceSpec, normalise
from gamma_orch.spec.complaints import checked
from tests.kinds.serving.specs import API, AUTH, WHOLE, cache, fields, secret, service

JWK = {"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
ISSUER = {"issuer": "https://id.example", "audience": "api", "algorithms": ["EdDSA"]}
ANOTHER = Ref(Address("Model", "sentiment"), "digest")


def said(spec: dict[str, Any], model: Any = ServiceSpec) -> list[tuple[str, str]]:
    """Each fault, as `gamma validate` says it: its place and its words."""
    _, faults = checked(model, spec, ("spec",))
    return [(written(fault.path), fault.message) for fault in faults]


def one(spec: dict[str, Any], model: Any = ServiceSpec) -> tuple[str, str]:
    [found] = said(spec, model)
    return found


def of_auth(**changed: Any) -> dict[str, Any]:
    return {"auth": {**AUTH, **changed}}


def of_issuer(**changed: Any) -> dict[str, Any]:
    return of_auth(issuers=[{**ISSUER, **changed}])


def of_model(**changed: Any) -> dict[str, Any]:
    return {"models": [{"model": "sentiment", **changed}]}


def of_limit(**changed: Any) -> dict[str, Any]:
    return {"limits": {"each": {"by": "principal", "rate": "1/s", **changed}}}


def test_one_of_everything_is_right():
    assert said(dict(WHOLE)) == []


def test_nothing_is_needed_and_nothing_is_open():
    spec = service(models=[])
    assert spec["auth"]["anonymous"] == []
    assert spec["listen"]["host"] == "127.0.0.1"
    assert (spec["cache"], spec["valkey"], spec["log"]) == (None, None, None)


@pytest.mark.parametrize(
    ("spec", "place", "words"),
    [
        # scopes and roles
        (
            of_auth(roles={"caller": ["models", "predcit"]}),
            "spec.auth.roles.caller[1]",
            "no scope 'predcit'; there are live, metrics, models, predict, security, and predict:MODEL",
        ),
        (of_auth(roles={"caller": ["open"]}), "spec.auth.roles.caller[0]", "no scope 'open'"),
        (of_auth(roles={"caller": ["metrics:a"]}), "spec.auth.roles.caller[0]", "no scope 'metrics:a'"),
        (
            of_auth(roles={"caller": ["predict:"]}),
            "spec.auth.roles.caller[0]",
            "behind the colon stands the name of a model",
        ),
        (of_auth(roles={"caller": ["predict:a*b"]}), "spec.auth.roles.caller[0]", "behind the colon"),
        (of_auth(roles={"caller": ["*"]}), "spec.auth.roles.caller[0]", "no scope '*'"),
        (of_auth(roles={}), "spec.auth", "no role caller; `roles` has none"),
        (of_auth(anonymous=["guest"]), "spec.auth", "no role guest; `roles` has caller, operator"),
        (
            of_auth(users={"anna": {"password": secret("p"), "roles": ["admin", "caller"]}}),
            "spec.auth",
            "no role admin; `roles` has caller, operator",
        ),
        # adapters
        (
            {"models": [{"name": "m", "versions": [{"model": "a"}], "adapters": {"b": "b"}}]},
            "spec.models[0]",
            "adapters go with one `model`, not with `versions`: they fit no other weights",
        ),
        (of_model(adapters={"A_b": "b"}), "spec.models[0].adapters.A_b", ""),
        # who
        (
            of_auth(keys={"a": {"secret": secret("k")}}, users={"a": {"password": secret("p")}}),
            "spec.auth",
            "a is there twice: keys, users and anonymous need names of their own",
        ),
        (of_auth(keys={"anonymous": {"secret": secret("k")}}), "spec.auth", "anonymous is there twice"),
        (of_auth(token="0s"), "spec.auth.token", "a time here is longer than 0s"),
        # secrets
        (
            of_auth(keys={"a": {"secret": "gk_written_out_0123456789"}}),
            "spec.auth.keys.a.secret",
            "a secret is not written into a spec; write ${secret.NAME}",
        ),
        (
            of_auth(users={"a": {"password": "hunter2hunter2"}}),
            "spec.auth.users.a.password",
            "a secret is not written into a spec",
        ),
        (of_auth(keys={"a": {"secret": ANOTHER}}), "spec.auth.keys.a.secret", "cannot be an output of"),
        (
            of_auth(keys={"a": {"secret": Template(("gk_", ANOTHER))}}),
            "spec.auth.keys.a.secret",
            "cannot be a text that is not known yet",
        ),
        (of_issuer(secret="0" * 32), "spec.auth.issuers[0].secret", "a secret is not written"),
        (
            {"valkey": "redis://app:hunter2@valkey:6379"},
            "spec.valkey",
            "a password is not written into a spec; write ${secret.NAME} in its place",
        ),
        (
            {"valkey": Template(("redis://app:hunter2@", ANOTHER))},
            "spec.valkey",
            "cannot be a text that is not known yet",
        ),
        ({"valkey": "http://valkey"}, "spec.valkey", "begins with redis:// or rediss:// or unix://"),
        ({"valkey": 6379}, "spec.valkey", "begins with redis://"),
        ({"log": {"database": "postgresql://log:hunter2@db/log"}}, "spec.log.database", "a password is not"),
        ({"log": {"database": "mysql://db/log"}}, "spec.log.database", "begins with postgresql://"),
        # issuers
        (of_issuer(), "spec.auth.issuers[0]", "an issuer has either a `secret` or public `keys`"),
        (
            of_issuer(secret=secret("s"), keys=[JWK]),
            "spec.auth.issuers[0]",
            "an issuer has either a `secret` or public `keys`",
        ),
        (of_issuer(secret=secret("s")), "spec.auth.issuers[0]", "a `secret` goes with HS256 alone"),
        (
            of_issuer(keys=[JWK], algorithms=["HS256"]),
            "spec.auth.issuers[0]",
            "public `keys` do not go with HS256",
        ),
        (of_issuer(keys=[JWK], algorithms=["EdDSA", "HS256"]), "spec.auth.issuers[0]", "do not go with"),
        (
            of_issuer(keys=[JWK, JWK | {"d": "0"}]),
            "spec.auth.issuers[0].keys[1]",
            "this key is private or a secret",
        ),
        (of_issuer(keys=[JWK | {"kid": ""}]), "spec.auth.issuers[0].keys[0]", "a key needs a `kid`"),
        (of_issuer(keys=[JWK | {"x": secret("x")}]), "spec.auth.issuers[0].keys[0]", "is written out here"),
        (of_issuer(keys=[JWK, JWK]), "spec.auth.issuers[0]", "the kid a is there twice"),
        (
            of_auth(issuers=[{**ISSUER, "keys": [JWK]}] * 2),
            "spec.auth",
            "the issuer https://id.example is there twice",
        ),
        # limits
        (
            of_limit(rate="10/fortnight"),
            "spec.limits.each.rate",
            "a rate is a whole number and a period s, min, h or day: 100/s, 5000/day",
        ),
        (of_limit(rate="0/s"), "spec.limits.each.rate", "a rate is a whole number"),
        (of_limit(rate="1.5/s"), "spec.limits.each.rate", "a rate is a whole number"),
        (of_limit(routes=["chat", "predcit"]), "spec.limits.each.routes[1]", "no route 'predcit' that"),
        (of_limit(routes=["health"]), "spec.limits.each.routes[0]", "no route 'health' that limits are"),
        (of_limit(routes=["live"]), "spec.limits.each.routes[0]", "no route 'live' that limits are counted"),
        (
            of_limit(routes=["chat:writer"]),
            "spec.limits.each.routes[0]",
            "'chat:writer' is no route of one model; those have the model in their path: predict:MODEL, str",
        ),
        (of_limit(routes=["predict:a*"]), "spec.limits.each.routes[0]", "is no route of one model"),
        # where
        (
            {"listen": {"trusted": ["10.0.0.0/8", "10.0.0.1/8"]}},
            "spec.listen.trusted[1]",
            "10.0.0.1/8 has host bits set",
        ),
        ({"listen": {"trusted": ["proxy"]}}, "spec.listen.trusted[0]", "'proxy' does not appear to be an"),
        ({"listen": {"trusted": ["unix"]}}, "spec.listen.trusted[0]", "'unix' does not appear to be an"),
        (
            {"proxy": {"others": ["a:1", "10.0.0.2"]}},
            "spec.proxy.others[1]",
            "a place here is a host and a port: 10.0.0.2:8000",
        ),
        ({"proxy": {"others": ["a:99999"]}}, "spec.proxy.others[0]", "a place here is a host and a port"),
        ({"proxy": {"others": ["a:1; }"]}}, "spec.proxy.others[0]", "a place here is a host and a port"),
        ({"proxy": {"others": ["a;b:1"]}}, "spec.proxy.others[0]", "a place here is a host and a port"),
        ({"proxy": {"engine": "haproxy"}}, "spec.proxy.engine", "nginx"),
        ({"proxy": {"connections": 0}}, "spec.proxy.connections", "must be at least 64"),
        ({"replicas": 0}, "spec.replicas", "must be at least 1"),
        ({"engine": "rya"}, "spec.engine", "ray"),
        ({"ray": {}}, "spec", "`ray` says where `engine: ray` runs; write both, or neither"),
        ({"engine": "ray", "ray": {"route": "api"}}, "spec.ray.route", ""),
        ({"engine": "ray", "ray": {"route": "/api/"}}, "spec.ray.route", ""),
        ({"engine": "ray", "ray": {"route": "/{a}"}}, "spec.ray.route", ""),
        (
            {"engine": "ray", "ray": {"url": "ray://head:10001"}},
            "spec.ray.url",
            "begins with http:// or https",
        ),
        (
            {"engine": "ray", "ray": {"url": "http://a:b@head:8265"}},
            "spec.ray.url",
            "a password is not written",
        ),
        ({"engine": "ray", "ray": {"cpus": -1}}, "spec.ray.cpus", ""),
        # models
        ({"models": [{}]}, "spec.models[0]", "say which `model` answers, or several in `versions`"),
        (of_model(versions=[{"model": "b"}]), "spec.models[0]", "say which `model` answers"),
        (
            {"models": [{"versions": [{"model": "b"}]}]},
            "spec.models[0]",
            "several versions need a `name` in the API",
        ),
        (
            {"models": [{"name": "a", "versions": [{"model": "b", "weight": 0}]}]},
            "spec.models[0]",
            "no version answers: each is a shadow or has the weight 0",
        ),
        (
            {"models": [{"name": "a", "versions": [{"model": "b", "shadow": True}]}]},
            "spec.models[0]",
            "no version answers",
        ),
        (
            {"models": [{"name": "a", "versions": [{"model": "b"}, {"model": "b", "weight": 3}]}]},
            "spec.models[0]",
            "b is there twice; give one of them the weight of both",
        ),
        (
            {"models": [{"model": "my_model"}]},
            "spec.models[0]",
            "'my_model' cannot be a name in the API: say a `name`, without _",
        ),
        (
            {"models": [{"model": "a"}, {"name": "a", "versions": [{"model": "b"}]}]},
            "spec.models",
            "a is served twice",
        ),
        (of_model(deadline="0s"), "spec.models[0].deadline", "a time here is longer than 0s"),
        ({"rollout": {"watch": "99999999m"}}, "spec.rollout.watch", "a time here is 366 days or less"),
        ({"drain": "6m"}, "spec.drain", "a worker drains for 300 s or less"),
        ({"body": "10B"}, "spec.body", "a size here is 1kB or more"),
    ],
)
def test_a_mistake_is_said_at_its_place(spec: dict[str, Any], place: str, words: str):
    found, message = one(spec)
    assert found == place
    assert words in message


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        (of_auth(keys={"A": {"secret": secret("k")}}), "spec.auth.keys.A"),
        ({"listen": {"host": "::1"}}, "spec.listen.host"),
        (of_issuer(keys=[JWK], issuer="https://id#a"), "spec.auth.issuers[0].issuer"),
        ({"workers": secret("n")}, "spec.workers"),
        (of_model(queue=1_000_001), "spec.models[0].queue"),
        (of_model(name="a_b"), "spec.models[0].name"),
    ],
)
def test_what_is_out_of_bounds_is_said_at_its_place(spec: dict[str, Any], place: str):
    assert one(spec)[0] == place


def test_all_mistakes_are_said_at_once():
    found = said({**of_limit(rate="often"), "workers": 0, **of_auth(roles={"caller": ["x"]})})
    assert [place for place, _ in found] == [
        "spec.workers",
        "spec.limits.each.rate",
        "spec.auth.roles.caller[0]",
    ]


@pytest.mark.parametrize(
    "value",
    [
        "redis://valkey:6379/0",
        "unix:///run/valkey.sock",
        secret("valkey"),
        Template(("rediss://app:", secret("valkey"), "@valkey:6379")),
        Template((secret("valkey"), "/0")),
    ],
)
def test_urls_that_show_no_password(value: Any):
    assert said({"valkey": value}) == []


def test_an_engine_that_is_the_default_says_nothing_and_another_says_where():
    assert {"engine", "ray"}.isdisjoint(fields(service()))
    ray = {"url": "http://127.0.0.1:8265", "route": "/", "cpus": 1.0}
    assert fields(service(engine="ray"))["ray"] == fields(service(engine="ray", ray={}))["ray"] == ray
    hidden = fields(service(engine="ray", ray={"url": secret("ray")}))
    assert (hidden["engine"], hidden["ray"]["url"]) == ("ray", secret("ray"))


@pytest.mark.parametrize("scope", ["models", "predict:sentiment", "predict:team-*", "predict:*", "live"])
def test_scopes_that_there_are(scope: str):
    assert said(of_auth(roles={"caller": [scope]})) == []


def test_a_rate_is_a_number_and_seconds():
    assert [rate_of(text) for text in ("100/s", "600/min", "7/h", "5000/day")] == [
        (100, 1),
        (600, 60),
        (7, 3600),
        (5000, 86_400),
    ]


@pytest.mark.parametrize(
    ("spec", "place", "words"),
    [
        ({"jitter": "60%"}, "spec.jitter", "lives differ by 50% or less"),
        ({"size": "900kB"}, "spec.size", "a size here is 1MB or more"),
        ({"ttl": "99999999m"}, "spec.ttl", "a time here is 366 days or less"),
    ],
)
def test_a_cache_policy_that_no_bundle_could_hold(spec: dict[str, Any], place: str, words: str):
    found, message = one(spec, CachePolicySpec)
    assert (found, words in message) == (place, True)


@pytest.mark.parametrize(
    ("changed", "place", "words"),
    [
        ({"min": 5}, "spec", "`min` is 5, and `max` is 4"),
        ({"target": {}}, "spec.target", "say what to aim at: `cpu`, `queue` or `p95`"),
        ({"target": {"cpu": "0%"}}, "spec.target", "a worker that uses 0% of a core does nothing"),
        ({"target": {"p95": "0s"}}, "spec.target.p95", "a time here is longer than 0s"),
        ({"target": {"queue": 0}}, "spec.target.queue", "must be more than 0"),
        ({"max": 65}, "spec.max", "must be at most 64"),
        ({"window": "0s"}, "spec.window", "a time here is longer than 0s"),
    ],
)
def test_a_scaling_policy_that_nobody_could_follow(changed: dict[str, Any], place: str, words: str):
    given = {"service": "api", "max": 4, "target": {"cpu": "70%"}, **changed}
    found, message = one(given, ScalingPolicySpec)
    assert (found, words in message) == (place, True), message


def test_what_is_said_here_is_what_the_app_does():
    assert set(edge.NEVER_LIMITED).isdisjoint(bounds.LIMITED)
    assert auth_spec.PRIVATE == auth._PRIVATE
    assert auth_spec.ANONYMOUS == auth.ANONYMOUS


def test_a_worker_that_drains_is_not_killed_meanwhile():
    assert programs.STOP >= bounds.DRAIN + 30  # and what it closes after that


# -- fields --------------------------------------------------------------------------------------


def test_a_model_is_its_artifact_by_digest():
    found = normalise(API, service(), lambda _: {})
    model = Address("Model", "sentiment")
    version = {"weight": 1, "shadow": False, "digest": Ref(model, "digest"), "key": Ref(model, "key")}
    assert found["models"]["sentiment"]["versions"] == {"sentiment": version}


def test_versions_stand_under_their_name():
    found = normalise(API, service(**WHOLE), lambda _: cache())
    assert list(found["models"]) == ["sentiment", "writer", "novelist"]
    writer = found["models"]["writer"]
    assert {model: one["weight"] for model, one in writer["versions"].items()} == {
        "writer-a": 9,
        "writer-b": 1,
    }
    assert writer["newTokens"] == 128
    assert not {"model", "name"} & writer.keys()


def test_adapters_stand_under_their_names_in_the_api_each_by_digest():
    found = normalise(API, service(**WHOLE), lambda _: cache())["models"]
    pirate, sailor = (Address("Model", f"novelist-{name}") for name in ("pirate", "sailor"))
    assert found["novelist"]["adapters"] == {
        "pirate": {"digest": Ref(pirate, "digest"), "key": Ref(pirate, "key")},
        "sailor": {"digest": Ref(sailor, "digest"), "key": Ref(sailor, "key")},
    }
    assert "adapters" not in found["writer"]  # as it was before there were any


def test_a_model_may_have_another_name_in_the_api():
    found = normalise(API, service(models=[{"model": "sentiment", "name": "mood"}]), lambda _: {})
    assert {name: list(served["versions"]) for name, served in found["models"].items()} == {
        "mood": ["sentiment"]
    }


def test_the_cache_policy_is_taken_in():
    asked: list[Address] = []

    def of(address: Address) -> Any:
        asked.append(address)
        return cache(ttl="7m")

    assert normalise(API, service(cache="answers"), of)["cache"]["ttl"] == "7m"
    assert asked == [Address("CachePolicy", "answers")]


def test_what_is_not_there_is_not_owned():
    found = normalise(API, service(), lambda _: {})
    assert not {"cache", "valkey", "limits", "log"} & found.keys()


def test_secrets_stay_leaves():
    found = normalise(API, service(auth=AUTH), lambda _: {})
    assert isinstance(found["auth"]["keys"]["frontend"]["secret"], Secret)
