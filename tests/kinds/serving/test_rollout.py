"""Whatever fails on the way to a bundle, every worker ends with the one before, and `current` says so."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from gamma_orch.app import control
from gamma_orch.core.provider import Permanent, Temporary, silent
from gamma_orch.kinds.serving import programs
from gamma_orch.kinds.serving.front import Front
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
    declared_: dict[str, Program] = field(default_factory=lambda: {PROGRAM.name: PROGRAM})
    workers: dict[int, Worker] = field(default_factory=dict)  # by their numbers
    goes_wrong: Callable[[int, str, str], Exception | str | None] = lambda slot, do, digest: None
    traffic: Callable[[Worker], None] = lambda worker: None
    orders: list[tuple[int, str]] = field(default_factory=list)
    fewest: int = 3  # workers that ever ran at one time

    # What Supervised does

    def programs(self) -> list[Program]:
        return list(self.declared_.values())

    def slots(self, name: str) -> list[Slot]:
        first, mine = self.declared_[name].first if name in self.declared_ else 0, self.of(name)
        return [Slot(n - first, w.pid, "RUNNING", 1.0, digest=w.program) for n, w in mine]

    def of(self, name: str) -> list[tuple[int, Worker]]:
        if name not in self.declared_:
            return []
        first = self.declared_[name].first
        return [(n, w) for n, w in sorted(self.workers.items()) if first < n < first + 100]

    def put(self, program: Program) -> None:
        self.declared_[program.name] = program
        for number in range(1, program.workers + 1):
            if program.first + number not in self.workers:
                self.start(program.name, number)
        for number in [n for n, _ in self.of(program.name) if n > program.first + program.workers]:
            self.end(number)

    def remove(self, name: str) -> None:
        for number, _ in self.of(name):
            self.end(number)
        self.declared_.pop(name, None)

    def end(self, number: int) -> None:
        del self.workers[number]
        self.fewest = min(self.fewest, len(self.workers))

    def stop(self, name: str, number: int) -> None:
        self.end(self.declared_[name].first + number)

    def start(self, name: str, number: int) -> None:
        current, number = self.house.current(), self.declared_[name].first + number
        if isinstance(wrong := self.goes_wrong(number, "start", current), Exception):
            raise wrong
        self.workers[number] = Worker(current, self.declared_[name].digest)

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


def roll(
    fleet: Fleet, *wanted: Program, watch: float = 0.0, front: "Proxy | None" = None, digest: str = NEW
) -> None:
    is_of = partial(programs.is_of, "api")
    told = cast("Front | None", front)
    rollout = Rollout(fleet.house, cast(Supervised, fleet), is_of, wanted or (PROGRAM,), told, silent, watch)
    asyncio.run(rollout.run(digest, OLD))


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
    assert fleet.declared_ == {PROGRAM.name: PROGRAM}
    # The next attempt begins from there, whatever is declared.
    fleet.goes_wrong = lambda slot, do, digest: None
    roll(fleet, OTHER)
    assert fleet.bundles() == {NEW}


def test_a_first_bundle_that_is_refused_has_nothing_to_go_back_to(tmp_path: Path, fleet: Fleet) -> None:
    fleet.workers.clear()
    fleet.declared_.clear()
    fleet.goes_wrong = lambda slot, do, digest: "no such model" if do == "state" else None
    with pytest.raises(Permanent, match="Worker 1 refuses the bundle: no such model"):
        roll(fleet)


# -- replicas ------------------------------------------------------------------------------------

NGINX = Program("service-api", ("nginx",), 1, "127.0.0.1", 8000, environment={"GAMMA_PROXY": "1"})
FIELDS = {"workers": 2, "proxy": {"engine": "nginx"}, "listen": {"host": "127.0.0.1", "port": 8000}}


def replicas(count: int, code: str = "1") -> tuple[Program, ...]:
    return programs.workers("api", {**FIELDS, "replicas": count}, Path("/home"), code)


@dataclass
class Proxy:
    """The nginx in front: what it was told of whom, and when."""

    fleet: Fleet
    program: Program = NGINX
    brought: list[list[int]] = field(default_factory=list)  # the workers that ran each time
    fails: Exception | None = None

    async def bring(self) -> None:
        self.brought.append(sorted(self.fleet.workers))
        if self.fails is not None:
            raise self.fails
        self.fleet.put(self.program)  # as the real one does: it takes the port from who had it
        self.fleet.stop(self.program.name, 1)
        self.fleet.start(self.program.name, 1)


def behind(fleet: Fleet, count: int) -> Proxy:
    """A service with so many replicas that runs."""
    fleet.workers.clear()
    fleet.declared_.clear()
    fleet.house.settle(OLD)
    for program in (*replicas(count), NGINX):
        fleet.put(program)
    fleet.fewest = len(fleet.workers)
    return Proxy(fleet)


def numbers(count: int) -> list[int]:
    return [1, *(100 * n + worker for n in range(1, count + 1) for worker in (1, 2))]


def told(fleet: Fleet) -> set[str]:
    return {worker.bundle for number, worker in fleet.workers.items() if number > 100}


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2), (2, 2)])
def test_replicas_come_before_nginx_hears_of_them_and_go_after(fleet: Fleet, before: int, after: int) -> None:
    proxy = behind(fleet, before)
    roll(fleet, *replicas(after), front=proxy)
    assert told(fleet) == {NEW}
    assert sorted(fleet.workers) == numbers(after)
    assert proxy.brought == [numbers(max(before, after))]
    assert set(fleet.declared_) == {"service-api", *(f"replica-{n}-api" for n in range(1, after + 1))}


def test_a_policy_goes_through_all_replicas_and_restarts_nobody(fleet: Fleet) -> None:
    proxy = behind(fleet, 3)
    kept = {number: worker for number, worker in fleet.workers.items() if number > 100}
    roll(fleet, *replicas(3), front=proxy)
    assert all(fleet.workers[number] is worker for number, worker in kept.items())
    assert [slot for slot, do in fleet.orders if do == "swap"] == [101, 102, 201, 202, 301, 302]


def test_another_version_restarts_one_worker_after_the_other(fleet: Fleet) -> None:
    proxy = behind(fleet, 2)
    roll(fleet, *replicas(2, code="2"), front=proxy)
    wanted = {number: program.digest for program in replicas(2, code="2") for number in (1, 2)}
    assert {worker.program for number, worker in fleet.workers.items() if number > 100} == set(
        wanted.values()
    )
    assert fleet.fewest == len(numbers(2)) - 1


def test_a_proxy_gets_the_port_when_the_replicas_answer(fleet: Fleet) -> None:
    proxy = Proxy(fleet)
    roll(fleet, *replicas(2), front=proxy)
    assert proxy.brought == [[1, 2, 3, *numbers(2)[1:]]]  # those of before still answered
    assert sorted(fleet.workers) == numbers(2)
    assert fleet.workers[1].program == NGINX.digest


def test_without_a_proxy_the_workers_get_the_port_and_then_the_replicas_go(fleet: Fleet) -> None:
    behind(fleet, 2)
    roll(fleet, PROGRAM)
    assert sorted(fleet.workers) == [1, 2, 3]
    assert {worker.program for worker in fleet.workers.values()} == {PROGRAM.digest}
    assert set(fleet.declared_) == {PROGRAM.name}
    assert fleet.bundles() == {NEW}


@pytest.mark.parametrize("error", [Permanent("nginx says no"), Temporary("it does not end")])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_where_nginx_fails_everything_is_as_before(fleet: Fleet, before: int, error: Exception) -> None:
    proxy = behind(fleet, before) if before else Proxy(fleet)
    kept, declared = sorted(fleet.workers), dict(fleet.declared_)
    proxy.fails = error
    with pytest.raises(type(error), match="The bundle of before answers again"):
        roll(fleet, *replicas(2), front=proxy)
    assert sorted(fleet.workers) == kept
    assert fleet.declared_ == declared
    assert {worker.bundle for worker in fleet.workers.values()} == {OLD}
    assert fleet.house.current() == OLD


@pytest.mark.parametrize("bad", [201, 301, 302])
def test_a_replica_that_does_not_come_up_leaves_the_others_alone(fleet: Fleet, bad: int) -> None:
    proxy = behind(fleet, 1)
    fleet.goes_wrong = lambda number, do, digest: Permanent("no") if (number, do) == (bad, "start") else None
    with pytest.raises(Permanent, match="The bundle of before answers again"):
        roll(fleet, *replicas(3), front=proxy)
    assert sorted(fleet.workers) == numbers(1)
    assert told(fleet) == {OLD}
    assert proxy.brought == []  # nginx never heard of them
