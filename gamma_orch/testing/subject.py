"""What the provider laws are tried on: a kind, a target, samples, and a way to break the target.

The author of a kind builds a `Subject`; `laws` looks and acts through the functions below, which
do what the engine does: look with a fresh provider, give each effect one key, compare by `settle`.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import written
from gamma_orch.core.kind import Fields, Traits
from gamma_orch.core.leaves import SECRET, Secret, encode, replace_leaves
from gamma_orch.core.observation import Observation, Seen
from gamma_orch.core.provider import Asked, Opcode, Provider, Task
from gamma_orch.core.settle import differences


class LawBroken(AssertionError):
    """A provider does what a provider must not do."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One resource to try: as it is made, and as it is changed afterwards.

    Specs are as the language hands them over: defaults filled in, references resolved, secrets as
    `Secret` leaves.
    """

    address: Address
    spec: Json
    changed: Json = None  # differs in what can be changed in place; None: nothing can
    replaced: Json = None  # differs in what cannot; None: the kind cannot build beside and swap


@dataclass(frozen=True, slots=True)
class Subject:
    """A kind on a target, ready to be tried. None of its samples exists yet."""

    traits: Traits
    # A provider as a new process would have it. Opened anew several times on the same target.
    open: Callable[[], AbstractAsyncContextManager[Provider]]
    samples: Sequence[Sample]  # two at least: one to break, one to look at meanwhile
    # Makes it impossible to look at this address, however the target can be brought to that, for
    # as long as the context lasts; gives all the addresses that cannot be seen then. Takes effect
    # for providers that are opened inside.
    unreadable: Callable[[Address], AbstractContextManager[frozenset[Address]]]
    secrets: Mapping[str, str] = field(default_factory=dict)  # by name; long enough to be no accident
    parents: Mapping[Address, Fields] = field(default_factory=dict)  # what `normalise` may look up
    # False where the fields have another shape than the spec (references written out), so that
    # normalising them again has no meaning.
    spec_shaped: bool = True
    # How many effects the target has seen, where it can count them.
    effects: Callable[[], int] | None = None

    def fields(self, sample: Sample, spec: Json) -> Fields:
        return self.traits.normalise(sample.address, spec, self.parents.__getitem__)

    def reveal(self, tree: Json) -> Json:
        return replace_leaves(_decoded(tree), lambda leaf: self.secrets[leaf.name])

    def effect_count(self) -> int:
        return self.effects() if self.effects else 0


@dataclass(frozen=True, slots=True)
class Stage:
    """One effect in the life of a sample, about to happen."""

    task: Task
    fields: Fields
    was: Fields  # what was applied before, encoded; {} at first


async def life(subject: Subject, sample: Sample) -> AsyncIterator[Stage]:
    """Made, changed, replaced. Whoever iterates performs each stage's task before the next."""
    was: Fields = {}
    live: Fields | None = None
    for opcode, spec in _specs(sample):
        fields = subject.fields(sample, spec)
        yield Stage(task(subject, sample, opcode, fields, was, live), fields, was)
        was, live = encode(fields), live_fields(await look(subject, sample.address, fields, fields))


def _specs(sample: Sample) -> Iterator[tuple[Opcode, Json]]:
    yield Opcode.CREATE, sample.spec
    if sample.changed is not None:
        yield Opcode.UPDATE, sample.changed
    if sample.replaced is not None:
        yield Opcode.REPLACE, sample.replaced


def task(
    subject: Subject, sample: Sample, opcode: Opcode, fields: Fields, was: Fields, live: Fields | None
) -> Task:
    return Task(
        key=f"law-{opcode}-{sample.address}",
        opcode=opcode,
        address=sample.address,
        fields=fields,
        recorded=was or None,
        live=live,
        reveal=subject.reveal,
    )


async def make(subject: Subject, sample: Sample) -> Fields:
    """Bring a sample into being; gives the fields it was made with."""
    fields = subject.fields(sample, sample.spec)
    async with subject.open() as provider:
        await provider.apply(task(subject, sample, Opcode.CREATE, fields, {}, None))
    return fields


def deletion(subject: Subject, sample: Sample, fields: Fields, live: Fields | None) -> Task:
    return task(subject, sample, Opcode.DELETE, {}, encode(fields), live)


async def look(
    subject: Subject, address: Address, wanted: Fields | None, recorded: Fields | None
) -> Observation:
    """What a process that has just started sees."""
    asked = Asked(address, _encoded(wanted), _encoded(recorded))
    async with subject.open() as provider:
        found = await provider.observe([asked])
    if address not in found:
        raise LawBroken(f"{address}: observe was asked for it and gave no answer")
    return found[address]


def live_fields(found: Observation) -> Fields | None:
    return found.fields if isinstance(found, Seen) else None


def require(holds: bool, sample: Sample, otherwise: str) -> None:
    if not holds:
        raise LawBroken(f"{sample.address}: {otherwise}")


def require_as_planned(sample: Sample, stage: str, fields: Fields, found: Observation, was: Fields) -> None:
    """The engine's own test of a read-back, so that the suite asks exactly what the engine asks."""
    if not isinstance(found, Seen):
        raise LawBroken(f"{sample.address}: {stage} it is {found!r}")
    require(found.healthy, sample, f"{stage} it is not healthy: {found.why}")
    wrong = [written(path) for path in differences(encode(fields), found.fields, was)]
    what = f"{stage} it differs in {wrong}: wanted {fields!r}, found {found.fields!r}"
    require(not wrong, sample, what)


def _encoded(fields: Fields | None) -> Fields | None:
    return None if fields is None else encode(fields)


def _decoded(tree: Json) -> Json:
    """Secrets that are encoded already, as leaves again."""
    if isinstance(tree, dict):
        if SECRET in tree:
            return Secret(tree[SECRET], tree["digest"])
        return {key: _decoded(value) for key, value in tree.items()}
    return [_decoded(value) for value in tree] if isinstance(tree, list) else tree
