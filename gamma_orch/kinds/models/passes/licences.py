"""Finds under which licence a model or data set is given, and who says so.

Nearest first: the front matter of the README that lies with the files, then the metadata of the package
that carried them. Called by the sources and the passes that fetch. A guess is never made.
"""

import re
from collections.abc import Mapping
from email.message import Message
from pathlib import Path

import yaml

from gamma_orch.kinds.models.passes.brought import Brought, Licence

_FRONT = re.compile(r"\A---\r?\n(.*?)\r?\n---\s*$", re.DOTALL | re.MULTILINE)
_LONGEST = 100  # characters: some packages write the whole text into the field


def of_package(metadata: Message | None, package: str) -> Licence | None:
    if metadata is None:
        return None
    for key in ("License-Expression", "License"):
        value = (metadata.get(key) or "").strip()
        if value and value != "UNKNOWN" and len(value) <= _LONGEST and "\n" not in value:
            return Licence(value, f"metadata of {package}")
    for value in metadata.get_all("Classifier") or []:
        if value.startswith("License :: ") and value.count(" :: ") > 1:
            return Licence(value.rpartition(" :: ")[2], f"metadata of {package}")
    return None


def of_readme(files: Mapping[str, Path]) -> Licence | None:
    path = files.get("README.md")
    if path is None:
        return None
    found = _FRONT.match(path.read_text(encoding="utf-8", errors="replace"))
    try:
        front = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return None
    named = front.get("license") or front.get("licence") if isinstance(front, dict) else None
    if isinstance(named, list):
        named = ", ".join(map(str, named))
    return Licence(str(named), "README.md beside the files") if named else None


def facts(brought: Brought, own: Licence | None = None) -> dict[str, str | None]:
    """`own` is what the files themselves say (a GGUF's metadata)."""
    found = of_readme(brought.files) or own or brought.licence
    if found is None:
        return {"licence": None, "where": "nowhere: neither a README nor the package's metadata names one"}
    return {"licence": found.name, "where": found.where}
