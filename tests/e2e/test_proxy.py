"""Several replicas behind a real nginx: changed under load by clients that never ask twice."""

import contextlib
import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.sync.client import connect

from gamma_orch.targets import nginx
from tests.e2e.serving import key, served
from tests.e2e.test_service import PREDICT, Load, Place, load
from tests.kinds.models.project import gamma

try:
    nginx.program()
except nginx.Missing as missing:
    pytest.skip(str(missing), allow_module_level=True)

pytestmark = pytest.mark.timeout(600)
PROXY = "  replicas: 1\n  proxy: {engine: nginx}\n"


class Replicas(Place):
    @property
    def home(self) -> Path:
        return self.folder / ".gamma" / "dev" / "service-api"

    @property
    def nginx(self) -> nginx.Nginx:
        return nginx.Nginx(self.home / "nginx")

    def apply(self) -> Any:
        done = super().apply()
        assert done.code == 0, done.err
        return done

    def plan(self) -> str:
        return gamma(self.folder, "plan", "-e", "dev").out

    def running(self) -> dict[int, int]:
        """Workers and their processes."""
        return {
            program.first + slot.number: slot.pid
            for program in self.supervised.programs()
            if program.unix
            for slot in self.supervised.slots(program.name)
            if slot.runs
        }

    def keeper(self) -> int:
        return self.pids()[1]

    def master(self) -> psutil.Process:
        [found] = psutil.Process(self.keeper()).children()
        return found

    def metrics(self) -> str:
        return str(self.ask(path="/metrics", method="GET")[1].decode())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """One replica with one worker, behind nginx."""
    folder, port = served(tmp_path_factory.mktemp("p") / "p", workers=1)
    found = Replicas(folder, port)
    found.edit("  workers: 1\n", f"  workers: 1\n{PROXY}")
    try:
        found.apply()
        yield found
    finally:
        gamma(folder, "down", "-e", "dev", "--data", "--yes")


def test_it_answers_and_the_next_plan_is_empty(place: Replicas) -> None:
    assert place.ask()[0] == 200
    assert "No changes." in place.plan()
    up = gamma(place.folder, "up", "-e", "dev")
    assert f"service-api of dev answers on http://127.0.0.1:{place.port}" in up.out + up.err


def test_nginx_writes_into_its_folder_and_listens_on_the_port_alone(place: Replicas) -> None:
    family = [place.master(), *place.master().children()]
    open_files = {
        file.path for process in family for file in process.open_files() if file.path != "/dev/null"
    }
    assert {path for path in open_files if not path.startswith(str(place.folder))} == set()
    ports = {
        at.laddr.port for process in family for at in process.net_connections("inet") if at.status == "LISTEN"
    }
    assert ports == {place.port}
    assert oct((place.home / "replicas" / "1.sock").stat().st_mode)[-3:] == "600"


def test_no_request_is_lost_while_replicas_and_nginx_change(place: Replicas) -> None:
    with load(place, 3) as running:
        for old, new, workers in [
            ("replicas: 1", "replicas: 3", {101, 201, 301}),
            ("replicas: 3", "replicas: 2", {101, 201}),
            ("{engine: nginx}", "{engine: nginx, connections: 512}", {101, 201}),  # nginx alone
            ("rate: 100000/s", "rate: 200000/s", {101, 201}),  # the workers alone
        ]:
            before, keeper = place.running(), place.keeper()
            place.edit(old, new)
            place.apply()
            assert place.running().keys() == workers
            assert place.keeper() == keeper
            assert all(place.running()[n] == pid for n, pid in before.items() if n in workers), "restarted"
            assert not list((place.home / "nginx").glob("closing"))
    assert running.failed == {}
    assert "No changes." in place.plan()


def test_a_killed_worker_costs_no_request_but_an_answer_that_has_begun(place: Replicas) -> None:
    with load(place, 3) as running:
        os.kill(place.running()[101], signal.SIGKILL)
        _until(lambda: _healthy(place))
    assert sum(running.failed.values()) <= 1, running.failed
    assert set(running.failed) <= {"IncompleteRead"}


def test_every_replica_gets_its_share_and_is_counted(place: Replicas) -> None:
    def counts() -> dict[int, float]:
        found = {}
        for number in (101, 201):
            with contextlib.closing(_control(place, number)) as asked, asked.makefile() as said:
                asked.sendall(b'{"do": "state"}\n')
                found[number] = float(json.loads(said.readline())["answers"])
        return found

    def total() -> float:
        lines = place.metrics().splitlines()
        return sum(float(one.rpartition(" ")[2]) for one in lines if one.startswith("gamma_requests_total{"))

    before = counts()
    with Load(place, 3):  # what failed was left alone for some seconds
        _until(lambda: counts()[101] > before[101] + 10)
    before, summed = counts(), total()
    with Load(place, 3) as running:
        time.sleep(1)
    got = {number: count - before[number] for number, count in counts().items()}
    assert min(got.values()) > 0.2 * max(got.values())
    assert total() - summed >= running.statuses[200] == sum(running.statuses.values())


def test_the_address_is_the_clients_own_and_no_invention(place: Replicas) -> None:
    made = "0" * 8 + "-1111-4222-8333-" + "4" * 12
    log = place.folder / ".gamma" / "dev" / "supervisor" / "logs"
    headers = {**place.headers(), "X-Forwarded-For": "203.0.113.7", "X-Request-Id": made}
    _, _, given = _ask(place, "GET", "/v1/whoami", headers)
    assert given != made  # who says so is no trusted proxy
    _until(lambda: any(given in path.read_text() for path in log.glob("replica-*.log")))
    lines = [line for path in log.glob("replica-*.log") for line in path.read_text().splitlines()]
    [line] = [json.loads(line) for line in lines if given in line]
    assert line["address"] == "127.0.0.1"


