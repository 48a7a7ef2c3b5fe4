"""What a spec of a Service says, and the fields that come of it. Pure; `service` has the effects."""

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Of
from gamma_orch.core.leaves import Ref
from gamma_orch.kinds.serving.auth_spec import Auth
from gamma_orch.kinds.serving.bounds import (
    NAME,
    ApiName,
    Body,
    Drain,
    LimitedRoute,
    ModelName,
    Network,
    Place,
    Rate,
    SomeTime,
    Time,
)
from gamma_orch.spec.model import Item, Names
from gamma_orch.spec.quantities import Share
from gamma_orch.spec.urls import url
from gamma_orch.spec.written_out import WrittenOut


class Version(WrittenOut):
    model: ModelName
    """The Model whose artifact answers."""
    weight: int = Field(default=1, ge=0, le=1000)
    """Its share of the traffic, beside the others' weights."""
    shadow: bool = False
    """It gets a copy of the traffic; its answers are compared and thrown away."""


class Served(WrittenOut):
    model: ModelName | None = None
    """The Model that answers, under its own name."""
    name: ApiName | None = None
    """The name in the API. Default: that of `model`."""
    versions: list[Version] = Field(default_factory=list)
    """Several Models behind one name, by weight: a canary, a shadow."""
    adapters: dict[ApiName, ModelName] = Field(default_factory=dict)
    """LoRA adapters of `model`, by the names that requests say: Models of the same source with `finetune:
    {keep: adapter}`. `model` itself is neither fine-tuned nor optimized."""
    cached: bool = True
    """Whether answers are kept. Never those of a generator that draws."""
    batch: int = Field(default=16, ge=1, le=1024)
    """Texts that run together, at most."""
    queue: int = Field(default=512, ge=1, le=1_000_000)
    """Texts that wait, at most. Beyond them: 503."""
    threads: int = Field(default=1, ge=1, le=256)
    """Threads of one run."""
    deadline: SomeTime = "10s"
    """How long a request may wait and run. Beyond it: 504."""
    texts: int = Field(default=64, ge=1, le=100_000)
    """Texts of one request, at most."""
    characters: int = Field(default=20_000, ge=1)
    """Characters of one text, at most."""
    new_tokens: int = Field(default=512, ge=1, alias="newTokens")
    """Tokens that a request may ask a generator for, at most."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.model is None) == (not self.versions):
            raise ValueError("say which `model` answers, or several in `versions`")
        if self.versions and self.name is None:
            raise ValueError("several versions need a `name` in the API")
        if self.versions and not any(one.weight and not one.shadow for one in self.versions):
            raise ValueError("no version answers: each is a shadow or has the weight 0")
        models = [one.model for one in self.versions]
        if twice := sorted({model for model in models if models.count(model) > 1}):
            raise ValueError(f"{', '.join(twice)} is there twice; give one of them the weight of both")
        if self.adapters and self.versions:
            raise ValueError("adapters go with one `model`, not with `versions`: they fit no other weights")
        if self.name is None and not re.fullmatch(NAME, str(self.model)):
            raise ValueError(f"{self.model!r} cannot be a name in the API: say a `name`, without _")
        return self


class RateLimit(WrittenOut):
    by: Literal["principal", "tenant", "address", "route", "everyone"]
    """What has a count of its own."""
    rate: Rate
    """How many: 100/s, 600/min, 5000/day."""
    burst: int | None = Field(default=None, ge=1)
    """How many at once. Default: the number of the rate."""
    routes: list[LimitedRoute] = Field(default_factory=list)
    """Routes (predict, chat, ...), or of those with the model in their path one model (predict:sentiment),
    that it holds for. Default: all."""
    counts: Literal["requests", "tokens"] = "requests"
    """What is counted."""
    without: Literal["local", "open", "closed"] = "local"
    """While Valkey does not answer: each worker counts for itself, all may pass, or none."""


class Listen(WrittenOut):
    host: str = Field(default="127.0.0.1", pattern=r"^[A-Za-z0-9.-]+$")
    """The address. Anything but 127.0.0.1 is reached from elsewhere."""
    port: int = Field(default=8000, ge=1, le=65_535)
    """The port."""
    trusted: list[Network] = Field(default_factory=list)
    """Networks of proxies whose X-Forwarded-For is believed."""
    origins: list[str] = Field(default_factory=list)
    """Origins whose pages may open /v1/live, beside the API's own."""


class Proxy(WrittenOut):
    engine: Literal["nginx"] = "nginx"
    """What has the port. It must be on this machine: apt-get install nginx-light."""
    others: list[Place] = Field(default_factory=list)
    """Replicas on other machines, as host:port. They count this machine to their `listen.trusted`."""
    connections: int = Field(default=4096, ge=64, le=1_000_000)
    """Connections that each worker of nginx has, to clients and to replicas, at most."""


class Ray(WrittenOut):
    REFERS: ClassVar[frozenset[str]] = frozenset({"url"})

    url: Any = "http://127.0.0.1:8265"
    """The dashboard of a Ray cluster that runs. With a user and password it is a secret."""
    route: str = Field(default="/", pattern=r"^/([A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*)?$")
    """The prefix of the path under which it answers: each Service of one cluster has another."""
    cpus: float = Field(default=1.0, ge=0, le=1024)
    """Processors that Ray sets aside for each worker."""

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: Any) -> Any:
        return url("http", "https")(value)


