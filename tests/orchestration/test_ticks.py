"""Ticks: what starts a run by itself, what is left and why, and what is recorded without a run."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from gamma_orch.orchestration import location
from gamma_orch.orchestration.pulse import Memory, Pulse, pulse
from gamma_orch.orchestration.scene import scene
from gamma_orch.orchestration.ticks import Cause
from tests.orchestration.projects import (
    applied,
    commit,
    history,
    key,
    project,
    reconcile,
    thing,
    world,
    write,
)

CHAIN = (thing("a", value="one"), thing("b", after="a"), thing("c"))


def tick(root: Path, instance: dg.DagsterInstance, cause: Cause = Cause.SCHEDULE) -> Pulse:
    return pulse(scene(root, "dev"), cause, instance)


def started(told: Pulse) -> list[str]:
    return [address.name for address in told.start]


def meddle(root: Path, name: str, **fields: object) -> None:
    """Change a thing as somebody outside would."""
    now = world(root).things[name]["fields"]
    world(root).effect("update", name, {**now, **fields})


def recorded(instance: dg.DagsterInstance) -> int:
    """How many events the instance holds of assets and checks."""
    kinds = (dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    storage = instance.event_log_storage
    return sum(len(storage.get_event_records(dg.EventRecordsFilter(kind))) for kind in kinds)


def in_sync(instance: dg.DagsterInstance, name: str) -> tuple[bool, dict[str, object]]:
    """The newest verdict of a thing's check, and its metadata."""
    records = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(key(name), "in_sync"), limit=1
    )
    found = records[0].evaluation
    assert found is not None
    return found.passed, {name: value.value for name, value in found.metadata.items()}


def test_a_new_project_is_all_to_make(root: Path, instance: dg.DagsterInstance) -> None:
    told = tick(project(root, *CHAIN), instance)
    assert started(told) == ["a", "b", "c"]
    assert len(told.plan) == 64


def test_nothing_changed_costs_no_event(root: Path, instance: dg.DagsterInstance) -> None:
    applied(project(root, *CHAIN))
    first = tick(root, instance)
    assert first.start == ()
    assert first.words == "No changes. 3 resources as declared."
    before = recorded(instance)
    for cause in Cause:
        assert tick(root, instance, cause).start == ()
    assert recorded(instance) == before


def test_what_was_applied_by_hand_is_shown_once(root: Path, instance: dg.DagsterInstance) -> None:
    """Not only what runs did: else an asset looks as if it was never there."""
    applied(project(root, *CHAIN))
    tick(root, instance)
    shown = instance.fetch_materializations(key("a"), limit=5).records
    assert len(shown) == 1
    told = shown[0].asset_materialization
    assert told is not None
    assert told.description == "Applied by tester."
    assert told.metadata["action"].value == "create"
    write(root, thing("a", value="two"), *CHAIN[1:])
    applied(root)
    tick(root, instance)
    tick(root, instance)
    assert len(instance.fetch_materializations(key("a"), limit=5).records) == 2
    assert len(instance.fetch_materializations(key("c"), limit=5).records) == 1


def test_what_a_run_did_is_not_shown_twice(root: Path, instance: dg.DagsterInstance) -> None:
    reconcile(project(root, *CHAIN), instance)
    tick(root, instance)
    assert len(instance.fetch_materializations(key("a"), limit=5).records) == 1


def test_drift_is_shown_and_healed(root: Path, instance: dg.DagsterInstance) -> None:
    applied(project(root, *CHAIN))
    tick(root, instance)
    meddle(root, "a", value="mallory")
    told = tick(root, instance, Cause.DRIFT)
    assert started(told) == ["a"]
    passed, said = in_sync(instance, "a")
    assert not passed
    assert said["now"] == "value: mallory -> one  (drifted)"
    assert "- value: mallory\n+ value: one" in str(said["diff"])
    assert said["then"] == "a run heals it"
    before = recorded(instance)
    tick(root, instance, Cause.DRIFT)
    assert recorded(instance) == before, "the same drift is told once"
    assert reconcile(root, instance, "a", config={"plan": told.plan}).success
    assert in_sync(instance, "a")[0]
    assert world(root).things["a"]["fields"]["value"] == "one"
    assert "drifted Thing/a" in history(root)


