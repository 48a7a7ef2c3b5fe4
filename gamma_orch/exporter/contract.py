"""What a collector is: the file `collectors.d/<name>.json`, and the names of what it shows.

The one contract between whoever declares collectors and the exporter that runs them. Secrets are in the
file, so it has mode 0600; they are in no representation, and in no message about a file that is wrong.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?\Z", max_length=128)]
Metric = Annotated[str, Field(pattern=r"^(?!gamma_collector)[a-zA-Z_:][a-zA-Z0-9_:]*\Z", max_length=128)]
Label = Annotated[str, Field(pattern=r"^(?!__)[a-zA-Z_][a-zA-Z0-9_]*\Z", max_length=128)]

# Of every collector, with the label `collector`.
UP, SECONDS = "gamma_collector_up", "gamma_collector_seconds"
# The others by their names, or the ends of them, with what they tell. Those that end in _total only grow.
PROBE = {
    "success": "1: it answered as it should.",
    "seconds": "From the question to the last byte of the answer.",
    "status": "The status of the answer.",
    "bytes": "Bytes of the body that were read, a million at most.",
    "certificate_expiry_seconds": "When its certificate ends, in seconds since 1970.",
}
HOST = {
    "host_cpu_seconds_total": "Seconds that the processors spent, by mode.",
    "host_cpus": "Processors.",
    "host_load": "Processes that ran or waited, on average.",
    "host_memory_bytes": "Memory.",
    "host_memory_available_bytes": "Memory that programs may still have.",
    "host_swap_used_bytes": "Memory that was moved to the disk.",
    "host_disk_bytes": "Size of the file system.",
    "host_disk_free_bytes": "What is free of it for programs that are not root's.",
    "host_network_received_bytes_total": "Bytes received.",
    "host_network_sent_bytes_total": "Bytes sent.",
    "host_boot_seconds": "When the machine started, in seconds since 1970.",
}
VALKEY = {
    "valkey_up": "1: it answers.",
    "valkey_connected_clients": "Connections of clients.",
    "valkey_used_memory_bytes": "Memory that its data takes.",
    "valkey_max_memory_bytes": "Memory that its data may take. 0: all there is.",
    "valkey_hits_total": "Keys that were looked for and found.",
    "valkey_misses_total": "Keys that were looked for and not there.",
    "valkey_evicted_total": "Keys that were dropped for lack of memory.",
    "valkey_expired_total": "Keys whose time was over.",
    "valkey_commands_total": "Commands.",
    "valkey_keys": "Keys.",
    "valkey_replication_lag_seconds": "Seconds since the other end of a replication was heard.",
}


class Value(BaseModel):
    """Frozen, closed: a field that nobody knows is a mistake, not an extension."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, regex_engine="python-re"
    )


