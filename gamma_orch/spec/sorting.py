"""Which document is what: a resource, a patch, the environment; and what its address is.

By the file's place: `specs/**` and `environments/<env>/**` hold resources, `environments/<env>/patches/**`
patches, `environments/<env>/environment.yaml` the environment; other environments' files do not count. Called
by `spec.resolve`, first. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gamma_orch.core.address import Address
from gamma_orch.core.diagnostic import Diagnostic, Span, did_you_mean, written
from gamma_orch.spec import envelope, overlays
from gamma_orch.spec.codes import Code
from gamma_orch.spec.complaints import Fault, found
from gamma_orch.spec.places import Origin
from gamma_orch.spec.positions import Document, Documents
from gamma_orch.spec.words import quoted


@dataclass(frozen=True)
class Sorted:
    """`declared` has also the addresses whose documents or patches have faults: so that a mistake is
    reported once, and not again at everything that refers to it."""

    environment: Document | None
    resources: Mapping[Address, Document]
    patched: Mapping[Address, Origin]  # those of the resources that patches change
    declared: frozenset[Address]
    removed: Mapping[Address, Document]  # by `spec: null` in a patch
    diagnostics: tuple[Diagnostic, ...]


def environment_file(environment: str) -> str:
    return f"environments/{environment}/environment.yaml"


def sort(documents: Documents, environment: str, kinds: Sequence[str], environments: Sequence[str]) -> Sorted:
    return _Sorting(documents, environment, kinds, environments).result()


class _Sorting:
    def __init__(
        self, documents: Documents, environment: str, kinds: Sequence[str], environments: Sequence[str]
    ) -> None:
        self.documents = documents
        self.name = environment
        self.names = environments
        self.kinds = frozenset({*kinds, envelope.ENVIRONMENT})
        self.diagnostics: list[Diagnostic] = []
        self.bases: dict[Address, Document] = {}
        self.patches: dict[Address, list[Document]] = {}
        self.environment: Document | None = None
        self.faulty = set(documents.lost)

    def result(self) -> Sorted:
        file = environment_file(self.name)
        patches = f"environments/{self.name}/patches/"
        kinds = self.kinds
        # What specs/ declares counts as the first, whatever the names of the folders.
        for document in sorted(self.documents.items, key=_is_of_environment):
            if _is_of_environment(document) and not self._is_ours(document.file):
                continue
            address = envelope.address_of(document, kinds)
            if address is None:
                self._report(document, None, envelope.faults(document, kinds))
                if document.file == file:
                    self.environment = self.environment or document
                elif (meant := envelope.intended(document)) is not None:
                    self.faulty.add(meant)
            elif address.kind == envelope.ENVIRONMENT or document.file == file:
                self._environment(document, address, file)
            elif document.file.startswith(patches):
                self.patches.setdefault(address, []).append(document)
            elif (first := self.bases.setdefault(address, document)) is not document:
                self._twice(address, first, document)
        if self.environment is None and (self.documents.whole or file not in self.documents.texts):
            self._no_environment(file)
        patched: dict[Address, Origin] = {}
        removed: dict[Address, Document] = {}
        for address, own in self.patches.items():
            self._patch(address, own, patched, removed)
        resources = self.bases
        if removed:
            resources = {address: base for address, base in self.bases.items() if address not in removed}
        declared = frozenset((self.bases.keys() | self.faulty) - removed.keys())
        return Sorted(self.environment, resources, patched, declared, removed, tuple(self.diagnostics))

    def _is_ours(self, file: str) -> bool:
        """Whether a file below environments/ is of this one, and not the release, which is no spec."""
        own = f"environments/{self.name}/"
        return file.startswith(own) and file != own + "release.yaml"

    def _environment(self, document: Document, address: Address, file: str) -> None:
        path = ("kind",)
        if document.file != file:
            message = f"The Environment stands in the wrong file; it is read from {file} alone."
            self._report(document, address, [Fault(Code.MISPLACED, message, path, "move it there")])
        elif address.kind != envelope.ENVIRONMENT:
            message = f"This file is for the Environment alone; here is {address}."
            hint = f"move it into another file below environments/{self.name}/"
            self._report(document, address, [Fault(Code.MISPLACED, message, path, hint)])
        elif self.environment is not None:
            self._twice(address, self.environment, document)
        else:
            self.environment = document
            if address.name != self.name:
                message = f"The environment in the folder {self.name} calls itself {quoted(address.name)}."
                fault = Fault(Code.MISPLACED, message, ("metadata", "name"), f"write name: {self.name}")
                self._report(document, address, [fault])

    def _no_environment(self, file: str) -> None:
        if self.names and self.name not in self.names:
            message = f"There is no environment {quoted(self.name)}."
            hint = did_you_mean(self.name, self.names)
        else:
            message = f"The environment {quoted(self.name)} has no {file}."
            hint = f"write apiVersion: gamma/v1, kind: Environment, metadata: {{name: {self.name}}}"
        self.diagnostics.append(Diagnostic(Code.ENVIRONMENT, message, Span(file), hint=hint))

    def _twice(self, address: Address, first: Document, second: Document) -> None:
        place = self.documents.span(first, ("metadata", "name"))
        hint = "give one of them another name"
        own = f"environments/{self.name}/"
        if second.file.startswith(own) and not first.file.startswith(own):
            hint = f"to change it for {self.name} only, write a patch below {own}patches/"
        message = f"{address} is declared twice; the first is at {place}."
        self._report(second, address, [Fault(Code.DECLARED_TWICE, message, ("metadata", "name"), hint)])

    def _patch(
        self,
        address: Address,
        own: list[Document],
        patched: dict[Address, Origin],
        removed: dict[Address, Document],
    ) -> None:
        base = self.bases.get(address)
        if base is None and address in self.faulty:
            return
        if base is None:
            near = did_you_mean(str(address), map(str, self.bases))
            hint = (
                near
                if near.startswith("did")
                else "a patch changes what specs/ declares; remove it, or declare it"
            )
            for patch in own:
                message = f"The patch hits nothing: there is no {address}."
                self._report(patch, address, [Fault(Code.PATCH_TARGET, message, ("metadata", "name"), hint)])
            return
        sound = [patch for patch in own if self._is_sound(patch, address)]
        for conflict in overlays.conflicts(sound):
            first, second = sound[conflict.first], sound[conflict.second]
            place = self.documents.span(first, conflict.first_path)
            where = written(conflict.second_path)
            message = f"Two patches of {address} write {where} differently; the first is at {place}."
            fault = Fault(Code.PATCH_CONFLICT, message, conflict.second_path, "keep one of them")
            self._report(second, address, [fault])
        body = overlays.body(base)
        for patch in sound:
            faults: list[Fault] = []
            merged = overlays.merged(body, patch, faults)
            self._report(patch, address, faults)
            if isinstance(merged, overlays.Absence):
                removed[address] = patch
                return
            body = merged
        patched[address] = Origin(base, tuple(sound), body)

    def _is_sound(self, patch: Document, address: Address) -> bool:
        spec = patch.data.get("spec")
        if spec is None or type(spec) is dict:
            return True
        message = f"The spec of a patch is a map or null; it is {found(spec)}."
        self._report(
            patch,
            address,
            [Fault(Code.TYPE, message, ("spec",), "null removes the resource from this environment")],
        )
        return False

    def _report(self, document: Document, address: Address | None, faults: Sequence[Fault]) -> None:
        for fault in faults:
            span = self.documents.span(document, fault.path, fault.part)
            self.diagnostics.append(
                Diagnostic(fault.code, fault.message, span, fault.path, address, fault.hint)
            )


def _is_of_environment(document: Document) -> bool:
    return document.file.startswith("environments/")