def test_drift_that_went_away_is_told_too(root: Path, instance: dg.DagsterInstance) -> None:
    applied(project(root, *CHAIN))
    meddle(root, "a", value="mallory")
    tick(root, instance, Cause.DRIFT)
    meddle(root, "a", value="one")
    assert tick(root, instance, Cause.DRIFT).start == ()
    assert in_sync(instance, "a")[0]


def test_the_drift_sensor_starts_nothing_else(root: Path, instance: dg.DagsterInstance) -> None:
    applied(project(root, *CHAIN))
    write(root, thing("a", value="two"), *CHAIN[1:])
    told = tick(root, instance, Cause.DRIFT)
    assert told.start == ()
    assert "Thing/a: a change of ours, for the schedule or a commit to start" in told.words
    assert started(tick(root, instance, Cause.SCHEDULE)) == ["a"]


@pytest.mark.parametrize(
    ("environment", "resource", "starts", "checked"),
    [
        ("heal", "", True, True),
        ("report", "", False, True),
        ("off", "", False, False),
        ("report", "heal", True, True),
        ("heal", "report", False, True),
        ("heal", "off", False, False),
        ("off", "heal", True, True),
    ],
)
def test_the_policy_of_drift(
    root: Path, instance: dg.DagsterInstance, environment: str, resource: str, starts: bool, checked: bool
) -> None:
    """The resource's own word counts before the environment's."""
    own = f"{{name: a, lifecycle: {{drift: {resource}}}}}" if resource else "{name: a}"
    documents = (thing("a", value="one").replace("{name: a}", own), thing("c"))
    applied(project(root, *documents, settings=f"  reconcile: {{drift: {environment}}}\n"))
    meddle(root, "a", value="mallory")
    meddle(root, "c", value="mallory")
    told = tick(root, instance, Cause.DRIFT)
    assert ("a" in started(told)) is starts
    assert ("c" in started(told)) is (environment == "heal"), "it has no word of its own"
    found = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(key("a"), "in_sync"), limit=1
    )
    assert bool(found) is checked


def test_what_needs_something_that_is_left_is_left_too(root: Path, instance: dg.DagsterInstance) -> None:
    """A step brings along what it needs: healing the parent by way of the child would break the word."""
    applied(project(root, *CHAIN, settings="  reconcile: {drift: report}\n"))
    meddle(root, "a", value="mallory")
    write(root, CHAIN[0], thing("b", after="a", size=2), thing("c", size=2))
    told = tick(root, instance, Cause.SCHEDULE)
    assert started(told) == ["c"]
    assert "Thing/b: it needs Thing/a: its drift is only reported" in told.words


def test_who_flips_back_and_forth_is_left_alone_and_the_rival_named(
    root: Path, instance: dg.DagsterInstance
) -> None:
    settings = "  reconcile: {flapping: {heals: 3, within: 1h}}\n"
    applied(project(root, *CHAIN, settings=settings))
    for value in ("red", "green", "blue"):
        meddle(root, "a", value=value)
        assert started(tick(root, instance, Cause.DRIFT)) == ["a"]
        assert reconcile(root, instance, "a").success
    meddle(root, "a", value="white")
    meddle(root, "c", value="once")
    told = tick(root, instance, Cause.DRIFT)
    assert started(told) == ["c"], "the others are healed as before"
    why = "healed 3 times in 60 min and left alone now: something else writes"
    assert f"{why} value = blue; value = green; value = red" in told.words
    passed, said = in_sync(instance, "a")
    assert not passed
    assert why in str(said["then"])
    applied(root)
    assert world(root).things["a"]["fields"]["value"] == "one", "whoever asks for it still gets it"


