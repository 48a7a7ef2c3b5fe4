"""Documents of other formats: a kind that can read some says so (`Kind.reads`), and they become ours.

Called by `spec.resolve` before anything else looks at the documents. What comes of one is a document like any
other, which patches change and others refer to; the places of its values are those in the file that people
wrote. What nobody reads stays, and is refused as a document with an unknown apiVersion. Pure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic, Path, Severity
from gamma_orch.spec.complaints import Fault
from gamma_orch.spec.envelope import API_VERSION, intended
from gamma_orch.spec.kind import Kind
from gamma_orch.spec.positions import Document, Documents
from gamma_orch.spec.registry import KindUnavailable, Registry


@dataclass(frozen=True, slots=True)
class Read:
    """What became of one document."""

    data: dict[str, Json] | None = None  # ours; None where it has no effect, or a fault
    # From paths in ours to where it was said: the number of the document, and the path in that.
    places: Mapping[Path, tuple[int, Path]] = field(default_factory=dict)
    faults: Sequence[Fault] = ()
    ignored: Sequence[Fault] = ()  # what is there and has no effect here


# From all documents of a format to what becomes of each, in their order.
Reader = Callable[[Sequence[dict[str, Json]]], Sequence[Read]]


def read(documents: Documents, registry: Registry) -> tuple[Documents, list[Diagnostic]]:
    formats: dict[str, list[Document]] = {}
    for document in documents.items:
        version = document.data.get("apiVersion")
        if version != API_VERSION and type(version) is str and "/" in version:
            formats.setdefault(version.partition("/")[0], []).append(document)
    said: list[Diagnostic] = []
    for name, theirs in formats.items():
        if (reader := _reader(name, theirs, registry)) is not None:
            documents = _with(documents, theirs, reader([one.data for one in theirs]), said)
    return documents, said


def _reader(name: str, theirs: Sequence[Document], registry: Registry) -> Reader | None:
    """That of the first kind that has one: those that the documents name are asked before all others, for to
    ask a kind is to import it."""
    kinds = registry.names()
    named = {one.data.get("kind") for one in theirs if type(one.data.get("kind")) is str}
    for one in sorted(kinds, key=lambda kind: kind not in named):
        try:
            kind = registry.get(one)
        except KindUnavailable:
            continue  # said where a document is of that kind
        if isinstance(kind, Kind) and name in kind.reads:
            return kind.reads[name]
    return None


def _with(
    documents: Documents, theirs: Sequence[Document], found: Sequence[Read], said: list[Diagnostic]
) -> Documents:
    by_place = {(one.file, one.line): read for one, read in zip(theirs, found, strict=True)}
    items, elsewhere, lost = [], dict(documents.elsewhere), set(documents.lost)
    for document in documents.items:
        place = document.file, document.line
        if (read := by_place.get(place)) is None:
            items.append(document)
            continue
        address = intended(document)
        for severity, faults in ((Severity.ERROR, read.faults), (Severity.WARNING, read.ignored)):
            for fault in faults:
                span = documents.span(document, fault.path, fault.part)
                said.append(
                    Diagnostic(fault.code, fault.message, span, fault.path, address, fault.hint, severity)
                )
        if read.faults:
            lost |= {address} if address is not None else set()
        elif read.data is not None:
            said_at = {path: (theirs[number], there) for path, (number, there) in read.places.items()}
            dynamic = document.dynamic or any(one.dynamic for one, _ in said_at.values())
            items.append(document._replace(data=read.data, dynamic=dynamic))
            elsewhere[place] = said_at
    return replace(documents, items=tuple(items), elsewhere=elsewhere, lost=frozenset(lost))
