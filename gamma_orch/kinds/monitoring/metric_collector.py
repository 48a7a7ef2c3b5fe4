"""The kind MetricCollector: where figures come from. Each is a job of a Prometheus; what shows no metrics
itself is collected by the environment's exporter, whose page for it that job scrapes.

What is compared: of the job what Prometheus says that it runs, of the exporter's part what the exporter says
that it has. Beside a job lies the file of its fields, for Prometheus tells no origin. A collector whose
source is down is as it should be: that is what alerts are for.
"""

import asyncio
import hashlib
from typing import Any
from urllib.parse import urlsplit

from gamma_orch.app import code
from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Of, Traits
from gamma_orch.core.leaves import encode
from gamma_orch.core.observation import Observation, Seen
from gamma_orch.core.provider import ProviderError, Task
from gamma_orch.kinds.monitoring import collecting
from gamma_orch.kinds.monitoring.collector_spec import WAYS, MetricCollectorSpec
from gamma_orch.kinds.monitoring.groups import target
from gamma_orch.kinds.monitoring.on_server import ServerProvider
from gamma_orch.kinds.monitoring.parts import within
from gamma_orch.spec.durations import duration, written_duration
from gamma_orch.spec.kind import Kind
from gamma_orch.targets import Targets
from gamma_orch.targets.prometheus import Prometheus

PARTS = ("exporter", "targets")  # whose code the exporter runs


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    """What is known of names says nothing to what runs."""
    fields = {name: value for name, value in spec.items() if value is not None}
    for way in WAYS:
        if way in fields:
            fields[way] = {name: value for name, value in fields[way].items() if name != "metrics"}
    return fields


class MetricCollectorProvider(ServerProvider[Prometheus]):
    KIND = "MetricCollector"
    PLACE = "prometheus"

    def __init__(self, targets: Targets) -> None:
        super().__init__(targets)
        self._mark = f"gamma:{targets.environment}:"

    async def apply(self, task: Task) -> None:
        """Raises Temporary, or Permanent where Prometheus refuses the job; then it runs what it ran."""
        name, exporter = task.address.name, self._targets.exporter()
        fields = task.reveal(dict(task.fields))
        if "scrape" in fields:
            await self._have(task, self._content(task, _scrape(fields)))
            await asyncio.to_thread(exporter.put, name, None)
            return
        text = collecting.contracted(name, fields, self._targets).encoded()
        await asyncio.to_thread(exporter.put, name, text)  # first: without any, the program would be removed
        await asyncio.to_thread(exporter.ensure, code.digest(*PARTS))
        job = {
            "static_configs": [{"targets": [exporter.place]}],
            "metrics_path": f"/collectors/{name}",
            "authorization": {"type": "Bearer", "credentials": exporter.token()},
        }
        await self._have(task, self._content(task, job, hashlib.sha256(text.encode()).hexdigest()))

    async def delete(self, task: Task) -> None:
        await super().delete(task)
        await asyncio.to_thread(self._targets.exporter().put, task.address.name, None)

    def _server(self, name: str) -> Prometheus:
        return self._targets.prometheus(name)

    async def _put(self, server: Prometheus, name: str, content: Any) -> None:
        job, about = content or (None, None)
        await server.put_job(f"gamma-{self._targets.environment}-{name}", job, about)

    async def _seen(self, name: str, server: Prometheus) -> dict[Address, Observation]:
        kept, jobs = await asyncio.gather(asyncio.to_thread(server.kept), server.jobs())
        parts = [part for part in kept.values() if part[1]["environment"] == self._targets.environment]
        there: dict[str, Json] = {}
        if any(about["digest"] for _, about in parts):
            try:
                there = await asyncio.to_thread(self._targets.exporter().seen)
            except ProviderError as error:
                there = {"": {"error": str(error)}}
        return {
            Address(self.KIND, about["name"]): _of(job, about, jobs.get(self._mark + about["name"]), there)
            for job, about in parts
        }

    def _content(self, task: Task, job: Json, digest: str = "") -> tuple[Json, Json]:
        """The job, and what lies beside it: the fields that it came from, and the digest of the exporter's
        part."""
        name, fields = task.address.name, task.fields
        labels = {**fields["labels"], "job": name}
        job = {
            "job_name": self._mark + name,
            "scrape_interval": _seconds(fields["every"]),
            "scrape_timeout": _seconds(fields["timeout"]),
            **job,
            "static_configs": [
                {**one, "labels": {**one.get("labels", {}), **labels}} for one in job["static_configs"]
            ],
        }
        about = {"name": name, "environment": self._targets.environment, "digest": digest}
        return job, {**about, "fields": encode(dict(fields))}


def _scrape(fields: Json) -> Json:
    """The part of a job that says where. What differs from one URL to another is a label of its target."""
    places = []
    for url in fields["scrape"]["urls"]:
        parts = urlsplit(url)
        labels = {"__scheme__": parts.scheme, "__metrics_path__": parts.path or "/metrics"}
        places.append({"targets": [parts.netloc], "labels": labels})
    job: dict[str, Any] = {"static_configs": places}
    if bearer := fields["scrape"].get("bearer"):
        job["authorization"] = {"type": "Bearer", "credentials": bearer}
    return job


def _seconds(text: Json) -> str:
    return written_duration(duration(text))


def _of(wanted: Json, about: Json, runs: Json | None, there: Json) -> Observation:
    """`there`: what the exporter says of each of its collectors, or under "" why it says nothing."""
    why, said = "", there.get(about["name"])
    if runs is None:
        why = "Prometheus does not run its job"
    elif not within(wanted, runs):
        why = "its job was changed in Prometheus"
    elif about["digest"] and "" in there:
        why = there[""]["error"]
    elif about["digest"] and (said is None or said["digest"] != about["digest"]):
        why = "the exporter does not have it" if said is None else "it was changed in the exporter"
    return Seen(about["fields"], healthy=not why, why=why)


KIND = Kind(
    name="MetricCollector",
    family="monitoring",
    summary="Where figures come from: programs with metrics, SQL, pages, this machine, a function of yours.",
    spec=MetricCollectorSpec,
    provider=MetricCollectorProvider,
    traits=Traits(normalise=normalise, convergent=True, target=target),
    check=collecting.collectors,
)
