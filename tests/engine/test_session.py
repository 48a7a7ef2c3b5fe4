"""A plan carried out address by address; and by several processes that share one lease."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.event import Event, Type
from gamma_orch.engine.converge import apply
from gamma_orch.engine.doors import opened, run
from gamma_orch.engine.session import Frozen, session
from gamma_orch.spec.reconcile import ReconcileSpec
from gamma_orch.store import lease
from gamma_orch.store.database import Database
from gamma_orch.store.errors import Conflict, LeaseHeld, LeaseLost
from gamma_orch.store.lease import Sharing
from gamma_orch.store.ledger import Log, events, verify

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DOCUMENT = "---\napiVersion: gamma/v1\nkind: Thing\nmetadata: {name: %s}\nspec: {%s}\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GAMMA_PLUGINS", "gamma_orch.testing.thing")
    (tmp_path / "specs").mkdir()
    write(tmp_path, {"a": "", "b": "after: a", "c": "after: b", "d": ""})
    (tmp_path / "environments" / "dev").mkdir(parents=True)
    (tmp_path / "environments" / "dev" / "environment.yaml").write_text(
        "apiVersion: gamma/v1\nkind: Environment\nmetadata: {name: dev}\nspec: {}\n"
    )
    return tmp_path


def write(root: Path, things: Mapping[str, str]) -> None:
    text = "".join(DOCUMENT % pair for pair in things.items())
    (root / "specs" / "things.yaml").write_text(text)


def thing(name: str) -> Address:
    return Address("Thing", name)


def log(root: Path) -> list[str]:
    database = Database(f"sqlite:///{root}/.gamma/ledger.db")
    assert verify(database, "dev") == []
    found = [f"{e.type.value} {e.address.name if e.address else ''}".strip() for e in events(database, "dev")]
    database.close()
    return found


def test_each_address_once_with_what_it_needs(root: Path) -> None:
    async def work(order: str) -> list[list[str]]:
        carried = []
        async with session(site, "test") as held:
            for name in order:
                results = await held.carry_out(thing(name))
                carried.append([result.step.address.name for result in results])
        return carried

    with opened(root, "dev") as site:
        assert run(site, work("cbad")) == [["a", "b", "c"], [], [], ["d"]]
    assert log(root)[-1] == "released"


def test_what_is_left_is_not_released(root: Path) -> None:
    async def work() -> None:
        async with session(site, "test") as held:
            await held.carry_out(thing("b"))
            assert not held.finished

    with opened(root, "dev") as site:
        run(site, work())
    assert [line for line in log(root) if line.startswith(("done", "released"))] == ["done a", "done b"]


def test_a_failed_step_ends_its_branch(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAMMA_THING_FAULTS", '{"permanent": ["b"]}')

    async def work() -> list[list[str]]:
        async with session(site, "test") as held:
            first = [r.status.value for r in await held.carry_out(thing("b"))]
            return [first, [r.status.value for r in await held.carry_out(thing("c"))]]

    with opened(root, "dev") as site:
        assert run(site, work())[0] == ["done", "failed"]
    assert "done c" not in log(root)


def test_a_freeze_is_refused_before_anything_is_written(root: Path) -> None:
    from dataclasses import replace

    window = {"reason": "year end", "from": "2000-01-01T00:00:00Z", "until": "2999-01-01T00:00:00Z"}
    settings = ReconcileSpec.model_validate({"freeze": [window]})

    async def work() -> None:
        async with session(frozen, "test"):
            pytest.fail("it opened")

    with opened(root, "dev") as site:
        frozen = replace(site, reconcile=settings)
        with pytest.raises(Frozen, match=r"^dev is frozen until 2999-01-01T00:00Z: year end\.$"):
            run(frozen, work())
        refused = run(frozen, apply(frozen))
        assert [r.ground.value for r in refused.refusals] == ["frozen"]
        assert log(root) == []
        assert not run(frozen, apply(frozen, despite_freeze=True)).failed
        assert run(frozen, apply(frozen)).refusals == (), "nothing to do is no offence"


# --- a lease that several processes share ------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(f"sqlite:///{tmp_path}/ledger.db")


def take(database: Database, run: str = "", at: datetime = NOW, process: int | None = None) -> lease.Lease:
    sharing = Sharing(run, process) if run else None
    return lease.acquire(database, "dev", "test", lambda: at, sharing=sharing)


def begun(name: str) -> Event:
    data = {"opcode": "create", "planned": {"x": 1}, "before": None, "record": None}
    return Event(Type.BEGUN, thing(name), step="k", data=data)


def test_who_names_the_run_joins_and_nobody_else(database: Database) -> None:
    first = take(database, "r1")
    second = take(database, "r1")
    assert (second.token, first.joined, second.joined) == (first.token, False, True)
    for other in ("", "r2"):
        with pytest.raises(LeaseHeld, match="run r1"):
            take(database, other)
    later = take(database, "r2", NOW + timedelta(seconds=lease.SECONDS + 1))
    assert later.token == first.token + 1
    with pytest.raises(LeaseLost):
        Log(database, first, "x").append([begun("a")], NOW)


def test_a_run_whose_process_is_gone_holds_nothing(database: Database) -> None:
    import subprocess

    worker = subprocess.Popen(["sleep", "60"])
    first = take(database, "r1", process=worker.pid)
    with pytest.raises(LeaseHeld, match=f"process {worker.pid}"):
        take(database, "r2")
    worker.kill()
    worker.wait()
    assert take(database, "r2").token == first.token + 1


def test_two_of_a_run_append_side_by_side(database: Database) -> None:
    one, other = (Log(database, take(database, "r1"), who) for who in ("one", "other"))
    for name in "abc":
        one.append([begun(f"{name}1")], NOW)
        other.append([begun(f"{name}2")], NOW)
    assert [e.seq for e in events(database, "dev")] == [1, 2, 3, 4, 5, 6]
    assert verify(database, "dev") == []


def test_two_of_a_run_never_go_on_with_the_same_address(database: Database) -> None:
    """A worker that was thought dead wakes up: what it has to say of its step is too late."""
    slow, quick = (Log(database, take(database, "r1"), who) for who in ("slow", "quick"))
    slow.append([begun("a")], NOW)
    quick_again = Log(database, take(database, "r1"), "quick")
    quick_again.append(
        [Event(Type.FAILED, thing("a"), step="k", data={"error": "cut off", "settled": True})], NOW
    )
    with pytest.raises(Conflict, match="Another worker of run r1 has gone on with Thing/a"):
        slow.append([Event(Type.DONE, thing("a"), step="k", data={"record": None})], NOW)
    quick.append([begun("b")], NOW)
    assert [e.type for e in events(database, "dev")] == [Type.BEGUN, Type.FAILED, Type.BEGUN]


def test_processes_of_a_run_finish_one_plan(root: Path) -> None:
    """Each in a session of its own, one after the other; then the lease is free."""

    async def one(name: str) -> None:
        async with session(
            site, "test", sharing=Sharing("r1"), address=thing(name), told={"run": "r1"}
        ) as held:
            await held.carry_out(thing(name))

    async def other() -> None:
        async with session(site, "test"):
            await asyncio.sleep(0)

    with opened(root, "dev") as site:
        for name in "abd":
            run(site, one(name))
        with pytest.raises(LeaseHeld):
            run(site, other())
        run(site, one("c"))
        run(site, other())
        found = events(site.database, "dev")
    assert len({e.plan for e in found}) == 1
    assert [e.type.value for e in found].count("planned") == 1
    assert [e.type.value for e in found][-1] == "released"
    assert len({e.token for e in found}) == 1
