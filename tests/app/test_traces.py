"""Spans at a collector that speaks OTLP over HTTP."""

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gamma_orch.app.bundle import Bundle, Process, Traces
from tests.app.running import KEYS, Running, auth, free_port, model
from tests.app.tinies import changed

PREDICT = "/v1/models/sentiment/predict"
SECRET = "words that nobody else may read"


class Collector:
    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.hangs = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.hangs:
                    time.sleep(30)
                outer.bodies.append(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def spans(self) -> list[Any]:
        found = []
        for body in self.bodies:
            for one in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in one.scope_spans:
                    found += scope.spans
        return found

    def wait(self, roots: int) -> dict[str, list[Any]]:
        """By their request: the root and then its steps."""
        end = time.monotonic() + 30
        while len([one for one in self.spans() if one.kind == one.SPAN_KIND_SERVER]) < roots:
            assert time.monotonic() < end
            time.sleep(0.1)
        spans = self.spans()
        return {
            said(root)["gamma.request_id"]: [
                root,
                *(one for one in spans if one.parent_span_id == root.span_id),
            ]
            for root in spans
            if root.kind == root.SPAN_KIND_SERVER
        }


def said(span: Any) -> dict[str, Any]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    one = Collector()
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("traced")
    models = {"sentiment": model(folder / "m")}
    made = Bundle(service="api", models=models, auth=auth(), process=Process(port=free_port()))
    with Running(folder / "home", made) as running:
        running.bundle = made  # type: ignore[attr-defined]
        yield running


@pytest.fixture
def traced(worker: Any, collector: Collector) -> Iterator[httpx.Client]:
    made = changed(worker.bundle, traces=Traces(endpoint=collector.url))
    assert "error" not in worker.swap(made)
    with worker.client("all") as client:
        yield client
    assert "error" not in worker.swap(worker.bundle)


def test_a_request_is_a_span_with_its_steps(traced: httpx.Client, collector: Collector) -> None:
    ids = {traced.post(PREDICT, json={"inputs": SECRET}).headers["x-request-id"] for _ in range(2)}
    wrong = traced.post(PREDICT, json={"inputs": []})
    found = collector.wait(3)
    assert found.keys() == {*ids, wrong.headers["x-request-id"]}
    for number, (root, *steps) in enumerate(found.values()):
        assert root.name == "POST predict"
        assert [one.name for one in steps] == ["admit", "read body", "answer"]
        assert root.start_time_unix_nano <= steps[0].start_time_unix_nano
        for one, after in itertools.pairwise(steps):
            assert one.start_time_unix_nano <= one.end_time_unix_nano <= after.start_time_unix_nano
        assert steps[-1].end_time_unix_nano <= root.end_time_unix_nano
        told = said(root)
        assert told["http.response.status_code"] == (422 if number == 2 else 200)
        assert told["gen_ai.request.model"] == "sentiment"
    first = said(next(iter(found.values()))[0])
    assert len(first["gamma.model.digest"]) == 64
    assert first["gen_ai.usage.input_tokens"] > 0


def test_nothing_secret_goes_out(traced: httpx.Client, collector: Collector) -> None:
    traced.post(PREDICT, json={"inputs": SECRET})
    traced.get(f"/v1/models/{SECRET.replace(' ', '-')}")
    traced.get("/nowhere", headers={"User-Agent": SECRET, "tracestate": "a=b"})
    collector.wait(3)
    whole = b"".join(collector.bodies)
    for secret in (SECRET, SECRET.replace(" ", "-"), KEYS["all"], "127.0.0.1"):
        assert secret.encode() not in whole


def test_the_callers_trace_goes_on(traced: httpx.Client, collector: Collector) -> None:
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    for flags in ("01", "00"):  # what the caller does not keep is not kept here
        traced.get("/v1/models", headers={"traceparent": f"00-{trace}-{span}-{flags}"})
    traced.get("/v1/models", headers={"traceparent": "no such thing"})
    [followed, own] = [one[0] for one in collector.wait(2).values()]
    assert (followed.trace_id.hex(), followed.parent_span_id.hex()) == (trace, span)
    assert own.trace_id.hex() != trace
    assert not own.parent_span_id


def test_only_a_share_of_them(worker: Any, collector: Collector) -> None:
    """A caller that marks all of its requests gets no more than the share."""
    made = changed(worker.bundle, traces=Traces(endpoint=collector.url, sample=0.0))
    assert "error" not in worker.swap(made)
    with worker.client("all") as client:
        client.get("/v1/models", headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
        client.get("/v1/models")
    assert "error" not in worker.swap(worker.bundle)  # which sends what waits
    time.sleep(1)
    assert collector.bodies == []


def test_a_collector_that_hangs_or_is_gone_delays_nobody(
    traced: httpx.Client, collector: Collector, worker: Any
) -> None:
    collector.hangs = True
    for _ in range(600):  # more than one batch
        assert traced.get("/v1/models", timeout=2).status_code == 200
    collector.server.server_close()
    assert traced.get("/v1/models", timeout=2).status_code == 200


def test_what_waits_is_sent_when_the_next_bundle_comes(worker: Any, collector: Collector) -> None:
    assert "error" not in worker.swap(changed(worker.bundle, traces=Traces(endpoint=collector.url)))
    with worker.client("all") as client:
        client.get("/v1/models")
    assert "error" not in worker.swap(worker.bundle)
    collector.wait(1)


def test_nothing_of_it_is_imported_where_nobody_asks() -> None:
    code = "import sys, gamma_orch.app.api; print('opentelemetry.exporter' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"
