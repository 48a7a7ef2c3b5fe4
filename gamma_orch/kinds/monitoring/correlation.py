"""Which alerts say nothing new while another fires: those about what needs what is down. Pure; called through
`Kind.complete`, for only the whole environment tells who needs what.

An alert is `about` a resource. One that is an `outage` of it holds back all others about the same resource,
and all about what needs it, however far away. By labels, so that an Alertmanager can do it: `resource`,
`outage` (on what holds back), and `needs`, the outages that an alert is held back by. So a rule that is added
changes what an Alertmanager goes by only where it is an outage, and of another resource.
"""

from collections.abc import Collection, Iterator, Mapping

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.resource import Resource

RESOURCE, OUTAGE, NEEDS = "resource", "outage", "needs"
KINDS = ("AlertRule", "SLO")  # what can be about something

All = Mapping[Address, Resource]


def rule(resource: Resource, everything: All) -> Json:
    """The spec of a rule with the labels, and, where it is an outage, a sentence on what it holds back."""
    spec: Json = resource.spec
    if (about := spec["about"]) is None:
        return spec
    labels = {**spec["labels"], RESOURCE: about}
    above = _all_needed(Address.parse(about), everything)
    if causes := sorted(set(outages(everything)) & {str(one) for one in above}):
        labels[NEEDS] = f",{','.join(causes)},"
    if not spec.get("outage"):
        return {**spec, "labels": labels}
    said = ", ".join(sorted(_held_back(about, resource.address, everything)))
    words = [spec["description"], f"While it fires, these are held back: {said}." if said else ""]
    return {**spec, "labels": {**labels, OUTAGE: about}, "description": " ".join(filter(None, words))}


def policy(resource: Resource, everything: All) -> Json:
    """The spec of a policy with the outages that there are."""
    return {**resource.spec, "outages": sorted(outages(everything))}


def outages(everything: All) -> dict[str, str]:
    """The resources whose outage an alert tells of, with the name of one."""
    return {
        str(one.spec["about"]): address.name
        for address, one in everything.items()
        if address.kind in KINDS and one.spec.get("outage") and one.spec["about"] is not None
    }


def inhibitions(outage: str) -> Iterator[Json]:
    """The rules of an Alertmanager for the outage of one resource."""
    fires = [f'{OUTAGE}="{outage}"']
    name = outage.replace(".", "[.]")
    yield {"source_matchers": fires, "target_matchers": [f'{NEEDS}=~".*,{name},.*"']}
    same = [f'{OUTAGE}=""', f'{RESOURCE}="{outage}"']  # in the order in which it tells them
    yield {"source_matchers": fires, "target_matchers": same}


def _held_back(about: str, itself: Address, everything: All) -> Iterator[str]:
    for address, one in everything.items():
        if address.kind in KINDS and address != itself and (other := one.spec["about"]) is not None:
            same = other == about and not one.spec.get("outage")
            if same or Address.parse(about) in _all_needed(Address.parse(other), everything):
                yield address.name


def _all_needed(address: Address, everything: All) -> Collection[Address]:
    """However far away."""
    found: set[Address] = set()
    waiting = [address]
    while waiting:
        one = everything.get(waiting.pop())
        for need in one.needs if one is not None else ():
            if need not in found:
                found.add(need)
                waiting.append(need)
    return found
