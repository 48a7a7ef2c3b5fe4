"""Runs of the job `reconcile`, in this process: what they do to the world, and what they say of it."""

from pathlib import Path

import dagster as dg
import pytest

from gamma_orch.orchestration import location
from gamma_orch.orchestration.work import Reconciler
from tests.orchestration.projects import (
    applied,
    history,
    key,
    pending,
    project,
    reconcile,
    thing,
    world,
    write,
)

CHAIN = (thing("a", value="one"), thing("b", after="a"), thing("c", after="b"), thing("d"))


def steps(result: dg.ExecuteInProcessResult, kind: str) -> list[str]:
    return sorted(event.step_key or "" for event in result.all_events if event.event_type_value == kind)


def said(result: dg.ExecuteInProcessResult, name: str) -> dict[str, object]:
    """The metadata of an asset's materialization."""
    found = [m for m in result.asset_materializations_for_node(f"Thing__{name}") if m.asset_key == key(name)]
    assert len(found) == 1
    return {name: value.value for name, value in found[0].metadata.items()}


def test_a_run_converges_and_tells(root: Path, instance: dg.DagsterInstance) -> None:
    result = reconcile(project(root, *CHAIN), instance)
    assert result.success
    assert steps(result, "STEP_SUCCESS") == ["Thing__a", "Thing__b", "Thing__c", "Thing__d"]
    told = said(result, "b")
    assert (told["action"], told["reason"]) == ("create", "not there yet")
    assert "after: a" in str(told["change"])
    assert "+ after: a" in str(told["diff"])
    assert str(told["plan"])
    checks = {(e.asset_key, e.check_name): e.passed for e in result.get_asset_check_evaluations()}
    assert checks == {(key(n), check): True for n in "abcd" for check in ("in_sync", "healthy")}
    assert pending(root) == {}
    log = history(root)
    assert log[0] == "planned"
    assert log[-1] == "released"
    assert log.count("done Thing/b") == 1


def test_one_asset_alone(root: Path, instance: dg.DagsterInstance) -> None:
    """What it needs comes with it; what it does not need is not touched."""
    result = reconcile(project(root, *CHAIN), instance, "b")
    assert result.success
    assert sorted(world(root).things) == ["a", "b"]
    assert pending(root) == {"Thing/c": "create", "Thing/d": "create"}
    assert "released" not in history(root), "two are still to be made"


def test_nothing_to_do(root: Path, instance: dg.DagsterInstance) -> None:
    applied(project(root, *CHAIN))
    before = len(history(root))
    result = reconcile(root, instance, "a")
    assert result.success
    assert said(result, "a")["action"] == "keep"
    assert len(history(root)) == before


