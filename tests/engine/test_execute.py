"""One plan carried out: who runs when, what is retried, what is believed, and what is written down."""

import asyncio
import contextlib
import json
import random
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from gamma_orch.core.event import Type
from gamma_orch.core.leaves import Ref, Template
from gamma_orch.core.observation import ABSENT, Seen, Unreadable
from gamma_orch.core.provider import Opcode, Permanent, Task, Temporary
from gamma_orch.core.resource import Lifecycle, Replace
from gamma_orch.engine import converge, execute
from gamma_orch.engine.progress import Silent
from gamma_orch.spec.environment import SecretSource
from gamma_orch.store import lease as leases
from gamma_orch.store.errors import LeaseLost, StoreError
from gamma_orch.store.ledger import Log, verify
from tests.engine.bench import TRAITS, Bench, Hook, errors, item, kind, statuses

SECRET = "hunter2-in-the-text"


def together(bench: Bench, number: int) -> Hook:
    """An effect that ends once so many are at work, and gives one more the time to come."""
    reached = asyncio.Event()

    async def wait(task: Task) -> None:
        if bench.place.running >= number:
            reached.set()
        await asyncio.wait_for(reached.wait(), 10)
        await asyncio.sleep(0.02)

    return wait


def hold(bench: Bench, names: Sequence[str], hook: Hook) -> None:
    bench.place.before.update(dict.fromkeys(names, hook))


# -- how many at once ----------------------------------------------------------------------------


async def test_a_target_bears_so_many_and_they_are_used(bench: Bench):
    bench.limits.limits = {"db": 3}
    names = [f"a{n}" for n in range(9)]
    for name in names:
        bench.want(name, target="db")
    hold(bench, names, together(bench, 3))
    outcome = await bench.apply()
    assert set(statuses(outcome).values()) == {"done"}
    assert bench.place.peak == 3


async def test_deletions_count_for_their_target_too(bench: Bench):
    bench.limits.limits = {"db": 2}
    names = [f"a{n}" for n in range(6)]
    for name in names:
        bench.want(name, target="db")
    await bench.made()
    bench.drop(*names)
    bench.place.peak = 0
    hold(bench, names, together(bench, 2))
    await bench.apply()
    assert bench.place.peak == 2
    assert not bench.place.objects


