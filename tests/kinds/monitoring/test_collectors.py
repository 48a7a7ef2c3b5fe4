"""Collectors on a real Prometheus: figures that come in, what is changed by hand, and kills."""

import http.server
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from gamma_orch.engine.embedded import forget, stop
from tests.cli.gamma import write
from tests.kinds.monitoring.test_prometheus import Place, tools

pytestmark = [pytest.mark.timeout(300), pytest.mark.postgres]
ENVIRONMENT = """apiVersion: gamma/v1
kind: Environment
metadata: {name: dev}
spec:
  secrets: {token: {generate: {length: 32}}}
  targets:
    prometheus: {type: prometheus, embedded: true}
    main: {type: postgres, embedded: true}
"""
FUNCTION = """import time

def figures(scale):
    yield "shelf_height", 2 * scale
    yield "shelf_books", 3, {"topic": "maps"}

def hangs():
    time.sleep(3600)
    yield "never", 1
"""
SERVED = '# TYPE shop_orders_total counter\nshop_orders_total{kind="book"} 7\n'


class Shop(http.server.BaseHTTPRequestHandler):
    """Shows metrics to whoever knows the token, and a page to all."""

    token = ""

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == f"Bearer {self.token}"
        status = 200 if self.path == "/page" or known else 401
        body = SERVED.encode() if self.path == "/figures" else b"open"
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None: ...


def collector(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "gamma/v1",
        "kind": "MetricCollector",
        "metadata": {"name": name},
        "spec": {"every": "1s", "timeout": "1s", **spec},
    }


@pytest.fixture(scope="module")
def shop() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def place(tmp_path: Path, shop: str) -> Iterator[Place]:
    write(tmp_path, {"environments/dev/environment.yaml": ENVIRONMENT, "figures.py": FUNCTION})
    (tmp_path / "specs").mkdir()
    tools(tmp_path / ".gamma")
    yield Place(tmp_path)
    list(stop(tmp_path / ".gamma", "dev"))
    list(forget(tmp_path / ".gamma", "dev"))


def declare(place: Place, *documents: dict[str, Any]) -> None:
    (place.folder / "specs" / "collectors.yaml").write_text(yaml.safe_dump_all(documents))


def all_kinds(shop: str) -> list[dict[str, Any]]:
    database = {"apiVersion": "gamma/v1", "kind": "Database", "metadata": {"name": "shop"}, "spec": {}}
    books = {"name": "db", "query": "select datname, numbackends from pg_stat_database where datname <> ''"}
    return [
        collector("shop", scrape={"urls": [f"{shop}/figures"], "bearer": "${secret.token}"}),
        collector("machine", host={}, labels={"team": "ops"}),
        collector("page", http={"url": f"{shop}/page", "contains": "open"}),
        collector("database", sql={"queries": [{**books, "labels": ["datname"], "gauges": ["numbackends"]}]}),
        collector("shelf", python={"function": "figures:figures", "arguments": {"scale": 4}}),
        database,
    ]


def applied(place: Place) -> None:
    done = place.apply()
    assert done.code == 0, done.err


def asked(place: Place, query: str) -> list[tuple[dict[str, str], float]]:
    found = place.ask(f"/api/v1/query?query={query}")["data"]["result"]
    return [(one["metric"], float(one["value"][1])) for one in found]


def until(look: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, what
        time.sleep(0.1)
    return found


def exporter() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "gamma_orch.exporter" in words:
            found.append(process)
    return found


def test_figures_of_all_kinds_come_in_and_go(place: Place, shop: str) -> None:
    declare(place, *all_kinds(shop))
    applied(place)
    Shop.token = (place.folder / ".gamma" / "dev" / "secrets" / "token").read_text().strip()
    [(orders, seven)] = until(lambda: asked(place, "shop_orders_total"), "the scrape with a token")
    assert (orders["job"], orders["kind"], seven) == ("shop", "book", 7)
    [(memory, size)] = until(lambda: asked(place, "host_memory_bytes"), "figures of this machine")
    assert (memory["job"], memory["team"]) == ("machine", "ops")
    assert size == psutil.virtual_memory().total
    [(_, fine)] = until(lambda: asked(place, "probe_success"), "the page")
    assert fine == 1
    found = until(lambda: asked(place, "db_numbackends"), "the database")
    assert {"postgres", "shop"} <= {labels["datname"] for labels, _ in found}
    [(_, eight)] = until(lambda: asked(place, "shelf_height"), "the function")
    assert eight == 8
    assert asked(place, "shelf_books")[0][0]["topic"] == "maps"
    until(lambda: {v for _, v in asked(place, "gamma_collector_up")} == {1.0}, "all are up")
    assert place.plan().code == 0

    for path in (place.folder / ".gamma").rglob("*"):  # only files that their owner alone can read have it
        if path.is_file() and not path.is_symlink() and Shop.token.encode() in path.read_bytes():
            assert path.stat().st_mode & 0o077 == 0 or path.is_relative_to(place.server.home), path

    declare(place, all_kinds(shop)[0])
    applied(place)
    jobs = place.ask("/api/v1/status/config")["data"]["yaml"]
    assert "gamma:dev:shop" in jobs
    assert "gamma:dev:machine" not in jobs
    assert not exporter(), "nobody needs it any more"


def test_a_hanging_collector_hurts_nobody_and_a_killed_exporter_comes_back(place: Place, shop: str) -> None:
    hangs = collector("hangs", python={"function": "figures:hangs"})
    declare(place, *all_kinds(shop)[1:], hangs)
    applied(place)

    def up() -> dict[str, float]:
        return {labels["job"]: value for labels, value in asked(place, "gamma_collector_up")}

    well = {"machine": 1.0, "page": 1.0, "database": 1.0, "shelf": 1.0, "hangs": 0.0}
    until(lambda: up() == well, "all others are up")
    [process] = exporter()
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: [one.pid for one in exporter()] not in ([], [process.pid]), "it is started again")
    until(lambda: up() == well, "and all are up again")
    assert place.plan().code == 0


def test_a_job_that_was_changed_by_hand_is_put_right(place: Place, shop: str) -> None:
    declare(place, collector("machine", host={}))
    applied(place)
    [file] = place.server.scrapes.glob("*.yml")
    text = place.server.home / "prometheus.yml"
    text.write_text(text.read_text().replace("/collectors/machine", "/elsewhere"))
    place.ask("/-/reload", "POST")
    plan = place.plan()
    assert plan.code == 2
    assert "its job was changed in Prometheus" in plan.out
    applied(place)
    assert "/elsewhere" not in place.ask("/api/v1/status/config")["data"]["yaml"]
    collectors = place.folder / ".gamma" / "dev" / "exporter" / "collectors.d"
    (collectors / "machine.json").write_text(json.dumps({"name": "machine", "host": {"disks": ["/tmp"]}}))
    plan = place.plan()
    assert plan.code == 2
    assert "it was changed in the exporter" in plan.out
    applied(place)
    assert place.plan().code == 0
    assert file.exists()