def test_a_failure_fails_its_branch_alone(
    root: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAMMA_THING_FAULTS", '{"permanent": ["b"]}')
    result = reconcile(project(root, *CHAIN), instance)
    assert not result.success
    assert steps(result, "STEP_FAILURE") == ["Thing__b"]
    assert steps(result, "STEP_SUCCESS") == ["Thing__a", "Thing__d"], "c waits for b and is not tried"
    assert sorted(world(root).things) == ["a", "d"]
    failure = next(e for e in result.all_events if e.is_step_failure)
    assert "Thing/b" in str(failure.step_failure_data.error_display_string)
    assert "released" not in history(root)


def test_an_unhealthy_refusal_is_told(root: Path, instance: dg.DagsterInstance) -> None:
    """A protected thing whose document went is refused, in the words of the plan."""
    applied(
        project(root, thing("a").replace("{name: a}", "{name: a, lifecycle: {protect: true}}"), thing("b"))
    )
    write(root, thing("b"))
    result = reconcile(root, instance, "a")
    assert not result.success
    failure = next(e for e in result.all_events if e.is_step_failure)
    assert "protected" in str(failure.step_failure_data.error_display_string)
    assert sorted(world(root).things) == ["a", "b"]


def test_what_is_not_declared_any_more_is_deleted_children_first(
    root: Path, instance: dg.DagsterInstance
) -> None:
    applied(project(root, *CHAIN))
    write(root, thing("d"))
    result = reconcile(root, instance)
    assert result.success
    assert sorted(world(root).things) == ["d"]
    assert [line for line in history(root) if line.startswith("done")][-3:] == [
        "done Thing/c",
        "done Thing/b",
        "done Thing/a",
    ]
    assert set(location(root, "dev").asset_graph.executable_asset_keys) == {key("d")}


def test_a_rebuild_takes_its_children_along(root: Path, instance: dg.DagsterInstance) -> None:
    """Deleted first, with what rests on it; then all are made again, each once."""
    applied(project(root, thing("a", fixed="x"), thing("b", after="a")))
    ids = {name: found["id"] for name, found in world(root).things.items()}
    write(root, thing("a", fixed="y"), thing("b", after="a"))
    assert reconcile(root, instance).success
    assert pending(root) == {}
    now = {name: found["id"] for name, found in world(root).things.items()}
    assert all(now[name] != ids[name] for name in "ab")
    assert [line for line in history(root) if line.startswith("done")][-4:] == [
        "done Thing/b",
        "done Thing/a",
        "done Thing/a",
        "done Thing/b",
    ]


def test_a_stale_plan_is_made_again_and_said(
    root: Path, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    result = reconcile(project(root, *CHAIN), instance, config={"plan": "0" * 64})
    assert result.success
    logged = [r.message for r in instance.all_logs(result.run_id) if "is stale" in (r.message or "")]
    assert len(logged) == 1, "once a run, not once a resource"
    assert "Planned again" in logged[0]


def test_the_pinned_plan_is_kept_to_in_silence(root: Path, instance: dg.DagsterInstance) -> None:
    from gamma_orch.engine.converge import look
    from gamma_orch.engine.doors import opened, run

    with opened(project(root, *CHAIN), "dev") as site:
        plan = run(site, look(site)).plan
    result = reconcile(root, instance, config={"plan": plan.id})
    assert said(result, "a")["plan"] == plan.id[:12]
    assert not [r for r in instance.all_logs(result.run_id) if "is stale" in (r.message or "")]


def test_a_frozen_environment_refuses(root: Path, instance: dg.DagsterInstance) -> None:
    window = 'from: "2000-01-01T00:00:00Z", until: "2999-01-01T00:00:00Z"'
    window = f"  reconcile: {{freeze: [{{reason: year end, {window}}}]}}\n"
    result = reconcile(project(root, *CHAIN, settings=window), instance, "a")
    assert not result.success
    failure = next(e for e in result.all_events if e.is_step_failure)
    assert "frozen until 2999-01-01T00:00Z: year end" in str(failure.step_failure_data.error_display_string)
    assert world(root).effects == 0


def test_a_run_waits_for_who_is_at_work(
    root: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And gives up in the words of the lease."""
    from gamma_orch.orchestration import work
    from gamma_orch.store import lease
    from tests.orchestration.projects import ledger

    project(root, *CHAIN)
    monkeypatch.setattr(work, "PATIENCE_SECONDS", 0.0)
    with ledger(root) as database:
        held = lease.acquire(database, "dev", "gamma apply")
        result = reconcile(root, instance, "a")
        assert not result.success
        failure = next(e for e in result.all_events if e.is_step_failure)
        assert "is at work on dev" in str(failure.step_failure_data.error_display_string)
        lease.release(database, held)
    assert reconcile(root, instance, "a").success


def test_a_run_builds_its_own_assets_only(root: Path) -> None:
    """Dagster would build all of them in each process of the run."""
    project(root, *(thing(f"t{n}") for n in range(20)))
    where = location(root, "dev")
    job = where.get_maybe_subset_job_def("reconcile", asset_selection={key("t3"), key("t7")})
    assert sorted(node.name for node in job.nodes) == ["Thing__t3", "Thing__t7"]
    assert "data" not in vars(where._repository_data), "the whole was not made"
    assert len(where.asset_graph.executable_asset_keys) == 20


def test_the_resource_is_one_for_the_run(
    root: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The world is read once and the lease taken once, not once a resource."""
    opened = []
    original = Reconciler._opened

    def counted(self: Reconciler, *arguments: object) -> object:
        opened.append(self._session is None)
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Reconciler, "_opened", counted)
    assert reconcile(project(root, *CHAIN), instance).success
    assert opened == [True, False, False, False]


def test_a_runs_job_knows_its_selection_and_the_whole_it_is_of(root: Path) -> None:
    """Else Dagster plans, and shows, all assets in a run of two."""
    project(root, *CHAIN)
    where = location(root, "dev")
    whole = where.get_job("reconcile")
    chosen = {key("a"), key("b")}
    job = where.get_maybe_subset_job_def("reconcile", asset_selection=chosen)
    lineage = job.get_job_snapshot().lineage_snapshot
    assert lineage is not None
    assert lineage.asset_selection == chosen
    assert lineage.parent_snapshot_id == whole.get_job_snapshot_id()
    assert job.asset_layer.selected_asset_keys == chosen