async def test_all_targets_together_have_a_bound(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(execute, "ALTOGETHER", 5)
    bench.limits.limits = {f"db{n}": 4 for n in range(4)}
    names = [f"a{n}" for n in range(16)]
    for n, name in enumerate(names):
        bench.want(name, target=f"db{n % 4}")
    hold(bench, names, together(bench, 5))
    outcome = await bench.apply()
    assert set(statuses(outcome).values()) == {"done"}
    assert bench.place.peak == 5


async def test_what_has_no_target_is_bounded_too(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(execute, "ALTOGETHER", 4)
    names = [f"a{n}" for n in range(9)]
    for name in names:
        bench.want(name)
    hold(bench, names, together(bench, 4))
    await bench.apply()
    assert bench.place.peak == 4


async def test_who_waits_for_a_busy_target_takes_no_place_from_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(execute, "ALTOGETHER", 3)
    bench.limits.limits = {"busy": 1, "free": 1}
    others_done = asyncio.Event()

    async def wait(task: Task) -> None:
        await asyncio.wait_for(others_done.wait(), 10)

    async def ended(task: Task) -> None:
        others_done.set()

    names = [f"a{n}" for n in range(8)]
    for name in names:
        bench.want(name, target="busy")
    bench.want("z", target="free")
    hold(bench, names, wait)
    bench.place.after["z"] = ended
    outcome = await bench.apply()
    assert set(statuses(outcome).values()) == {"done"}
    assert bench.place.effects[0] == ("create", "z")


async def test_a_kind_that_nobody_knows_any_more_can_be_forgotten(bench: Bench):
    bench.want("a", lifecycle=Lifecycle(retain=True), target="db")
    bench.limits.limits = {"db": 1}
    await bench.made()
    bench.drop("a")
    bench.kinds.clear()
    bench.limits.limits = {}
    outcome = await bench.apply()
    assert statuses(outcome) == {"a": "done"}
    assert bench.record("a") is None
    assert "a" in bench.place.objects


# -- failures stay in their branch ---------------------------------------------------------------


async def test_a_failure_skips_what_depends_on_it_and_nothing_else(bench: Bench):
    bench.want("a", value="1")
    bench.want("b", needs=["a"])
    bench.want("c", needs=["b"])
    bench.want("d", needs=["c", "x"])
    bench.want("x")
    bench.want("y", needs=["x"])
    bench.place.fails["a"] = [Permanent("It cannot be.")]
    outcome = await bench.apply()
    assert statuses(outcome) == {
        "a": "failed",
        "b": "skipped",
        "c": "skipped",
        "d": "skipped",
        "x": "done",
        "y": "done",
    }
    assert errors(outcome) == {"a": "It cannot be."}
    assert outcome.failed
    assert not outcome.stopped
    assert [r.step.index for r in outcome.results] == [s.index for s in outcome.plan.steps]
    assert bench.place.effects == [("create", "x"), ("create", "y")]
    log = bench.written()
    assert "failed a" in log
    assert not {f"{what} {name}" for what in ("begun", "done", "failed") for name in "bcd"} & set(log)
    assert bench.entry("a").error == "It cannot be."
    assert bench.entry("a").begun is None, "a failure that is told of leaves nothing in doubt"
    # Everybody is told of once, and started only where it started.
    assert sorted(n for what, n in bench.told.lines if what == "finished") == ["a", "b", "c", "d", "x", "y"]
    assert sorted(n for what, n in bench.told.lines if what == "started") == ["a", "x", "y"]
    assert {r.step.address.name: r.status.value for r in bench.told.results} == statuses(outcome)

    again = await bench.apply()
    assert statuses(again) == {"a": "done", "b": "done", "c": "done", "d": "done"}


async def test_a_dependent_starts_after_the_done_is_on_the_disk(bench: Bench):
    seen: list[list[str]] = []

    async def note(task: Task) -> None:
        seen.append(bench.written())

    bench.want("a")
    bench.want("b", needs=["a"])
    hold(bench, ["a", "b"], note)
    await bench.apply()
    assert seen == [["planned", "begun a"], ["planned", "begun a", "done a", "begun b"]]


async def test_an_unexpected_error_stops_its_branch_and_shows_nothing_of_its_text(
    bench: Bench, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    bench.want("a")
    bench.want("b", needs=["a"])
    bench.want("x")
    bench.place.fails["a"] = [RuntimeError(SECRET)]
    outcome = await bench.apply()
    assert statuses(outcome) == {"a": "failed", "b": "skipped", "x": "done"}
    said = errors(outcome)["a"]
    assert re.fullmatch(r"The provider of Item failed: RuntimeError at tests\.\w+\.\w+:\d+\.", said)
    assert errors(outcome) == {"a": said}
    assert bench.entry("a").error == said
    assert len([t for t in bench.place.tasks if t.address.name == "a"]) == 1, "a defect is not retried"
    everything = [
        caplog.text,
        *capfd.readouterr(),
        repr(outcome),
        repr(bench.told.lines),
        json.dumps([r.encoded() for r in outcome.results]),
        bench.bytes_of_ledger().decode("latin-1"),
    ]
    assert all(SECRET not in text for text in everything)


async def test_the_text_of_an_unexpected_error_of_a_read_is_not_shown_either(bench: Bench):
    class Broken:
        reads = 0

        async def observe(self, asked):
            Broken.reads += 1
            if Broken.reads == 3:  # after the survey and the look before the step
                raise ValueError(SECRET)
            return {one.address: ABSENT for one in asked}

        async def apply(self, task: Task) -> None: ...

        async def delete(self, task: Task) -> None: ...

    bench.want("a")
    bench.kinds["Item"] = kind(lambda targets: Broken())
    outcome = await bench.apply()
    before = "It was applied, and then could not be read back: the provider of Item failed: ValueError at "
    assert re.fullmatch(re.escape(before) + rf"{re.escape(__name__)}:\d+", errors(outcome)["a"])
    assert SECRET.encode() not in bench.bytes_of_ledger()


# -- again ---------------------------------------------------------------------------------------


async def test_what_may_pass_is_tried_again_and_the_watcher_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(execute, "FIRST_WAIT", 0.004)
    monkeypatch.setattr(execute, "LONGEST_WAIT", 0.02)
    monkeypatch.setattr(random, "uniform", lambda low, high: low)  # the least that it waits
    at: list[float] = []

    async def note(task: Task) -> None:
        at.append(time.monotonic())

    bench.want("a", value="1")
    bench.place.before["a"] = note
    bench.place.fails["a"] = [Temporary(f"Busy {n}.") for n in range(5)]
    outcome = await bench.apply()
    assert statuses(outcome) == {"a": "done"}
    assert [(name, error) for name, error, _ in bench.told.retries] == [("a", f"Busy {n}.") for n in range(5)]
    waits = [seconds for _, _, seconds in bench.told.retries]
    assert waits == pytest.approx([0.004, 0.008, 0.016, 0.02, 0.02])
    assert all(after - before >= wait for before, after, wait in zip(at, at[1:], waits, strict=False))
    assert len({task.key for task in bench.place.tasks}) == 1, "an attempt more is the same effect"
    assert bench.written() == ["planned", "begun a", "done a", "released"]
    assert bench.place.effects == [("create", "a")]


async def test_deletions_are_tried_again_too(bench: Bench):
    bench.want("a")
    await bench.made()
    bench.drop("a")
    bench.place.fails["a"] = [Temporary("Busy.")]
    outcome = await bench.apply()
    assert statuses(outcome) == {"a": "done"}
    assert [task.opcode for task in bench.place.tasks] == [Opcode.DELETE] * 2
    assert bench.record("a") is None


async def test_attempts_have_an_end(bench: Bench):
    bench.want("a")
    bench.place.fails["a"] = [Temporary(f"Busy {n}.") for n in range(100)]
    outcome = await bench.apply()
    assert errors(outcome) == {"a": "Busy 5."}
    assert len(bench.place.tasks) == execute.ATTEMPTS == 6
    assert len(bench.told.retries) == 5, "nobody is told of a retry that does not come"
    assert bench.entry("a").error == "Busy 5."


async def test_what_will_not_pass_is_not_tried_again(bench: Bench):
    bench.want("a")
    bench.place.fails["a"] = [Permanent("No.")]
    assert errors(await bench.apply()) == {"a": "No."}
    assert len(bench.place.tasks) == 1
    assert not bench.told.retries


# -- what is read back ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (
            Seen({"name": "a", "value": "2", "size": 1}),
            "It was applied, and reads back different: value",
        ),
        (
            Seen({"value": "2"}),
            "It was applied, and reads back different: name, value, size",
        ),
        (ABSENT, "It was applied without an error, and is not there."),
        (Unreadable("no route"), "It was applied, and then could not be read back: no route"),
        (
            Seen({"name": "a", "value": "1", "size": 1}, healthy=False, why="it is invalid"),
            "It was applied, and does not work: it is invalid",
        ),
    ],
    ids=["differs", "lacks", "absent", "unreadable", "unhealthy"],
)
async def test_an_effect_is_believed_when_it_is_read_back(bench: Bench, read, says: str):
    bench.want("a", value="1", size=1)
    bench.want("b", needs=["a"])
    bench.place.reads["a"] = [ABSENT, ABSENT, read]
    outcome = await bench.apply()
    assert statuses(outcome) == {"a": "failed", "b": "skipped"}
    assert errors(outcome) == {"a": says}
    assert bench.entry("a").error == says
    assert bench.record("a") is None
    assert bench.written() == ["planned", "begun a", "failed a"]


