"""A real exporter process, and a server over HTTP that misbehaves as its path says."""

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from gamma_orch.exporter.contract import UP, Collector

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def series(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


class Exporter:
    """Use as `with`. The listening socket is this process's, as supervisord's would be."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder, self.log = folder, folder / "exporter.log"
        self.token = secrets.token_urlsafe(16)
        (folder / "collectors.d").mkdir()
        (folder / "token").write_text(self.token + "\n")
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "gamma_orch.exporter", str(folder)],
                stdin=self._listening.fileno(),
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
            )
        self.client = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=20
        )

    def __enter__(self) -> Self:
        assert self.client.get("/healthz").status_code == 200  # it waits in the backlog until it is there
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()
        self._listening.close()

    def put(self, name: str, **what: Any) -> Collector:
        collector = Collector.model_validate({"name": name, **what})
        self.write(name, collector.encoded())
        return collector

    def write(self, name: str, text: str) -> None:
        path = self.folder / "collectors.d" / f"{name}.json"
        draft = path.with_suffix(".part")
        draft.write_text(text)
        draft.chmod(0o600)
        draft.replace(path)

    def remove(self, name: str) -> None:
        (self.folder / "collectors.d" / f"{name}.json").unlink()

    def scrape(self, name: str) -> Series:
        """What Prometheus would take from it, which is nothing where a series is there twice."""
        answer = self.client.get(f"/collectors/{name}")
        assert answer.status_code == 200, answer.text
        return parsed(answer.text)

    def up(self, name: str) -> bool:
        return bool(self.scrape(name)[series(UP, collector=name)])

    def told(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get("/collectors").json()[name]
        return found

    def said(self) -> str:
        """All that it ever says but the pages of collectors."""
        told = [self.client.get(path).text for path in ("/collectors", "/metrics")]
        return "\n".join([*told, self.log.read_text(errors="replace")])

    def error(self, name: str) -> str:
        """Of a scrape that fails."""
        assert not self.up(name)
        told = self.told(name)
        assert told["up"] is False
        return str(told["error"])


def parsed(text: str) -> Series:
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = series(sample.name, **sample.labels)
            assert key not in found
            found[key] = sample.value
    return found


class Site:
    """`/ok`, `/500`, `/moved`, `/big`, `/echo` (tells the headers), `/hang` (no byte until it is freed) and
    `/drip` (a byte now and then for ever)."""

    def __init__(self) -> None:
        self.freed = threading.Event()
        self.asked: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                path = self.path.partition("?")[0]
                if path == "/hang":
                    site.freed.wait(30)
                body = {"/big": b"x" * 3_000_000, "/echo": json.dumps(dict(self.headers)).encode()}.get(
                    path, b"all is well"
                )
                self.send_response({"/500": 500, "/moved": 302}.get(path, 200))
                self.send_header("Location", "/ok")
                self.send_header("Content-Length", "1000" if path == "/drip" else str(len(body)))
                self.end_headers()
                try:
                    while path == "/drip" and not site.freed.is_set():
                        self.wfile.write(b"x")
                        time.sleep(0.02)
                    self.wfile.write(body)
                except OSError:
                    pass

            do_HEAD = do_GET  # noqa: N815 - as the base class calls it

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None: ...

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.freed.set()
        self.server.shutdown()
        self.server.server_close()
