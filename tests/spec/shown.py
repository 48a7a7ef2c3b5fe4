"""How expectations are written: diagnostics and resources as lines of text. And how cases are read."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from gamma_orch.core.canonical import canonical
from gamma_orch.core.diagnostic import Diagnostic, Severity, written
from gamma_orch.core.leaves import encode
from gamma_orch.core.resource import NO_LIFECYCLE, Resource
from gamma_orch.spec.environment import SecretSource
from gamma_orch.spec.load import load
from gamma_orch.spec.resolve import Resolution, resolve
from tests.spec.kinds import test_registry

CASES = Path(__file__).parents[1] / "cases"

DEV = b"apiVersion: gamma/v1\nkind: Environment\nmetadata: {name: dev}\n"
DEV_FILE = "environments/dev/environment.yaml"


def secret_digest(name: str, source: SecretSource) -> str:
    """A stand-in for the keyed digest: one secret cannot be read, all others can."""
    from gamma_orch.core.provider import GammaError

    if "unreadable" in name:
        raise GammaError(f"{source.env or source.file} is not there.")
    return f"digest-of-{name}"


def run(texts: Mapping[str, bytes], environment: str = "dev") -> tuple[list[Diagnostic], Resolution]:
    """Load and resolve; a tree without an environment gets the simplest one."""
    files = dict(texts)
    if environment == "dev":
        files.setdefault(DEV_FILE, DEV)
    loaded = load(files)
    resolution = resolve(
        loaded.documents, environment, test_registry(), secret_digest, ("dev", "prod", "staging")
    )
    return [*loaded.diagnostics, *resolution.diagnostics], resolution


def diagnostics_shown(diagnostics: Iterable[Diagnostic]) -> str:
    lines = []
    for diagnostic in diagnostics:
        code = str(diagnostic.code) + (" warning" if diagnostic.severity is Severity.WARNING else "")
        lines.append(f"{diagnostic.span} {code} {diagnostic.message}")
        where = " ".join(filter(None, (str(diagnostic.address or ""), written(diagnostic.path))))
        if where:
            lines.append(f"    at {where}")
        if diagnostic.hint:
            lines.append(f"    hint: {diagnostic.hint}")
    return "".join(line + "\n" for line in lines)


def resource_shown(resource: Resource) -> str:
    facts = {
        "needs": [str(need) for need in resource.needs],
        "owner": resource.owner,
        "description": resource.description,
        "labels": resource.labels,
        "moved": str(resource.moved_from or ""),
    }
    said = "".join(f" {name}={json.dumps(value)}" for name, value in facts.items() if value)
    if resource.lifecycle != NO_LIFECYCLE:
        said += f" {resource.lifecycle}"
    return f"{resource.address}{said}\n    {canonical(encode(resource.spec))}\n"


def sections(text: str) -> dict[str, str]:
    """The files of a case: each begins with a line `-- path --`."""
    parts = re.split(r"^-- (.+) --\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def compare(path: Path, got: str, wanted: str, whole: str) -> None:
    """Golden: with UPDATE_GOLDEN=1 the file is rewritten instead."""
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(whole, encoding="utf-8", newline="")
    else:
        assert got == wanted, f"{path.name} differs; UPDATE_GOLDEN=1 rewrites it"
