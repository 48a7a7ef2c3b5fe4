"""What the client makes of a dashboard that answers something else than Serve's state. The real one is
asked in tests/e2e/test_ray.py."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from gamma_orch.core.provider import Permanent, ProviderError, Temporary
from gamma_orch.targets import ray_serve
from gamma_orch.targets.ray_serve import RayServe

APPLICATION = {"name": "gamma-dev-api", "args": {"home": "/srv"}}
EMPTY = json.dumps({"applications": {}}).encode()


class Dashboard(HTTPServer):
    def __init__(self, status: int, body: bytes, put: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.answers = {"GET": (status, body), "PUT": (put, b"no such field")}
        self.heard: list[tuple[str, str | None, Any]] = []

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Dashboard

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.heard.append((f"{self.command} {self.path}", self.headers.get("Authorization"), body))
        status, said = self.server.answers[self.command]
        self.send_response(status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_PUT = do_GET  # noqa: N815 - the library's name

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def dashboard(status: int = 200, body: bytes = EMPTY, put: int = 200) -> Iterator[Dashboard]:
    server = Dashboard(status, body, put)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (200, b"<html>", Permanent, "is not Ray's dashboard. Correct `ray.url`."),
        (200, b'{"applications": []}', Permanent, "is not Ray's dashboard"),
        (
            401,
            b"",
            Permanent,
            "answers 401: it wants other credentials. Give them in `ray.url`, as a secret.",
        ),
        (404, b"", Permanent, "answers 404: it has no REST API of Serve"),
        (
            501,
            b"Serve dependencies are not installed.",
            Permanent,
            "Serve dependencies are not installed. That",
        ),
        (503, b"The GCS may be down", Temporary, "answers 503: The GCS may be down"),
    ],
)
def test_what_it_answers_is_told(status: int, body: bytes, kind: type[ProviderError], words: str):
    with dashboard(status, body) as server, pytest.raises(kind) as raised:
        RayServe(f"http://{server.place}").read()
    assert words in str(raised.value)


def test_what_it_refuses_is_told():
    with dashboard(put=400) as server, pytest.raises(Permanent, match="answers 400: no such field"):
        RayServe(f"http://{server.place}").deploy(APPLICATION, "127.0.0.1", 8000)


def test_credentials_are_given_and_never_shown():
    with dashboard(401) as server:
        serve = RayServe(f"http://anna:s3cr%40t@{server.place}/ray/")
        with pytest.raises(Permanent) as raised:
            serve.read()
        [(asked, authorization, _)] = server.heard
    assert asked == "GET /ray/api/serve/applications/"
    assert authorization == "Basic YW5uYTpzM2NyQHQ="
    assert "s3cr" not in str(raised.value) + serve.shown
    assert f"http://{server.place}/ray answers 401" in str(raised.value)


def test_nobody_there_and_nobody_who_answers_are_temporary(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_serve, "READ", 0.2)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        place = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(Temporary, match=r"cannot be asked: .*refused.* Does the cluster run\?"):
            RayServe(place).read()
        listening.listen()
        with pytest.raises(Temporary, match="cannot be asked: timed out"):
            RayServe(place).read()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ray://head:10001", "http://", "head:8265"])
def test_what_is_no_url_of_a_dashboard(url: str):
    with pytest.raises(Permanent, match="begins with http:// or https://"):
        RayServe(url)


def test_what_is_not_there_is_not_removed_and_serve_is_not_started():
    with dashboard() as server:
        RayServe(f"http://{server.place}").remove("gamma-dev-api", "/srv")
        assert [asked for asked, _, _ in server.heard] == ["GET /api/serve/applications/"]


def test_an_application_of_another_folder_is_not_removed():
    there = {
        "status": "RUNNING",
        "source": "declarative",
        "deployed_app_config": {"args": {"home": "/other"}},
    }
    body = json.dumps({"applications": {"gamma-dev-api": there}}).encode()
    with dashboard(body=body) as server:
        RayServe(f"http://{server.place}").remove("gamma-dev-api", "/srv")
        assert len(server.heard) == 1
