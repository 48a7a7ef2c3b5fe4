"""What may stand in a spec where the value itself is not there yet.

`Ref` is an output of another resource, `Secret` a value that must never be seen, `Unknown` a
value that an earlier step decides, `Template` a text with such values inside. The language
(`spec/`) makes them; the planner replaces each `Ref` by its value or by `Unknown`; only the
provider call that needs a secret turns one into bytes.

Each has a JSON form, a mapping with one reserved key, so that plans and the ledger can hold it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json, canonical

REF, SECRET, UNKNOWN, TEMPLATE = "$ref", "$secret", "$unknown", "$template"
RESERVED = frozenset({REF, SECRET, UNKNOWN, TEMPLATE})


@dataclass(frozen=True, slots=True)
class Ref:
    """`${Kind/name.output}`: a value that another resource has once it is applied."""

    address: Address
    output: str

    def encoded(self) -> Json:
        return {REF: f"{self.address}.{self.output}"}


@dataclass(frozen=True, slots=True)
class Secret:
    """`${secret.name}`: the name, and a keyed digest that tells whether the bytes changed."""

    name: str
    digest: str

    def encoded(self) -> Json:
        return {SECRET: self.name, "digest": self.digest}


@dataclass(frozen=True, slots=True)
class Unknown:
    """A value that a step of the same plan decides, and which one."""

    because: str

    def encoded(self) -> Json:
        return {UNKNOWN: self.because}


@dataclass(frozen=True, slots=True)
class Template:
    """A text in which at least one part is another leaf."""

    parts: tuple[Any, ...]

    def encoded(self) -> Json:
        return {TEMPLATE: [p if isinstance(p, str) else p.encoded() for p in self.parts]}


Leaf = Ref | Secret | Unknown | Template
LEAVES = (Ref, Secret, Unknown, Template)


def encode(tree: Json) -> Json:
    """The tree as pure JSON: every leaf as its mapping. Idempotent."""
    return replace_leaves(tree, lambda leaf: leaf.encoded())


def replace_leaves(tree: Json, swap: Callable[[Any], Json]) -> Json:
    """A copy of the tree with every leaf replaced by `swap(leaf)`.

    A template's parts are swapped one by one; it collapses to a plain text once all are known.
    """
    if isinstance(tree, dict):
        return {key: replace_leaves(value, swap) for key, value in tree.items()}
    if isinstance(tree, list):
        return [replace_leaves(value, swap) for value in tree]
    if isinstance(tree, Template):
        parts = [p if isinstance(p, str) else _part(swap(p)) for p in tree.parts]
        if all(isinstance(p, str) for p in parts):
            return "".join(parts)
        if any(isinstance(p, dict) for p in parts):
            return {TEMPLATE: parts}
        return Template(tuple(parts))
    if isinstance(tree, LEAVES):
        return swap(tree)
    return tree


def _part(value: Json) -> Json:
    """What stands in a text for a leaf that was swapped: another leaf, or the value as text."""
    return value if isinstance(value, (str, *LEAVES)) or is_leaf(value) else canonical(value)


def leaves(tree: Json) -> Iterator[Leaf]:
    """Every leaf of the tree, templates opened."""
    if isinstance(tree, dict):
        for value in tree.values():
            yield from leaves(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from leaves(value)
    elif isinstance(tree, Template):
        for part in tree.parts:
            yield from leaves(part)
    elif isinstance(tree, LEAVES):
        yield tree


def is_unknown(encoded: Json) -> bool:
    """Whether an encoded leaf can only be known after an earlier step."""
    if not isinstance(encoded, dict):
        return False
    if UNKNOWN in encoded or REF in encoded:
        return True
    return TEMPLATE in encoded and any(is_unknown(part) for part in encoded[TEMPLATE])


def is_secret(encoded: Json) -> bool:
    """Whether an encoded leaf holds a secret, alone or inside a text."""
    if not isinstance(encoded, dict):
        return False
    return SECRET in encoded or (TEMPLATE in encoded and any(is_secret(p) for p in encoded[TEMPLATE]))


def is_leaf(encoded: Json) -> bool:
    """Whether a mapping of an encoded tree stands for one of the leaves."""
    return isinstance(encoded, dict) and not RESERVED.isdisjoint(encoded)
