"""`gamma plan --out FILE`, then `gamma apply FILE`: exactly that, or nothing at all (law 9)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.core.canonical import digest
from gamma_orch.testing.world import World
from tests.cli.gamma import Done, Warm, write
from tests.cli.test_contract import committed

FILE = "saved.json"


@pytest.fixture
def saved(gamma: Warm, project: Path) -> Path:
    """A project with one thing changed since the last apply, and the plan of it saved."""
    committed(project)
    assert gamma(project, "apply", "--yes").code == 0
    specs = project / "specs/things.yaml"
    write(project, {"specs/things.yaml": specs.read_text().replace("value: one", "value: uno")})
    committed(project)
    assert gamma(project, "plan", "--out", FILE).code == 2
    return project


def world(project: Path) -> World:
    return World(project / ".gamma" / "dev" / "world.jsonl")


def refused(gamma: Warm, project: Path, code: int = 3) -> Done:
    """Apply the saved plan; it must have no effect, and no plan may be recorded."""
    effects = world(project).effects
    history = gamma(project, "history", "-o", "json").json
    done = gamma(project, "apply", FILE)
    assert done.code == code, done.out + done.err
    assert "Traceback" not in done.err
    assert world(project).effects == effects
    assert gamma(project, "history", "-o", "json").json == history
    return done


def test_it_is_applied_as_it_is(gamma: Warm, saved: Path) -> None:
    planned = json.loads((saved / FILE).read_text())
    done = gamma(saved, "apply", FILE, "-o", "json")
    assert (done.code, done.json["plan"]) == (0, planned["id"])
    assert world(saved).things["a"]["fields"]["value"] == "uno"
    assert gamma(saved, "plan").code == 0


def test_the_ledger_moved(gamma: Warm, saved: Path) -> None:
    assert gamma(saved, "apply", FILE).code == 0
    assert "something was applied since" in refused(gamma, saved).err


def test_a_plan_or_a_look_in_between_does_not_matter(gamma: Warm, saved: Path) -> None:
    for command in ("plan", "status", "doctor", "history"):
        gamma(saved, command)
    assert gamma(saved, "apply", FILE).code == 0


def test_the_specs_moved(gamma: Warm, saved: Path) -> None:
    specs = saved / "specs/things.yaml"
    write(saved, {"specs/things.yaml": specs.read_text().replace("two", "due")})
    assert "the specs, variables or secrets changed since" in refused(gamma, saved).err


def test_the_commit_moved(gamma: Warm, saved: Path) -> None:
    write(saved, {"specs/README.md": "not even a spec\n"})
    committed(saved)
    assert "the plan was made from" in refused(gamma, saved).err


def test_a_secret_moved(gamma: Warm, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THING_PASSWORD", "another")
    assert "the specs, variables or secrets changed since" in refused(gamma, saved).err


@pytest.mark.parametrize(
    "change",
    [
        lambda world, fields: world.effect("update", "a", {**fields, "value": "by hand"}),
        lambda world, fields: world.effect("update", "a", {**fields, "value": "uno"}),
        lambda world, fields: world.effect("delete", "a", {}),
    ],
    ids=["drifted", "done by hand", "deleted"],
)
def test_the_world_moved(gamma: Warm, saved: Path, change: Callable[[World, Any], object]) -> None:
    there = world(saved)
    change(there, dict(there.things["a"]["fields"]))
    assert "Thing/a changed since the plan was made" in refused(gamma, saved).err


def test_the_world_moved_where_the_plan_does_nothing(gamma: Warm, saved: Path) -> None:
    """What was approved is the whole picture: another plan would come out now."""
    there = world(saved)
    there.effect("update", "b", {**there.things["b"]["fields"], "value": "by hand"})
    assert "planning again gives another plan" in refused(gamma, saved).err


@pytest.mark.parametrize(
    "edit",
    [
        lambda plan: plan["steps"][0]["planned"].update(value="mine"),
        lambda plan: plan["steps"].clear(),
        lambda plan: plan["changes"].clear(),
        lambda plan: plan.update(environment="prod"),
        lambda plan: plan.update(id="0" * 64),
        lambda plan: plan["changes"][0].update(reason="nothing to see here"),
    ],
    ids=["a value", "the steps", "the changes", "the environment", "the id", "a reason"],
)
def test_the_file_was_edited(gamma: Warm, saved: Path, edit: Callable[[Any], object]) -> None:
    plan = json.loads((saved / FILE).read_text())
    edit(plan)
    (saved / FILE).write_text(json.dumps(plan))
    assert "was changed after it was saved" in refused(gamma, saved).err


def test_a_forged_plan_is_not_the_plan_of_now(gamma: Warm, saved: Path) -> None:
    """With an id that fits its content, it still is another plan than the one that would be made."""
    plan = json.loads((saved / FILE).read_text())
    plan["steps"][0]["planned"]["value"] = "mine"
    body = {key: value for key, value in plan.items() if key not in ("id", "summary")}
    body["changes"] = [{k: v for k, v in c.items() if k != "impact"} for c in plan["changes"]]
    (saved / FILE).write_text(json.dumps({**plan, "id": digest(body)}))
    assert "planning again gives another plan" in refused(gamma, saved).err


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"changes": 3}', "\x00\xff", '{"id": "'], ids=repr)
def test_the_file_is_no_plan(gamma: Warm, saved: Path, text: str) -> None:
    (saved / FILE).write_text(text, encoding="latin-1")
    done = refused(gamma, saved, code=1)
    assert "is no plan saved by" in done.err or "was changed after it was saved" in done.err


def test_it_belongs_to_its_environment(gamma: Warm, saved: Path) -> None:
    environment = (saved / "environments/dev/environment.yaml").read_text()
    write(saved, {"environments/prod/environment.yaml": environment.replace("name: dev", "name: prod")})
    done = gamma(saved, "apply", FILE, "-e", "prod")
    assert done.code == 3, done.out + done.err
    assert "dev" in done.err
    assert not (saved / ".gamma/prod/world.jsonl").exists()


def test_consent_goes_into_a_plan_before_it_is_saved(gamma: Warm, saved: Path) -> None:
    done = gamma(saved, "apply", FILE, "--consent", "Thing/a")
    assert done.code == 1
    assert "plan again" in done.err
    assert world(saved).things["a"]["fields"]["value"] == "one"
