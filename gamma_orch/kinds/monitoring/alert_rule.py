"""The kind AlertRule: when an alert fires, as a rule of a Prometheus, in a group of its own, so that one rule
is changed, found and taken away without the others."""

from collections.abc import Mapping
from typing import Any

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.change import Impact
from gamma_orch.core.kind import Fields, Of, Traits
from gamma_orch.kinds.monitoring import correlation, promql, rules
from gamma_orch.kinds.monitoring.groups import GroupProvider, target, written
from gamma_orch.kinds.monitoring.rule_spec import AlertRuleSpec, expression
from gamma_orch.spec.durations import duration
from gamma_orch.spec.kind import Kind


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


def rule(fields: Fields) -> Json:
    """As a file of rules has it."""
    return written({**fields, "type": "alert", "name": fields["alert"]})


class AlertRuleProvider(GroupProvider):
    KIND = "AlertRule"
    PREFIX = "gamma"

    def estimate(self, planned: Mapping[Address, Fields]) -> Mapping[Address, Impact]:
        """How often each would have fired."""
        from gamma_orch.kinds.monitoring import back_test

        found: dict[Address, Impact] = {}
        for name in sorted({fields["prometheus"] for fields in planned.values()}):
            server = self._server(name)
            if server.exists:
                here = {one: fields for one, fields in planned.items() if fields["prometheus"] == name}
                found |= back_test.told(server, here)
        return found

    def rules(self, fields: Fields) -> list[Json]:
        return [rule(fields)]

    def read(self, rules: list[Json]) -> Fields:
        """Where somebody has put others beside it, they are a difference."""
        found: dict[str, Any] = dict(rules[0]) if rules else {"name": None}
        found.pop("type", None)
        alert = found.pop("name")
        return {"alert": alert, **found, **({"others": len(rules) - 1} if len(rules) > 1 else {})}


KIND = Kind(
    name="AlertRule",
    family="monitoring",
    summary="When an alert fires: a rule of a Prometheus, with tests of its own that each plan runs.",
    spec=AlertRuleSpec,
    provider=AlertRuleProvider,
    traits=Traits(normalise=normalise, convergent=True, target=target),
    check=rules.alert_rules,
    complete=correlation.rules,
)
