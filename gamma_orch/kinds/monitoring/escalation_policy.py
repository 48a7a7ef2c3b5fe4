"""The kind EscalationPolicy: who is told of which alerts, and who else when nobody has done anything, as
routes of an Alertmanager."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field, field_validator

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Of, Traits
from gamma_orch.kinds.monitoring import correlation, muting, routing
from gamma_orch.kinds.monitoring.muting import Mute
from gamma_orch.kinds.monitoring.parts import PartProvider, mark, target
from gamma_orch.kinds.monitoring.rule_spec import LabelName
from gamma_orch.spec.durations import Duration, duration
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.model import Item, Names
from gamma_orch.spec.written_out import WrittenOut


class Step(WrittenOut):
    channels: list[Annotated[str, Names("NotificationChannel")]] = Field(min_length=1)
    """Who is told."""
    after: Duration = timedelta(0)
    """How long after an alert has begun to fire, if it fires still."""
    mute: list[Mute] = Field(default_factory=list)
    """When these are not told, beside when nobody of the policy is."""


class Inhibition(WrittenOut):
    when: dict[LabelName, str] = Field(min_length=1)
    """While an alert with these labels fires,"""
    hide: dict[LabelName, str] = Field(min_length=1)
    """those with these are told to nobody,"""
    equal: list[LabelName] = Field(default_factory=list)
    """where both have the same values of these."""


class EscalationPolicySpec(WrittenOut):
    alertmanager: str = "alertmanager"
    """The target: the name of an Alertmanager in environment.yaml."""
    match: dict[LabelName, str] = Field(default_factory=dict)
    """Which alerts, by their labels: severity: critical. Default: all."""
    group: list[LabelName] = Field(default_factory=lambda: ["alertname"])
    """Alerts that have these labels in common are one message."""
    wait: Duration = timedelta(seconds=10)
    """How long the first message of a group waits for others to come into it."""
    interval: Duration = timedelta(minutes=5)
    """How long a group that has been told of waits until more of it is told."""
    repeat: Duration = timedelta(hours=4)
    """When it is told again of what fires still."""
    steps: list[Step] = Field(min_length=1)
    """Who is told, in the order of time."""
    mute: list[Mute] = Field(default_factory=list)
    """When nobody is told: {days: [saturday, sunday]}, {hours: 22:00-06:00, zone: Europe/Berlin}. What fires
    still is told of when it is over."""
    inhibit: list[Inhibition] = Field(default_factory=list)
    """Which alerts say nothing new while another fires, for all policies of the Alertmanager. What needs a
    resource with an outage is held back without."""

    @field_validator("interval", "repeat")
    @classmethod
    def _some_time(cls, value: timedelta) -> timedelta:
        if not value:
            raise ValueError("this is a time longer than none")
        return value

    @field_validator("steps")
    @classmethod
    def _in_order(cls, value: list[Item[Step]]) -> list[Step]:
        times = [one.after for one in value]
        if times != sorted(times) or len(set(times)) < len(times):
            raise ValueError("each step comes `after` a longer time than the one before")
        return value


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    """Without what mutes nobody."""
    steps = [
        {name: value for name, value in step.items() if name != "mute" or value} for step in spec["steps"]
    ]
    said = {name: value for name, value in spec.items() if name != "mute" or value}
    return {"outages": [], **said, "steps": steps}


def routes(environment: str, name: str, fields: Json) -> list[Json]:
    """Beside each other, one for each channel of each step: an alert goes on to all of them. One that waits
    longer for its first message is told only of what fires still."""
    found = []
    for number, step in enumerate(fields["steps"], 1):
        muted = [_muting(name, 0)] if fields.get("mute") else []
        muted += [_muting(name, number)] if step.get("mute") else []
        wait = duration(fields["wait"]) + duration(step["after"])
        for channel in step["channels"]:
            route = {
                "receiver": mark(environment, channel),
                "matchers": _matchers(fields["match"]),
                "group_by": list(fields["group"]),
                "group_wait": f"{int(wait.total_seconds())}s",
                "group_interval": fields["interval"],
                "repeat_interval": fields["repeat"],
                "mute_time_intervals": muted,
                "continue": True,
            }
            found.append({key: value for key, value in route.items() if value != []})
    return found


def time_intervals(name: str, fields: Json) -> list[Json]:
    """That of the policy, and those of steps. No name is another policy's: a colon is in none of theirs."""
    said = [fields.get("mute"), *(step.get("mute") for step in fields["steps"])]
    return [
        {"name": _muting(name, number), "time_intervals": muting.intervals(mutes)}
        for number, mutes in enumerate(said)
        if mutes
    ]


def _muting(name: str, step: int) -> str:
    return f"{name}:{step}" if step else name


def inhibitions(fields: Json) -> list[Json]:
    found = [one for outage in fields["outages"] for one in correlation.inhibitions(outage)]
    for said in fields["inhibit"]:
        rule = {"source_matchers": _matchers(said["when"]), "target_matchers": _matchers(said["hide"])}
        found.append({**rule, **({"equal": list(said["equal"])} if said["equal"] else {})})
    return found


def _matchers(labels: Json) -> list[str]:
    return [f'{name}="{_quoted(value)}"' for name, value in sorted(labels.items())]


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class EscalationPolicyProvider(PartProvider):
    KIND = "EscalationPolicy"

    def render(self, name: str, fields: Json) -> dict[str, list[Json]]:
        return {
            "receivers": [],
            "routes": routes(self._targets.environment, name, fields),
            "inhibit_rules": inhibitions(fields),
            "time_intervals": time_intervals(name, fields),
        }


KIND = Kind(
    name="EscalationPolicy",
    family="monitoring",
    summary="Who is told of which alerts, and who else after a time.",
    spec=EscalationPolicySpec,
    provider=EscalationPolicyProvider,
    traits=Traits(normalise=normalise, convergent=True, target=target),
    check=routing.policies,
    complete=correlation.policies,
)
