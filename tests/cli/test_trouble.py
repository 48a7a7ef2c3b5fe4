"""Whatever is broken around Gamma: a clear sentence, the right exit code, and never a traceback."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from gamma_orch.testing.crash import LOG
from gamma_orch.testing.thing import FAULTS
from tests.cli.conftest import THINGS
from tests.cli.gamma import Done, Warm, environ, start, write

COMMANDS = [
    ["validate"],
    ["plan"],
    ["apply", "--yes"],
    ["status"],
    ["history"],
    ["show"],
    ["graph"],
    ["render"],
    ["doctor"],
    ["down"],
    ["destroy", "--yes"],
]


def clear(done: Done, *said: str) -> None:
    """An error as a person needs it."""
    assert "Traceback" not in done.err + done.out, done.err
    assert done.code in (1, 3), done
    for words in said:
        assert words in done.err + done.out, done


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_no_project(gamma: Warm, tmp_path: Path, command: list[str]) -> None:
    done = gamma(tmp_path, *command)
    clear(done, "There is no Gamma project in", "gamma init DIR")
    assert list(tmp_path.iterdir()) == []


def test_a_project_is_found_from_below(gamma: Warm, project: Path) -> None:
    below = project / "specs" / "deep" / "down"
    below.mkdir(parents=True)
    assert gamma(below, "plan").code == 2
    assert gamma(below.parent, "apply", "--yes", "-C", str(project)).code == 0
    assert (project / ".gamma" / "ledger.db").exists()


@pytest.mark.parametrize("command", ["validate", "plan", "apply", "status", "graph", "render"])
def test_an_unknown_environment(gamma: Warm, project: Path, command: str) -> None:
    yes = ["--yes"] if command == "apply" else []
    clear(gamma(project, command, "-e", "devv", *yes), "There is no environment 'devv'", "did you mean 'dev'")
    assert not (project / ".gamma/devv").exists()


def test_the_environment_of_the_shell(gamma: Warm, project: Path) -> None:
    clear(gamma(project, "plan", GAMMA_ENV="devv"), "There is no environment 'devv'")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
@pytest.mark.parametrize(
    "specs",
    ["a: [", "\x00", "kind: Thing\nkind: Thing\n", "&a [*a]", "- 1", "apiVersion: gamma/v9\nkind: Thing\n"],
    ids=["open", "binary", "twice", "anchor", "list", "future"],
)
def test_broken_specs(gamma: Warm, project: Path, command: list[str], specs: str) -> None:
    write(project, {"specs/broken.yaml": specs})
    done = gamma(project, *command)
    if command[0] in ("history", "show", "down"):
        assert done.code == 0, "looking back, and stopping, need no specs"
    elif command[0] == "doctor":
        clear(done, "gamma validate")
    else:
        clear(done, "specs/broken.yaml:", ": error GAM", "found.")
    assert "Traceback" not in done.err


def test_a_plugin_that_cannot_be_imported(gamma: Warm, project: Path) -> None:
    clear(gamma(project, "plan", GAMMA_PLUGINS="no_such_module"), "no_such_module", "cannot be used")


def test_a_damaged_ledger(gamma: Warm, project: Path) -> None:
    assert gamma(project, "apply", "--yes").code == 0
    (project / ".gamma/ledger.db").write_bytes(b"this is no database" * 1000)
    for command in ("plan", "status", "history", "show", "doctor"):
        clear(gamma(project, command), "ledger.db", "damaged", "backup")
    clear(gamma(project, "apply", "--yes"), "ledger.db")


def test_a_ledger_of_a_newer_gamma(gamma: Warm, project: Path) -> None:
    assert gamma(project, "apply", "--yes").code == 0
    connection = sqlite3.connect(project / ".gamma/ledger.db")
    connection.execute("UPDATE gamma_schema SET version_num = '9999'")
    connection.commit()
    connection.close()
    write(project, {"specs/things.yaml": THINGS.replace("value: one", "value: uno")})
    clear(gamma(project, "apply", "--yes"), "a newer Gamma has used it")


@pytest.mark.parametrize(
    "url",
    ["postgresql://someone:hunter2@127.0.0.1:1/ledger", "nonsense://somewhere", "no url at all"],
    ids=["away", "no such database", "no url"],
)
def test_a_ledger_that_cannot_be_reached(gamma: Warm, project: Path, url: str) -> None:
    for command in (["plan"], ["apply", "--yes"], ["status"], ["history"], ["doctor"]):
        done = gamma(project, *command, GAMMA_LEDGER=url)
        clear(done, "GAMMA_LEDGER")
        assert "hunter2" not in done.out + done.err


def test_a_world_that_cannot_be_read(gamma: Warm, project: Path) -> None:
    assert gamma(project, "apply", "--yes").code == 0
    (project / ".gamma/dev/world.jsonl").write_text("no world\n")
    planned = gamma(project, "plan")
    assert planned.code == 3
    assert "unreadable" in planned.out
    assert gamma(project, "apply", "--yes").code == 3
    clear(gamma(project, "doctor"), "world.jsonl")


@pytest.mark.parametrize("out", ["no/such/folder/plan.json", "specs"])
def test_a_plan_that_cannot_be_saved(gamma: Warm, project: Path, out: str) -> None:
    clear(gamma(project, "plan", "--out", out), f"cannot be saved as {out}")


def test_a_full_disk(gamma: Warm, project: Path) -> None:
    """Standard output is a device on which nothing ever fits."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "gamma_orch.cli", "schema"],
            cwd=project,
            env=environ(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr


def unprivileged(project: Path, *arguments: str, **variables: str) -> Done:
    """A command that may write only where permissions say so, even if we are root."""
    words = [sys.executable, "-m", "gamma_orch.cli", *arguments]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may write everywhere, and there is no setpriv to change that")
        words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", *words]
    env = environ(**variables)
    done = subprocess.run(words, cwd=project, env=env, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def sealed(project: Path) -> Path:
    """A project in which nothing can be written."""
    folders = [project, *(path for path in project.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    return project


def test_a_folder_that_cannot_be_written(sealed: Path) -> None:
    """Looking works; what has to write says so."""
    # A secret needs a key for its digest, and then the ledger needs a file.
    clear(unprivileged(sealed, "apply", "--yes"), str(sealed), "Make its folder writable", "GAMMA_KEY")
    clear(unprivileged(sealed, "apply", "--yes", GAMMA_KEY="given"), str(sealed), "ermission")
    assert unprivileged(sealed, "history").out == "Nothing was ever applied to dev.\n"
    assert unprivileged(sealed, "plan").code == 2


def test_looking_at_specs_needs_no_writing(sealed: Path) -> None:
    for command in ("validate", "graph", "render"):
        done = unprivileged(sealed, command)
        assert done.code == 0, f"{command}: {done.err}"


def test_somebody_else_is_at_work(gamma: Warm, project: Path) -> None:
    log = project / "points"
    slow = {"GAMMA_PLUGINS": f"{environ()['GAMMA_PLUGINS']},gamma_orch.testing.crash", LOG: str(log)}
    other = start(project, "apply", "--yes", **slow, **{FAULTS: '{"slow": {"b": 2.0}}'})
    try:
        while not (log.exists() and "before create Thing/b" in log.read_text()):
            assert other.poll() is None, other.communicate()
        held = gamma(project, "apply", "--yes")
        clear(held, f"(process {other.pid}) is at work on dev since", ": apply.", "Wait for it")
        assert held.code == 3
        assert gamma(project, "destroy", "--yes").code == 3
        looking = gamma(project, "plan")
        assert looking.code in (2, 3), "looking is always allowed"
        assert gamma(project, "history").code == 0
    finally:
        out, err = other.communicate(timeout=30)
    assert other.returncode == 0, err
    assert out == "dev: 3 done.\n"
    assert gamma(project, "apply", "--yes").code == 0


def test_two_at_once_do_everything_once(gamma: Warm, project: Path) -> None:
    """Whoever comes second is refused or finds everything done."""
    racers = [start(project, "apply", "--yes") for _ in range(3)]
    ends = []
    for racer in racers:
        _, err = racer.communicate(timeout=60)
        assert "Traceback" not in err
        ends.append(racer.returncode)
    assert set(ends) <= {0, 3}
    assert 0 in ends
    lines = (project / ".gamma/dev/world.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert gamma(project, "plan").code == 0