class Server(Value):
    """Exactly one of the two."""

    url: SecretStr | None = None
    home: str | None = None
    """The folder of an embedded server. Its address is read there, and it is never started: a monitor that
    starts what it watches hides that it was down."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.url is None) == (self.home is None):
            raise ValueError("a server has either a url or a home")
        return self

    @property
    def where(self) -> str:
        """For people: nothing that is secret."""
        return place(self.url) if self.url is not None else self.home or ""


class Query(Value):
    """One statement, each of whose rows is a set of labels and some numbers."""

    name: Metric
    """The metrics are `<name>_<column>`; of counters, `<name>_<column>_total`."""
    query: str = Field(min_length=1)
    labels: tuple[Label, ...] = ()
    gauges: tuple[Label, ...] = ()
    counters: tuple[Label, ...] = ()
    """Columns that only grow."""
    help: str = ""

    @model_validator(mode="after")
    def _told(self) -> Self:
        if not (self.gauges or self.counters):
            raise ValueError("a query shows at least one column, as a gauge or a counter")
        if twice := _twice((*self.labels, *self.gauges, *self.counters)):
            raise ValueError(f"the column {twice} is named twice")
        return self

    def metrics(self) -> Iterator[tuple[str, str]]:
        """The name of each, and the column that it comes from."""
        for column in self.gauges:
            yield f"{self.name}_{column}", column
        for column in self.counters:
            yield f"{self.name}_{column.removesuffix('_total')}_total", column


class Sql(Value):
    """The rows of queries on a PostgreSQL server. Each runs in a transaction that can write nothing."""

    postgres: Server
    database: str = ""
    """Default: that of the URL, or `postgres`."""
    queries: tuple[Query, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _clear(self) -> Self:
        _check(self.postgres.url, "postgresql", "postgres")
        if twice := _twice([name for query in self.queries for name, _ in query.metrics()]):
            raise ValueError(f"two queries show {twice}")
        return self


class Http(Value):
    """A request, and whether its answer is as it should be. Redirections are not followed."""

    url: SecretStr
    """It is shown as a label without user, password and query; its path is in it."""
    method: Annotated[str, Field(pattern=r"^[A-Z]+\Z")] = "GET"
    headers: Mapping[str, SecretStr] = Field(default_factory=dict)
    status: tuple[Annotated[int, Field(ge=100, le=599)], ...] = ()
    """Those that are as they should be. None is named: 200 to 299."""
    contains: str = ""
    """What has to be in the first million bytes of the body."""
    name: Metric = "probe"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        _check(self.url, "http", "https")
        if not urlsplit(self.url.get_secret_value()).hostname:
            raise ValueError("the URL names no host")
        return self


class Host(Value):
    """The machine that the exporter runs on."""

    disks: tuple[str, ...] = ("/",)
    """Paths; each stands for the file system that it is on."""
    interfaces: tuple[str, ...] = ()
    """Default: all but `lo`."""


class Valkey(Value):
    """What a Valkey (or Redis) says by INFO."""

    server: Server

    @model_validator(mode="after")
    def _known(self) -> Self:
        _check(self.server.url, "redis", "rediss", "unix")
        return self


class Python(Value):
    """A function, called in a process of its own. It gives families of prometheus_client's, or tuples
    (name, value) and (name, value, {label: text}), which are gauges."""

    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")]
    """As `module:name`."""
    arguments: Mapping[str, JsonValue] = Field(default_factory=dict, repr=False)
    path: tuple[str, ...] = ()
    """Folders where its modules are looked for first."""


Part = Sql | Http | Host | Valkey | Python


class Collector(Value):
    """Exactly one of `sql`, `http`, `host`, `valkey` and `python`."""

    name: Name
    timeout: float = Field(default=5.0, gt=0, le=600)
    """Seconds; then what there is by then is shown."""
    labels: Mapping[Label, str] = Field(default_factory=dict)
    """On all its series."""
    sql: Sql | None = None
    http: Http | None = None
    host: Host | None = None
    valkey: Valkey | None = None
    python: Python | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self._parts()) != 1:
            raise ValueError("a collector has exactly one of sql, http, host, valkey and python")
        if both := sorted(set(self.labels) & {"collector", *_labels(self.part)}):
            raise ValueError(f"the label {both[0]} is one that its series have already")
        return self

    @property
    def part(self) -> Part:
        return self._parts()[0]

    def encoded(self) -> str:
        """The file. Secrets are in it."""
        return json.dumps(self.model_dump(exclude_defaults=True), default=SecretStr.get_secret_value)

    def _parts(self) -> list[Part]:
        parts = (self.sql, self.http, self.host, self.valkey, self.python)
        return [part for part in parts if part is not None]


def names(collector: Collector) -> frozenset[str]:
    """Of the series that it shows, as far as they are known without running it."""
    known: set[str] = set()
    match collector.part:
        case Sql(queries=queries):
            known = {name for query in queries for name, _ in query.metrics()}
        case Http(name=name):
            known = {f"{name}_{end}" for end in PROBE}
        case Host():
            known = set(HOST)
        case Valkey():
            known = set(VALKEY)
    return frozenset({UP, SECONDS, *known})


def is_open(collector: Collector) -> bool:
    """Whether it shows what nobody knows without running it."""
    return collector.python is not None


def place(url: SecretStr) -> str:
    """Of a URL what is no secret: without user, password and query."""
    parts = urlsplit(url.get_secret_value())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _labels(part: Part) -> set[str]:
    match part:
        case Sql(queries=queries):
            return {label for query in queries for label in query.labels}
        case Http():
            return {"url"}
        case Host():
            return {"mode", "over", "path", "interface"}
        case Valkey():
            return {"db", "peer"}
        case Python():
            return set()


def _check(url: SecretStr | None, *schemes: str) -> None:
    if url is None:
        return
    try:
        parts = urlsplit(url.get_secret_value())
        fine = parts.scheme in schemes and (parts.port is None or parts.port > 0)
    except ValueError:  # its words have the URL in them
        fine = False
    if not fine:
        raise ValueError(f"the URL is none that begins with {' or '.join(f'{one}://' for one in schemes)}")


def _twice(words: Sequence[str]) -> str:
    return next((word for word in words if words.count(word) > 1), "")