async def test_a_field_that_was_to_go_and_is_still_there(bench: Bench):
    bench.want("a", value="1", extra="x")
    await bench.made()
    bench.want("a", value="1")

    async def keep(task: Task) -> None:
        bench.place.objects["a"]["extra"] = "x"

    bench.place.after["a"] = keep
    assert errors(await bench.apply()) == {"a": "It was applied, and reads back different: extra"}
    assert bench.record("a").fields["extra"] == "x"


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (Seen({"name": "a"}), "It was deleted without an error, and is still there."),
        (Unreadable("no route"), "It was applied, and then could not be read back: no route"),
    ],
    ids=["there", "unreadable"],
)
async def test_a_deletion_is_believed_when_it_is_read_back(bench: Bench, read, says: str):
    bench.want("a")
    await bench.made()
    bench.drop("a")
    there = Seen({"name": "a"}, {"id": "id-1"})
    bench.place.reads["a"] = [there, there, read]
    assert errors(await bench.apply()) == {"a": says}
    assert bench.record("a") is not None


# -- the world moves -----------------------------------------------------------------------------


async def test_a_step_whose_object_changed_since_the_plan_is_refused(bench: Bench):
    bench.want("a", value="1")
    bench.want("b", value="1", needs=["a"])
    bench.want("c", needs=["b"])
    await bench.made()
    bench.want("a", value="2")
    bench.want("b", value="2", needs=["a"])
    bench.want("c", value="2", needs=["b"])
    bench.want("z", value="2")

    async def somebody(task: Task) -> None:
        bench.place.put("b", value="theirs")

    bench.place.after["a"] = somebody
    outcome = await bench.apply()
    assert statuses(outcome) == {"a": "done", "b": "failed", "c": "skipped", "z": "done"}
    assert errors(outcome) == {"b": "Item/b changed since the plan was made; plan again to see how"}
    assert bench.place.touched("b") == []
    assert bench.place.objects["b"]["value"] == "theirs"
    assert "begun b" not in bench.written()[bench.written().index("released") :]


