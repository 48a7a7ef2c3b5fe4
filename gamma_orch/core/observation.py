"""What is there: the three-valued answer of a provider about one address.

`Seen`, `Absent` or `Unreadable`. Unreadable is never taken for absent: absent would create a
duplicate, or hide a deletion that never happened.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gamma_orch.core.canonical import Json, digest


@dataclass(frozen=True, slots=True)
class Seen:
    """The object exists.

    `fields` has the shape that `Traits.normalise` gives; what cannot be read back (a password) is
    left out. `outputs` are the values that `${Kind/name.output}` may ask for.
    `healthy` is False, with `why`, when the object exists but does not work (an invalid index).
    """

    fields: Mapping[str, Json]
    outputs: Mapping[str, Json] = field(default_factory=dict)
    healthy: bool = True
    why: str = ""


@dataclass(frozen=True, slots=True)
class Absent:
    """The object was looked for, and it is not there."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Nobody knows. `error` says what failed and what would make it readable."""

    error: str


Observation = Seen | Absent | Unreadable
ABSENT = Absent()


def observed_digest(observation: Observation) -> str:
    """What a step expects to find again: the digest of the observed fields and health."""
    match observation:
        case Seen(fields, _, healthy):
            return digest([fields, healthy])
        case Absent():
            return "absent"
        case Unreadable():
            return "unreadable"
