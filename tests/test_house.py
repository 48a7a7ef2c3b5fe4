"""What holds for the project as a whole: who may import what, and what is pinned and shipped."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gamma_orch

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gamma_orch"
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# The core has no I/O, clock or randomness: of the standard library it may use what has none either.
PURE = {
    "bisect",
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "decimal",
    "difflib",
    "enum",
    "fnmatch",
    "functools",
    "hashlib",
    "heapq",
    "hmac",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "string",
    "textwrap",
    "types",
    "typing",
    "unicodedata",
}
HEAVY = {
    "alembic",
    "ansible_runner",
    "asyncpg",
    "dagster",
    "great_expectations",
    "locust",
    "onnxruntime",
    "pandas",
    "psycopg2",
    "ray",
    "sklearn",
    "sqlalchemy",
    "torch",
    "transformers",
}


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_the_core_is_pure() -> None:
    for file in sorted((PACKAGE / "core").rglob("*.py")):
        for module in imported(file):
            pure = module.split(".")[0] in PURE or module.startswith("gamma_orch.core")
            # A date is a value; asking for the current one is caught by ruff's DTZ and by review.
            assert pure or module == "datetime", f"{file.name} imports {module}"


@pytest.mark.parametrize("arguments", [["--help"], ["validate", "--help"]])
def test_the_command_line_starts_light(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from gamma_orch.cli import main\n"
        f"sys.argv = ['gamma', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"heavy = sorted({HEAVY!r} & set(sys.modules))\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_kind_is_there() -> None:
    for name, place in PYPROJECT["project"]["entry-points"]["gamma_orch.kinds"].items():
        module, _, attribute = place.partition(":")
        assert getattr(importlib.import_module(module), attribute).name == name


def test_one_version() -> None:
    assert PYPROJECT["project"]["version"] == gamma_orch.__version__


def requirements() -> Iterator[str]:
    project = PYPROJECT["project"]
    for group in (project["dependencies"], *project["optional-dependencies"].values()):
        yield from group


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_version_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9a-zA-Z.!+]+", pin), pin
    names = {normal(pin.partition("==")[0]) for pin in pins}
    asked = {match[0] for need in requirements() if (match := re.match(r"[A-Za-z0-9._-]+", need))}
    assert not {normal(name) for name in asked} - names - {"gamma-orch"}
    assert "torch==2.13.0" in pins


def test_a_new_project_gets_the_code_locations_of_this_one() -> None:
    scaffold = ROOT / "gamma_orch" / "cli" / "scaffold" / "pipelines" / "definitions.py"
    assert scaffold.read_text() == (ROOT / "pipelines" / "definitions.py").read_text()