async def test_an_object_that_came_up_meanwhile_is_not_overwritten(bench: Bench):
    bench.want("a")
    bench.want("b", value="mine", needs=["a"])

    async def somebody(task: Task) -> None:
        bench.place.put("b", value="theirs")

    bench.place.after["a"] = somebody
    assert statuses(await bench.apply()) == {"a": "done", "b": "failed"}
    assert bench.place.objects["b"]["value"] == "theirs"


async def test_what_cannot_be_read_at_its_turn_is_left_alone(bench: Bench):
    bench.want("a")
    bench.place.reads["a"] = [ABSENT, Unreadable("no route")]
    outcome = await bench.apply()
    assert errors(outcome) == {"a": "Item/a cannot be read now: no route"}
    assert bench.place.tasks == []
    assert bench.written() == ["planned", "failed a"]


# -- values that come late -----------------------------------------------------------------------


def chain(bench: Bench, value: str) -> None:
    bench.want("a", value=value)
    bench.want("b", upstream=Ref(item("a"), "id"), note="b")


async def test_a_value_of_a_step_before_arrives(bench: Bench):
    chain(bench, "1")
    bench.want("c", text=Template(("at ", Ref(item("a"), "id"), "!")))
    await bench.apply()
    assert bench.place.objects["b"]["upstream"] == "id-1"
    assert bench.place.objects["c"]["text"] == "at id-1!"
    assert bench.record("b").fields == {"name": "b", "note": "b", "upstream": "id-1"}
    begun = next(e for e in bench.log() if e.type is Type.BEGUN and e.address == item("b"))
    assert begun.data["planned"]["upstream"] == "id-1"
    assert begun.data["record"]["fields"]["upstream"] == "id-1"
    assert (await bench.look()).steps == ()


async def test_a_value_that_comes_out_as_it_was_changes_nothing(bench: Bench):
    chain(bench, "1")
    await bench.made()
    chain(bench, "2")  # its id stays
    outcome = await bench.apply()
    assert statuses(outcome) == {"a": "done", "b": "done"}
    assert bench.place.effects == [("update", "a")]
    assert bench.written()[-4:] == ["begun a", "done a", "done b", "released"]
    assert bench.record("b").fields["upstream"] == "id-1"
    assert (await bench.look()).steps == ()


async def test_a_value_that_comes_out_otherwise_is_applied(bench: Bench):
    chain(bench, "1")
    await bench.made()
    chain(bench, "2")
    bench.place.renewed.add("a")
    await bench.apply()
    assert bench.place.effects == [("update", "a"), ("update", "b")]
    assert bench.place.objects["b"]["upstream"] == bench.place.ids["a"] != "id-1"


async def test_an_equal_value_does_not_hide_drift(bench: Bench):
    chain(bench, "1")
    await bench.made()
    chain(bench, "2")
    bench.place.objects["b"]["note"] = "theirs"
    await bench.apply()
    assert bench.place.effects == [("update", "a"), ("update", "b")]
    assert bench.place.objects["b"]["note"] == "b"


async def test_an_equal_value_does_not_hide_another_change(bench: Bench):
    """Of the spec, which the world happens to have already: the ledger must learn it by an effect or
    by a record, and the record is the new one."""
    chain(bench, "1")
    await bench.made()
    bench.want("a", value="2")
    bench.want("b", upstream=Ref(item("a"), "id"), note="new")
    await bench.apply()
    assert bench.place.objects["b"]["note"] == "new"
    assert bench.record("b").fields["note"] == "new"


async def test_an_equal_value_does_not_hide_ill_health(bench: Bench):
    chain(bench, "1")
    await bench.made()
    chain(bench, "2")
    bench.place.unwell["b"] = "it is invalid"
    await bench.apply()
    assert bench.place.effects == [("update", "a"), ("update", "b")]


async def test_ill_health_alone_is_reason_enough(bench: Bench):
    bench.want("a", value="1")
    await bench.made()
    bench.place.unwell["a"] = "it is invalid"
    assert statuses(await bench.apply()) == {"a": "done"}
    assert bench.place.effects == [("update", "a")]


async def test_a_changed_parent_alone_is_reason_enough(bench: Bench):
    bench.rules(replace(TRAITS, derives=True))
    bench.want("a", value="1")
    bench.want("b", needs=["a"], value="1")
    await bench.made()
    bench.want("a", value="2")
    await bench.apply()
    assert bench.place.effects == [("update", "a"), ("update", "b")]


