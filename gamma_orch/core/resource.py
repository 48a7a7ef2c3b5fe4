"""What is wanted: one resource of one environment, after overlays, variables and defaults.

Made by `spec.resolve`; read by the planner. A resource is plain data; what its kind can do lives
in `core.kind.Traits` (pure) and `core.provider.Provider` (effects).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Span


class Replace(StrEnum):
    """How an object that cannot be changed in place gives way to its successor."""

    CREATE_FIRST = "createFirst"
    DELETE_FIRST = "deleteFirst"


class Drift(StrEnum):
    """What is done by itself about a change made outside. Who runs apply takes it back in any case."""

    HEAL = "heal"
    REPORT = "report"
    OFF = "off"  # it is not looked for


@dataclass(frozen=True, slots=True)
class Lifecycle:
    protect: bool = False  # never deleted without a consent event that names it
    retain: bool = False  # forgotten, not deleted, when its YAML goes
    ignore: tuple[str, ...] = ()  # paths left as they are once the object exists
    replace: Replace | None = None  # None: what the kind says
    drift: Drift | None = None  # None: what the environment says


NO_LIFECYCLE = Lifecycle()


@dataclass(frozen=True, slots=True)
class Resource:
    address: Address
    spec: Json  # defaults filled in; leaves of core.leaves may stand in it
    needs: tuple[Address, ...] = ()  # sorted: typed references, ${Kind/name.x} and dependsOn
    lifecycle: Lifecycle = NO_LIFECYCLE
    owner: str = ""
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    moved_from: Address | None = None
    span: Span = Span("")
    has_leaves: bool = False  # false lets the planner skip a walk over the spec