def test_what_failed_is_tried_again_later_or_when_the_commit_changes(
    root: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    project(root, *CHAIN, settings="  reconcile: {retry: 10m}\n")
    commit(root, "first")
    with monkeypatch.context() as faulty:
        faulty.setenv("GAMMA_THING_FAULTS", '{"permanent": ["a"]}')
        assert not reconcile(root, instance).success
        told = tick(root, instance)
        assert told.start == ()
        assert "Thing/a: it failed and is tried again at" in told.words
        assert "Thing/b: it needs Thing/a" in told.words
    commit_more = root / "specs" / "more.yaml"
    commit_more.write_text(thing("d"))
    commit(root, "more")
    assert started(tick(root, instance)) == ["a", "b", "d"]


def test_a_freeze_starts_nothing_and_is_said(root: Path, instance: dg.DagsterInstance) -> None:
    now = datetime.now(UTC)
    begin, end = now - timedelta(hours=1), now + timedelta(hours=1)
    window = f'{{reason: year end, from: "{begin.isoformat()}", until: "{end.isoformat()}"}}'
    told = tick(project(root, *CHAIN, settings=f"  reconcile: {{freeze: [{window}]}}\n"), instance)
    assert told.start == ()
    assert told.words == f"Frozen until {end:%Y-%m-%d %H:%M} UTC: year end"


def test_a_memory_that_cannot_be_understood_is_none(instance: dg.DagsterInstance) -> None:
    asset = dg.AssetKey(["dev"])
    assert Memory.of(instance, "dev") == Memory()
    for odd in ({"other": 1}, {"summary": "s", "drifted": {}, "state": 1, "new": 2}):
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, metadata={"memory": odd}))
        assert Memory.of(instance, "dev") == Memory()


# --- the sensors around them -----------------------------------------------------------------------


def evaluate(
    root: Path, instance: dg.DagsterInstance, name: str, cursor: str | None = None
) -> dg.SensorResult:
    where = location(root, "dev")
    sensor = where.get_sensor_def(name)
    context = dg.build_sensor_context(instance=instance, repository_def=where, cursor=cursor)
    found = sensor.evaluate_tick(context)
    return dg.SensorResult(
        run_requests=found.run_requests,
        skip_reason=None if found.run_requests else found.skip_message,
        cursor=found.cursor,
    )


def skipped(result: dg.SensorResult) -> str:
    reason = result.skip_reason
    return (reason.skip_message if isinstance(reason, dg.SkipReason) else reason) or ""


def test_a_request_pins_the_plan_and_selects_what_changed(root: Path, instance: dg.DagsterInstance) -> None:
    applied(project(root, *CHAIN, settings="  reconcile: {every: 1m}\n"))
    meddle(root, "a", value="mallory")
    found = evaluate(root, instance, "drift").run_requests or []
    assert len(found) == 1
    assert found[0].asset_selection == [key("a")]
    assert len(found[0].run_config["resources"]["gamma"]["config"]["plan"]) == 64
    assert found[0].tags["gamma/cause"] == "drift"
    assert found[0].tags["gamma/environment"] == "dev"
    assert len(evaluate(root, instance, "reconcile_every").run_requests or []) == 1


def test_a_commit_starts_a_run_with_its_author_and_subject(root: Path, instance: dg.DagsterInstance) -> None:
    project(root, *CHAIN)
    commit(root, "first specs")
    result = evaluate(root, instance, "commits")
    asked = (result.run_requests or [])[0]
    assert asked.tags["gamma/author"] == "Ann"
    assert asked.tags["gamma/subject"] == "first specs"
    assert asked.tags["gamma/commit"] == (result.cursor or "")[:12]
    again = evaluate(root, instance, "commits", result.cursor)
    assert not again.run_requests
    assert skipped(again).startswith("No new commit: ")


def test_while_a_run_is_going_on_no_other_starts(root: Path, instance: dg.DagsterInstance) -> None:
    project(root, *CHAIN)
    commit(root, "first")
    where = location(root, "dev")
    instance.create_run_for_job(
        where.get_job("reconcile"), status=dg.DagsterRunStatus.STARTED, tags={"gamma/environment": "dev"}
    )
    result = evaluate(root, instance, "commits", "before")
    assert "is at work on dev" in skipped(result)
    assert result.cursor == "before", "the commit is looked at again"


