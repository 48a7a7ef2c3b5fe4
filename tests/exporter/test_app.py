"""The exporter as Prometheus sees it: who may ask, what changes while it runs, and who waits for whom."""

import asyncio
import contextlib
import hashlib
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from gamma_orch.exporter import collectors
from gamma_orch.exporter.contract import SECONDS, UP
from gamma_orch.exporter.source import Parts, family
from tests.exporter.running import Exporter, Site, parsed, series

SECRET = "hunter2hunter2"


def scrapes(exporter: Exporter, name: str) -> dict[str, float]:
    found = parsed(exporter.client.get("/metrics").text)
    return {
        outcome: found[series("gamma_exporter_scrapes_total", collector=name, outcome=outcome)]
        for outcome in ("ok", "failed", "late")
    }


def bare(exporter: Exporter) -> int:
    """The status where the token is of no letter, which httpx does not send."""
    connection = HTTPConnection(exporter.url.removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", "/collectors", headers={"Authorization": "Bearer "})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/metrics", "/collectors", "/collectors/x", "/nothing"])
def test_without_the_token_nothing_is_told(exporter: Exporter, path: str):
    exporter.put("x", host={"disks": []})
    wrong = (
        "",
        "Bearer",
        f"Bearer {exporter.token[:-1]}",
        f"Bearer {exporter.token}x",
        exporter.token,
    )
    for given in wrong:
        answer = exporter.client.get(path, headers={"Authorization": given})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert exporter.client.get(path).status_code == (404 if path == "/nothing" else 200)
    assert exporter.client.get("/healthz", headers={"Authorization": ""}).status_code == 200


def test_the_token_is_what_its_file_says_and_nobody_has_none(exporter: Exporter):
    file = exporter.folder / "token"
    try:
        file.write_text("another")
        assert exporter.client.get("/collectors").status_code == 401
        assert (
            exporter.client.get("/collectors", headers={"Authorization": "Bearer another"}).status_code == 200
        )
        for empty in ("", "\n"):
            file.write_text(empty)
            assert bare(exporter) == 401
        file.unlink()
        assert bare(exporter) == 401
    finally:
        file.write_text(exporter.token)


@pytest.mark.parametrize(
    "path", ["/", "/collectors/", "/collectors/nobody", "/collectors/../token", "/collectors/%2e%2e%2ftoken"]
)
def test_what_is_not_there(exporter: Exporter, path: str):
    assert exporter.client.get(path).status_code == 404


def test_it_is_only_asked(exporter: Exporter):
    assert exporter.client.post("/collectors").status_code == 405


def test_a_page_is_taken_in_both_formats(exporter: Exporter, name: str):
    exporter.put(name, host={"disks": []}, labels={"site": 'a "b"\nc\\'})
    plain = exporter.scrape(name)
    assert plain[series(UP, collector=name, site='a "b"\nc\\')] == 1
    assert all(("site", 'a "b"\nc\\') in labels for _, labels in plain)
    answer = exporter.client.get(
        f"/collectors/{name}", headers={"Accept": "application/openmetrics-text;version=1.0.0"}
    )
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    families = {family.name: family.type for family in openmetrics(answer.text)}
    assert families["host_cpu_seconds"] == "counter"
    assert families[UP] == families["host_cpus"] == "gauge"


def test_a_changed_file_is_seen_at_the_next_scrape(exporter: Exporter, name: str):
    exporter.put(name, host={"disks": []}, labels={"site": "one"})
    assert exporter.told(name)["up"] is None
    assert series("host_cpus", site="one") in exporter.scrape(name)
    before = exporter.told(name)
    assert before["up"] is True
    assert time.time() - 5 < before["at"] <= time.time()
    assert 0 < before["seconds"] < 5
    changed = exporter.put(name, host={"disks": []}, labels={"site": "two"})  # as long as the one before
    after = exporter.told(name)
    assert scrapes(exporter, name)["ok"] == 1  # counted on, whatever its file says
    assert after["digest"] == hashlib.sha256(changed.encoded().encode()).hexdigest() != before["digest"]
    assert after["up"] is after["at"] is after["seconds"] is None
    assert series("host_cpus", site="two") in exporter.scrape(name)


