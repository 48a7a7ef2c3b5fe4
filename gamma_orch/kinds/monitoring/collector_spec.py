"""What a spec of a MetricCollector says: one of seven ways in which figures are come by. Pure."""

from datetime import timedelta
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from gamma_orch.core.canonical import Json
from gamma_orch.kinds.monitoring.rule_spec import LabelName
from gamma_orch.spec.durations import Duration
from gamma_orch.spec.urls import url
from gamma_orch.spec.written_out import WrittenOut

MetricName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")]
Column = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]


class Scrape(WrittenOut):
    REFERS: ClassVar[frozenset[str]] = frozenset({"urls", "bearer"})

    urls: list[Any] = Field(min_length=1)
    """Where programs show their metrics: "${Service/api.url}/metrics"."""
    bearer: Any = None
    """The token that they ask for: a secret."""
    metrics: list[MetricName] = Field(default_factory=list)
    """The names of their series, where they are all known: rules are held to them then. Of a Service they are
    known without."""

    @field_validator("urls")
    @classmethod
    def _are_urls(cls, value: list[Any]) -> list[Any]:
        return [url("http", "https")(one) for one in value]


class Query(WrittenOut):
    name: MetricName
    """What its metrics begin with: `pg_database` has a column `size_bytes` as pg_database_size_bytes."""
    query: str = Field(min_length=1)
    """What is asked, in a transaction that only reads: a row for each series."""
    labels: list[Column] = Field(default_factory=list)
    """The columns that tell series apart."""
    gauges: list[Column] = Field(default_factory=list)
    """The columns with a value that goes up and down."""
    counters: list[Column] = Field(default_factory=list)
    """The columns with a value that only grows; `_total` is added to their names."""
    help: str = ""
    """What it says, for people."""

    @model_validator(mode="after")
    def _some_value(self) -> Self:
        if not self.gauges and not self.counters:
            raise ValueError("a query has at least one column in `gauges` or `counters`")
        columns = [*self.labels, *self.gauges, *self.counters]
        if twice := sorted({one for one in columns if columns.count(one) > 1}):
            raise ValueError(f"the column {twice[0]} is named twice")
        return self


class Sql(WrittenOut):
    server: str = "main"
    """The target: the name of a PostgreSQL server in environment.yaml."""
    database: str = ""
    """Default: the one that every server has."""
    queries: list[Query] = Field(min_length=1)
    """Each is asked on one connection, one after the other."""

    @field_validator("queries")
    @classmethod
    def _names_differ(cls, value: list[Query]) -> list[Query]:
        names = [one.name for one in value]
        if twice := sorted({one for one in names if names.count(one) > 1}):
            raise ValueError(f"two queries are named {twice[0]}")
        return value


class Http(WrittenOut):
    REFERS: ClassVar[frozenset[str]] = frozenset({"url", "headers"})

    url: Any
    """What is asked for."""
    method: str = Field(default="GET", pattern="^(GET|HEAD|POST|OPTIONS)$")
    headers: dict[str, Any] = Field(default_factory=dict)
    """Values may be secrets."""
    status: list[int] = Field(default_factory=list)
    """The answers that are well. Default: all from 200 to 299."""
    contains: str = ""
    """A text that a good answer has in it."""

    _is_url = field_validator("url")(url("http", "https"))


class Host(WrittenOut):
    disks: list[str] = Field(default_factory=lambda: ["/"])
    """A path on each file system that is looked at."""
    interfaces: list[str] = Field(default_factory=list)
    """Default: all but the loopback."""


class Valkey(WrittenOut):
    REFERS: ClassVar[frozenset[str]] = frozenset({"url"})

    url: Any = None
    """redis://..., with its password from a secret. Default: the one that Gamma runs for caches."""

    _is_url = field_validator("url")(lambda value: value if value is None else url("redis", "rediss")(value))


class Python(WrittenOut):
    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """module:function, from the project's folder or installed. It yields metrics of prometheus-client,
    or (name, value) and (name, value, labels). It runs in a process of its own, which is killed where it is
    late."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """What it is called with."""
    metrics: list[MetricName] = Field(default_factory=list)
    """The names of its series, where they are all known: rules are held to them then."""


class Reconciler(WrittenOut):
    """Gamma's own ledger: what is managed, what fails, what happened and when."""


class MetricCollectorSpec(WrittenOut):
    prometheus: str = "prometheus"
    """The target: the name of a Prometheus in environment.yaml."""
    every: Duration = timedelta(seconds=15)
    """How often."""
    timeout: Duration = timedelta(seconds=5)
    """After which it is late, and has no figures this time."""
    labels: dict[LabelName, str] = Field(default_factory=dict)
    """More labels of each of its series."""
    scrape: Scrape | None = None
    """Programs that show metrics themselves."""
    sql: Sql | None = None
    """Questions to a PostgreSQL server."""
    http: Http | None = None
    """Whether a page answers, how, and how fast."""
    host: Host | None = None
    """Processor, memory, disks and network of this machine."""
    valkey: Valkey | None = None
    """What a Valkey or Redis tells of itself."""
    python: Python | None = None
    """A function of yours."""
    reconciler: Reconciler | None = None
    """How Gamma itself is doing in this environment: what it manages, what fails, what happened."""

    @field_validator("labels")
    @classmethod
    def _not_ours(cls, value: dict[str, str]) -> dict[str, str]:
        if taken := sorted({"job", "instance", "collector"} & set(value)):
            raise ValueError(f"{', '.join(taken)} is set by the collector itself")
        return value

    @model_validator(mode="after")
    def _one(self) -> Self:
        self.one_of("a collector has", WAYS)
        if not timedelta(0) < self.timeout <= self.every:
            raise ValueError("`timeout` is longer than none, and not longer than `every`")
        return self


WAYS = ("scrape", "sql", "http", "host", "valkey", "python", "reconciler")


def way_of(spec: Json) -> str:
    """That of a spec, or of fields."""
    return next(way for way in WAYS if spec.get(way) is not None)
