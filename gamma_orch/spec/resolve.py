"""Documents of a tree + the name of an environment -> what is wanted there, or everything wrong.

The second stage of the language: sort the documents, lay patches over them, evaluate expressions,
check each spec against its kind, follow references. Pure: secrets' digests come from a function
that is passed in. Always holds: a `Desired` exists only if nothing at all is wrong, so that a
mistake in one document can never look like the deletion of a resource.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic, Path, Severity, Span
from gamma_orch.core.leaves import LEAVES
from gamma_orch.core.resource import Resource
from gamma_orch.spec import envelope, foreign, overlays
from gamma_orch.spec.codes import Code
from gamma_orch.spec.complaints import Fault, checked, found
from gamma_orch.spec.environment import EnvironmentSpec
from gamma_orch.spec.expressions import Evaluation
from gamma_orch.spec.kind import Kind, as_said, no_checks
from gamma_orch.spec.lookup import Lookup
from gamma_orch.spec.places import Origins
from gamma_orch.spec.positions import Documents, Part
from gamma_orch.spec.references import finder, in_order, plain
from gamma_orch.spec.registry import Registry
from gamma_orch.spec.scope import Scope, SecretDigest, scope
from gamma_orch.spec.sorting import Sorted, sort


@dataclass(frozen=True)
class Desired:
    """All that is wanted in one environment. Resources are in the order of their addresses."""

    name: str
    environment: EnvironmentSpec
    resources: Mapping[Address, Resource]
    variables: Mapping[str, Json] = field(default_factory=dict)
    origins: Origins = field(default_factory=lambda: Origins(Documents(), {}, {}), repr=False)

    def locate(self, address: Address, path: Path = (), part: Part = Part.VALUE) -> Span:
        """The place in the YAML of a resource's key or value; of the nearest one around it.

        A path begins with "spec" or "metadata". What a patch wrote is found in the patch.
        """
        return self.origins.span(address, path, part)


@dataclass(frozen=True)
class Resolution:
    """`desired` is None exactly when something is an error here, or some document could not be read."""

    desired: Desired | None
    diagnostics: tuple[Diagnostic, ...]


def resolve(
    documents: Documents,
    environment: str,
    registry: Registry,
    secret_digest: SecretDigest,
    environments: Sequence[str] = (),
) -> Resolution:
    """What the documents want in that environment. `environments` are the names there are, for hints."""
    return _Resolving(documents, environment, registry, secret_digest, environments).result()


class _Resolving:
    """One run of `resolve`: what has been found so far."""

    def __init__(
        self,
        documents: Documents,
        environment: str,
        registry: Registry,
        secret_digest: SecretDigest,
        environments: Sequence[str],
    ) -> None:
        documents, said = foreign.read(documents, registry)
        self.documents = documents
        self.environment = environment
        self.diagnostics: list[Diagnostic] = said
        self.sorted: Sorted = sort(documents, environment, registry.names(), environments)
        self.diagnostics += self.sorted.diagnostics
        self.origins = Origins(documents, self.sorted.resources, self.sorted.patched)
        self.scope: Scope = scope(documents, self.sorted.environment, environment, secret_digest)
        self.lookup = Lookup(environment, self.sorted, registry)
        self.evaluation = Evaluation(self.scope.variable, self.scope.secret, self.lookup.output, environment)

    def result(self) -> Resolution:
        resources: dict[Address, Resource] = {}
        for address in sorted(self.sorted.resources):
            if (resource := self._resource(address)) is not None:
                resources[address] = resource
        self._moves(resources)
        order, cycles = in_order({address: resource.needs for address, resource in resources.items()})
        for cycle in cycles:
            self._cycle(cycle, resources)
        self._checks(order, resources)
        self.diagnostics += self.scope.diagnostics
        self.diagnostics.sort(key=_by_place)
        missing = [d for d in self.diagnostics if d.code == Code.ENVIRONMENT]
        if missing:
            # Without the environment every variable and secret is missing too: one mistake, said once.
            return Resolution(None, tuple(missing))
        wrong = any(diagnostic.severity is Severity.ERROR for diagnostic in self.diagnostics)
        desired = None
        if not wrong and self.documents.whole:
            desired = Desired(
                self.environment,
                self.scope.spec,
                MappingProxyType(resources),
                MappingProxyType(self.scope.spec.variables),
                self.origins,
            )
        return Resolution(desired, tuple(self.diagnostics))

    # --- one resource -------------------------------------------------------------------------

    def _resource(self, address: Address) -> Resource | None:
        faults: list[Fault] = []
        document = self.sorted.resources[address]
        dynamic, broken = document.dynamic, False
        metadata: Json = document.data["metadata"]
        spec: Json = document.data.get("spec", {})
        needs: set[Address] = set()
        if (origin := self.sorted.patched.get(address)) is not None:
            metadata, spec = origin.merged["metadata"], origin.merged["spec"]
            dynamic = dynamic or any(patch.dynamic for patch in origin.patches)
        if dynamic:
            metadata = self.evaluation.document(metadata, ("metadata",), faults.append)
            broken = self.evaluation.broken
            spec = self.evaluation.document(spec, ("spec",), faults.append)
            needs, broken = self.evaluation.needs, broken or self.evaluation.broken
        said, more = envelope.opened(metadata, address.kind, dynamic)
        faults += more
        value = self._checked(address.kind, spec, needs, faults)
        for index, need in said.depends_on:
            if (fault := self.lookup.missing(need, ("metadata", "dependsOn", index))) is not None:
                faults.append(fault)
            needs.add(need)
        self._report(address, faults)
        if faults or broken:
            return None
        return Resource(
            address,
            value,
            tuple(sorted(needs)) if len(needs) > 1 else tuple(needs),
            said.lifecycle,
            said.owner,
            said.description,
            said.labels,
            said.moved_from,
            Span(document.file, document.line, 1),
            dynamic and _has_leaves(value),
        )

    def _checked(self, kind_name: str, spec: Json, needs: set[Address], faults: list[Fault]) -> Json:
        """The spec with its defaults, if it is one of that kind. Adds to `needs` and `faults`."""
        kind = self.lookup.kind(kind_name)
        if type(spec) is not dict:
            message = f"spec must be a map; it is {found(spec)}."
            faults.append(Fault(Code.TYPE, message, ("spec",), "write the kind's fields below it, indented"))
        if isinstance(kind, Fault):
            faults.append(kind)
        if type(spec) is not dict or not isinstance(kind, Kind):
            return None
        model, more = checked(kind.spec, spec, ("spec",))
        faults += more
        if model is None:
            return None
        find = finder(kind.spec)
        for naming in find(model, ("spec",)) if find.walk is not None else ():
            need = self.lookup.named(naming)
            if isinstance(need, Fault):
                faults.append(need)
            elif need is not None:
                needs.add(need)
        return plain(model)

    def _report(self, address: Address, faults: list[Fault]) -> None:
        for fault in dict.fromkeys(faults):
            if fault.ordinal >= 0:
                span = self.origins.span_inside(address, fault.path, fault.ordinal)
            else:
                span = self.origins.span(address, fault.path, fault.part)
            self.diagnostics.append(
                Diagnostic(fault.code, fault.message, span, fault.path, address, fault.hint)
            )

    # --- the whole ----------------------------------------------------------------------------

    def _moves(self, resources: dict[Address, Resource]) -> None:
        taken: dict[Address, Address] = {}
        for address, resource in resources.items():
            old = resource.moved_from
            if old is None:
                continue
            path: Path = ("metadata", "moved", "from")
            if old in self.sorted.declared:
                place = self.origins.span(old)
                message = f"{old} cannot have moved here: it is still declared at {place}."
                self._report(address, [Fault(Code.MOVED, message, path, "remove the one or the other")])
            elif old in taken:
                message = f"{old} cannot have moved both to {taken[old]} and to {address}."
                self._report(address, [Fault(Code.MOVED, message, path, "keep one of the two")])
            taken.setdefault(old, address)

    def _cycle(self, cycle: list[Address], resources: dict[Address, Resource]) -> None:
        shown = [*cycle, cycle[0]]
        if len(shown) > 12:
            text = (
                " -> ".join(map(str, shown[:6]))
                + f" -> … {len(shown) - 8:,} more … -> "
                + " -> ".join(map(str, shown[-2:]))
            )
        else:
            text = " -> ".join(map(str, shown))
        places = ", ".join(f"{address} at {resources[address].span}" for address in cycle[:12])
        message = f"These resources need each other, so none can come first: {text} ({places})."
        if len(cycle) == 1:
            message = f"{cycle[0]} needs itself ({places})."
        path = self._why(cycle[0], shown[1])
        self._report(cycle[0], [Fault(Code.CYCLE, message, path, "take one of these references away")])

    def _why(self, address: Address, need: Address) -> Path:
        """The place in a document that makes it need another: looked for as text, for the message only."""
        origin = self.sorted.patched.get(address)
        merged = origin.merged if origin else overlays.body(self.sorted.resources[address])
        for path, text in _texts(merged, ()):
            if path != ("metadata", "name") and (text in (need.name, str(need)) or f"${{{need}." in text):
                return path
        return ()

    def _checks(self, order: list[Address], resources: dict[Address, Resource]) -> None:
        """Let each kind look at its resources, and complete them. Those are left out that, or whose needs,
        have faults."""
        looking = [
            kind
            for kind in self.lookup.kinds()
            if kind.check is not no_checks or kind.complete is not as_said
        ]
        if not looking:
            return
        sound: Mapping[Address, Resource] = resources
        if len(resources) < len(self.sorted.declared) or len(order) < len(resources):
            good: set[Address] = set()
            for address in order:
                if all(need in good for need in resources[address].needs):
                    good.add(address)
            sound = {address: resource for address, resource in resources.items() if address in good}
        everything = MappingProxyType(sound)
        completed: dict[Address, Json] = {}
        for kind in looking:
            own = [resource for address, resource in sound.items() if address.kind == kind.name]
            for diagnostic in kind.check(own, everything):
                self.diagnostics.append(self._placed(diagnostic))
            completed |= kind.complete(own, everything)
        for address, spec in completed.items():  # only now: nobody sees what others were completed with
            resources[address] = replace(resources[address], spec=spec)

    def _placed(self, diagnostic: Diagnostic) -> Diagnostic:
        if diagnostic.span is not None or diagnostic.address is None:
            return diagnostic
        path = diagnostic.path
        if path and path[0] not in ("spec", "metadata"):
            path = ("spec", *path)
        span = self.origins.span(diagnostic.address, path)
        return Diagnostic(
            diagnostic.code,
            diagnostic.message,
            span,
            path,
            diagnostic.address,
            diagnostic.hint,
            diagnostic.severity,
        )


def _texts(tree: Json, path: Path) -> list[tuple[Path, str]]:
    match tree:
        case str():
            return [(path, tree)]
        case dict():
            return [pair for key, value in tree.items() for pair in _texts(value, (*path, key))]
        case list():
            return [pair for index, value in enumerate(tree) for pair in _texts(value, (*path, index))]
    return []


def _has_leaves(tree: Json) -> bool:
    if type(tree) is dict:
        return any(_has_leaves(value) for value in tree.values())
    if type(tree) is list:
        return any(_has_leaves(value) for value in tree)
    return isinstance(tree, LEAVES)


def _by_place(diagnostic: Diagnostic) -> tuple[Span, str, str]:
    return diagnostic.span or Span(""), diagnostic.code, diagnostic.message


__all__ = ["Desired", "Resolution", "SecretDigest", "resolve"]
