"""When an alert fires: the states of one rule over time, as Prometheus goes through them. Pure.

Called by the checks of rules, with `evaluate`. An alert is pending from the first evaluation at which its
series is in the result; it fires when it has been there for `wait`; it fires on for `keep` after its series
has left.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gamma_orch.kinds.monitoring.evaluate import Store
from gamma_orch.kinds.monitoring.promql import NAME
from gamma_orch.kinds.monitoring.series import Tags


@dataclass(frozen=True, slots=True)
class Rule:
    tree: Any  # of promql_parser
    wait: int = 0  # ms
    keep: int = 0  # ms
    labels: Mapping[str, str] = field(default_factory=dict)  # that each alert gets


@dataclass(slots=True)
class _Alert:
    since: int
    fires: bool = False
    gone: int | None = None  # since when its series is no longer in the result


@dataclass(slots=True)
class Alerts:
    """Those of one rule, from evaluation to evaluation."""

    rule: Rule
    _active: dict[Tags, _Alert] = field(default_factory=dict)

    def evaluate(self, store: Store, time: int) -> None:
        """Raises NotEvaluated."""
        there = {self._labelled(tags) for tags in store.vector(self.rule.tree, time)}
        for tags in there:
            alert = self._active.setdefault(tags, _Alert(time))
            alert.gone = None
            alert.fires = alert.fires or time - alert.since >= self.rule.wait
        for tags in self._active.keys() - there:
            alert = self._active[tags]
            alert.gone = time if alert.gone is None else alert.gone
            if not (alert.fires and self.rule.keep and time - alert.gone < self.rule.keep):
                del self._active[tags]

    @property
    def firing(self) -> set[Tags]:
        return {tags for tags, alert in self._active.items() if alert.fires}

    def _labelled(self, tags: Tags) -> Tags:
        own = frozenset(one for one in tags if one[0] != NAME and one[0] not in self.rule.labels)
        return own | {one for one in self.rule.labels.items() if one[1]}


def firing(rule: Rule, store: Store, at: int) -> set[Tags]:
    """What fires at a time (ms), where the rule is evaluated each `store.step` from 0 on."""
    alerts = Alerts(rule)
    for time in range(0, at + 1, store.step):
        alerts.evaluate(store, time)
    return alerts.firing
