"""What a resource is, as three digests, so that each kind of change costs no more than it must.

`content` covers the spec: a difference there is work. `metadata` covers owner, labels, description,
lifecycle and needs: a difference is noted in the ledger and touches nothing. `parents` covers the
fingerprints of what the resource needs, in kinds that derive from their parents (a model from its
dataset): to them a change above, through any number of deriving kinds, is a change.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json, digest
from gamma_orch.core.resource import NO_LIFECYCLE, Resource


@dataclass(frozen=True, slots=True)
class Fingerprint:
    content: str
    metadata: str
    parents: str

    def encoded(self) -> Json:
        return [self.content, self.metadata, self.parents]


def fingerprint(
    desired: Mapping[Address, Resource], order: Sequence[Address], derive: Container[str] = ()
) -> dict[Address, Fingerprint]:
    """The fingerprints of all resources. `order` is `in_order(desired)`; `derive` are the kinds that
    derive from their parents."""
    found: dict[Address, Fingerprint] = {}
    for address in order:
        resource = desired[address]
        parents = ""
        if address.kind in derive:
            parents = _short(
                [[str(need), found[need].content, found[need].parents] for need in resource.needs]
            )
        found[address] = Fingerprint(_short(resource.spec), _metadata(resource), parents)
    return found


def _short(value: Json) -> str:
    """128 bits tell any two resources apart, and the ledger holds three such texts for each."""
    return digest(value)[:32]


def _metadata(resource: Resource) -> str:
    lifecycle = resource.lifecycle
    said = resource.owner or resource.description or resource.labels or resource.needs
    # `drift` is no part of it: it says what is done by itself, and nothing of the resource.
    if not said and (lifecycle is NO_LIFECYCLE or replace(lifecycle, drift=None) == NO_LIFECYCLE):
        return ""
    return _short(
        [
            resource.owner,
            resource.description,
            dict(resource.labels),
            [str(need) for need in resource.needs],
            [lifecycle.protect, lifecycle.retain, sorted(lifecycle.ignore), lifecycle.replace],
        ]
    )


def in_order(desired: Mapping[Address, Resource]) -> list[Address]:
    """All addresses, each after what it needs; among the free ones, by address.

    A chain may be 100,000 deep, so this walks with a stack of its own.
    """
    done: set[Address] = set()
    order: list[Address] = []
    for root in sorted(desired):
        if root in done:
            continue
        stack = [root]
        while stack:
            top = stack[-1]
            if top in done:
                stack.pop()
                continue
            missing = [need for need in desired[top].needs if need not in done]
            if missing:
                stack.extend(reversed(missing))
            else:
                done.add(top)
                order.append(top)
                stack.pop()
    return order