def test_a_file_that_is_gone_is_no_collector_and_leaves_no_series(exporter: Exporter, name: str):
    exporter.put(name, host={"disks": []})
    assert exporter.up(name)
    exporter.remove(name)
    assert exporter.client.get(f"/collectors/{name}").status_code == 404
    assert name not in exporter.client.get("/collectors").json()
    assert f'collector="{name}"' not in exporter.client.get("/metrics").text
    exporter.put(name, host={"disks": []})
    assert exporter.up(name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "the whole: Invalid JSON"),
        ('{"name": "other", "host": {}}', "other"),
        ('{"name": "$", "host": {"disks": "' + SECRET + '"}}', "host.disks"),
        (
            '{"name": "$", "sql": {"postgres": {"url": "http://' + SECRET + '"}, "queries": []}}',
            "sql.queries",
        ),
    ],
)
def test_a_wrong_file_is_told_and_can_be_alerted_on(exporter: Exporter, name: str, text: str, says: str):
    name = f"wrong-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    exporter.write(name, text.replace("$", name))
    told = exporter.told(name)
    assert told["up"] is False
    assert says in told["error"]
    assert exporter.scrape(name).keys() == {series(UP, collector=name), series(SECONDS, collector=name)}
    assert says in exporter.error(name)
    assert SECRET not in exporter.said()
    assert scrapes(exporter, name) == {"ok": 0, "failed": 2, "late": 0}
    exporter.put(name, host={"disks": []})
    assert exporter.up(name)


def test_a_file_that_cannot_be_read_is_told_until_it_can(exporter: Exporter, name: str):
    path = exporter.folder / "collectors.d" / f"{name}.json"
    path.mkdir()
    assert "cannot be read" in exporter.error(name)
    path.rmdir()
    exporter.put(name, host={"disks": []})
    assert exporter.up(name)


def test_those_who_ask_at_one_moment_share_one_run(exporter: Exporter, site: Site, name: str):
    site.asked.clear()
    exporter.put(name, http={"url": f"{site.url}/hang?{name}"}, timeout=0.6)
    with ThreadPoolExecutor(10) as pool:
        pages = list(pool.map(lambda _: exporter.client.get(f"/collectors/{name}").text, range(10)))
    assert len(set(pages)) == 1
    assert len(site.asked) == 1
    assert scrapes(exporter, name) == {"ok": 0, "failed": 0, "late": 1}


def test_who_hangs_keeps_nobody_else_waiting(exporter: Exporter, site: Site, module: Path):
    """Three that hang in each way that there is, while twenty others are scraped again and again."""
    module.write_text("import time\ndef forever():\n    time.sleep(1000)\n")
    hang: dict[str, dict[str, Any]] = {
        "hang-http": {"http": {"url": f"{site.url}/hang"}},
        "hang-drip": {"http": {"url": f"{site.url}/drip"}},
        "hang-python": {"python": {"function": "somebody:forever", "path": [str(module.parent)]}},
    }
    for one, what in hang.items():
        exporter.put(one, timeout=2, **what)
    others = [f"quick-{number}" for number in range(20)]
    for one in others:
        exporter.put(one, http={"url": f"{site.url}/ok"})

    def timed(one: str) -> float:
        began = time.monotonic()
        assert exporter.up(one) == (one in others)
        return time.monotonic() - began

    with ThreadPoolExecutor(20) as pool:
        hanging = [pool.submit(timed, one) for one in hang]
        time.sleep(0.3)
        began = time.monotonic()
        slowest = max(pool.map(timed, others * 2))
        assert not any(one.done() for one in hanging)
        assert time.monotonic() - began < 1.5
        assert slowest < 1
        assert all(1.8 < one.result() < 3 for one in hanging)
    for one in hang:
        assert scrapes(exporter, one) == {"ok": 0, "failed": 0, "late": 1}