class Log(WrittenOut):
    REFERS: ClassVar[frozenset[str]] = frozenset({"database"})

    database: Any
    """The URL of the database: a secret, or postgresql://user:${secret.name}@${Database/app.host}/app."""
    schema_: str = Field(default="public", alias="schema", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")
    """The schema of its tables, gamma_requests, gamma_predictions and gamma_security_events, which are made
    where missing."""
    requests: bool = True
    """A row for each request."""
    predictions: Literal["none", "digests", "texts"] = "digests"
    """What is kept of inputs and answers: nothing, their sha256, or the texts (encrypted)."""

    _is_url = field_validator("database")(url("postgresql", "postgres"))


class Traces(WrittenOut):
    endpoint: str
    """Where a collector takes OTLP over HTTP: http://127.0.0.1:4318/v1/traces."""
    sample: Share = "100%"
    """The share of the requests."""

    _is_url = field_validator("endpoint")(url("http", "https"))


class Rollout(WrittenOut):
    watch: Time = "2s"
    """How long the first worker is watched with a new bundle before the others get it."""


RAY: Json = Ray().model_dump()


class ServiceSpec(WrittenOut):
    REFERS: ClassVar[frozenset[str]] = frozenset({"valkey"})

    models: list[Served] = Field(default_factory=list)
    """What is served."""
    engine: Literal["supervised", "ray"] = "supervised"
    """What runs the workers: supervisord on this machine, or Ray Serve on a cluster that runs."""
    ray: Ray | None = None
    """The cluster, with `engine: ray`. Default: the one on this machine."""
    listen: Listen = Listen()
    """Where. With `engine: ray` that is where Ray Serve listens, for all applications of the cluster."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes of each replica; on Ray Serve the replicas. Each has its own copy of the models."""
    replicas: int = Field(default=1, ge=1, le=32)
    """How many times the workers run on this machine, each time behind a socket of their own. More than one
    needs a `proxy`."""
    proxy: Proxy | None = None
    """What shares requests out to replicas. Default: nothing stands before the workers."""
    cache: Annotated[str, Names("CachePolicy")] | None = None
    """The CachePolicy of its answers. Default: none are kept."""
    valkey: Any = None
    """The URL of Valkey or Redis, as a text or ${secret.name}. Default: an embedded one."""
    limits: dict[ApiName, RateLimit] = Field(default_factory=dict)
    """How often."""
    auth: Auth = Auth()
    """Who may do what. What is not allowed here is refused."""
    log: Log | None = None
    """The request log, in PostgreSQL. Default: none."""
    traces: Traces | None = None
    """Spans of OpenTelemetry, for each request. Default: none."""
    body: Body = "1MB"
    """The largest request."""
    rollout: Rollout = Rollout()
    """How a new bundle is taken."""
    drain: Drain = "10s"
    """How long a worker that stops waits for its requests."""

    @field_validator("valkey")
    @classmethod
    def _is_url(cls, value: Any) -> Any:
        return value if value is None else url("redis", "rediss", "unix")(value)

    @model_validator(mode="after")
    def _one_engine(self) -> Self:
        if self.ray is not None and self.engine != "ray":
            raise ValueError("`ray` says where `engine: ray` runs; write both, or neither")
        return self

    @field_validator("models")
    @classmethod
    def _once(cls, value: list[Item[Served]]) -> list[Served]:
        names = [one.name or one.model for one in value]
        if twice := sorted({str(name) for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} is served twice")
        return value


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    """The spec with each model's artifact by digest, and the cache policy written out. What is served and its
    versions and adapters are maps, so that a plan says of which the digest changes or is not known yet."""
    fields: dict[str, Any] = {key: value for key, value in spec.items() if value not in (None, [], {})}
    if spec["proxy"] is None:
        fields.pop("replicas", None)  # it says nothing
    if spec["engine"] == "ray":
        fields["ray"] = spec["ray"] or RAY
    else:
        fields.pop("engine")
    fields["models"] = {_name(one): _served(one) for one in spec["models"]}
    if spec["cache"]:
        fields["cache"] = dict(of(Address("CachePolicy", spec["cache"])))
    return fields


def _name(served: Json) -> str:
    return str(served["name"] or served["model"])


def _served(served: Json) -> Json:
    versions = served["versions"] or [{"model": served["model"], "weight": 1, "shadow": False}]
    limits = {key: served[key] for key in served if key not in ("model", "name", "versions", "adapters")}
    fields = {**limits, "versions": {one["model"]: _version(one) for one in versions}}
    if served["adapters"]:
        fields["adapters"] = {name: _artifact(model) for name, model in served["adapters"].items()}
    return fields


def _version(said: Json) -> Json:
    return {"weight": said["weight"], "shadow": said["shadow"], **_artifact(said["model"])}


def _artifact(model: str) -> dict[str, Json]:
    address = Address("Model", model)
    return {"digest": Ref(address, "digest"), "key": Ref(address, "key")}