def test_broken_specs_are_said_and_the_sensors_live_on(root: Path, instance: dg.DagsterInstance) -> None:
    """The definitions are then those of the ledger, and mended specs are noticed."""
    applied(project(root, *CHAIN))
    (root / "specs" / "things.yaml").write_text("apiVersion: gamma/v1\nkind: Thng\nmetadata: {name: a}\n")
    where = location(root, "dev")
    assert set(where.asset_graph.executable_asset_keys) == {key(name) for name in "abc"}
    described = where.asset_graph.get(key("a")).description
    assert described is not None
    assert "The specs are broken" in described
    assert "did you mean 'Thing'" in described
    assert all(s.default_status is dg.DefaultSensorStatus.RUNNING for s in where.sensor_defs)
    sensor = where.get_sensor_def("drift")
    context = dg.build_sensor_context(instance=instance, repository_def=where)
    told = sensor.evaluate_tick(context)
    assert not told.run_requests
    assert "things.yaml:2:7: error GAM202" in (told.skip_message or "")
    write(root, *CHAIN)
    mended = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, repository_def=where))
    assert "The specs changed since they were loaded" in (mended.skip_message or "")


def test_suspended_without_a_word(root: Path) -> None:
    """An environment that does not say how it reconciles starts nothing by itself."""
    project(root, *CHAIN)
    where = location(root, "dev")
    assert {s.name: s.default_status for s in where.sensor_defs if s.name != "failures"} == {
        "commits": dg.DefaultSensorStatus.STOPPED,
        "drift": dg.DefaultSensorStatus.STOPPED,
    }


def test_a_cron_makes_a_schedule(root: Path, instance: dg.DagsterInstance) -> None:
    project(root, *CHAIN, settings='  reconcile: {cron: "*/5 * * * *", drift: "off"}\n')
    where = location(root, "dev")
    schedule = where.get_schedule_def("reconcile_schedule")
    assert schedule.cron_schedule == "*/5 * * * *"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert sorted(s.name for s in where.sensor_defs) == ["commits", "failures"]
    context = dg.build_schedule_context(instance=instance, repository_def=where)
    found = schedule.evaluate_tick(context).run_requests or []
    assert [request.asset_selection for request in found] == [[key("a"), key("b"), key("c")]]


@pytest.mark.parametrize(
    ("status", "taken_up"), [(dg.DagsterRunStatus.FAILURE, True), (dg.DagsterRunStatus.CANCELED, False)]
)
def test_what_a_dead_run_has_left_is_taken_up_by_the_next_tick_of_any_kind(
    root: Path, instance: dg.DagsterInstance, status: dg.DagsterRunStatus, taken_up: bool
) -> None:
    """The commit that started it is old news to the git sensor by then. A person's cancel is respected."""
    project(root, *CHAIN)
    commit(root, "first")
    result = reconcile(root, instance, "a", "b")
    assert result.success
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    write(root, thing("a", value="two"), *CHAIN[1:])
    assert tick(root, instance, Cause.DRIFT).start == (), "the run ended well"
    _end_as(instance, run.run_id, status)
    assert started(tick(root, instance, Cause.DRIFT)) == (["a"] if taken_up else [])


def _end_as(instance: dg.DagsterInstance, run_id: str, status: dg.DagsterRunStatus) -> None:
    import sqlite3

    for file in Path(instance.storage_directory()).parent.rglob("runs.db"):
        connection = sqlite3.connect(file)
        body = connection.execute("SELECT run_body FROM runs WHERE run_id = ?", (run_id,)).fetchone()[0]
        changed = body.replace('"SUCCESS"', f'"{status.value}"')
        connection.execute(
            "UPDATE runs SET status = ?, run_body = ? WHERE run_id = ?", (status.value, changed, run_id)
        )
        connection.commit()
        connection.close()
