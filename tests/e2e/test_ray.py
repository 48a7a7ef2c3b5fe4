"""Services on a real Ray cluster of one machine, beside an application that is somebody else's."""

import contextlib
import http.client
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest
from websockets.sync.client import connect

import gamma_orch
from gamma_orch.app.bundle import Process
from gamma_orch.kinds.serving.cluster import APP, DEPLOYMENT
from gamma_orch.kinds.serving.house import House
from tests.app.running import KEYS, Running, bundle, free_port, model
from tests.app.tinies import LONG, writer
from tests.e2e.serving import ENVIRONMENT, SERVICE, key
from tests.e2e.test_service import PREDICT, SCALING, Load, Place, load
from tests.kinds.models.project import gamma, project

if importlib.util.find_spec("ray") is None:
    pytest.skip("ray is not installed: pip install 'gamma-orch[ray]'", allow_module_level=True)

pytestmark = pytest.mark.timeout(600)
RAY = "  engine: ray\n  ray: {{url: '{url}', route: {route}, cpus: 0.5}}\n  workers: {workers}\n"
FOREIGN = """from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Hello:
    def __call__(self, request):
        import os
        return f"{os.environ['NAME']} {os.getpid()}"

app = Hello.bind()
"""
# What a node is that has not the libraries of traces.
WITHOUT_TRACES = "import sys\nsys.modules['opentelemetry.exporter.otlp.proto.http.trace_exporter'] = None\n"


