"""An environment's document -> its spec, and the values of its variables and secrets.

Called by `spec.resolve` once a run, before any resource. Variables are evaluated when first asked
for, so they may use each other in any order. Secrets are digests from the first moment on. Pure
but for the function that is passed in.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic, Path, Severity, did_you_mean, written
from gamma_orch.core.leaves import Secret
from gamma_orch.core.provider import GammaError
from gamma_orch.spec import envelope
from gamma_orch.spec.codes import Code
from gamma_orch.spec.complaints import BROKEN, Fault, checked, found, is_broken
from gamma_orch.spec.environment import EnvironmentSpec, SecretSource, default_source
from gamma_orch.spec.expressions import MAX_VARIABLE_CHAIN, Evaluation, Growth, leaf_paths
from gamma_orch.spec.fields import alternatives, annotations_at
from gamma_orch.spec.positions import Document, Documents
from gamma_orch.spec.words import quoted

# The keyed digest of a secret's bytes, by its name and source. Raises GammaError where the secret
# cannot be read; the error's text is shown at the place that uses the secret.
SecretDigest = Callable[[str, SecretSource], str]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_SILENT = Fault(Code.VARIABLE, "", ())  # reported already, elsewhere


@dataclass(frozen=True)
class Scope:
    """What expressions can see of an environment. `spec` is empty where there are diagnostics."""

    spec: EnvironmentSpec
    variable: Callable[[tuple[str, ...]], Json | Fault]
    secret: Callable[[str], Json | Fault]
    diagnostics: list[Diagnostic]  # grows while secrets are asked for


def scope(documents: Documents, document: Document | None, name: str, digest: SecretDigest) -> Scope:
    reading = _Reading(documents, document, name, digest)
    spec = reading.spec()
    return Scope(spec, reading.variable, reading.secret, reading.diagnostics)


class _Reading:
    """Reads one environment document; afterwards answers for its variables and secrets."""

    def __init__(
        self, documents: Documents, document: Document | None, name: str, digest: SecretDigest
    ) -> None:
        self.documents = documents
        self.document = document
        self.digest = digest
        self.environment = name
        self.diagnostics: list[Diagnostic] = []
        data = document.data.get("spec", {}) if document is not None else {}
        self.raw: dict[str, Json] = data if type(data) is dict else {}
        self.given: Json = data
        self.sources: dict[str, SecretSource] = {}
        self.declared: list[str] = []
        self.digests: dict[str, Secret | Fault] = {}
        self.values: dict[str, Json] = {}
        self.under_way: list[str] = []
        self.growth = Growth()

    def spec(self) -> EnvironmentSpec:
        if self.document is None:
            return EnvironmentSpec()
        faults: list[Fault] = []
        evaluated = dict(self.raw)
        secrets = self.raw.get("secrets")
        if type(secrets) is dict:
            self.declared = sorted(secrets)
            plainly = Evaluation(self.variable, self._no_secret, self._no_output, self.environment)
            evaluated["secrets"] = plainly.document(secrets, ("spec", "secrets"), faults.append)
            for name, source in evaluated["secrets"].items():
                declared, _ = checked(SecretSource, source, ())
                if declared is not None:
                    self.sources[name] = declared
        variables = self.raw.get("variables")
        if type(variables) is dict:
            for name in variables:
                if not _NAME.fullmatch(name):
                    message = (
                        f"The variable {quoted(name)} cannot be asked for by ${{var.…}}: its name may have "
                        "letters, digits, '_' and '-'."
                    )
                    faults.append(Fault(Code.NAME, message, ("spec", "variables", name)))
                self.variable((name,))
            evaluated["variables"] = {name: self.values.get(name) for name in variables}
        rest = {key: value for key, value in self.raw.items() if key not in ("secrets", "variables")}
        evaluation = Evaluation(self.variable, self.secret, self._no_output, self.environment)
        evaluated |= evaluation.document(rest, ("spec",), faults.append)
        model, more = checked(
            EnvironmentSpec, evaluated if type(self.given) is dict else self.given, ("spec",)
        )
        faults += more
        said = {fault.path for fault in faults}
        faults += [
            fault
            for fault in _misplaced({k: v for k, v in evaluated.items() if k != "variables"})
            if fault.path not in said
        ]
        metadata = self.document.data.get("metadata")
        if type(metadata) is dict and type(metadata.get("name")) is str:
            _, more = envelope.opened(metadata, envelope.ENVIRONMENT)
            faults += more
        self._report(faults)
        return model or EnvironmentSpec()

    # --- variables ----------------------------------------------------------------------------

    def variable(self, names: tuple[str, ...]) -> Json | Fault:
        """`${var.name.key}`: the value, or what is wrong with asking for it."""
        if self.document is None:
            return _SILENT  # that there is no environment says it all
        variables = self.raw.get("variables")
        known = variables if type(variables) is dict else {}
        name = names[0]
        if name not in known:
            return Fault(
                Code.VARIABLE,
                f"There is no variable {quoted(name)} in {self.environment}.",
                (),
                self._near(name, known),
            )
        value = self._whole(name)
        for count, key in enumerate(names[1:], start=1):
            if value is BROKEN:
                return _SILENT
            if type(value) is not dict:
                message = (
                    f"The variable {'.'.join(names[:count])} is {found(value)}; it has no {quoted(key)}."
                )
                return Fault(Code.VARIABLE, message, ())
            if key not in value:
                message = f"The variable {'.'.join(names[:count])} has no {quoted(key)}."
                return Fault(Code.VARIABLE, message, (), did_you_mean(key, value))
            value = value[key]
        return value if type(value) is Fault or value is not BROKEN else _SILENT

    def _near(self, name: str, known: Mapping[str, Json]) -> str:
        return (
            did_you_mean(name, known)
            or f"declare it below variables in environments/{self.environment}/environment.yaml"
        )

    def _whole(self, name: str) -> Json:
        if name in self.values:
            return self.values[name]
        path: Path = ("spec", "variables", name)
        if name in self.under_way:
            round_trip = " -> ".join([*self.under_way[self.under_way.index(name) :], name])
            fault = Fault(
                Code.VARIABLE_CYCLE,
                f"The variable {quoted(name)} needs itself: {round_trip}.",
                path,
                "write one of them out",
            )
            self._report([fault])
            self.values[name] = BROKEN
            return BROKEN
        if len(self.under_way) >= MAX_VARIABLE_CHAIN:
            message = f"The variable {quoted(name)} is reached through more than {MAX_VARIABLE_CHAIN} others."
            self._report([Fault(Code.VARIABLE_CYCLE, message, path, "write one of them out")])
            self.values[name] = BROKEN
            return BROKEN
        self.under_way.append(name)
        faults: list[Fault] = []
        evaluation = Evaluation(self.variable, self.secret, self._no_output, self.environment)
        value = evaluation.document(self.raw["variables"][name], path, faults.append, self.growth)
        self.under_way.pop()
        self._report(faults)
        return self.values.setdefault(name, value)

    # --- secrets ------------------------------------------------------------------------------

    def secret(self, name: str) -> Json | Fault:
        """`${secret.name}`: the leaf, or why there is none. Asked for once a name."""
        if name not in self.digests:
            self.digests[name] = self._read(name)
        return self.digests[name]

    def _read(self, name: str) -> Secret | Fault:
        source = self.sources.get(name)
        if source is None and name in self.declared:
            return _SILENT  # its declaration is faulty and has been reported
        near = did_you_mean(name, self.declared) if source is None else ""
        near = near if near.startswith("did") else ""
        try:
            digest = self.digest(name, source or default_source(name))
        except GammaError as error:
            hint = near
            if source is None:
                default = default_source(name).env
                hint = (
                    f"{near} or set {default}"
                    if near
                    else f"set {default}, or declare its source below secrets"
                )
            return Fault(Code.SECRET_UNREADABLE, f"The secret {name!r} cannot be read: {error}", (), hint)
        if source is None and near and self.document is not None:
            variable = default_source(name).env
            message = (
                f"The secret {name!r} is not declared in {self.environment}; it is read from {variable}."
            )
            span = self.documents.span(self.document, ("spec", "secrets"))
            self.diagnostics.append(
                Diagnostic(
                    Code.SECRET_UNDECLARED, message, span, ("spec", "secrets"), None, near, Severity.WARNING
                )
            )
        return Secret(name, digest)

    def _no_secret(self, name: str) -> Fault:
        return Fault(Code.LEAF_MISPLACED, "Where a secret comes from cannot depend on a secret.", ())

    def _no_output(self, address: Address, output: str) -> Fault:
        message = f"The environment is known before {address} is; ${{{address}.{output}}} cannot stand here."
        return Fault(Code.LEAF_MISPLACED, message, (), "use it in the resource that needs it")

    def _report(self, faults: list[Fault]) -> None:
        if self.document is None:
            return
        address = Address(envelope.ENVIRONMENT, self.environment)
        for fault in dict.fromkeys(faults):
            if fault.ordinal >= 0:
                span = self.documents.span_inside(self.document, fault.path, fault.ordinal)
            else:
                span = self.documents.span(self.document, fault.path, fault.part)
            self.diagnostics.append(
                Diagnostic(fault.code, fault.message, span, fault.path, address, fault.hint)
            )


def _misplaced(spec: dict[str, Json]) -> Iterator[Fault]:
    """Leaves where the environment itself must know the value: anywhere but in texts and variables."""
    for path, leaf in leaf_paths(spec, ()):
        if not is_broken(leaf) and not {str, Any} & {
            member
            for annotation in annotations_at(EnvironmentSpec, path)
            for member in alternatives(annotation)
        }:
            message = f"{written(path)} is known before anything runs; it cannot be {found(leaf)}."
            yield Fault(Code.LEAF_MISPLACED, message, ("spec", *path), "write the value, or use a variable")
