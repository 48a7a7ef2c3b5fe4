"""The pure half of a kind: what the planner must know of it to decide. The other half is
`core.provider.Provider`. Both are put together, with the spec's model, in `spec.kind.Kind`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.resource import Replace

Fields = Mapping[str, Json]
Of = Callable[[Address], Fields]  # the normalised fields of a wanted resource that this one needs


def as_written(address: Address, spec: Json, of: Of) -> Fields:
    """The normalisation of a kind whose spec is already in its one form."""
    return spec  # type: ignore[no-any-return]


def none_foreseen(fields: Fields) -> Mapping[str, Json]:
    return {}


def one_target(fields: Fields) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Traits:
    # Spec -> the fields that are compared, in the spelling in which the provider reads them back.
    # They are complete by themselves: what a reference leads to (the server and database that the
    # table of an index is in) is looked up with `of` and written out, so that a record alone is
    # enough to find and delete the object. Names that default to the resource's own are filled in.
    # Leaves pass through untouched. Pure.
    normalise: Callable[[Address, Json, Of], Fields] = as_written
    # First keys of fields that cannot change in place: a difference there replaces the object.
    immutable: frozenset[str] = frozenset()
    replace: Replace = Replace.DELETE_FIRST
    # A step that was cut off half-way may be run again on what it left.
    convergent: bool = False
    # `normalise` adds references of its own: a `Ref` to an output of what the resource needs, where the
    # output decides what is made (the digest of the data that a model learns from).
    refers: bool = False
    # A changed parent is a change of this resource, even if no field of its own differs.
    derives: bool = False
    # Outputs that are sure before the step ran, from the fields alone.
    foresee: Callable[[Fields], Mapping[str, Json]] = none_foreseen
    # Outputs that an update in place leaves as they are (an id).
    stable: frozenset[str] = frozenset()
    # What bounds concurrency: resources of one target share its limit. For example "postgres/main".
    target: Callable[[Fields], str] = one_target
