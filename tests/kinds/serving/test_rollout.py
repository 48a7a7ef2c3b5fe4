"""Whatever fails on the way to a bundle, every worker ends with the one before, and `current` says so."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from gamma_orch.app import control
from gamma_orch.core.provider import Permanent, Temporary, silent
from gamma_orch.kinds.serving.house import House
from gamma_orch.kinds.serving.rollout import Rollout
from gamma_orch.targets.supervised import Program, Slot, Supervised

OLD, NEW = "0" * 64, "1" * 64
PROGRAM = Program("service-api", ("serve",), workers=3, host="127.0.0.1", port=8000)


@dataclass
class Worker:
    """As a worker process behaves, seen from outside."""

    bundle: str
    program: str
    pid: int = 1
    answers: int = 0
    faults: int = 0


@dataclass
class Fleet:
    """A supervisor and its workers. `goes_wrong` is asked before each order, with the slot and the order."""

    house: House
    declared_: Program | None = PROGRAM
    workers: dict[int, Worker] = field(default_factory=dict)
    goes_wrong: Callable[[int, str, str], Exception | str | None] = lambda slot, do, digest: None
    traffic: Callable[[Worker], None] = lambda worker: None
    orders: list[tuple[int, str]] = field(default_factory=list)

    # What Supervised does

    def declared(self, name: str) -> Program | None:
        return self.declared_

    def slots(self, name: str) -> list[Slot]:
        return [Slot(n, w.pid, "RUNNING", 1.0, digest=w.program) for n, w in sorted(self.workers.items())]

    def put(self, program: Program) -> None:
        self.declared_ = program
        for number in range(1, program.workers + 1):
            if number not in self.workers:
                self.start("", number)
        for number in [n for n in self.workers if n > program.workers]:
            del self.workers[number]

    def stop(self, name: str, number: int) -> None:
        del self.workers[number]

    def start(self, name: str, number: int) -> None:
        current = self.house.current()
        if isinstance(wrong := self.goes_wrong(number, "start", current), Exception):
            raise wrong
        assert self.declared_ is not None
        self.workers[number] = Worker(current, self.declared_.digest)

    # What control.ask does

    async def ask(self, home: Path, slot: int, do: str, seconds: float = 5, **more: Any) -> Any:
        digest = str(more.get("digest", ""))
        self.orders.append((slot, do))
        wrong = self.goes_wrong(slot, do, digest)
        if isinstance(wrong, Exception):
            raise wrong
        worker = self.workers[slot]
        if do == "swap":
            if wrong:
                return {"error": wrong}
            worker.bundle = digest
        self.traffic(worker)
        fault = wrong if do == "state" else ""
        return {**vars(worker), "ready": not fault, "fault": fault}

    def bundles(self) -> set[str]:
        return {worker.bundle for worker in self.workers.values()}


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    house = House(tmp_path / "service-api")
    (house.folder / "bundles").mkdir(parents=True)
    (house.folder / "current").write_text(OLD)
    made = Fleet(house, workers={n: Worker(OLD, PROGRAM.digest) for n in (1, 2, 3)})
    monkeypatch.setattr(control, "ask", made.ask)
    return made


def roll(fleet: Fleet, program: Program = PROGRAM, watch: float = 0.0) -> None:
    rollout = Rollout(fleet.house, cast(Supervised, fleet), program, silent, watch)
    asyncio.run(rollout.run(NEW, OLD))


OTHER = replace(PROGRAM, environment={"CODE": "2"})


@pytest.mark.parametrize(
    "program", [PROGRAM, OTHER, replace(PROGRAM, workers=1), replace(PROGRAM, workers=5)]
)
def test_all_workers_end_with_the_bundle_and_the_program(fleet: Fleet, program: Program) -> None:
    roll(fleet, program)
    assert fleet.bundles() == {NEW}
    assert {worker.program for worker in fleet.workers.values()} == {program.digest}
    assert sorted(fleet.workers) == list(range(1, program.workers + 1))
    assert fleet.house.current() == NEW


def test_a_policy_restarts_nobody(fleet: Fleet) -> None:
    before = dict(fleet.workers)
    roll(fleet)
    assert all(fleet.workers[n] is worker for n, worker in before.items())


def test_after_a_reboot_all_start_with_it(fleet: Fleet) -> None:
    fleet.workers.clear()
    roll(fleet)
    assert fleet.bundles() == {NEW}


@pytest.mark.parametrize("bad", [1, 2, 3])
def test_a_worker_that_refuses_takes_the_others_back(fleet: Fleet, bad: int) -> None:
    fleet.goes_wrong = lambda slot, do, digest: (
        "its model is broken" if (slot, do, digest) == (bad, "swap", NEW) else None
    )
    with pytest.raises(Permanent, match=rf"Worker {bad} refuses the bundle: its model is broken"):
        roll(fleet)
    assert fleet.bundles() == {OLD}
    assert fleet.house.current() == OLD


@pytest.mark.parametrize("bad", [1, 2, 3])
def test_a_worker_that_is_lost_takes_the_others_back(fleet: Fleet, bad: int) -> None:
    fleet.goes_wrong = lambda slot, do, digest: (
        control.Silent("gone") if (slot, do, digest) == (bad, "swap", NEW) else None
    )
    with pytest.raises(Temporary, match="lost meanwhile"):
        roll(fleet)
    assert fleet.bundles() == {OLD}
    assert fleet.house.current() == OLD


@pytest.mark.parametrize(("faults", "goes_back"), [(0, False), (1, False), (2, True)])
def test_a_bundle_that_answers_with_errors_goes_back(fleet: Fleet, faults: int, goes_back: bool) -> None:
    def traffic(worker: Worker) -> None:
        if worker.bundle == NEW:
            worker.answers += 30
            worker.faults += faults

    fleet.traffic = traffic
    if goes_back:
        with pytest.raises(
            Permanent, match=r"Worker 1 answered \d+ of \d+ requests with an error of its own"
        ):
            roll(fleet, watch=0.05)
    else:
        roll(fleet, watch=0.05)
    assert fleet.bundles() == ({OLD} if goes_back else {NEW})
    swapped = [slot for slot, do in fleet.orders if do == "swap"]
    assert swapped == ([1, 1] if goes_back else [1, 2, 3])  # the others never saw it


def test_few_answers_say_nothing(fleet: Fleet) -> None:
    def traffic(worker: Worker) -> None:
        worker.answers += 1
        worker.faults += 1

    fleet.traffic = traffic
    roll(fleet, watch=0.02)
    assert fleet.bundles() == {NEW}


def test_a_worker_that_ends_while_it_is_watched_goes_back(fleet: Fleet) -> None:
    def traffic(worker: Worker) -> None:
        worker.pid += worker.bundle == NEW

    fleet.traffic = traffic
    with pytest.raises(Permanent, match="Worker 1 ended while it answered"):
        roll(fleet, watch=0.05)
    assert fleet.bundles() == {OLD}


@pytest.mark.parametrize("bad", [1, 2, 3])
@pytest.mark.parametrize("error", [Permanent("it does not stay up"), Temporary("supervisord is slow")])
def test_new_processes_that_do_not_come_up_give_way_to_the_old(
    fleet: Fleet, bad: int, error: Exception
) -> None:
    fleet.goes_wrong = lambda slot, do, digest: error if (slot, do, digest) == (bad, "start", NEW) else None
    with pytest.raises(type(error), match="The bundle of before answers again"):
        roll(fleet, OTHER)
    assert fleet.bundles() == {OLD}
    assert fleet.house.current() == OLD
    assert fleet.declared_ == PROGRAM
    # The next attempt begins from there, whatever is declared.
    fleet.goes_wrong = lambda slot, do, digest: None
    roll(fleet, OTHER)
    assert fleet.bundles() == {NEW}


def test_a_first_bundle_that_is_refused_has_nothing_to_go_back_to(tmp_path: Path, fleet: Fleet) -> None:
    fleet.workers.clear()
    fleet.declared_ = None
    fleet.goes_wrong = lambda slot, do, digest: "no such model" if do == "state" else None
    with pytest.raises(Permanent, match="Worker 1 refuses the bundle: no such model"):
        roll(fleet)
