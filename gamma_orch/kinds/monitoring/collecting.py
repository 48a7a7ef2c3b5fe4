"""What collectors show, as far as it is known before anything runs, and what is wrong with one. Pure; called
through `Kind.check`, and by the checks of rules, which ask for names."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from gamma_orch.app import exposed
from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic
from gamma_orch.core.leaves import Ref, Template
from gamma_orch.core.resource import Resource
from gamma_orch.exporter import contract
from gamma_orch.kinds.monitoring.collector_spec import way_of
from gamma_orch.spec.durations import duration
from gamma_orch.store.figures import NAMES

if TYPE_CHECKING:
    from gamma_orch.targets import Targets

UNUSABLE = "GAM921"  # a collector that the exporter does not take

# Of each job that Prometheus scrapes, and of its rules.
ALWAYS = frozenset(
    (
        "up", "ALERTS", "ALERTS_FOR_STATE", "scrape_duration_seconds", "scrape_samples_scraped",
        "scrape_samples_post_metric_relabeling", "scrape_series_added",
    )
)  # fmt: skip
ITSELF = ("prometheus_", "promhttp_", "go_", "process_", "net_conntrack_")  # it scrapes itself
RECORDED = "slo:"  # by the rules of an SLO
ELSEWHERE: Json = {"home": "/"}  # in the place of a server that is not asked here

All = Mapping[Address, Resource]


@dataclass(frozen=True, slots=True)
class Shown:
    """On one Prometheus."""

    names: frozenset[str]
    whole: bool  # whether that is all there is: nobody shows what is not known before

    def has(self, metric: str) -> bool:
        return metric in self.names or metric.startswith((*ITSELF, RECORDED))


def everywhere(everything: All, resources: Iterable[Resource]) -> dict[str, Shown]:
    """By the names of the servers that these resources are on."""
    names = {resource.spec["prometheus"] for resource in resources}
    return {name: shown(everything, name) for name in names}


def shown(everything: All, prometheus: str) -> Shown:
    names, whole, some = set(ALWAYS), True, False
    for address, resource in everything.items():
        if address.kind == "MetricCollector" and resource.spec["prometheus"] == prometheus:
            some = True
            found = _names(address.name, resource.spec)
            names |= found or frozenset()
            whole = whole and found is not None
    return Shown(frozenset(names), some and whole)


def collectors(resources: Sequence[Resource], everything: All) -> Iterable[Diagnostic]:
    for resource in resources:
        spec = resource.spec
        if spec["scrape"] is not None:
            continue
        try:
            contracted(resource.address.name, spec)
        except ValidationError as error:
            for one in error.errors(include_url=False, include_input=False):
                says = str(one["msg"]).removeprefix("Value error, ")
                yield Diagnostic(
                    UNUSABLE,
                    f"this collector cannot be run: {says}",
                    path=(
                        "spec",
                        *_there(spec, one["loc"]),
                    ),
                    address=resource.address,
                )


def _names(name: str, spec: Json) -> frozenset[str] | None:
    """None: nobody knows."""
    if (scrape := spec["scrape"]) is not None:
        if scrape["metrics"]:
            return frozenset(scrape["metrics"])
        return exposed.SERIES if all(map(_of_a_service, scrape["urls"])) else None
    if (python := spec["python"]) is not None:
        own = frozenset({contract.UP, contract.SECONDS})
        return own | frozenset(python["metrics"]) if python["metrics"] else None
    if spec["reconciler"] is not None:
        return NAMES | {contract.UP, contract.SECONDS}
    try:
        return contract.names(contracted(name, spec))
    except ValidationError:
        return None  # it has a fault of its own


def _of_a_service(url: Json) -> bool:
    parts = url.parts if isinstance(url, Template) else (url,)
    return isinstance(parts[0], Ref) and parts[0].address.kind == "Service"


def contracted(name: str, spec: Json, targets: "Targets | None" = None) -> contract.Collector:
    """The exporter's part. Without `targets`, before anything is applied, something else stands in the place
    of what is not known yet. Raises ValidationError where the exporter would not take it."""
    way = way_of(spec)
    said = {key: value for key, value in spec[way].items() if key != "metrics"}
    if way == "sql":
        server = said.pop("server")
        said["postgres"] = targets.postgres_at(server) if targets else ELSEWHERE
    elif way == "valkey":
        url = said.pop("url", None)
        home = {"home": targets.valkey_home()} if targets else ELSEWHERE
        said["server"] = {"url": url} if url and targets else home
    elif way == "http" and not targets:
        said |= {"url": "http://localhost", "headers": dict.fromkeys(said["headers"], "")}
    elif way == "python" and targets:
        said["path"] = [str(targets.state.parent)]
    elif way == "reconciler":
        way, said = "python", {"function": "gamma_orch.store.figures:figures"}
        if targets:
            said["arguments"] = {"ledger": targets.ledger, "environment": targets.environment}
    timeout = duration(spec["timeout"]).total_seconds()
    return contract.Collector.model_validate(
        {"name": name, "timeout": timeout, "labels": spec["labels"], way: said}
    )


def _there(spec: Json, place: Sequence[str | int]) -> Iterator[str | int]:
    """As much of the place as the spec has."""
    for part in place:
        known = isinstance(spec, Mapping) and part in spec
        if not known and not (isinstance(spec, list) and isinstance(part, int) and part < len(spec)):
            return
        spec = spec[part]
        yield part