class Cluster:
    """A head that is a child of this process, and ends with all of its own."""

    def __init__(self, code: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._place = f"{self.url}/api/serve/applications/"
        self.folder = Path(tempfile.mkdtemp(prefix="gr", dir="/tmp"))  # paths of sockets are short
        ports = {
            "port": free_port(),
            "dashboard-port": self.port,
            "ray-client-server-port": free_port(),
            "dashboard-agent-listen-port": free_port(),
            "min-worker-port": 0,
            "max-worker-port": 0,
        }
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
        command += [f"--{name}={port}" for name, port in ports.items()]
        command += [f"--temp-dir={self.folder}", "--dashboard-host=127.0.0.1", "--node-ip-address=127.0.0.1"]
        command += ["--num-cpus=8", "--num-gpus=0", "--object-store-memory=80000000"]
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(code)}
        self._log = (self.folder / "start.log").open("w")
        self._process = subprocess.Popen(
            command,
            cwd=self.folder,  # which comes before PYTHONPATH
            env=environment,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def wait(self) -> None:
        end = time.monotonic() + 120
        while self._process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.read()
                return
            time.sleep(0.2)
        raise AssertionError((self.folder / "start.log").read_text()[-3000:])

    def read(self) -> Any:
        with urllib.request.urlopen(self._place, timeout=60) as answer:  # noqa: S310 - our own
            return json.loads(answer.read())

    def put(self, *applications: Any) -> None:
        body = json.dumps({"applications": applications}).encode()
        asked = urllib.request.Request(self._place, body, {"Content-Type": "application/json"}, method="PUT")  # noqa: S310
        urllib.request.urlopen(asked, timeout=60).close()  # noqa: S310 - our own

    def applications(self) -> dict[str, Any]:
        return {name: one["deployed_app_config"] for name, one in self.read()["applications"].items()}

    def pids(self, name: str) -> set[int]:
        [deployment] = self.read()["applications"][name]["deployments"].values()
        return {one["pid"] for one in deployment["replicas"] if one["state"] == "RUNNING"}

    def stop(self) -> None:
        """All at once: `ray stop` would end the clusters of others too."""
        if self._process.poll() is None:
            head = psutil.Process(self._process.pid)
            for process in (head, *head.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self._process.wait(10)
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Answer(NamedTuple):
    status: int
    headers: Message
    body: Any


class OnRay(Place):
    def __init__(self, folder: Path, port: int, cluster: Cluster) -> None:
        super().__init__(folder, port)
        self.cluster = cluster

    def done(self) -> Any:
        found = super().apply()
        assert found.code == 0, found.err
        return found

    def plan(self) -> str:
        found = gamma(self.folder, "plan", "-e", "dev")
        return str(found.out + found.err)

    def whole(self, path: str = PREDICT, headers: Mapping[str, str] | None = None) -> "Answer":
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            body = json.dumps({"inputs": "a warm film"})
            connection.request("POST", path, body, self.headers() if headers is None else headers)
            said = connection.getresponse()
            return Answer(said.status, said.headers, json.loads(said.read()))

    def told(self, name: str = "api") -> list[Any]:
        return list(House(self.folder / ".gamma" / "dev" / f"service-{name}").told().values())


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the nodes and the command line run, which a test can change."""
    folder = tmp_path_factory.mktemp("code")
    shutil.copytree(
        Path(gamma_orch.__file__).parent, folder / "gamma_orch", ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / "foreign.py").write_text(FOREIGN)
    (folder / "sitecustomize.py").write_text(WITHOUT_TRACES)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Iterator[OnRay]:
    """`api` at /, and `other` at /other; the application `foreign` was there before them."""
    port, cluster = free_port(), Cluster(code)
    try:
        on = lambda route, workers: RAY.format(url=cluster.url, route=route, workers=workers)  # noqa: E731
        one = SERVICE.format(port=port, workers=2)
        other = one.partition("---\n")[2].replace("name: api", "name: other")
        folder = project(
            tmp_path_factory.mktemp("r") / "p",
            service=one.replace("  workers: 2\n", on("/", 2)),
            other=other.replace("  workers: 2\n", on("/other", 1)),
        )
        (folder / "environments" / "dev" / "environment.yaml").write_text(ENVIRONMENT)
        cluster.wait()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(code))
            found = OnRay(folder, port, cluster)
            found.done()
            foreign = {
                "name": "foreign",
                "route_prefix": "/foreign",
                "import_path": "foreign:app",
                "runtime_env": {"env_vars": {"NAME": "theirs"}},
            }
            cluster.put(*cluster.applications().values(), foreign)
            _until(lambda: cluster.read()["applications"]["foreign"]["status"] == "RUNNING")
            yield found
            gamma(folder, "down", "-e", "dev", "--data", "--yes")
    finally:
        cluster.stop()


def test_it_answers_as_anywhere_and_the_next_plan_is_empty(place: OnRay) -> None:
    first, second = place.whole(), place.whole()
    assert (first.status, second.status) == (200, 200)
    assert first.headers["X-Cache"] == "made"
    assert second.headers["X-Cache"] in ("l1", "l2")
    assert first.body["outputs"][0]["label"] in ("negative", "positive")
    assert place.whole(f"/other{PREDICT}").status == 200
    refused = place.whole(headers={"Content-Type": "application/json"})
    said = refused.body
    assert (refused.status, said["type"]) == (401, "urn:gamma:problem:unauthenticated")
    assert refused.headers.get_all("X-Request-Id") == [said["instance"].removeprefix("urn:uuid:")]
    assert "No changes. 5 resources of dev as declared." in place.plan()
    assert not list((place.folder / ".gamma" / "dev" / "supervisor").glob("programs/*"))
    assert place.cluster.read()["http_options"]["host"] == "127.0.0.1"


def test_the_address_is_the_clients_own_and_no_invention(place: OnRay) -> None:
    headers = {**place.headers(), "X-Forwarded-For": "203.0.113.7"}
    id_ = place.whole(headers=headers).headers["X-Request-Id"]
    logs = place.cluster.folder / "session_latest" / "logs"

    def lines() -> list[Any]:
        texts = [path.read_text(errors="replace") for path in logs.glob("worker-*.out")]
        return [json.loads(line) for text in texts for line in text.splitlines() if f'"{id_}"' in line]

    _until(lines)
    assert [one["address"] for one in lines()] == ["127.0.0.1"]


def test_the_live_stream_comes_through(place: OnRay) -> None:
    header = {"Authorization": f"Bearer {key(place.folder)}"}
    with connect(f"ws://127.0.0.1:{place.port}/other/v1/live", additional_headers=header) as live:
        assert json.loads(live.recv(timeout=10))["event"] == "metrics"


@pytest.mark.nightly
def test_a_stream_comes_piece_by_piece(place: OnRay, tmp_path: Path) -> None:
    served = model(writer(tmp_path / "writer"), new_tokens=LONG, deadline=60.0)
    home, process = tmp_path / "home", Process(port=free_port(), trusted=("unix",))
    Running(home, bundle({"writer": served}, process=process)).close()
    digest = (home / "current").read_text()
    streams = {
        "name": "streams",
        "route_prefix": "/streams",
        "import_path": APP,
        "args": {"home": str(home), "code": ""},
        "deployments": [{"name": DEPLOYMENT, "user_config": {"bundle": digest}}],
    }
    others = place.cluster.applications()
    place.cluster.put(*others.values(), streams)
    _until(lambda: place.cluster.read()["applications"]["streams"]["status"] == "RUNNING")
    url = f"http://127.0.0.1:{place.port}/streams/v1/models/writer/stream"
    body = {"inputs": "a", "parameters": {"max_new_tokens": 500}}
    headers, times = {"Authorization": f"Bearer {KEYS['all']}"}, []
    start = time.monotonic()
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as said:
        assert said.headers["content-type"].startswith("text/event-stream")
        text = ""
        for piece in said.iter_text():
            times.append(time.monotonic() - start)
            text += piece
    assert text.count("event: piece") > 20
    assert "event: end" in text
    assert times[0] < times[-1] / 2
    place.cluster.put(*others.values())
    _until(lambda: "streams" not in place.cluster.applications())


def test_a_change_is_taken_by_the_same_replicas_and_no_request_is_lost(place: OnRay) -> None:
    pids, foreign = place.cluster.pids("gamma-dev-api"), _foreign(place)
    with load(place, 3) as running:
        place.edit("ttl: 1m", "ttl: 2m")  # of both Services, which are changed at once
        place.done()
        path = place.folder / "specs" / "service.yaml"
        path.write_text(path.read_text().replace("drain: 3s", "drain: 4s"))  # an option of Serve's too
        place.done()
    assert running.failed == {}
    assert place.cluster.pids("gamma-dev-api") == pids
    assert {one["bundle"] for one in place.told()} == {_current(place)}
    assert _foreign(place) == foreign
    assert "No changes." in place.plan()


@pytest.mark.nightly
def test_what_a_replica_refuses_leaves_the_old_bundle_in_force(place: OnRay) -> None:
    pids, before = place.cluster.pids("gamma-dev-api"), _current(place)
    broken = "  engine: ray\n  traces: {endpoint: 'http://127.0.0.1:1/v1/traces'}\n"
    path = place.folder / "specs" / "service.yaml"
    kept = path.read_text()
    path.write_text(kept.replace("  engine: ray\n", broken))
    with load(place, 3) as running:
        done = place.apply()
    assert done.code == 1
    assert "refuses the bundle: Traces need the libraries of OpenTelemetry" in done.err
    assert "The bundle of before answers again." in done.err
    assert running.failed == {}
    assert place.cluster.pids("gamma-dev-api") == pids
    assert _current(place) == before
    path.write_text(kept)
    assert "No changes." in place.plan()


@pytest.mark.nightly
def test_drift_is_seen_and_mended(place: OnRay) -> None:
    applications = place.cluster.applications()
    scaled = json.loads(json.dumps(applications["gamma-dev-api"]))
    scaled["deployments"][0]["num_replicas"] = 1
    place.cluster.put(scaled, *(one for name, one in applications.items() if name != "gamma-dev-api"))
    _until(lambda: len(place.cluster.pids("gamma-dev-api")) == 1)
    plan = place.plan()
    assert "Ray Serve has another configuration of gamma-dev-api" in plan
    assert "1 of 2 workers run" in plan
    with load(place, 3) as running:
        place.done()
    assert running.failed == {}
    assert len(place.cluster.pids("gamma-dev-api")) == 2
    place.cluster.put(*(one for name, one in applications.items() if name != "gamma-dev-api"))
    _until(lambda: "gamma-dev-api" not in place.cluster.applications())
    assert "Ray Serve has no application gamma-dev-api" in place.plan()
    place.done()
    assert place.ask()[0] == 200
    assert place.cluster.applications() == applications
    assert "No changes." in place.plan()


@pytest.mark.nightly
def test_another_version_of_the_code_replaces_the_replicas_and_no_request_is_lost(
    place: OnRay, code: Path
) -> None:
    pids, foreign = place.cluster.pids("gamma-dev-api"), _foreign(place)
    with (code / "gamma_orch" / "app" / "worker.py").open("a") as file:
        file.write("# another one\n")
    with load(place, 3) as running:
        place.done()
    assert running.failed == {}
    assert not place.cluster.pids("gamma-dev-api") & pids
    assert _foreign(place) == foreign
    assert "No changes." in place.plan()


def test_a_killed_replica_is_seen_at_once_and_replaced(place: OnRay) -> None:
    os.kill(min(place.cluster.pids("gamma-dev-api")), signal.SIGKILL)
    assert "Service/api  update: unhealthy: " in place.plan()  # whether Serve knows it already or not
    # Serve starts another by itself: an apply meanwhile is refused, for its plan is no longer true.
    _until(lambda: "No changes." in place.plan())
    assert len(place.cluster.pids("gamma-dev-api")) == 2


@pytest.mark.nightly
def test_a_policy_that_may_gives_as_many_workers_as_it_recommends(place: OnRay) -> None:
    path = place.folder / "specs" / "scaling.yaml"
    path.write_text(SCALING)
    with load(place, 3) as running:
        place.done()
        time.sleep(5.5)
        assert "Service/api has 2 workers, and 3 are recommended. cpu: " in place.plan()
        place.done()
        assert len(place.cluster.pids("gamma-dev-api")) == 3
        path.unlink()
        place.done()
        assert len(place.cluster.pids("gamma-dev-api")) == 2
    assert running.failed == {}


def test_from_ray_to_supervisord_and_back_leaves_nothing_behind(place: OnRay) -> None:
    path = place.folder / "specs" / "other.yaml"
    kept, port = path.read_text(), free_port()
    lines = [one for one in kept.splitlines() if not one.startswith(("  engine:", "  ray:"))]
    path.write_text("\n".join(lines).replace(f"port: {place.port}", f"port: {port}"))
    place.done()
    assert "gamma-dev-other" not in place.cluster.applications()
    assert Place.ask(_at(place, port))[0] == 200
    assert "No changes." in place.plan()
    path.write_text(kept)
    with Load(_at(place, port), 2) as running:  # until supervisord's workers drain, after Ray's answer
        place.done()
        assert place.whole(f"/other{PREDICT}").status == 200
    assert running.statuses[200] > 20
    assert set(running.failed) <= {"ConnectionRefusedError", "ConnectionResetError"}
    assert not list((place.folder / ".gamma" / "dev" / "supervisor").glob("programs/*"))
    assert "No changes." in place.plan()


def test_a_service_that_is_gone_from_the_specs_leaves_the_others_alone(place: OnRay) -> None:
    foreign = _foreign(place)
    (place.folder / "specs" / "other.yaml").unlink()
    place.done()
    assert place.cluster.applications().keys() == {"gamma-dev-api", "foreign"}
    assert not (place.folder / ".gamma" / "dev" / "service-other" / "current").exists()
    assert place.ask()[0] == 200
    assert _foreign(place) == foreign


def test_a_cluster_that_is_gone_is_not_taken_for_nothing(place: OnRay) -> None:
    place.cluster.stop()
    done = gamma(place.folder, "plan", "-e", "dev")
    said = done.out + done.err
    assert f"Ray's dashboard at {place.cluster.url} cannot be asked" in said
    assert "Traceback" not in said
    assert "create" not in said
    done = place.apply()
    assert (done.code, "Traceback" in done.err) == (3, False)


def _at(place: OnRay, port: int) -> Place:
    return Place(place.folder, port)


def _current(place: OnRay) -> str:
    return House(place.folder / ".gamma" / "dev" / "service-api").current()


def _foreign(place: OnRay) -> tuple[str, Any, float]:
    """What it answers, with its process; its configuration; and that it answers at all."""
    with urllib.request.urlopen(f"http://127.0.0.1:{place.port}/foreign", timeout=20) as answer:
        said = answer.read().decode()
    assert said.startswith("theirs ")
    return said, place.cluster.applications()["foreign"], answer.status


def _until(true: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)
