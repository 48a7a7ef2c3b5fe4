"""Whether what a spec refers to exists in the environment, and what was probably meant if not.

`spec.resolve` makes one a run, after sorting, and asks it for every typed reference, every
`dependsOn` and every `${Kind/name.output}`. Answers are addresses or faults. Pure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gamma_orch.core.address import Address
from gamma_orch.core.diagnostic import Path, did_you_mean
from gamma_orch.spec.codes import Code
from gamma_orch.spec.complaints import Fault, found, is_broken
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.references import Naming
from gamma_orch.spec.registry import KindUnavailable, Registry
from gamma_orch.spec.sorting import Sorted
from gamma_orch.spec.words import quoted

# Finding the nearest of ten thousand names takes 50 ms: a lost name that as many refer to must not
# cost minutes. So many names are compared in one run, then hints stop.
MAX_COMPARED = 200_000

_AN_ADDRESS = "an address is Kind/name, for example Index/accounts-by-email"


@dataclass
class Lookup:
    environment: str
    sorted: Sorted
    registry: Registry
    compared: int = 0
    _names: dict[str, list[str]] = field(default_factory=dict)  # of a kind's resources
    _kinds: dict[str, Kind | Fault | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for address in self.sorted.declared:
            self._names.setdefault(address.kind, []).append(address.name)

    # --- kinds --------------------------------------------------------------------------------

    def kind(self, name: str) -> Kind | Fault | None:
        """The kind; a fault where it cannot be imported."""
        if name not in self._kinds:
            try:
                self._kinds[name] = self.registry.get(name)
            except KindUnavailable as error:
                hint = "install or repair the package it comes from"
                self._kinds[name] = Fault(Code.PLUGIN, str(error), ("kind",), hint)
        return self._kinds[name]

    def kinds(self) -> list[Kind]:
        """Those asked for until now."""
        return [kind for kind in self._kinds.values() if isinstance(kind, Kind)]

    # --- references ---------------------------------------------------------------------------

    def named(self, naming: Naming) -> Address | Fault | None:
        """The resource a typed reference means; None where its fault is reported already."""
        path, value, kinds = naming
        if not isinstance(value, str):
            if is_broken(value):
                return None
            message = f"A reference is known before anything runs; it cannot be {found(value)}."
            return Fault(Code.LEAF_MISPLACED, message, path, "write the resource's name, or use a variable")
        if not kinds or ("/" in value and len(kinds) > 1):
            return self._by_address(value, kinds, path)
        matching = [kind for kind in kinds if (kind, value) in self.sorted.declared]
        if len(matching) == 1:
            return Address(matching[0], value)
        if matching:
            both = " and ".join(f"{kind}/{value}" for kind in matching)
            message = f"{quoted(value)} could be {both}."
            return Fault(Code.AMBIGUOUS, message, path, f"write {matching[0]}/{value}")
        names = [name for kind in kinds for name in self._names.get(kind, ())]
        either = " or ".join(kinds)
        hint = self._removed(kinds, value) or self._near(value, names)
        if not names:
            hint = hint or f"no {either} is declared for {self.environment}"
        return Fault(Code.REFERENCE, f"There is no {either} named {quoted(value)}.", path, hint)

    def _by_address(self, value: str, kinds: Sequence[str], path: Path) -> Address | Fault:
        try:
            address = Address.parse(value)
        except ValueError:
            return Fault(Code.ADDRESS, f"{quoted(value)} is not an address.", path, _AN_ADDRESS)
        if kinds and address.kind not in kinds:
            either = " or ".join(kinds)
            return Fault(
                Code.REFERENCE, f"{address} is no {either}.", path, f"name a resource of kind {either}"
            )
        return self.missing(address, path) or address

    def missing(self, address: Address, path: Path = ()) -> Fault | None:
        """What is wrong with referring to that address; None if nothing is."""
        if address in self.sorted.declared:
            return None
        names = self.registry.names()
        if address.kind not in names:
            hint = did_you_mean(address.kind, names)
            return Fault(Code.REFERENCE, f"There is no kind {quoted(address.kind)}.", path, hint)
        hint = self._removed((address.kind,), address.name)
        hint = hint or self._near(address.name, self._names.get(address.kind, ()))
        return Fault(Code.REFERENCE, f"There is no {address}.", path, hint)

    def output(self, address: Address, output: str) -> Fault | None:
        """What is wrong with asking that resource for that output."""
        if (fault := self.missing(address)) is not None:
            return fault
        kind = self.kind(address.kind)
        if not isinstance(kind, Kind) or output in kind.outputs:
            return None  # a kind that cannot be imported is reported at its own documents
        if not kind.outputs:
            return Fault(Code.OUTPUT, f"A resource of kind {address.kind} has no outputs.", ())
        message = f"{address} has no output {quoted(output)}."
        return Fault(Code.OUTPUT, message, (), did_you_mean(output, kind.outputs))

    def _removed(self, kinds: Iterable[str], name: str) -> str:
        for kind in kinds:
            if (patch := self.sorted.removed.get(Address(kind, name))) is not None:
                return f"{patch.file} removes it from {self.environment}"
        return ""

    def _near(self, word: str, names: Sequence[str]) -> str:
        self.compared += len(names)
        return did_you_mean(word, names) if self.compared <= MAX_COMPARED else ""
