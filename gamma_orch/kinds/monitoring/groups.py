"""What the kinds on a Prometheus have in common: each of their resources is a group of rules in its own file.

`GroupProvider` observes and applies groups. Observing is one question to each Prometheus: what it runs, and
not what lies in its folder. What others have put there is never looked at.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import yaml

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.core.observation import ABSENT, Observation, Seen, Unreadable
from gamma_orch.core.provider import Asked, ProviderError, Task
from gamma_orch.kinds.monitoring import promql
from gamma_orch.targets import Targets

Looked = dict[Address, Observation] | Unreadable


class GroupProvider:
    KIND: ClassVar[str]
    PREFIX: ClassVar[str]  # of the names of its groups and files

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._mark = f"{self.PREFIX}:{targets.environment}:"

    def rules(self, fields: Fields) -> list[Json]:
        """As a file of rules has them."""
        raise NotImplementedError

    def read(self, rules: list[Json]) -> Fields:
        """The fields, without the server, of rules that are as `plain` gives them."""
        raise NotImplementedError

    async def observe(self, asked: Sequence[Asked]) -> Mapping[Address, Observation]:
        places = {one.address: _places(one) for one in asked}
        names = sorted({name for found in places.values() for name in found})
        looked = dict(zip(names, await asyncio.gather(*map(self._look, names)), strict=True))
        found: dict[Address, Observation] = {
            one.address: _found(one.address, [looked[name] for name in places[one.address]]) for one in asked
        }
        for one in looked.values():  # those that no spec names any more
            if isinstance(one, dict):
                found |= {address: seen for address, seen in one.items() if address not in found}
        return found

    async def apply(self, task: Task) -> None:
        """Raises Temporary, or Permanent where Prometheus refuses the rules; then it runs what it ran."""
        fields, name = task.fields, task.address.name
        groups = {"groups": [{"name": self._mark + name, "rules": self.rules(fields)}]}
        text = yaml.safe_dump(groups, sort_keys=False, width=110)
        await self._targets.prometheus(fields["prometheus"]).put(self._file(name), text)
        for before in (task.recorded, task.live):  # it has moved to another server
            if before and before["prometheus"] != fields["prometheus"]:
                await self._targets.prometheus(before["prometheus"]).put(self._file(name), None)

    async def delete(self, task: Task) -> None:
        for place in {one["prometheus"] for one in (task.recorded, task.live) if one}:
            prometheus = self._targets.prometheus(place)
            if prometheus.exists:
                await prometheus.put(self._file(task.address.name), None)

    def _file(self, name: str) -> str:
        return f"{self.PREFIX}-{self._targets.environment}-{name}.yml"

    async def _look(self, name: str) -> Looked:
        """The groups of this kind and environment that one Prometheus runs."""
        try:
            prometheus = self._targets.prometheus(name)
            if not await asyncio.to_thread(lambda: prometheus.exists):
                return {}
            groups = await prometheus.groups()
        except ProviderError as error:
            return Unreadable(str(error))
        return {
            Address(self.KIND, one["name"].removeprefix(self._mark)): self._seen(name, one)
            for one in groups
            if one["name"].startswith(self._mark)
        }

    def _seen(self, name: str, found: Any) -> Observation:
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


def _places(one: Asked) -> list[str]:
    """The servers that it may be on: that of the record first."""
    known = (fields["prometheus"] for fields in (one.recorded, one.wanted) if fields)
    return list(dict.fromkeys(known))


def _found(address: Address, looked: Sequence[Looked]) -> Observation:
    for one in looked:
        if isinstance(one, Unreadable):
            return one
        if address in one:
            return one[address]
    return ABSENT
