"""A service from YAML to answers: converged by `gamma apply`, changed under load, and no answer ever lost."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

import gamma_orch
from gamma_orch.targets.embedded_valkey import EmbeddedValkey
from gamma_orch.targets.supervised import Supervised, Supervisor
from tests.e2e.serving import key, served
from tests.kinds.models.project import gamma

pytestmark = pytest.mark.timeout(600)
PREDICT = "/v1/models/sentiment/predict"
SCALING = """apiVersion: gamma/v1
kind: ScalingPolicy
metadata: {name: api}
spec: {service: api, min: 1, max: 3, target: {cpu: 1%}, window: 5s, apply: true}
"""
ROUNDS = 2 if os.environ.get("GAMMA_PROFILE") == "nightly" else 1


class Place:
    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.supervised = Supervised(Supervisor(folder / ".gamma" / "dev" / "supervisor"))

    def apply(self) -> Any:
        return gamma(self.folder, "apply", "-e", "dev", "--yes")

    def edit(self, old: str, new: str) -> None:
        [path] = [one for one in (self.folder / "specs").glob("*.yaml") if old in one.read_text()]
        path.write_text(path.read_text().replace(old, new))

    def pids(self) -> dict[int, int]:
        return {slot.number: slot.pid for slot in self.supervised.slots("service-api") if slot.runs}

    def connections(self) -> list[int]:
        """Of each worker."""
        found = [psutil.Process(pid).net_connections("tcp") for pid in self.pids().values()]
        return [sum(one.laddr.port == self.port and bool(one.raddr) for one in some) for some in found]

    def ask(self, text: str = "a warm film", path: str = PREDICT, method: str = "POST") -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        body = json.dumps({"inputs": text}) if method == "POST" else None
        connection.request(method, path, body, self.headers())
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        return answer.status, said

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {key(self.folder)}", "Content-Type": "application/json"}


class Load:
    """Clients that keep their connections, open a new one only where the server has said `close`, and never
    ask twice: whatever goes wrong is counted."""

    def __init__(self, place: Place, clients: int = 6) -> None:
        self.statuses: Counter[object] = Counter()
        self.last = time.monotonic()
        self._place, self._headers = place, place.headers()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]

    @property
    def failed(self) -> dict[object, int]:
        return {status: count for status, count in self.statuses.items() if status != 200}

    def _run(self, client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._place.port, timeout=20)
        number = 0
        while not self._stop.is_set():
            number += 1
            body = json.dumps({"inputs": f"client {client} says {number % 40}"})
            try:
                connection.request("POST", PREDICT, body, self._headers)
                answer = connection.getresponse()
                answer.read()
                self.statuses[answer.status] += 1
                self.last = time.monotonic()
            except OSError as error:
                self.statuses[type(error).__name__] += 1
                connection.close()
            except http.client.HTTPException as error:
                self.statuses[type(error).__name__] += 1
                connection.close()
            time.sleep(0.002)
        connection.close()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder, port = served(tmp_path_factory.mktemp("s") / "p")
    done = gamma(folder, "apply", "-e", "dev", "--yes")
    try:
        assert done.code == 0, done.err
        yield Place(folder, port)
    finally:
        gamma(folder, "down", "-e", "dev", "--data", "--yes")


@contextmanager
def load(place: Place, clients: int = 6) -> Iterator[Load]:
    with Load(place, clients) as running:
        time.sleep(0.5)
        yield running
        time.sleep(0.5)
    assert running.statuses[200] > 50


def test_it_answers_and_the_next_plan_is_empty(place: Place) -> None:
    status, said = place.ask()
    assert status == 200
    assert json.loads(said)["outputs"][0]["label"] in ("negative", "positive")
    done = gamma(place.folder, "plan", "-e", "dev")
    assert (done.code, done.out) == (0, "No changes. 4 resources of dev as declared.\n")
    up = gamma(place.folder, "up", "-e", "dev")
    assert f"service-api of dev answers on http://127.0.0.1:{place.port}" in up.out + up.err


def test_no_request_is_lost_while_everything_changes(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round is ten applies; the nightly goes round twice."""
    seed = 3
    with load(place) as running:
        for round_ in range(ROUNDS):
            for old, new, swapped in (
                ("rate: 100000/s", "rate: 200000/s", True),  # a policy
                ("ttl: 1m", "ttl: 2m", True),  # another resource's, taken in
                ("workers: 2", "workers: 3", False),
                ("workers: 3", "workers: 2", False),
                (f"seed: {seed}", f"seed: {seed + 1}", True),  # another model
                ("drain: 3s", "drain: 4s", True),
                ("rate: 200000/s", "rate: 100000/s", True),
                ("ttl: 2m", "ttl: 1m", True),
                ("drain: 4s", "drain: 3s", True),
            ):
                before = place.pids()
                place.edit(old, new)
                done = place.apply()
                assert done.code == 0, done.err
                assert (place.pids() == before) == swapped  # or else restarted
            seed += 1
            before = place.pids()
            monkeypatch.setenv("PYTHONPATH", str(_other_code(tmp_path, round_)))
            done = place.apply()
            assert done.code == 0, done.err
            assert not set(place.pids().values()) & set(before.values())
    monkeypatch.delenv("PYTHONPATH")
    assert place.apply().code == 0
    assert running.failed == {}
    assert running.statuses[200] > 500 * ROUNDS


def test_another_model_answers_after_the_swap_and_never_the_old_one(place: Place) -> None:
    before = json.loads(place.ask("kept")[1])["digest"]
    model = place.folder / "specs" / "model.yaml"
    model.write_text(re.sub(r"seed: \d+", "seed: 90", model.read_text()))
    with load(place) as running:
        done = place.apply()
        assert done.code == 0, done.err
        after = {json.loads(place.ask("kept")[1])["digest"] for _ in range(20)}
    assert running.failed == {}
    assert len(after) == 1
    assert before not in after


