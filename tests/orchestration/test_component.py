"""Gamma in a Dagster project of somebody else's, made by Dagster's own tools; and Dagster's own checks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.gamma import ROOT, environ
from tests.orchestration.projects import applied, project, thing

pytestmark = pytest.mark.timeout(300)

BIN = Path(sys.executable).parent


def tool(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    quiet = {"DAGSTER_DISABLE_TELEMETRY": "1", "DAGSTER_DG_CLI_TELEMETRY": "false", "PATH": path}
    return subprocess.run(
        [str(BIN / words[0]), *words[1:]],
        cwd=folder,
        env=environ(**quiet, **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        stdin=subprocess.DEVNULL,
    )


def test_dagster_finds_the_location_valid(root: Path) -> None:
    """`dagster definitions validate` on the file that `gamma dev` loads, and without a warning."""
    applied(project(root, thing("a"), thing("b", after="a")))
    superseded = "ignore:Function `definitions_validate_command` is superseded"
    words = ("dagster", "definitions", "validate", "-f", "pipelines/definitions.py")
    done = tool(root, *words, PYTHONWARNINGS=superseded)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Validation successful" in said
    assert "Warning" not in said


def test_a_project_scaffolded_by_dagster_mounts_it(tmp_path: Path) -> None:
    """By the component, in a defs.yaml, as Dagster's documentation says."""
    made = tool(tmp_path, "create-dagster", "project", "theirs", "--no-uv-sync")
    assert made.returncode == 0, made.stdout + made.stderr
    theirs = tmp_path / "theirs"
    project(theirs / "gamma", thing("a"), thing("b", after="a"))
    defs = theirs / "src" / "theirs" / "defs" / "app"
    defs.mkdir(parents=True)
    (defs / "defs.yaml").write_text(
        "type: gamma_orch.GammaProject\nattributes:\n  path: ../../../../gamma\n  environment: dev\n"
    )
    source = f"{ROOT}{os.pathsep}{theirs / 'src'}"
    checked = tool(theirs, "dg", "check", "defs", PYTHONPATH=source)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    listed = tool(theirs, "dg", "list", "defs", "--json", PYTHONPATH=source)
    assert listed.returncode == 0, listed.stdout + listed.stderr
    for name in ("dev/Thing/a", "dev/Thing/b", "reconcile", "destroy", "commits"):
        assert f'"{name}"' in listed.stdout
    components = tool(theirs, "dg", "list", "components", PYTHONPATH=source)
    assert "gamma_orch.GammaProject" in components.stdout


def test_a_wrong_environment_is_said_in_words(root: Path) -> None:
    from gamma_orch.core.provider import GammaError
    from gamma_orch.orchestration import definitions, location

    project(root, thing("a"))
    for make in (definitions, location):
        with pytest.raises(GammaError, match=r"^There is no environment 'deb' in .*did you mean 'dev'\?"):
            make(root, "deb")


def test_this_project_itself_passes() -> None:
    """`dg check defs` where this repository is the project."""
    done = tool(ROOT, "dg", "check", "defs", GAMMA_PLUGINS="")
    assert done.returncode == 0, done.stdout + done.stderr
