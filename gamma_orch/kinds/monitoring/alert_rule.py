"""The kind AlertRule: when an alert fires, as a rule of a Prometheus.

Each is a group of its own in a file of its own, named for the environment and the rule, so that one rule is
changed, found and taken away without the others. Observing is one question to each Prometheus: what it runs,
and not what lies in its folder. What others have put there is never looked at.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Of, Traits
from gamma_orch.core.observation import ABSENT, Observation, Seen, Unreadable
from gamma_orch.core.provider import Asked, ProviderError, Task
from gamma_orch.kinds.monitoring import promql, rules
from gamma_orch.kinds.monitoring.rule_spec import AlertRuleSpec, expression
from gamma_orch.spec.durations import duration
from gamma_orch.spec.kind import Kind
from gamma_orch.targets import Targets


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    """The rule as Prometheus runs it. Tests say nothing to it."""
    texts = {"summary": spec["summary"], "description": spec["description"], "runbook_url": spec["runbook"]}
    return {
        "prometheus": spec["prometheus"],
        "alert": address.name,
        "expr": promql.parsed(expression(spec)).pretty,
        "for": _seconds(spec["for"]),
        "keepFiringFor": _seconds(spec["keepFiring"]),
        "labels": {**spec["labels"], "severity": spec["severity"]},
        "annotations": {name: text for name, text in texts.items() if text},
    }


def _seconds(text: Json) -> float:
    return float(duration(text).total_seconds())


def group(fields: Fields, name: str) -> Json:
    """As a file of rules has it."""
    rule = {"alert": fields["alert"], "expr": fields["expr"]}
    rule |= {"for": f"{int(fields['for'])}s"} if fields["for"] else {}
    rule |= {"keep_firing_for": f"{int(fields['keepFiringFor'])}s"} if fields["keepFiringFor"] else {}
    rule |= {"labels": dict(fields["labels"]), "annotations": dict(fields["annotations"])}
    return {"groups": [{"name": name, "rules": [rule]}]}


def read(prometheus: str, found: Json) -> tuple[Fields, str]:
    """The fields of a group of ours as Prometheus tells of it, and what is wrong with it."""
    [rule, *more] = found["rules"] or [{}]
    try:
        expr = promql.parsed(rule.get("query", "")).pretty
    except promql.BadExpression:
        expr = rule.get("query", "")
    fields = {
        "prometheus": prometheus,
        "alert": rule.get("name"),
        "expr": expr,
        "for": float(rule.get("duration", 0)),
        "keepFiringFor": float(rule.get("keepFiringFor", 0)),
        "labels": rule.get("labels") or {},
        "annotations": rule.get("annotations") or {},
    }
    why = f"Prometheus cannot evaluate it: {rule['lastError']}" if rule.get("lastError") else ""
    return fields, f"{len(more)} rules of somebody else are in its group" if more else why


class AlertRuleProvider:
    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._mark = f"gamma:{targets.environment}:"

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
        """Raises Temporary, or Permanent where Prometheus refuses the rule; then it runs what it ran."""
        fields, name = task.fields, task.address.name
        text = yaml.safe_dump(group(fields, self._mark + name), sort_keys=False, width=110)
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
        return f"gamma-{self._targets.environment}-{name}.yml"

    async def _look(self, name: str) -> "dict[Address, Observation] | Unreadable":
        """The rules of this environment that one Prometheus runs."""
        try:
            prometheus = self._targets.prometheus(name)
            if not await asyncio.to_thread(lambda: prometheus.exists):
                return {}
            groups = await prometheus.groups()
        except ProviderError as error:
            return Unreadable(str(error))
        return {
            Address("AlertRule", one["name"].removeprefix(self._mark)): self._seen(name, one)
            for one in groups
            if one["name"].startswith(self._mark)
        }

    def _seen(self, name: str, found: Any) -> Observation:
        fields, why = read(name, found)
        return Seen(fields, healthy=not why, why=why)


def _places(one: Asked) -> list[str]:
    """The servers that it may be on: that of the record first."""
    known = (fields["prometheus"] for fields in (one.recorded, one.wanted) if fields)
    return list(dict.fromkeys(known))


def _found(address: Address, looked: Sequence["dict[Address, Observation] | Unreadable"]) -> Observation:
    for one in looked:
        if isinstance(one, Unreadable):
            return one
        if address in one:
            return one[address]
    return ABSENT


def target(fields: Fields) -> str:
    return f"prometheus/{fields['prometheus']}"


KIND = Kind(
    name="AlertRule",
    family="monitoring",
    summary="When an alert fires: a rule of a Prometheus, with tests of its own that each plan runs.",
    spec=AlertRuleSpec,
    provider=AlertRuleProvider,
    traits=Traits(normalise=normalise, convergent=True, target=target),
    check=rules.alert_rules,
)
