"""What leaves the process: a reload asked of the webserver, one notification for a failed run."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from gamma_orch.orchestration import location
from tests.orchestration.projects import applied, key, project, thing, write


class Listener:
    """A server that keeps what is posted to it."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Any]] = []
        self.arrived = threading.Event()
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{}")
                listener.received.append((self.path, json.loads(body)))
                listener.arrived.set()

            def log_message(self, *_: object) -> None:
                return None

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = Listener()
    yield found
    found.close()


def test_changed_specs_ask_for_a_reload(
    root: Path, instance: dg.DagsterInstance, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tick starts nothing: what is selectable is still the old set of assets."""
    monkeypatch.setenv("GAMMA_DAGSTER_URL", listener.url)
    applied(project(root, thing("a")))
    where = location(root, "dev")
    sensor = where.get_sensor_def("drift")
    write(root, thing("a"), thing("new"))
    context = dg.build_sensor_context(instance=instance, repository_def=where)
    found = sensor.evaluate_tick(context)
    assert not found.run_requests
    assert found.skip_message == (
        "The specs changed since they were loaded; the code location dev is being reloaded."
    )
    assert listener.arrived.wait(10)
    path, body = listener.received[0]
    assert path == "/graphql"
    assert "reloadRepositoryLocation" in body["query"]
    assert body["variables"] == {"name": "dev"}


def test_without_a_webserver_the_way_is_said(root: Path, instance: dg.DagsterInstance) -> None:
    applied(project(root, thing("a")))
    where = location(root, "dev")
    sensor = where.get_sensor_def("drift")
    write(root, thing("b"))
    context = dg.build_sensor_context(instance=instance, repository_def=where)
    assert "reload the code location dev" in (sensor.evaluate_tick(context).skip_message or "")


@pytest.mark.parametrize("secret", [False, True])
def test_a_failed_run_is_told_once(
    root: Path,
    instance: dg.DagsterInstance,
    listener: Listener,
    monkeypatch: pytest.MonkeyPatch,
    secret: bool,
) -> None:
    """However many resources failed; and the URL may be a secret."""
    monkeypatch.setenv("GAMMA_SECRET_HOOK", f"{listener.url}/hook")
    monkeypatch.setenv("GAMMA_THING_FAULTS", '{"permanent": ["a", "b"]}')
    url = "${secret.hook}" if secret else f"{listener.url}/hook"
    project(root, thing("a"), thing("b"), thing("c"), settings=f'  reconcile: {{notify: "{url}"}}\n')
    where = location(root, "dev")
    job = where.get_maybe_subset_job_def("reconcile", asset_selection={key(n) for n in "abc"})
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    context = dg.build_run_status_sensor_context(
        sensor_name="failures",
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=result.dagster_run,
    ).for_run_failure()
    sensor = where.get_sensor_def("failures")
    assert isinstance(sensor, dg.RunStatusSensorDefinition)
    sensor(context)
    assert listener.arrived.wait(10)
    assert len(listener.received) == 1
    path, body = listener.received[0]
    assert path == "/hook"
    assert body["environment"] == "dev"
    assert body["run"] == result.run_id
    assert sorted(step["step"] for step in body["failed"]) == ["Thing__a", "Thing__b"]
    assert "Thing/a" in next(s["error"] for s in body["failed"] if s["step"] == "Thing__a")
