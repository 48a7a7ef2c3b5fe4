"""Specs of this family as the language gives them, and the fields of a service, for tests of what is pure."""

from collections.abc import Mapping
from typing import Any

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.core.leaves import Ref, Secret, replace_leaves
from gamma_orch.core.resource import Resource
from gamma_orch.kinds.serving.cache_policy import CachePolicySpec
from gamma_orch.kinds.serving.scaling_policy import ScalingPolicySpec
from gamma_orch.kinds.serving.service_spec import ServiceSpec, normalise
from gamma_orch.spec.references import plain

API = Address("Service", "api")
ANSWERS = Address("CachePolicy", "answers")
SECRETS: Mapping[str, str] = {
    "frontend-key": "gk_frontend_0123456789abcdef",
    "operator-key": "gk_operator_0123456789abcdef",
    "anna-password": "correct horse battery staple",
    "partner": "partner-secret-of-more-than-32-bytes",
    "database": "postgresql://log:d4tabase-password@db.internal/log",
    "valkey": "redis://app:v4lkey-password@valkey.internal:6379/0",
    "tokens": "tokens-secret-of-more-than-32-bytes",
    "columns": "Y29sdW1ucy1zZWNyZXQtb2YtMzItYnl0ZXMtaW4tYjY=",
}


def secret(name: str, digest: str = "d1") -> Secret:
    return Secret(name, digest)


AUTH: Mapping[str, Any] = {
    "roles": {"caller": ["models", "predict"], "operator": ["models", "metrics", "live"]},
    "keys": {"frontend": {"secret": secret("frontend-key"), "roles": ["caller"], "tenant": "shop"}},
}
# One of everything.
WHOLE: Mapping[str, Any] = {
    "models": [
        {"model": "sentiment", "batch": 8, "deadline": "2s"},
        {
            "name": "writer",
            "versions": [{"model": "writer-a", "weight": 9}, {"model": "writer-b"}],
            "cached": False,
            "newTokens": 128,
        },
        {"model": "novelist", "adapters": {"pirate": "novelist-pirate", "sailor": "novelist-sailor"}},
    ],
    "listen": {"port": 8443, "trusted": ["10.0.0.0/8"], "origins": ["https://app.example"]},
    "workers": 3,
    "cache": "answers",
    "valkey": secret("valkey"),
    "limits": {
        "each": {"by": "principal", "rate": "600/min", "burst": 50},
        "tokens": {"by": "tenant", "rate": "5000/day", "counts": "tokens", "routes": ["chat"]},
        "logins": {"by": "address", "rate": "10/min", "routes": ["token"], "without": "closed"},
    },
    "auth": {
        **AUTH,
        "users": {"anna": {"password": secret("anna-password"), "roles": ["operator", "caller"]}},
        "issuers": [
            {
                "issuer": "https://id.partner.example",
                "audience": "api",
                "algorithms": ["HS256"],
                "secret": secret("partner"),
            },
            {
                "issuer": "https://id.example",
                "audience": "api",
                "algorithms": ["EdDSA"],
                "keys": [
                    {
                        "kty": "OKP",
                        "crv": "Ed25519",
                        "kid": "2026",
                        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                    }
                ],
                "roles": "groups",
            },
        ],
        "anonymous": ["caller"],
        "token": "5m",
        "revoked": ["7c0b"],
    },
    "log": {"database": secret("database"), "schema": "logs", "predictions": "texts"},
    "traces": {"endpoint": "http://127.0.0.1:4318/v1/traces", "sample": "5%"},
    "body": "2MB",
    "drain": "20s",
}


def service(**changed: Any) -> Json:
    """The spec of a service, validated, with its defaults."""
    return plain(ServiceSpec.model_validate({"models": [{"model": "sentiment"}], **changed}, by_alias=True))


def cache(**changed: Any) -> Json:
    return plain(CachePolicySpec.model_validate(changed, by_alias=True))


def scaling(**changed: Any) -> Json:
    given = {"service": "api", "max": 4, "target": {"cpu": "70%"}, **changed}
    return plain(ScalingPolicySpec.model_validate(given, by_alias=True))


def fields(spec: Json, policy: Json = None) -> Fields:
    """The fields of a service, its models resolved: each artifact's digest and key come of its name."""
    found: Fields = replace_leaves(normalise(API, spec, lambda _: policy or cache()), _value)
    return found


def revealed(tree: Json, secrets: Mapping[str, str] = SECRETS) -> Json:
    return replace_leaves(tree, lambda leaf: secrets[leaf.name])


def _value(leaf: Any) -> Json:
    if not isinstance(leaf, Ref):
        return leaf
    letter = "d" if leaf.output == "digest" else "c"
    return (leaf.address.name.encode().hex() + letter * 64)[:64]


def everything(**specs: Json) -> dict[Address, Resource]:
    """Resources by `Kind__name`."""
    found = {}
    for name, spec in specs.items():
        at = Address(*name.split("__"))
        found[at] = Resource(at, spec)
    return found
