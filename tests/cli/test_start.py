"""What starting costs: the commands of a git hook and of completion import nothing heavy."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.gamma import environ

HEAVY = {
    "torch",
    "dagster",
    "sqlalchemy",
    "pandas",
    "alembic",
    "asyncpg",
    "psycopg2",
    "jinja2",
    "transformers",
}


def modules(project: Path, *arguments: str) -> set[str]:
    """What a command has imported, by Python's own account."""
    words = [sys.executable, "-X", "importtime", "-m", "gamma_orch.cli", *arguments]
    done = subprocess.run(words, cwd=project, env=environ(), capture_output=True, text=True, check=False)
    assert done.returncode in (0, 2), done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert len(lines) > 100, "nothing was measured"
    return {line.rpartition("|")[2].strip().split(".")[0] for line in lines}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["validate"], ["plan"], ["status"], ["graph"], ["history"], ["show"]],
    ids=" ".join,
)
def test_it_starts_light(project: Path, arguments: list[str]) -> None:
    assert not modules(project, *arguments) & HEAVY


def test_help_does_not_even_read_yaml(project: Path) -> None:
    assert not modules(project, "--help") & {"yaml", "pydantic", "rich", "hypothesis", "psutil"}


def test_the_measure_sees_what_is_imported(project: Path) -> None:
    assert "sqlalchemy" in modules(project, "apply", "--yes")
