"""A kind, whole: its spec's model, its pure traits, and how to open its provider.

A kind is a plugin. The entry-point group `gamma_orch.kinds` maps a kind's name to such an object;
`GAMMA_PLUGINS` (comma-separated module names, each with a `KINDS` list) adds more, for tests.
Only kinds that a tree uses are imported.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic
from gamma_orch.core.kind import Traits
from gamma_orch.core.provider import Provider
from gamma_orch.core.resource import Resource
from gamma_orch.spec.model import Spec

if TYPE_CHECKING:
    from gamma_orch.core.address import Address
    from gamma_orch.spec.foreign import Reader


def no_checks(
    resources: Sequence[Resource], all_resources: "Mapping[Address, Resource]"
) -> Iterable[Diagnostic]:
    return ()


def as_said(
    resources: Sequence[Resource], all_resources: "Mapping[Address, Resource]"
) -> "Mapping[Address, Json]":
    return {}


def no_gates(spec: Json) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    family: str  # the group it is shown under: "database", "models", ...
    summary: str  # one sentence, for `gamma explain`
    spec: type[Spec]
    # Opens the provider. The argument is the engine's `targets.Targets`: connections by name,
    # started and closed by the engine.
    provider: Callable[[Any], Provider]
    traits: Traits = Traits()
    outputs: Mapping[str, str] = field(default_factory=dict)  # name -> what it is
    # The gates that a spec declares, by name, with what each asks for. An object that passed them says so in
    # its output `gates`: {name: {"passed": true, "says": "0.861 (0.853 to 0.869)"}}.
    gates: Callable[[Json], Mapping[str, str]] = no_gates
    # Checks over all resources of the kind at once, for what one spec alone cannot show. Gets the
    # resources of this kind, and all of the environment; those that have faults, or need something
    # that has, are left out of both. Specs may hold leaves. A diagnostic here has address and path
    # (from the spec on); the language adds the span.
    check: Callable[[Sequence[Resource], "Mapping[Address, Resource]"], Iterable[Diagnostic]] = no_checks
    # The specs with what only the whole environment tells, such as who needs what; those that stay as they
    # are may be left out. Gets what `check` gets.
    complete: Callable[[Sequence[Resource], "Mapping[Address, Resource]"], "Mapping[Address, Json]"] = as_said
    # Documents of other formats that become some of this kind: by their apiVersion, up to its slash.
    reads: "Mapping[str, Reader]" = field(default_factory=dict)