def test_an_orderly_end_of_a_worker_loses_nothing(place: Place) -> None:
    with load(place) as running:
        for slot, pid in place.pids().items():
            os.kill(pid, signal.SIGTERM)
            _until(lambda slot=slot, pid=pid: place.pids().get(slot, pid) != pid)
            _until(lambda: _healthy(place))
    assert running.failed == {}


def test_a_killed_worker_costs_its_own_requests_at_most(place: Place) -> None:
    clients = 6
    with load(place, clients) as running:
        os.kill(next(iter(place.pids().values())), signal.SIGKILL)
        time.sleep(0.5)
        at = sum(running.failed.values())
        _until(lambda: _healthy(place))
    assert at <= clients
    assert sum(running.failed.values()) == at  # all later ones were answered


def test_valkey_gone_costs_nothing_and_comes_back(place: Place) -> None:
    valkey = EmbeddedValkey(place.folder / ".gamma" / "dev" / "valkey-main")
    with load(place) as running:
        os.kill(int((valkey.home / "pid").read_text()), signal.SIGKILL)
        time.sleep(2)
        _until(lambda: b"gamma_valkey_up 0" in place.ask(path="/metrics", method="GET")[1])
        plan = gamma(place.folder, "plan", "-e", "dev")
        assert "Valkey does not run" in plan.out
        done = place.apply()
        assert done.code == 0, done.err
        _until(lambda: b"gamma_valkey_up 1" in place.ask(path="/metrics", method="GET")[1])
    assert running.failed == {}


def test_a_policy_that_may_gives_as_many_workers_as_it_recommends(place: Place) -> None:
    path = place.folder / "specs" / "scaling.yaml"
    path.write_text(SCALING)
    with load(place) as running:
        assert place.apply().code == 0
        assert len(place.pids()) == 2  # one look says nothing
        time.sleep(5.5)
        plan = gamma(place.folder, "plan", "-e", "dev")
        assert plan.code == 2
        assert "Service/api has 2 workers, and 3 are recommended. cpu: " in plan.out
        done = place.apply()
        assert done.code == 0, done.err
        assert len(place.pids()) == 3
        plan = gamma(place.folder, "plan", "-e", "dev")
        assert (plan.code, plan.out) == (0, "No changes. 5 resources of dev as declared.\n")
        path.unlink()
        assert place.apply().code == 0
        assert len(place.pids()) == 2  # as the spec says
    assert running.failed == {}


def test_a_broken_change_is_refused_and_the_old_one_answers(place: Place) -> None:
    place.edit("gk_${secret.frontend-key}", "${secret.short-key}")
    environment = place.folder / "environments" / "dev" / "environment.yaml"
    kept = environment.read_text()
    environment.write_text(
        kept.replace("  secrets:\n", "  secrets:\n    short-key: {generate: {length: 8}}\n")
    )
    with load(place) as running:
        done = place.apply()
    assert done.code == 1
    assert "the key of frontend is shorter than 20 characters" in done.err
    assert running.failed == {}
    place.edit("${secret.short-key}", "gk_${secret.frontend-key}")
    environment.write_text(kept)
    assert place.apply().code == 0


def test_a_service_that_is_gone_from_the_specs_stops(place: Place) -> None:
    path = place.folder / "specs" / "service.yaml"
    kept = path.read_text()
    path.write_text(kept.partition("---")[0])
    done = place.apply()
    assert done.code == 0, done.err
    assert place.pids() == {}
    with pytest.raises(ConnectionRefusedError):
        place.ask()
    path.write_text(kept)
    assert place.apply().code == 0
    assert place.ask()[0] == 200


def test_connections_that_come_together_are_shared_by_the_workers(place: Place) -> None:
    """One that took nearly all of them would be late, and the other idle, for as long as they are kept."""
    least = []
    for _ in range(6):
        with ExitStack() as stack:
            for _ in range(60):
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", place.port))
            _until(lambda: sum(place.connections()) == 60)
            least.append(min(place.connections()))
        _until(lambda: sum(place.connections()) == 0)
    assert sum(least) / len(least) > 15, least


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_another_version_comes_up_where_nothing_runs(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """Each worker is started once, and as what is wanted now: not first as what was wanted before."""
    before = place.pids()
    if killed:  # as by a machine that went down; its workers live on
        supervisor = Supervisor(place.folder / ".gamma" / "dev" / "supervisor")
        os.kill(int((supervisor.home / "pid").read_text()), signal.SIGKILL)
        _until(lambda: not supervisor.running())  # a moment later
    else:
        assert gamma(place.folder, "down", "-e", "dev").code == 0
    monkeypatch.setenv("PYTHONPATH", str(_other_code(tmp_path, 7)))
    done = place.apply()
    assert done.code == 0, done.err
    assert not set(place.pids().values()) & set(before.values())
    assert place.ask()[0] == 200
    monkeypatch.delenv("PYTHONPATH")
    assert place.apply().code == 0


def _other_code(folder: Path, number: int) -> Path:
    """The package with another comment in the app: what an upgrade is to those that run."""
    copy = folder / f"code{number}"
    shutil.copytree(Path(gamma_orch.__file__).parent, copy / "gamma_orch")
    with (copy / "gamma_orch" / "app" / "worker.py").open("a") as file:
        file.write(f"# {number}\n")
    return copy


def _healthy(place: Place) -> bool:
    return "Service/api" not in gamma(place.folder, "plan", "-e", "dev").out


def _until(true: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)
