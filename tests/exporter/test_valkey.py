"""What a real Valkey says of itself."""

import os
import signal
import time
from collections.abc import Iterator

import pytest
import redis

from gamma_orch.exporter.contract import VALKEY, names
from gamma_orch.targets.embedded_postgres import State
from gamma_orch.targets.embedded_valkey import EmbeddedValkey
from tests.app.running import free_port
from tests.app.server import Server
from tests.exporter.running import Exporter, series
from tests.targets.folders import open_folder

SECRET = "hunter2hunter2"


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with open_folder() as path:
        embedded = EmbeddedValkey(path / "dev" / "valkey-main", megabytes=64)
        embedded.ensure()
        yield embedded
        embedded.destroy()


def test_what_it_says(exporter: Exporter, valkey: EmbeddedValkey, name: str):
    collector = exporter.put(name, valkey={"server": {"home": str(valkey.home)}}, labels={"site": "one"})
    before = exporter.scrape(name)
    with redis.Redis.from_url(valkey.url) as client:
        client.set("a", 1)
        client.set("b", 2)
        client.get("a")
        client.get("nobody")
        client.set("c", 3, px=1)
        while client.get("c") is not None:
            pass
        found = exporter.scrape(name)
        assert found[series("valkey_connected_clients", site="one")] == 2

    def grown(what: str) -> float:
        return found[series(what, site="one")] - before[series(what, site="one")]

    assert found[series("valkey_up", site="one")] == 1
    assert found[series("valkey_keys", site="one", db="0")] == 2
    assert found[series("valkey_max_memory_bytes", site="one")] == 64 * 1024**2
    assert 0 < found[series("valkey_used_memory_bytes", site="one")] < 64 * 1024**2
    assert grown("valkey_hits_total") >= 1
    assert grown("valkey_misses_total") >= 2
    assert grown("valkey_expired_total") == 1
    assert grown("valkey_evicted_total") == 0
    assert grown("valkey_commands_total") >= 6
    shown = {one for one, _ in found}
    assert shown == names(collector) - {"valkey_replication_lag_seconds"}
    assert set(VALKEY) <= names(collector)


def test_both_ends_of_a_replication(exporter: Exporter, name: str):
    port = free_port()
    quick = "repl-diskless-sync-delay 0"
    with (
        Server([f"port {port}", quick]) as primary,
        Server([f"replicaof 127.0.0.1 {port}", quick]) as replica,
    ):
        for which, server in (("primary", primary), ("replica", replica)):
            exporter.put(which, valkey={"server": {"url": server.url}})
        with redis.Redis.from_url(primary.url) as client, redis.Redis.from_url(replica.url) as other:
            while (
                other.info("replication")["master_link_status"] != "up"
                or not client.info()["connected_slaves"]
            ):
                time.sleep(0.02)
        of_primary = {one: value for one, value in exporter.scrape("primary").items() if "lag" in one[0]}
        of_replica = {one: value for one, value in exporter.scrape("replica").items() if "lag" in one[0]}
        assert len(of_primary) == 1
        assert of_replica.keys() == {series("valkey_replication_lag_seconds", peer=f"127.0.0.1:{port}")}
        assert all(0 <= value < 5 for value in (*of_primary.values(), *of_replica.values()))


def test_one_that_is_killed_and_back(exporter: Exporter, valkey: EmbeddedValkey, name: str):
    exporter.put(name, valkey={"server": {"home": str(valkey.home)}})
    assert exporter.up(name)
    os.kill(int((valkey.home / "pid").read_text()), signal.SIGKILL)
    while valkey.state() is not State.STOPPED:
        time.sleep(0.01)
    found = exporter.scrape(name)
    assert found[series("valkey_up")] == found[series("gamma_collector_up", collector=name)] == 0
    assert exporter.error(name) == f"{valkey.home} cannot be reached: Connection refused."
    assert valkey.state() is State.STOPPED
    valkey.ensure()
    assert exporter.up(name)


def test_one_that_hangs(exporter: Exporter, name: str):
    with Server() as server:
        exporter.put(name, valkey={"server": {"url": server.url}}, timeout=0.4)
        assert exporter.up(name)
        server.freeze()
        assert exporter.error(name) == f"unix://{server.socket} does not answer in 0.38 seconds."
        assert exporter.scrape(name)[series("valkey_up")] == 0
        server.thaw()
        assert exporter.up(name)


def test_one_that_never_was_is_not_made(exporter: Exporter, name: str):
    with open_folder() as folder:
        home = folder / "dev" / "valkey-main"
        exporter.put(name, valkey={"server": {"home": str(home)}})
        assert "There is no Valkey server in" in exporter.error(name)
        assert not home.exists()


def test_who_may_not_is_told_without_a_name(exporter: Exporter, name: str):
    acl = f"user bob on >{SECRET} ~* +@all -info"
    with Server([acl, "user default off"], ready=b"-NOAUTH") as server:
        for user, says in (
            (f"bob:{SECRET}", "refuses INFO (NoPermissionError)."),
            (f"bob:{SECRET}x", "does not accept"),
        ):
            exporter.put(name, valkey={"server": {"url": server.url.replace("://", f"://{user}@")}})
            assert exporter.error(name).startswith(f"unix://{server.socket} {says}")
            told = exporter.said()
            assert SECRET not in told
            assert "bob" not in told
