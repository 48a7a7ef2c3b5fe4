"""What the documents say is so: their specs are valid, their commands and links exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gamma_orch.core.leaves import Unknown
from gamma_orch.spec.registry import registry

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
names = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def documents(page: Path) -> list[Any]:
    blocks = re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [document for block in blocks for document in yaml.safe_load_all(block)]


def unknown(tree: Any) -> Any:
    """With what an expression stands for, as the language does before it knows it."""
    if isinstance(tree, dict):
        return {key: unknown(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [unknown(value) for value in tree]
    return Unknown("of a page") if isinstance(tree, str) and "${" in tree else tree


@names
def test_specs_are_valid(page: Path) -> None:
    if page.name == "language.md":
        pytest.skip("its examples show patches and a made-up kind; tests/spec/test_docs.py checks them")
    kinds = registry("")
    for document in documents(page):
        if isinstance(document, dict) and "kind" in document:
            kind = kinds.get(document["kind"])
            assert kind is not None, document["kind"]
            reader = kind.reads.get(document["apiVersion"].partition("/")[0])  # of another format
            ours = reader([document])[0].data if reader is not None else document
            assert ours is not None
            kind.spec.model_validate(unknown(ours["spec"]))


@names
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert "://" in link or (page.parent / link).exists(), link


@names
def test_commands_exist(page: Path) -> None:
    from gamma_orch.cli.app import app

    known = {one.name for one in app.registered_commands} | {one.name for one in app.registered_groups}
    assert known
    named = re.findall(r"(?:`|/|^)gamma ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert not set(named) - known


@names
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert not set(named) - targets
