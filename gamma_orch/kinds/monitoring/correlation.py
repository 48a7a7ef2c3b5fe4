"""Which alerts say nothing new while another fires: those about what needs what is down. Pure; called through
`Kind.complete`, for only the whole environment tells who needs what.

An alert is `about` a resource. One that is an `outage` of it holds back all others about the same resource,
and all about what needs it, however far away. By labels, so that an Alertmanager can do it: `resource`,
`outage` (on what holds back), and `needs`, the outages that an alert is held back by. So a rule that is added
changes what an Alertmanager goes by only where it is an outage, and of another resource.
"""

from collections.abc import Iterator, Mapping, Sequence

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.resource import Resource

RESOURCE, OUTAGE, NEEDS = "resource", "outage", "needs"
KINDS = ("AlertRule", "SLO")  # what can be about something

All = Mapping[Address, Resource]


def rules(resources: Sequence[Resource], everything: All) -> dict[Address, Json]:
    """The specs of rules that are about something, with the labels, and in outages a sentence on what they
    hold back."""
    subjects, graph = outages(everything), _Graph(everything)
    found: dict[Address, Json] = {}
    for resource in resources:
        spec = resource.spec
        if (about := spec["about"]) is None:
            continue
        labels = {**spec["labels"], RESOURCE: about}
        if causes := sorted(subjects & graph.above(about)):
            labels[NEEDS] = f",{','.join(causes)},"
        found[resource.address] = {**spec, "labels": labels}
        if spec.get("outage"):
            said = ", ".join(sorted(_held_back(about, resource.address, everything, graph)))
            words = [spec["description"], f"While it fires, these are held back: {said}." if said else ""]
            description = " ".join(filter(None, words))
            found[resource.address] |= {"labels": {**labels, OUTAGE: about}, "description": description}
    return found


def policies(resources: Sequence[Resource], everything: All) -> dict[Address, Json]:
    """The specs of policies with the outages that there are."""
    subjects = sorted(outages(everything))
    return {one.address: {**one.spec, "outages": subjects} for one in resources}


def outages(everything: All) -> set[str]:
    """The resources whose outage an alert tells of."""
    return {str(one.spec["about"]) for address, one in everything.items() if _is_outage(address, one)}


def inhibitions(outage: str) -> Iterator[Json]:
    """The rules of an Alertmanager for the outage of one resource."""
    fires = [f'{OUTAGE}="{outage}"']
    name = outage.replace(".", "[.]")
    yield {"source_matchers": fires, "target_matchers": [f'{NEEDS}=~".*,{name},.*"']}
    same = [f'{OUTAGE}=""', f'{RESOURCE}="{outage}"']  # in the order in which it tells them
    yield {"source_matchers": fires, "target_matchers": same}


def _is_outage(address: Address, one: Resource) -> bool:
    return address.kind in KINDS and bool(one.spec.get("outage"))


def _held_back(about: str, itself: Address, everything: All, graph: "_Graph") -> Iterator[str]:
    for address, one in everything.items():
        if address.kind in KINDS and address != itself and (other := one.spec["about"]) is not None:
            same = other == about and not _is_outage(address, one)
            if same or about in graph.above(other):
                yield address.name


class _Graph:
    """Who needs what, however far away. Each resource is gone through once: many alerts are about few."""

    def __init__(self, everything: All) -> None:
        self._everything = everything
        self._above: dict[str, frozenset[str]] = {}

    def above(self, about: str) -> frozenset[str]:
        """What a resource needs."""
        if about not in self._above:
            found: set[Address] = set()
            waiting = [Address.parse(about)]
            while waiting:
                one = self._everything.get(waiting.pop())
                new = set(one.needs) - found if one is not None else set()
                found |= new
                waiting += new
            self._above[about] = frozenset(map(str, found))
        return self._above[about]
