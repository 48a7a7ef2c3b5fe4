"""Who is told of what, checked before anything runs: channels that nobody is sent to, policies that no alert
comes to, and alerts that nobody is told of. Pure; called through `Kind.check`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import get_args

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic, Severity, did_you_mean
from gamma_orch.core.resource import Resource
from gamma_orch.kinds.monitoring.rule_spec import Severity as OfAlerts

UNREACHED = "GAM911"  # a channel that no policy sends anything to
ELSEWHERE = "GAM912"  # a channel of another Alertmanager
NOTHING = "GAM913"  # a policy that matches what no rule has

All = Mapping[Address, Resource]


def channels(resources: Sequence[Resource], everything: All) -> Iterable[Diagnostic]:
    reached = {
        channel
        for address, policy in everything.items()
        if address.kind == "EscalationPolicy"
        for step in policy.spec["steps"]
        for channel in step["channels"]
    }
    # Where there is none at all, it may be one that has a fault of its own.
    severity = Severity.ERROR if reached else Severity.WARNING
    for resource in resources:
        if resource.address.name not in reached:
            yield Diagnostic(
                UNREACHED,
                f"no EscalationPolicy sends anything to {resource.address}, so nobody hears of anything",
                path=("metadata", "name"),
                address=resource.address,
                hint=f"name it in a step, {{channels: [{resource.address.name}]}}, or delete it",
                severity=severity,
            )


def policies(resources: Sequence[Resource], everything: All) -> Iterable[Diagnostic]:
    labels = [dict(_labels(rule.spec)) for at, rule in everything.items() if at.kind == "AlertRule"]
    for resource in resources:
        yield from _elsewhere(resource, everything)
        yield from _unmatched(resource, labels)


def _elsewhere(resource: Resource, everything: All) -> Iterator[Diagnostic]:
    place = resource.spec["alertmanager"]
    for number, step in enumerate(resource.spec["steps"]):
        for position, name in enumerate(step["channels"]):
            channel = everything.get(Address("NotificationChannel", str(name)))
            if channel is not None and (other := channel.spec["alertmanager"]) != place:
                yield Diagnostic(
                    ELSEWHERE,
                    f"{channel.address} is on the Alertmanager {other!r}, and this policy on {place!r}",
                    path=("spec", "steps", number, "channels", position),
                    address=resource.address,
                    hint="give both the same `alertmanager`",
                )


def _unmatched(resource: Resource, labels: list[dict[str, str]]) -> Iterator[Diagnostic]:
    """Labels of series come at run time; those that rules give, and the severities, are known."""
    for name, value in resource.spec["match"].items():
        known = {one[name] for one in labels if name in one}
        if name == "severity":
            known |= set(get_args(OfAlerts))
        if known and value not in known:
            yield Diagnostic(
                NOTHING,
                f"no alert has {name}={value!r}, so nobody is ever told by this policy",
                path=("spec", "match", name),
                address=resource.address,
                hint=did_you_mean(value, sorted(known)),
                severity=Severity.ERROR if name == "severity" else Severity.WARNING,
            )


def _labels(spec: Json) -> Iterator[tuple[str, str]]:
    yield "severity", spec["severity"]
    yield from spec["labels"].items()
