"""The bundle: everything that decides how a worker answers, as one immutable value with one digest.

The one contract between the Service kind, which compiles bundles from specs, and the app, which runs them.
A worker is given a bundle as JSON; what does not fit this schema is refused, and the old bundle stays.
Secrets are not in it: `secrets` names those that it needs, each with a keyed digest, so that a rotated
secret is another bundle; the bytes come to the worker in a file of its own (`Secrets`).

`process` is what cannot be changed while a process runs; everything else is swapped between two requests.
"""

import hashlib
import json
import operator
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Task = Literal[
    "text-classification", "token-classification", "embeddings", "text-generation", "summarization"
]
Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=128)]
Seconds = Annotated[float, Field(ge=0, le=86_400 * 366)]


class Value(BaseModel):
    """Frozen, closed: a field that nobody knows is a mistake, not an extension."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Version(Value):
    """One artifact of a model."""

    digest: Hex
    folder: str
    """Where it lies on this machine."""
    files: Mapping[str, Hex]
    """The sha256 of each file: checked before it is loaded."""
    weight: int = Field(default=1, ge=0, le=1000)
    """Its share of the traffic, beside the weights of the others. A shadow has none."""
    shadow: bool = False
    """It gets a copy of the traffic, and its answers are compared and thrown away."""
    threads: int = Field(default=1, ge=1, le=256)


class Adapter(Value):
    """Small matrices, and a classifier's head, that a request may have put on a model's weights."""

    digest: Hex
    """Of its content, which names the weights that it goes with: so it is the digest of what answers."""
    folder: str
    files: Mapping[str, Hex]


class Model(Value):
    task: Task
    versions: tuple[Version, ...] = Field(min_length=1)
    adapters: Mapping[Name, Adapter] = Field(default_factory=dict, exclude_if=operator.not_)
    """By the names that requests say. Left out where there are none, as in the bundles of before."""
    batch: int = Field(default=16, ge=1, le=1024)
    """Texts that run together, at most."""
    queue: int = Field(default=512, ge=1, le=1_000_000)
    """Texts that wait, at most: beyond them a request is answered 503 with Retry-After."""
    deadline: Seconds = 10.0
    """Seconds after which a waiting request is given up: 504."""
    texts: int = Field(default=64, ge=1, le=100_000)
    """Texts of one request, at most."""
    characters: int = Field(default=20_000, ge=1)
    """Characters of one text, at most."""
    new_tokens: int = Field(default=512, ge=1)
    """Tokens that a request may ask to have written, at most."""
    cached: bool = True

    @model_validator(mode="after")
    def _answers(self) -> Self:
        if not any(version.weight and not version.shadow for version in self.versions):
            raise ValueError("no version of the model answers: each is a shadow or has the weight 0")
        if self.adapters and len(self.versions) > 1:
            raise ValueError("adapters go with one version: they fit no other weights")
        return self


class Cache(Value):
    """Of answers, by the digest of the model: another model never answers from it."""

    entries: int = Field(default=10_000, ge=0)
    """Answers that each worker keeps, at most. 0: none."""
    megabytes: int = Field(default=64, ge=0)
    """And their bytes."""
    ttl: Seconds = 300.0
    stale: Seconds = 0.0
    """So long after its end an answer is still given, while it is made anew behind it."""
    negative: Seconds = 0.0
    """How long a refusal of the model (422) is remembered."""
    jitter: float = Field(default=0.1, ge=0, le=0.5)
    """The share by which lives differ, so that answers of one moment do not all end in one moment."""
    tenants: bool = False
    """Each tenant has answers of its own."""
    shared: bool = True
    """Workers share answers through Valkey, where the bundle has one."""


class Limit(Value):
    """How often: `rate` requests (or tokens) in `per` seconds, and `burst` at once. Exact (GCRA)."""

    name: Name
    by: Literal["principal", "tenant", "address", "route", "everyone"]
    rate: int = Field(ge=1)
    per: Seconds = Field(default=1.0, gt=0)
    burst: int | None = Field(default=None, ge=1)
    """Default: the rate."""
    routes: tuple[str, ...] = ()
    """Names of routes (`predict`, `chat`) and of models (`predict:sentiment`). Default: all."""
    counts: Literal["requests", "tokens"] = "requests"
    without: Literal["local", "open", "closed"] = "local"
    """When Valkey does not answer: each worker counts for itself, all may pass, or none."""


class ApiKey(Value):
    """A principal with a key. The key itself is nowhere: only its sha256."""

    name: Name
    sha256: Hex
    scopes: tuple[str, ...]
    tenant: str = ""


class User(Value):
    """A principal with a password, which `POST /v1/token` exchanges for a token that lives shortly."""

    name: Name
    hash: str = Field(pattern=r"^\$(argon2id|2[aby])\$")
    scopes: tuple[str, ...]
    tenant: str = ""


class Issuer(Value):
    """Whose tokens are taken. Exactly one of `secret` and `jwks`."""

    issuer: str = Field(min_length=1)
    audience: str = Field(min_length=1)
    algorithms: tuple[Algorithm, ...] = Field(min_length=1)
    secret: str | None = None
    """Name of the secret that HS256 tokens are signed with: at least 32 bytes."""
    jwks: Mapping[str, object] | None = None
    """The public keys, each with its `kid`."""
    roles: str = "roles"
    """The claim that names roles."""
    tenant: str = "tenant"
    """The claim that names the tenant."""
    leeway: Seconds = 10.0

    @model_validator(mode="after")
    def _one_kind_of_key(self) -> Self:
        if (self.secret is None) == (self.jwks is None):
            raise ValueError("an issuer has either a `secret` or `jwks`")
        if self.secret is not None and self.algorithms != ("HS256",):
            raise ValueError("a secret goes with HS256 alone: a public key must never be taken for a secret")
        if self.jwks is not None and "HS256" in self.algorithms:
            raise ValueError(
                "public keys do not go with HS256: a public key must never be taken for a secret"
            )
        return self


class Auth(Value):
    keys: tuple[ApiKey, ...] = ()
    users: tuple[User, ...] = ()
    issuers: tuple[Issuer, ...] = ()
    roles: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """What a role that a token names may do."""
    anonymous: tuple[str, ...] = ()
    """What one may do who says nothing. Default: nothing."""
    token: Seconds = Field(default=900.0, gt=0)
    """Life of a token that `POST /v1/token` gives; it is signed with the secret `tokens`."""
    revoked: tuple[str, ...] = ()
    """`jti` of tokens that are taken no more."""


class Log(Value):
    """The request log and the predictions, to PostgreSQL."""

    requests: bool = False
    predictions: Literal["none", "digests", "texts"] = "none"
    """Whether inputs and answers are kept too: as their sha256, or as they are (encrypted)."""
    tables: str = Field(default="public", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")
    """The schema that its tables are in."""
    batch: int = Field(default=500, ge=1)
    every: Seconds = Field(default=1.0, gt=0)
    waiting: int = Field(default=10_000, ge=1)
    """Rows that wait in a worker, at most: beyond them they are counted and dropped."""


class Live(Value):
    """The stream of metrics and events at /v1/live."""

    every: Seconds = Field(default=1.0, gt=0)
    waiting: int = Field(default=64, ge=1)
    """Messages that wait for one client, at most: a slower one is closed."""
    clients: int = Field(default=20_000, ge=1)


class Traces(Value):
    """Spans, by OTLP over HTTP."""

    endpoint: str = ""
    """Where the collector takes them: http://127.0.0.1:4318/v1/traces. Default: there are none."""
    sample: float = Field(default=1.0, ge=0, le=1)
    """The share of the requests."""


