"""What the kinds on a Prometheus have in common: each of their resources is a group of rules in its own file.

`GroupProvider` observes and applies groups. Observing is one question to each Prometheus: what it runs, and
not what lies in its folder. What others have put there is never looked at.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import yaml

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.core.observation import Observation, Seen
from gamma_orch.core.provider import Task
from gamma_orch.kinds.monitoring import promql
from gamma_orch.kinds.monitoring.on_server import ServerProvider
from gamma_orch.targets import Targets
from gamma_orch.targets.prometheus import Prometheus


class GroupProvider(ServerProvider[Prometheus]):
    PLACE = "prometheus"
    PREFIX: ClassVar[str]  # of the names of its groups and files

    def __init__(self, targets: Targets) -> None:
        super().__init__(targets)
        self._mark = f"{self.PREFIX}:{targets.environment}:"

    @abstractmethod
    def rules(self, fields: Fields) -> list[Json]:
        """As a file of rules has them."""

    @abstractmethod
    def read(self, rules: list[Json]) -> Fields:
        """The fields, without the server, of rules that are as `plain` gives them."""

    async def apply(self, task: Task) -> None:
        """Raises Temporary, or Permanent where Prometheus refuses the rules; then it runs what it ran."""
        groups = {"groups": [{"name": self._mark + task.address.name, "rules": self.rules(task.fields)}]}
        await self._have(task, yaml.safe_dump(groups, sort_keys=False, width=110))

    def _server(self, name: str) -> Prometheus:
        return self._targets.prometheus(name)

    async def _put(self, server: Prometheus, name: str, content: Any) -> None:
        await server.put(f"{self.PREFIX}-{self._targets.environment}-{name}.yml", content)

    async def _seen(self, name: str, server: Prometheus) -> dict[Address, Observation]:
        return {
            Address(self.KIND, one["name"].removeprefix(self._mark)): self._of(name, one)
            for one in await server.groups()
            if one["name"].startswith(self._mark)
        }

    def _of(self, name: str, found: Any) -> Observation:
        fields = {"prometheus": name, **self.read([plain(rule) for rule in found["rules"]])}
        errors = (f"{rule['name']}: {rule['lastError']}" for rule in found["rules"] if rule.get("lastError"))
        why = "; ".join(f"Prometheus cannot evaluate it: {error}" for error in errors)
        return Seen(fields, healthy=not why, why=why)


def written(rule: Json) -> Json:
    """From the form of fields to that of a file. Times are in seconds."""
    said = {rule["type"]: rule["name"], "expr": rule["expr"]}
    if rule["type"] == "alert":
        said |= {"for": f"{int(rule['for'])}s"} if rule["for"] else {}
        said |= {"keep_firing_for": f"{int(rule['keepFiringFor'])}s"} if rule["keepFiringFor"] else {}
    said |= {"labels": dict(rule["labels"])} if rule["labels"] else {}
    said |= {"annotations": dict(rule["annotations"])} if rule.get("annotations") else {}
    return said


def plain(found: Json) -> Json:
    """From what Prometheus tells of a rule to the form of fields."""
    try:
        expr = promql.parsed(found.get("query", "")).pretty
    except promql.BadExpression:
        expr = found.get("query", "")
    kind = "alert" if found.get("type") == "alerting" else "record"
    rule = {"type": kind, "name": found.get("name"), "expr": expr, "labels": found.get("labels") or {}}
    if kind == "alert":
        rule |= {
            "for": float(found.get("duration", 0)),
            "keepFiringFor": float(found.get("keepFiringFor", 0)),
            "annotations": found.get("annotations") or {},
        }
    return rule


def target(fields: Fields) -> str:
    return f"prometheus/{fields['prometheus']}"
