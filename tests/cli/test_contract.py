"""What programs rely on: exit codes, the JSON of each command, and which stream says what."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.testing.thing import FAULTS
from gamma_orch.testing.world import World
from tests.cli.gamma import Warm, write

ACTIONS = {"create", "update", "replace", "adopt", "delete", "forget", "keep", "refuse", "wait"}


def world(project: Path) -> World:
    return World(project / ".gamma" / "dev" / "world.jsonl")


def faults(**given: Any) -> dict[str, str]:
    return {FAULTS: json.dumps(given)}


def test_exit_codes_of_a_day(gamma: Warm, project: Path) -> None:
    assert gamma(project, "plan").code == 2
    assert gamma(project, "apply", "--yes").code == 0
    assert gamma(project, "plan").code == 0
    assert gamma(project, "apply", "--yes").code == 0


def test_what_is_refused_exits_with_3(gamma: Warm, project: Path) -> None:
    gamma(project, "apply", "--yes")
    unreadable = faults(unreadable=["a"])
    assert gamma(project, "plan", **unreadable).code == 3
    assert gamma(project, "apply", "--yes", **unreadable).code == 3


def test_what_fails_exits_with_1(gamma: Warm, project: Path) -> None:
    failed = gamma(project, "apply", "--yes", "-o", "json", **faults(permanent=["b"]))
    assert failed.code == 1
    assert (failed.json["applied"], failed.json["failed"], failed.json["skipped"]) == (1, 1, 1)
    assert [step["status"] for step in failed.json["steps"]] == ["done", "failed", "skipped"]
    assert "this fault was asked for" in failed.json["steps"][1]["error"]
    assert failed.json["steps"][0]["error"] is None
    # A failure counts for more than a refusal: somebody has to look.
    world(project).effect("update", "a", {**world(project).things["a"]["fields"], "value": "x"})
    both = gamma(project, "apply", "--yes", **faults(permanent=["b"], unreadable=["a"]))
    assert both.code == 3, "nothing was tried"
    assert gamma(project, "apply", "--yes").code == 0


@pytest.mark.parametrize(
    "arguments",
    [["plan", "--nonsense"], ["nonsense"], ["plan", "-o", "yaml"], ["show", "--limit"], []],
    ids=" ".join,
)
def test_a_mistyped_command_never_says_that_changes_are_pending(
    gamma: Warm, project: Path, arguments: list[str]
) -> None:
    done = gamma(project, *arguments)
    assert done.code == 1
    assert done.out == ""
    assert "Usage: gamma" in done.err


def test_plan_json(gamma: Warm, project: Path) -> None:
    found = gamma(project, "plan", "-o", "json").json
    assert {"id", "environment", "commit", "summary", "changes"} <= found.keys()
    assert (found["environment"], found["commit"], len(found["id"])) == ("dev", "", 64)
    assert found["summary"] == dict.fromkeys(ACTIONS, 0) | {"create": 3}
    assert [change["address"] for change in found["changes"]] == ["Thing/a", "Thing/b", "Thing/c"]
    first = found["changes"][0]
    assert first.keys() >= {"address", "action", "reason", "fields", "impact"}
    assert (first["action"], first["reason"]) == ("create", "not there yet")
    value = next(field for field in first["fields"] if field["path"] == "value")
    assert value["wanted"] == "one"
    assert "was" not in value
    assert "live" not in value


def test_plan_json_shows_was_wanted_and_live(gamma: Warm, project: Path) -> None:
    gamma(project, "apply", "--yes")
    fields = dict(world(project).things["a"]["fields"])
    world(project).effect("update", "a", {**fields, "value": "by hand"})
    change = gamma(project, "plan", "-o", "json").json["changes"][0]
    assert (change["action"], change["reason"]) == ("update", "drifted")
    assert change["impact"]["seconds"] is None, "an update was never run"
    (field,) = [field for field in change["fields"] if field["verdict"] != "keep"]
    assert field == {"path": "value", "verdict": "drift", "was": "one", "wanted": "one", "live": "by hand"}
    gamma(project, "apply", "--yes")
    world(project).effect("update", "a", {**fields, "value": "again"})
    impact = gamma(project, "plan", "-o", "json").json["changes"][0]["impact"]
    assert impact["runs"] == 1
    assert impact["seconds"] >= 0


def test_apply_json(gamma: Warm, project: Path) -> None:
    planned = gamma(project, "plan", "-o", "json").json
    found = gamma(project, "apply", "--yes", "-o", "json").json
    assert found["plan"] == planned["id"]
    assert (found["applied"], found["failed"], found["skipped"]) == (3, 0, 0)
    steps = found["steps"]
    assert [(step["address"], step["action"], step["status"]) for step in steps] == [
        ("Thing/a", "create", "done"),
        ("Thing/b", "create", "done"),
        ("Thing/c", "create", "done"),
    ]
    assert all(step["seconds"] >= 0 and step["error"] is None for step in steps)


def test_status_json(gamma: Warm, project: Path) -> None:
    before = gamma(project, "status", "-o", "json").json
    assert (before["environment"], before["release"], before["ready"]) == ("dev", None, False)
    first = before["resources"][0]
    assert first.keys() >= {"address", "ready", "reason", "message", "since"}
    assert (first["ready"], first["since"]) == ("false", None)
    gamma(project, "apply", "--yes")
    after = gamma(project, "status", "-o", "json").json
    assert after["ready"] is True
    assert {resource["ready"] for resource in after["resources"]} == {"true"}
    assert all(resource["since"] for resource in after["resources"])
    unknown = gamma(project, "status", "-o", "json", **faults(unreadable=["b"])).json
    assert unknown["ready"] is False
    # c has an output of b in it, so nobody can tell of c either.
    assert [resource["ready"] for resource in unknown["resources"]] == ["true", "unknown", "false"]
    assert "does not answer" in unknown["resources"][1]["message"]


def test_a_release_is_a_plan_carried_out_whole(gamma: Warm, project: Path) -> None:
    commit = committed(project)
    gamma(project, "apply", "--yes")
    assert gamma(project, "status", "-o", "json").json["release"] == commit
    text = (project / "specs/things.yaml").read_text()
    write(project, {"specs/things.yaml": text.replace("one", "uno").replace("two", "due")})
    second = committed(project)
    assert second != commit
    assert gamma(project, "apply", "--yes", **faults(unreadable=["b"])).code == 3
    assert gamma(project, "status", "-o", "json").json["release"] == commit, "b was refused"
    assert gamma(project, "apply", "--yes").code == 0
    assert gamma(project, "status", "-o", "json").json["release"] == second


def committed(project: Path) -> str:
    """Commit everything; the commit."""
    if not (project / ".git").exists():
        subprocess.run(["git", "init", "-q", project], check=True)
    words = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    for command in (["add", "specs", "environments"], [*words, "commit", "-qm", "change"]):
        subprocess.run(["git", "-C", project, *command], check=True, capture_output=True)
    done = subprocess.run(
        ["git", "-C", project, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_validate_json(gamma: Warm, project: Path) -> None:
    assert gamma(project, "validate", "-o", "json").json == {"ok": True, "resources": 3, "diagnostics": []}
    write(
        project,
        {"specs/more.yaml": "apiVersion: gamma/v1\nkind: Thing\nmetadata: {name: x}\nspec: {sise: 1}\n"},
    )
    broken = gamma(project, "validate", "-o", "json")
    assert (broken.code, broken.json["ok"]) == (1, False)
    assert broken.json["diagnostics"] == [
        {
            "severity": "error",
            "code": "GAM402",
            "message": "spec has no field 'sise'.",
            "file": "specs/more.yaml",
            "line": 4,
            "column": 8,
            "path": "spec.sise",
            "address": "Thing/x",
            "hint": "did you mean 'size'?",
        }
    ]


def test_history_and_show_json(gamma: Warm, project: Path) -> None:
    gamma(project, "apply", "--yes")
    events = gamma(project, "history", "-o", "json").json["events"]
    assert [event["type"] for event in events] == ["released", "done", "done", "done", "planned"]
    assert events[0].keys() == {"seq", "at", "type", "address", "plan", "step", "by", "token", "data"}
    assert {event["by"] for event in events} == {"tester"}
    shown = gamma(project, "show", "Thing/b", "-o", "json").json
    assert list(shown["resources"]) == ["Thing/b"]
    assert shown["resources"]["Thing/b"]["fields"]["value"] == "two"
    assert shown["resources"]["Thing/b"]["outputs"] == {"id": "b#1", "value": "two"}


def test_show_at_a_moment_of_the_past(gamma: Warm, project: Path) -> None:
    gamma(project, "apply", "--yes")
    moment = gamma(project, "history", "-o", "json", "--limit", "1").json["events"][0]["at"]
    text = (project / "specs/things.yaml").read_text()
    write(project, {"specs/things.yaml": text.replace("value: one", "value: uno")})
    gamma(project, "apply", "--yes")

    def value(*at: str) -> str:
        found = gamma(project, "show", "Thing/a", "-o", "json", *at).json
        return str(found["resources"]["Thing/a"]["fields"]["value"])

    assert value() == "uno"
    assert value("--at", moment) == "one"
    assert value("--at", "0s") == "uno"
    assert gamma(project, "show", "Thing/a", "--at", "1h").code == 1


def test_other_json(gamma: Warm, project: Path) -> None:
    gamma(project, "apply", "--yes")
    needs = [["Thing/b", "Thing/a"], ["Thing/c", "Thing/b"]]
    assert gamma(project, "graph", "-o", "json").json["needs"] == needs
    rendered = gamma(project, "render", "-o", "json").json["resources"]
    assert rendered[2]["spec"]["secret"] == "${secret.password}"
    assert rendered[2]["spec"]["upstream"] == "${Thing/b.id}"
    doctor = gamma(project, "doctor", "-o", "json").json
    assert doctor["ok"] is True
    assert [check["check"] for check in doctor["checks"]] == [
        "python",
        "project",
        "specs",
        "ledger",
        "targets",
    ]
    assert gamma(project, "schema").json["$schema"].startswith("https://json-schema.org/")
    assert "after" in json.dumps(gamma(project, "explain", "Thing.spec.after", "-o", "json").json)


READS = ["plan", "status", "history", "show", "graph", "render", "doctor", "validate"]


@pytest.mark.parametrize("command", [*READS, "apply"])
def test_json_goes_to_standard_output_alone(gamma: Warm, project: Path, command: str) -> None:
    yes = ["--yes"] if command == "apply" else []
    done = gamma(project, command, "-o", "json", *yes)
    assert done.out.startswith("{")
    assert isinstance(done.json, dict)
    assert "{" not in done.err
    if command == "apply":
        assert "create Thing/a: done" in done.err


@pytest.mark.parametrize("command", READS)
def test_what_only_reads_changes_nothing(gamma: Warm, project: Path, command: str) -> None:
    gamma(project, "apply", "--yes")
    fields = dict(world(project).things["a"]["fields"])
    world(project).effect("update", "a", {**fields, "value": "by hand"})
    text = (project / "specs/things.yaml").read_text()
    write(project, {"specs/things.yaml": text.replace("two", "due")})
    files = [project / ".gamma" / "dev" / "world.jsonl", project / ".gamma" / "ledger.db"]
    before = [file.read_bytes() for file in files]
    assert gamma(project, command).code in (0, 2)
    assert [file.read_bytes() for file in files] == before


def test_each_command_explains_itself(gamma: Warm, project: Path) -> None:
    listed = gamma(project, "--help").out.split("Commands:")[1]
    commands = [line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "]
    assert len(commands) >= 16
    for command in commands:
        done = gamma(project, command, "--help")
        assert (done.code, done.err) == (0, ""), command
        assert done.out.startswith(f"Usage: gamma {command}")