def test_who_goes_away_takes_nothing_from_the_others(exporter: Exporter, site: Site, name: str):
    exporter.put(name, http={"url": f"{site.url}/drip"}, timeout=0.8)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(exporter.up, name)
        with pytest.raises(Exception, match="timed out"):
            exporter.client.get(f"/collectors/{name}", timeout=0.2)
        assert other.result() is False
    assert scrapes(exporter, name)["late"] == 1


def test_a_change_breaks_nothing_off(exporter: Exporter, module: Path, name: str):
    module.write_text(
        "import os, time\ndef slow(seconds):\n    time.sleep(seconds)\n    yield 'pid', os.getpid()\n"
    )
    slow = {"function": "somebody:slow", "path": [str(module.parent)]}
    exporter.put(name, python={**slow, "arguments": {"seconds": 0.6}})
    with ThreadPoolExecutor(1) as pool:
        before = pool.submit(exporter.scrape, name)
        time.sleep(0.3)
        exporter.put(name, python={**slow, "arguments": {"seconds": 0}})
        after = exporter.scrape(name)
        assert not before.done()
        old, new = (int(found[series("pid")]) for found in (before.result(), after))
    assert old != new
    assert scrapes(exporter, name)["ok"] == 2
    deadline = time.monotonic() + 5
    while psutil.pid_exists(old):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert psutil.pid_exists(new)


def test_what_cannot_be_broken_off_is_left_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """None of ours is so stubborn as far as we know, so here is one that is."""
    freed = asyncio.Event()

    class Stubborn:
        async def collect(self, seconds: float) -> Parts:
            yield family("part", "A part.", [({}, 1)])
            while not freed.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await freed.wait()

        def close(self) -> None: ...

    monkeypatch.setattr(collectors, "_source", lambda part: Stubborn())
    (tmp_path / "x.json").write_text('{"name": "x", "host": {}, "timeout": 0.1}')

    async def run() -> None:
        running = collectors.Collectors(tmp_path, CollectorRegistry()).get("x")
        assert running is not None
        began = time.monotonic()
        told = await running.collect()
        assert (told.up, told.error) == (False, "It gave no answer in 0.1 seconds.")
        assert [metric.name for metric in told.metrics] == ["part", UP, SECONDS]
        assert (await running.collect()).error == "It still hangs in what it was asked before."
        assert time.monotonic() - began < 1
        freed.set()
        await asyncio.sleep(0.01)
        assert (await running.collect()).up

    asyncio.run(run())


def test_it_tells_of_itself(exporter: Exporter):
    found = parsed(exporter.client.get("/metrics").text)
    assert found[series("process_resident_memory_bytes")] > 1_000_000


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_its_end_is_the_end_of_what_it_started(tmp_path: Path, module: Path):
    """However it ends: by a SIGTERM in the middle of a scrape, or killed."""
    module.write_text(
        "import subprocess, time\n"
        "def forever():\n"
        "    subprocess.Popen(['sleep', '1000'])\n"
        "    time.sleep(1000)\n"
    )
    for number in (signal.SIGTERM, signal.SIGKILL):
        folder = tmp_path / number.name
        folder.mkdir()
        with Exporter(folder) as exporter, ThreadPoolExecutor(1) as pool:
            exporter.put("x", python={"function": "somebody:forever", "path": [str(tmp_path)]}, timeout=600)
            pool.submit(exporter.client.get, "/collectors/x")
            itself = psutil.Process(exporter.process.pid)
            deadline = time.monotonic() + 10
            while len(started := itself.children(recursive=True)) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            os.kill(exporter.process.pid, number)
            assert exporter.process.wait(10) == -number
            ended = started if number == signal.SIGTERM else started[:1]
            while any(map(lives, ended)):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            for left in filter(lives, started):
                left.kill()
