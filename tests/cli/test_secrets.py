"""Law 7 at the command line: the bytes of a secret are in no output and in no file."""

import hashlib
from pathlib import Path

import pytest

from tests.cli.conftest import PASSWORD
from tests.cli.gamma import Warm, write

CANARIES = [PASSWORD.encode(), PASSWORD.encode("utf-16-le"), PASSWORD.encode().hex().encode()]


def test_a_secret_is_nowhere(
    gamma: Warm, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    said = b""
    commands = [
        ["validate"],
        ["render"],
        ["render", "-o", "json"],
        ["graph"],
        ["plan", "--out", "saved.json"],
        ["plan", "-o", "json"],
        ["plan", "-o", "markdown"],
        ["apply", "saved.json"],
        ["plan", "--all"],
        ["status", "--all", "-o", "json"],
        ["show", "Thing/c"],
        ["show", "-o", "json"],
        ["history", "Thing/c", "-o", "json"],
        ["doctor"],
    ]
    for words in commands:
        done = gamma(project, *words)
        assert done.code in (0, 2), done.err
        said += done.out.encode() + done.err.encode()
    # The one who needs it has it.
    assert hashlib.sha256(PASSWORD.encode()).hexdigest() in (project / ".gamma/dev/world.jsonl").read_text()
    files = [file for place in (project, temporary) for file in place.rglob("*") if file.is_file()]
    assert {"ledger.db", "saved.json"} <= {file.name for file in files}
    for canary in CANARIES:
        assert canary not in said
        for file in files:
            assert canary not in file.read_bytes(), file


@pytest.mark.parametrize(
    "spec",
    [
        '{secret: "${secret.password}", size: many}',
        '{secret: "x ${secret.password} ${nonsense}"}',
        '{value: "${secret.password}", fixed: "${var.none}"}',
        '{after: "${secret.password}"}',
    ],
)
def test_no_error_quotes_it(gamma: Warm, project: Path, spec: str) -> None:
    thing = f"apiVersion: gamma/v1\nkind: Thing\nmetadata: {{name: x}}\nspec: {spec}\n"
    write(project, {"specs/more.yaml": thing})
    for words in (["validate"], ["plan"], ["apply", "--yes"]):
        done = gamma(project, *words)
        assert done.code == 1, done
        assert PASSWORD not in done.out + done.err


def test_a_failing_effect_does_not_quote_it(gamma: Warm, project: Path) -> None:
    for fault in ('{"permanent": ["c"]}', '{"unreadable": ["c"]}'):
        done = gamma(project, "apply", "--yes", "-o", "json", GAMMA_THING_FAULTS=fault)
        assert done.code in (1, 3)
        assert PASSWORD not in done.out + done.err
    assert PASSWORD.encode() not in (project / ".gamma/ledger.db").read_bytes()


def test_a_generated_secret_is_readable_by_its_owner_alone(gamma: Warm, project: Path) -> None:
    environment = (project / "environments/dev/environment.yaml").read_text()
    generated = environment.replace("{env: THING_PASSWORD}", "{generate: {length: 40}}")
    write(project, {"environments/dev/environment.yaml": generated})
    assert gamma(project, "apply", "--yes").code == 0
    (file,) = (project / ".gamma/dev/secrets").iterdir()
    assert len(file.read_text()) == 40
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o077 == 0
    assert (project / ".gamma/key").stat().st_mode & 0o777 == 0o600
    secret = file.read_text()
    assert gamma(project, "plan").code == 0
    assert file.read_text() == secret
    assert secret.encode() not in (project / ".gamma/ledger.db").read_bytes()


def test_a_changed_secret_is_a_change_and_shows_nothing(
    gamma: Warm, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gamma(project, "apply", "--yes").code == 0
    monkeypatch.setenv("THING_PASSWORD", "another-canary")
    planned = gamma(project, "plan")
    assert planned.code == 2
    assert "(secret password) changed" in planned.out
    assert "another-canary" not in planned.out
    assert gamma(project, "apply", "--yes").code == 0
    assert gamma(project, "plan").code == 0
    monkeypatch.setenv("THING_PASSWORD", PASSWORD)
    assert gamma(project, "plan").code == 2, "a value that returns is a change again"