class Process(Value):
    """What a running process cannot change: a difference here restarts the workers, one by one."""

    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65_535)
    workers: int = Field(default=1, ge=1, le=256)
    code: str = ""
    """The version of the app."""
    body: int = Field(default=1_000_000, ge=1)
    """Bytes of a request, at most."""
    keep_alive: Seconds = 75.0
    drain: Seconds = 10.0
    """How long a worker that stops waits for its requests and connections."""
    trusted: tuple[str, ...] = ()
    """Networks of proxies whose X-Forwarded-For is believed. `unix`: who comes by the worker's own socket."""
    origins: tuple[str, ...] = ()
    """Origins whose pages may open a WebSocket, beside the API's own."""


class Bundle(Value):
    version: Literal[1] = 1
    """Another one where a bundle of before cannot be read any more."""
    service: Name
    models: Mapping[Name, Model] = Field(default_factory=dict)
    cache: Cache = Cache()
    limits: tuple[Limit, ...] = ()
    auth: Auth = Auth()
    log: Log = Log()
    live: Live = Live()
    traces: Traces = Traces()
    process: Process
    secrets: Mapping[str, str] = Field(default_factory=dict)
    """Keyed digest of each secret that is needed: `cache` (the URL of Valkey), `database` (of PostgreSQL),
    `tokens`, `columns` (Fernet keys, the newest first), and those that issuers name."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for kind, names in (
            ("keys", [key.name for key in self.auth.keys]),
            ("users", [user.name for user in self.auth.users]),
            ("limits", [limit.name for limit in self.limits]),
        ):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{kind}: {', '.join(twice)} is there twice")
        if missing := sorted(set(self._needed()) - self.secrets.keys()):
            raise ValueError(f"secrets: {', '.join(missing)} is needed and not named")
        return self

    def _needed(self) -> Iterator[str]:
        yield from (issuer.secret for issuer in self.auth.issuers if issuer.secret is not None)
        if self.auth.users:
            yield "tokens"
        if self.log.requests or self.log.predictions != "none":
            yield "database"
        if self.log.predictions == "texts":
            yield "columns"

    def encoded(self) -> str:
        """Canonical JSON: the same bundle, the same text."""
        body = self.model_dump(mode="json")
        return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.encoded().encode()).hexdigest()

    @classmethod
    def decoded(cls, text: str | bytes) -> Self:
        """Raises pydantic.ValidationError, with every fault."""
        return cls.model_validate_json(text)


class Secrets(Value):
    """The bytes of the secrets that a bundle names: a file of mode 0600 beside it, which workers read."""

    values: Mapping[str, str] = Field(default_factory=dict, repr=False)