async def test_an_equal_value_does_not_hide_a_changed_parent(bench: Bench):
    bench.rules(replace(TRAITS, derives=True))
    chain(bench, "1")
    await bench.made()
    chain(bench, "2")
    await bench.apply()
    assert bench.place.effects == [("update", "a"), ("update", "b")]


async def test_a_kind_that_derives_no_more_is_not_applied_for_it(bench: Bench):
    bench.rules(replace(TRAITS, derives=True))
    chain(bench, "1")
    await bench.made()
    bench.rules(TRAITS)
    chain(bench, "2")
    await bench.apply()
    assert bench.place.effects == [("update", "a")]


async def test_an_equal_value_does_not_hide_another_secret(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """Which cannot be read back: what is there looks as wanted."""
    for name, value in (("pw1", "old"), ("pw2", "new")):
        monkeypatch.setenv(name, value)
        chain(bench, value)
        secret = bench.secret(name, SecretSource(env=name))
        bench.want("b", upstream=Ref(item("a"), "id"), password=secret)
        await bench.apply()
    assert bench.place.effects[2:] == [("update", "a"), ("update", "b")]
    assert bench.place.secrets["b"] == {"password": "new"}


async def test_an_output_that_does_not_come(bench: Bench):
    bench.want("a")
    bench.want("b", upstream=Ref(item("a"), "colour"))
    outcome = await bench.apply()
    assert errors(outcome) == {"b": "Item/a has no output 'colour', now that it is applied."}
    assert bench.place.touched("b") == []


async def test_an_output_of_what_stays_is_the_one_that_was_read(bench: Bench):
    """The world gave it another id, as when somebody makes it anew outside: the ledger's is old."""
    chain(bench, "1")
    await bench.made()
    bench.place.ids["a"] = "another"
    outcome = await bench.apply()
    assert statuses(outcome) == {"b": "done"}
    assert bench.place.objects["b"]["upstream"] == "another"
    assert (await bench.look()).steps == ()


async def test_what_is_copied_from_a_parent_that_stays_is_a_value(bench: Bench):
    bench.want("a", value="1")
    bench.want("b", value=Ref(item("a"), "id"))
    await bench.made()
    bench.want("c", copies="b")
    assert statuses(await bench.apply()) == {"c": "done"}
    assert bench.place.objects["c"]["copied"] == "id-1"
    assert bench.record("c").fields["copied"] == "id-1"
    assert (await bench.look()).steps == ()


async def test_what_is_copied_from_a_parent_that_changes_is_its_new_value(bench: Bench):
    bench.want("a", value="1")
    bench.want("b", value=Ref(item("a"), "id"))
    bench.want("c", copies="b")
    await bench.apply()
    assert bench.place.objects["c"]["copied"] == "id-1"
    assert (await bench.look()).steps == ()


async def test_what_is_copied_from_a_parent_that_is_partly_ignored_is_as_planned(bench: Bench):
    bench.want("b", value="1", lifecycle=Lifecycle(ignore=("spec.value",)))
    await bench.made()
    bench.place.objects["b"]["value"] = "theirs"
    bench.want("c", copies="b")
    plan = await bench.look()
    await bench.apply()
    assert bench.record("c").fields == plan.steps[0].planned
    assert (await bench.look()).steps == ()


async def test_a_chain_of_parents_that_stay_may_be_long(bench: Bench):
    bench.want("n0", value="1")
    for n in range(1, 400):
        bench.want(f"n{n}", copies=f"n{n - 1}")
    for name in (address.name for address in bench.desired):
        bench.place.put(name, **as_wanted(bench, name))
    await bench.made()
    bench.want("last", copies="n399")
    assert statuses(await bench.apply()) == {"last": "done"}


def as_wanted(bench: Bench, name: str) -> dict[str, str | None]:
    """As they are wanted, so that they only have to be adopted."""
    spec = dict(bench.desired[item(name)].spec)
    if "copies" in spec:
        spec["copied"] = bench.desired[item(spec["copies"])].spec.get("value")
    return spec


# -- what a provider gets, and what is written down ----------------------------------------------


async def test_a_task_and_its_events(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PW", SECRET)
    secret = bench.secret("pw", SecretSource(env="PW"))
    bench.want("p")
    bench.want("a", value="1", password=secret, needs=["p"], lifecycle=Lifecycle(protect=True))
    await bench.apply()
    task = next(t for t in bench.place.tasks if t.address == item("a"))
    step = next(e for e in bench.log() if e.type is Type.BEGUN and e.address == item("a"))
    assert (task.opcode, task.recorded, task.live) == (Opcode.CREATE, None, None)
    assert task.fields == {"name": "a", "value": "1", "password": secret}
    assert task.key == step.step
    assert bench.place.secrets["a"] == {"password": SECRET}
    assert SECRET.encode() not in bench.bytes_of_ledger()
    fields = {"name": "a", "value": "1", "password": secret.encoded()}
    assert step.data["opcode"] == "create"
    assert step.data["before"] is None
    assert step.data["planned"] == step.data["record"]["fields"] == fields
    record = bench.record("a")
    assert (record.fields, record.outputs, record.protect) == (fields, {"id": "id-2"}, True)
    assert record.needs == (item("p"),)
    done = next(e for e in bench.log() if e.type is Type.DONE and e.address == item("a"))
    assert 0 < done.data["seconds"] < 60
    assert {e.plan for e in bench.log()} == {step.plan}

    bench.place.objects["a"]["value"] = "theirs"
    bench.place.tasks.clear()
    await bench.apply()
    (task,) = bench.place.tasks
    assert task.opcode is Opcode.UPDATE
    assert task.recorded == fields
    assert task.live == {"name": "a", "value": "theirs"}
    begun = [e for e in bench.log() if e.type is Type.BEGUN][-1]
    assert begun.data["before"] == {"name": "a", "value": "theirs"}
    assert begun.step == task.key != step.step


async def test_a_result_is_data(bench: Bench):
    bench.want("a")
    bench.place.fails["a"] = [Permanent("No.")]
    (result,) = (await bench.apply()).results
    body = result.encoded()
    assert body.pop("seconds") >= 0
    assert body == {"address": "Item/a", "action": "create", "status": "failed", "error": "No."}
    (result,) = (await bench.apply()).results
    assert result.encoded()["error"] is None


async def test_adopting_what_is_as_wanted_is_only_written_down(bench: Bench):
    bench.want("a", value="1")
    bench.place.put("a", value="1")
    assert statuses(await bench.apply()) == {"a": "done"}
    assert bench.place.tasks == []
    assert bench.written() == ["planned", "done a", "released"]
    assert bench.record("a").outputs == {"id": "outside-a"}


async def test_what_is_gone_already_is_only_forgotten(bench: Bench):
    bench.want("a")
    await bench.made()
    bench.drop("a")
    del bench.place.objects["a"]
    assert statuses(await bench.apply()) == {"a": "done"}
    assert bench.place.tasks == []
    assert bench.record("a") is None


async def test_what_is_moved_takes_its_record_with_it(bench: Bench):
    bench.want("old", value="1")
    await bench.made()
    bench.drop("old")
    bench.want("new", value="1", moved_from="old")
    outcome = await bench.apply()
    assert statuses(outcome) == {"new": "done"}
    assert bench.place.effects == [("update", "new")]
    assert bench.place.tasks[0].recorded == {"name": "old", "value": "1"}
    assert bench.record("old") is None
    assert bench.record("new").outputs == {"id": "id-1"}
    begun = [e for e in bench.log() if e.type is Type.BEGUN][-1]
    assert begun.data["movedFrom"] == "Item/old"


async def test_what_is_ignored_stays_as_it_is(bench: Bench):
    bench.want("a", value="1", note="n", lifecycle=Lifecycle(ignore=("spec.note",)))
    await bench.made()
    assert bench.place.objects["a"]["note"] == "n", "at creation there is nothing to leave"
    bench.place.objects["a"]["note"] = "theirs"
    bench.want("a", value="2", note="n", lifecycle=Lifecycle(ignore=("spec.note",)))
    await bench.apply()
    assert bench.place.tasks[0].fields == {"name": "a", "value": "2", "note": "theirs"}
    assert bench.place.objects["a"] == {"name": "a", "value": "2", "note": "theirs"}


async def test_what_is_adopted_and_changed_is_not_ignored(bench: Bench):
    bench.want("a", value="1", note="n", lifecycle=Lifecycle(ignore=("spec.note",)))
    bench.place.put("a", value="theirs", note="theirs")
    await bench.apply()
    assert bench.place.objects["a"] == {"name": "a", "value": "1", "note": "n"}


@pytest.mark.parametrize(
    ("order", "effects"),
    [
        (Replace.DELETE_FIRST, [("delete", "a"), ("create", "a")]),
        (Replace.CREATE_FIRST, [("replace", "a")]),
    ],
)
async def test_replacing(bench: Bench, order: Replace, effects: list[tuple[str, str]]):
    bench.want("a", fixed="x")
    await bench.made()
    bench.want("a", fixed="y", lifecycle=Lifecycle(replace=order))
    outcome = await bench.apply()
    assert {r.status.value for r in outcome.results} == {"done"}
    assert bench.place.effects == effects
    assert bench.place.objects["a"]["fixed"] == "y"
    assert bench.record("a").outputs == {"id": "id-2"}
    begun = [e for e in bench.log() if e.type is Type.BEGUN][-1]
    found = {"name": "a", "fixed": "x"} if order is Replace.CREATE_FIRST else None
    assert begun.data["before"] == found, "what it found at its turn"


# -- stopping ------------------------------------------------------------------------------------


async def test_a_stop_lets_the_running_finish_and_starts_no_more(bench: Bench):
    bench.limits.limits = {"db": 2}
    stop = asyncio.Event()
    stopping = together(bench, 2)

    async def work(task: Task) -> None:
        await stopping(task)
        stop.set()
        await asyncio.sleep(0.02)

    for name in ("a", "b", "c", "d"):
        bench.want(name, target="db")
    bench.want("e", needs=["a"], target="db")
    hold(bench, ["a", "b", "c", "d", "e"], work)
    outcome = await bench.apply(stop=stop)
    assert statuses(outcome) == {"a": "done", "b": "done", "c": "stopped", "d": "stopped", "e": "stopped"}
    assert outcome.stopped
    assert not outcome.failed
    assert sorted(bench.place.effects) == [("create", "a"), ("create", "b")]
    assert sorted(bench.written()) == ["begun a", "begun b", "done a", "done b", "planned"]
    finished = sorted(n for what, n in bench.told.lines if what == "finished")
    assert finished == ["a", "b", "c", "d", "e"]
    assert sorted(n for what, n in bench.told.lines if what == "started") == ["a", "b"]

    bench.place.before.clear()
    again = await bench.apply()
    assert statuses(again) == {"c": "done", "d": "done", "e": "done"}


async def test_a_stop_before_the_start(bench: Bench):
    stop = asyncio.Event()
    stop.set()
    bench.want("a")
    outcome = await bench.apply(stop=stop)
    assert statuses(outcome) == {"a": "stopped"}
    assert outcome.stopped
    assert bench.place.tasks == []


async def test_who_is_cancelled_waits_for_the_running_and_starts_no_more(bench: Bench):
    bench.limits.limits = {"db": 1}
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work(task: Task) -> None:
        begun.set()
        await go_on.wait()

    bench.want("a", target="db")
    bench.want("b", target="db")
    hold(bench, ["a", "b"], work)
    run = asyncio.create_task(bench.apply())
    await asyncio.wait_for(begun.wait(), 10)
    run.cancel()
    await asyncio.sleep(0.02)
    assert not run.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert bench.written() == ["planned", "begun a", "done a"]
    assert bench.place.effects == [("create", "a")]
    assert bench.holder() == "", "the lease is given back"


# -- the ledger fails ----------------------------------------------------------------------------


async def take_over(bench: Bench) -> None:
    """Another process takes the lease, after this one seemed dead for long enough."""
    bench.clock += timedelta(seconds=leases.SECONDS + 1)
    await asyncio.to_thread(leases.acquire, bench.database, "dev", "test", lambda: bench.clock)


async def test_a_lost_lease_ends_the_run_and_nothing_more_is_written(bench: Bench):
    bench.limits.limits = {"db": 1, "other": 1}
    taken = asyncio.Event()

    async def work(task: Task) -> None:
        await take_over(bench)
        taken.set()

    async def beside(task: Task) -> None:
        await asyncio.wait_for(taken.wait(), 10)

    for name in ("a", "b", "c"):
        bench.want(name, target="db")
    bench.want("d", needs=["a"], target="db")
    bench.want("z", target="other")
    bench.place.before.update(a=work, z=beside)
    with pytest.raises(LeaseLost, match="nothing more is recorded"):
        await bench.apply()
    assert sorted(bench.written()) == ["begun a", "begun z", "planned"]
    assert sorted(bench.place.effects) == [("create", "a"), ("create", "z")]
    assert "test" in bench.holder(), "the other's lease is left alone"
    assert verify(bench.database, "dev") == []

    # The next one finds out what became of them.
    bench.clock += timedelta(seconds=leases.SECONDS + 1)
    bench.place.before.clear()
    outcome = await bench.apply()
    assert [(e.type, e.address.name) for e in outcome.settled if e.address] == [
        (Type.DONE, "a"),
        (Type.DONE, "z"),
    ]
    assert bench.place.touched("a") == ["create"]
    assert statuses(outcome) == {"b": "done", "c": "done", "d": "done"}


async def test_a_renewal_that_finds_the_lease_lost_stops_the_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(converge, "RENEW_SECONDS", 0.01)
    bench.limits.limits = {"db": 1}
    stop = asyncio.Event()
    stopped: list[bool] = []

    async def work(task: Task) -> None:
        await take_over(bench)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 5)
        stopped.append(stop.is_set())

    bench.want("a", target="db")
    bench.want("b", target="db")
    bench.place.before["a"] = work
    with pytest.raises(LeaseLost):
        await bench.apply(stop=stop)
    assert stopped == [True], "it went on until it had something to write"
    assert bench.place.touched("b") == []


async def test_the_lease_is_renewed_while_a_step_runs(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(converge, "RENEW_SECONDS", 0.01)
    expiries: list[str] = []

    async def work(task: Task) -> None:
        for _ in range(3):
            bench.clock += timedelta(seconds=20)
            await asyncio.sleep(0.1)
            expiries.append(bench.database.read("SELECT expires FROM environments")[0][0])

    bench.want("a")
    bench.place.before["a"] = work
    assert statuses(await bench.apply()) == {"a": "done"}
    assert expiries == [f"2026-01-01T00:00:{second}.000Z" for second in (50,)] + [
        "2026-01-01T00:01:10.000Z",
        "2026-01-01T00:01:30.000Z",
    ]


async def test_a_renewal_that_fails_otherwise_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(converge, "RENEW_SECONDS", 0.005)
    called = 0
    thrice = asyncio.Event()
    loop = asyncio.get_running_loop()

    def renew(*args: object) -> None:
        nonlocal called
        called += 1
        if called == 3:
            loop.call_soon_threadsafe(thrice.set)
        raise StoreError("The ledger is locked.")

    async def work(task: Task) -> None:
        await asyncio.wait_for(thrice.wait(), 10)

    monkeypatch.setattr(leases, "renew", renew)
    bench.want("a")
    bench.want("b", needs=["a"])
    bench.place.before["a"] = work
    outcome = await bench.apply()
    assert statuses(outcome) == {"a": "done", "b": "done"}
    assert not outcome.stopped


async def test_a_ledger_that_fails_ends_the_run_after_the_running_steps(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    real = Log.append

    def append(self, batch, now):
        if any(e.type is Type.DONE and e.address == item("a") for e in batch):
            raise StoreError("The disk is full.")
        return real(self, batch, now)

    ended: list[str] = []

    async def slow(task: Task) -> None:
        await asyncio.sleep(0.1)
        ended.append(task.address.name)

    monkeypatch.setattr(Log, "append", append)
    bench.limits.limits = {"db": 1}
    bench.want("a")
    bench.want("b", needs=["a"])
    bench.want("c", target="db")
    bench.want("d", target="db")
    bench.place.before["c"] = slow
    with pytest.raises(StoreError, match=r"^The disk is full\.$"):
        await bench.apply()
    assert ended == ["c"], "a running step was left behind"
    assert bench.place.touched("b") == bench.place.touched("d") == []
    assert sorted(bench.written()) == ["begun a", "begun c", "planned"]
    assert bench.holder() == ""


async def test_a_silent_watcher_takes_everything(bench: Bench):
    bench.want("a")
    bench.want("b", needs=["a"])
    bench.place.fails["a"] = [Temporary("Busy."), Permanent("No.")]
    assert statuses(await bench.apply(watcher=Silent())) == {"a": "failed", "b": "skipped"}


async def test_a_read_that_fails_for_a_moment_is_made_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the effect and after it: a server that restarts under a step fails nobody."""
    monkeypatch.setattr(execute, "READS", 3)
    bench.want("a", value="1", size=1)
    away = Unreadable("restarting")
    seen = Seen({"name": "a", "value": "1", "size": 1}, {"id": "id-1"})
    bench.place.reads["a"] = [ABSENT, away, away, ABSENT, away, seen]
    assert statuses(await bench.apply()) == {"a": "done"}
    assert len(bench.place.tasks) == 1


@pytest.mark.parametrize("before", [True, False], ids=["before the effect", "after it"])
async def test_reading_again_has_an_end_and_the_watcher_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, before: bool
):
    monkeypatch.setattr(execute, "READS", 3)
    bench.want("a")
    away = [Unreadable(f"away {n}") for n in range(9)]
    bench.place.reads["a"] = [ABSENT, *away] if before else [ABSENT, ABSENT, *away]
    outcome = await bench.apply()
    says = "Item/a cannot be read now" if before else "It was applied, and then could not be read back"
    assert errors(outcome) == {"a": f"{says}: away 2"}
    assert [error for _, error, _ in bench.told.retries] == ["away 0", "away 1"]
    assert len(bench.place.reads["a"]) == 6
    assert len(bench.place.tasks) == (0 if before else 1), "the effect is not made again for a read"