def test_what_nginx_answers_itself_is_a_problem_like_any_other(place: Replicas) -> None:
    status, said, given = _ask(place, "POST", PREDICT, place.headers(), b"x" * 1_000_001)
    assert (status, said["type"]) == (413, "urn:gamma:problem:too-large")
    assert said["instance"] == f"urn:uuid:{given}"
    status, said, _ = _ask(place, "GET", "/", {"X-Long": "x" * 9000})
    assert (status, said["type"]) == (431, "urn:gamma:problem:head-too-large")


def test_the_live_stream_comes_through(place: Replicas) -> None:
    header = {"Authorization": f"Bearer {key(place.folder)}"}
    with connect(f"ws://127.0.0.1:{place.port}/v1/live", additional_headers=header) as live:
        assert json.loads(live.recv(timeout=10))["event"] == "metrics"


def test_what_nginx_refuses_leaves_the_old_one_in_force(place: Replicas) -> None:
    proxy = "{engine: nginx, connections: 512}"
    broken = "{engine: nginx, connections: 512, others: [no-such-host.invalid:8000]}"
    before, digest = place.nginx.text(), place.nginx.says()
    place.edit(proxy, broken)
    with load(place, 3) as running:
        done = Place.apply(place)
    assert done.code == 1
    assert "nginx refuses the configuration" in done.err
    assert 'host not found in upstream "no-such-host.invalid:8000"' in done.err
    assert running.failed == {}
    assert (place.nginx.text(), place.nginx.says()) == (before, digest)
    place.edit(broken, proxy)
    place.apply()


@pytest.mark.nightly
def test_drift_is_seen_and_mended(place: Replicas) -> None:
    conf = place.home / "nginx" / "nginx.conf"
    conf.write_text(conf.read_text().replace("proxy_read_timeout", "# proxy_read_timeout"))
    assert "nginx.conf is not what the specs come to" in place.plan()
    workers = place.nginx.workers(place.keeper()).keys()
    with load(place, 3) as running:
        place.apply()
    assert running.failed == {}
    assert workers.isdisjoint(
        place.nginx.workers(place.keeper())
    )  # it may have been read, so it is read anew
    place.supervised.remove("replica-2-api")
    assert "0 of 1 workers of replica-2-api run" in place.plan()
    assert place.ask()[0] == 200
    place.apply()
    (place.home / "replicas" / "2.sock").unlink()
    assert "the socket of replica-2-api is gone" in place.plan()
    place.apply()
    assert "No changes." in place.plan()


def test_a_killed_nginx_comes_back_on_the_same_port(place: Replicas) -> None:
    master, clients = place.master(), 4
    old = [master, *master.children()]
    with load(place, clients) as running:
        os.kill(master.pid, signal.SIGKILL)
        _until(lambda: "No changes." in place.plan())
    assert sum(running.failed.values()) <= 2 * clients, running.failed
    assert "ConnectionRefusedError" not in running.failed
    assert not any(map(_lives, old))
    # And where whoever keeps it is killed, nginx does not go on alone.
    old = [place.master(), *place.master().children()]
    os.kill(place.keeper(), signal.SIGKILL)
    _until(lambda: not any(map(_lives, old)))
    # supervisord starts it again by itself: an apply meanwhile is refused, for its plan is no longer true.
    _until(lambda: "No changes." in place.plan())
    place.apply()
    assert place.ask()[0] == 200
    assert "No changes." in place.plan()


def _lives(process: psutil.Process) -> bool:
    """Who reaps the dead is the machine's affair."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.nightly
def test_the_proxy_is_turned_off_and_on_and_nothing_is_refused(place: Replicas) -> None:
    text = (place.folder / "specs" / "service.yaml").read_text()
    [said] = [line for line in text.splitlines() if line.startswith("  proxy:")]
    with load(place, 3) as running:
        place.edit(f"  replicas: 2\n{said}\n", "")
        place.apply()
        assert place.running() == {}
        assert len(place.pids()) == 1
        place.edit("  workers: 1\n", f"  workers: 1\n  replicas: 2\n{said}\n")
        place.apply()
        assert place.running().keys() == {101, 201}
    assert running.failed == {}


def test_down_leaves_nothing(place: Replicas) -> None:
    nginx_now = [place.master(), *place.master().children()]
    with load(place, 3) as running:
        gamma(place.folder, "down", "-e", "dev")
    assert not [process for process in nginx_now if process.is_running()]
    assert set(running.failed) <= {"ConnectionRefusedError", "ConnectionResetError"}, running.failed
    place.apply()
    assert place.ask()[0] == 200


def _ask(
    place: Replicas, method: str, path: str, headers: dict[str, str], body: bytes | None = None
) -> tuple[int, Any, str]:
    """Status, answer, and the id of the request."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", place.port, timeout=20)) as connection:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), str(answer.headers["X-Request-Id"])


def _control(place: Replicas, number: int) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(place.home / "slots" / f"{number}.sock"))
    return connection


def _healthy(place: Replicas) -> bool:
    return "Service/api" not in place.plan()


def _until(true: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)
