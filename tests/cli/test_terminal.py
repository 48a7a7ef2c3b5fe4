"""At a terminal: the question before an apply, colour, and a bar instead of lines."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.gamma import Warm, environ


def talk(
    project: Path, *arguments: str, answer: str, prompt: str, meanwhile: Callable[[], None] = lambda: None
) -> tuple[int, str]:
    """Run a command at a terminal and answer its question: the exit status and all it showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gamma_orch.cli", *arguments],
        cwd=project,
        env=environ(TERM="xterm"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = ""
    try:
        while prompt not in shown:
            shown += os.read(ours, 4096).decode()
        meanwhile()
        os.write(ours, f"{answer}\n".encode())
        while True:
            shown += os.read(ours, 4096).decode()
    except OSError:  # the other end is closed
        return process.wait(timeout=30), shown
    finally:
        os.close(ours)


@pytest.mark.parametrize("answer", ["n", ""])
def test_no_is_no(gamma: Warm, project: Path, answer: str) -> None:
    code, shown = talk(project, "apply", answer=answer, prompt="[y/N]")
    assert code == 1
    assert "Thing/a" in shown
    assert "create: not there yet" in shown
    assert "Nothing was done." in shown
    assert not (project / ".gamma/dev/world.jsonl").exists()
    assert gamma(project, "history").out == "Nothing was ever applied to dev.\n"


def test_yes_applies_what_was_shown(gamma: Warm, project: Path) -> None:
    code, shown = talk(project, "apply", answer="y", prompt="[y/N]")
    assert code == 0, shown
    assert "\x1b[32m  + Thing/a" in shown, "the plan is in colour"
    assert "create Thing/a: done" in shown
    assert "dev: 3 done." in shown
    assert gamma(project, "plan").code == 0


def test_yes_holds_for_what_was_shown_alone(gamma: Warm, project: Path) -> None:
    """Between the question and the answer somebody else was there."""
    gamma(project, "apply", "--yes")
    specs = project / "specs/things.yaml"
    specs.write_text(specs.read_text().replace("value: one", "value: uno"))

    def somebody_else() -> None:
        assert gamma(project, "apply", "--yes").code == 0

    code, shown = talk(project, "apply", answer="y", prompt="[y/N]", meanwhile=somebody_else)
    assert code == 3, shown
    assert "something was applied since" in shown


def test_destroy_wants_the_name(gamma: Warm, project: Path) -> None:
    gamma(project, "apply", "--yes")
    code, shown = talk(project, "destroy", answer="yes", prompt="Type dev")
    assert code == 1
    assert "nothing was deleted" in shown
    assert gamma(project, "plan").code == 0
    code, shown = talk(project, "destroy", answer="dev", prompt="Type dev")
    assert code == 0, shown
    assert gamma(project, "show").out == "The ledger of dev is empty.\n"


def test_what_is_protected_outlives_destroy(gamma: Warm, project: Path) -> None:
    specs = project / "specs/things.yaml"
    specs.write_text(specs.read_text().replace("{name: b}", "{name: b, lifecycle: {protect: true}}"))
    gamma(project, "apply", "--yes")
    done = gamma(project, "destroy", "--yes")
    assert done.code == 3
    assert "--consent Thing/b" in done.err
    left = gamma(project, "show", "-o", "json").json["resources"]
    assert set(left) == {"Thing/a", "Thing/b"}, "what it rests on stays with it"
    assert gamma(project, "destroy", "--yes", "--consent", "Thing/b").code == 0
    assert gamma(project, "show", "-o", "json").json["resources"] == {}


def test_up_twice_and_down(gamma: Warm, project: Path) -> None:
    assert gamma(project, "up").out == "dev: 3 done.\n"
    assert gamma(project, "up").out == "No changes. 3 resources of dev as declared.\n"
    assert gamma(project, "down").code == 0
    assert gamma(project, "plan").code == 0
    assert gamma(project, "down", "--data", "--yes").code == 0
    assert not (project / ".gamma/dev").exists()
    assert "deleted outside" in gamma(project, "plan").out
