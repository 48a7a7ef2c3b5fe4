"""The same estate for both tools: N small resources, each depending on an earlier one.

Shapes: `chain`, where each depends on the one before it, and `tree`, where each depends on one that
has ten children, so that no resource has more than a few ancestors.
"""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

DOCUMENTS_A_FILE = 50
SHAPES = ("chain", "tree")
LINKS = ("after", "id")


def parent(index: int, shape: str) -> int | None:
    if index == 0:
        return None
    return index - 1 if shape == "chain" else (index - 1) // 10


def gamma_project(folder: Path, size: int, shape: str, link: str) -> None:
    """Things under `specs/`, and an environment dev. `link`: by name (`after`), or by the output
    `id` of the other, as Terraform does it."""
    specs = folder / "specs"
    specs.mkdir(parents=True)
    for first in range(0, size, DOCUMENTS_A_FILE):
        documents = [_thing(i, shape, link) for i in range(first, min(first + DOCUMENTS_A_FILE, size))]
        path = specs / f"things-{first // DOCUMENTS_A_FILE:05}.yaml"
        path.write_text("---\n".join(documents), encoding="utf-8")
    dev = folder / "environments" / "dev"
    dev.mkdir(parents=True)
    text = "apiVersion: gamma/v1\nkind: Environment\nmetadata: {name: dev}\nspec: {}\n"
    (dev / "environment.yaml").write_text(text, encoding="utf-8")


def _thing(index: int, shape: str, link: str) -> str:
    above = parent(index, shape)
    lines = [
        "apiVersion: gamma/v1",
        "kind: Thing",
        "metadata:",
        f"  name: t{index}",
        "spec:",
        f"  value: v{index}",
        f"  size: {index}",
    ]
    if above is not None:
        lines.append(f"  after: t{above}" if link == "after" else f"  upstream: ${{Thing/t{above}.id}}")
    return "\n".join(lines) + "\n"


def terraform_project(folder: Path, size: int, shape: str) -> None:
    folder.mkdir(parents=True)
    with (folder / "main.tf").open("w", encoding="utf-8") as file:
        file.write("terraform {}\n")
        for index in range(size):
            above = parent(index, shape)
            value = '"start"' if above is None else f"terraform_data.t{above}.id"
            file.write(f'resource "terraform_data" "t{index}" {{\n  input = {value}\n}}\n')


def terraform_state(folder: Path, size: int, shape: str, version: str) -> None:
    """The state that an apply of `terraform_project` would leave, written by hand.

    One thing is left out, in Terraform's favour: it writes all ancestors of a resource as its
    dependencies, which for a chain of 10,000 would be 50 million names; here it is the parent only.
    """
    with (folder / "terraform.tfstate").open("w", encoding="utf-8") as file:
        head = {
            "version": 4,
            "terraform_version": version,
            "serial": 1,
            "lineage": _identity(0),
            "outputs": {},
        }
        file.write(json.dumps(head)[:-1] + ', "resources": [\n')
        for text in _instances(size, shape):
            file.write(text)
        file.write('], "check_results": null}\n')


def _instances(size: int, shape: str) -> Iterator[str]:
    for index in range(size):
        above = parent(index, shape)
        value = {"value": "start" if above is None else _identity(above), "type": "string"}
        attributes = {"id": _identity(index), "input": value, "output": value, "triggers_replace": None}
        instance: dict[str, object] = {
            "schema_version": 0,
            "attributes": attributes,
            "sensitive_attributes": [],
        }
        if above is not None:
            instance["dependencies"] = [f"terraform_data.t{above}"]
        resource = {
            "mode": "managed",
            "type": "terraform_data",
            "name": f"t{index}",
            "provider": 'provider["terraform.io/builtin/terraform"]',
            "instances": [instance],
        }
        yield json.dumps(resource) + (",\n" if index + 1 < size else "\n")


def _identity(index: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(index)))
