"""Programs under supervisord, all of them real: no connection is lost, and no worker is left behind."""

import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest

from gamma_orch.core.provider import Permanent
from gamma_orch.targets.account import account
from gamma_orch.targets.supervised import Program, Slot, Supervised, Supervisor

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes accounts")
ROOT = Path(__file__).parents[2]
WORKER = (sys.executable, str(Path(__file__).with_name("slot_server.py")))


def below(folder: Path) -> list[psutil.Process]:
    """All processes that a supervisor under a folder started, and itself."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            ours = f"unix://{folder}" in process.environ().get("SUPERVISOR_SERVER_URL", "")
            if ours or ("supervisor.supervisord" in process.cmdline() and str(folder) in process.cwd()):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


@pytest.fixture
def supervisor(folder: Path) -> Iterator[Supervisor]:
    """One that was never started; whatever happens, nothing of it is left."""
    try:
        yield Supervisor(folder / "dev" / "supervisor")
    finally:
        try:
            Supervisor(folder / "dev" / "supervisor").destroy()
            assert below(folder) == []
        finally:
            for process in below(folder):
                process.kill()


@pytest.fixture
def supervised(supervisor: Supervisor) -> Supervised:
    return Supervised(supervisor)


@pytest.fixture
def web() -> Program:
    return Program("web", WORKER, 1, "127.0.0.1", free_port(), stop_seconds=5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(program: Program, path: str = "/", patience: float = 10) -> str:
    connection = http.client.HTTPConnection(program.host, program.port, timeout=patience)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()
    finally:
        connection.close()


def numbers(slots: Sequence[Slot]) -> list[int]:
    return [slot.number for slot in slots if slot.state == "RUNNING"]


def supervisord(supervisor: Supervisor) -> psutil.Process:
    return psutil.Process(int((supervisor.home / "pid").read_text()))


@dataclass
class Client:
    """Connects and asks every few milliseconds, from several threads, and counts what it gets."""

    program: Program
    answers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    failed_at: list[float] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def asking(self, paths: Sequence[str] = ("/", "/", "/slow")) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.done.set()
            for thread in threads:
                thread.join(20)

    def _ask(self, path: str) -> None:
        while not self.done.is_set():
            try:
                self.answers.append(ask(self.program, path))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                self.failed_at.append(time.monotonic())
            time.sleep(0.003)


def test_it_starts_once(supervisor: Supervisor):
    assert not supervisor.running()
    supervisor.ensure()
    assert supervisor.running()
    before = supervisord(supervisor).pid
    supervisor.ensure()
    assert supervisord(supervisor).pid == before
    supervisor.stop()
    supervisor.stop()
    assert not supervisor.running()


def test_workers_share_one_socket(supervised: Supervised, web: Program):
    supervised.put(replace(web, workers=2))
    assert numbers(supervised.slots("web")) == [1, 2]
    assert supervised.declared("web") == replace(web, workers=2)
    answered = {ask(web) for _ in range(5)}
    for slot in supervised.slots("web"):
        supervised.stop("web", 3 - slot.number)
        answered.add(ask(web))
        supervised.start("web", 3 - slot.number)
    assert {answer.split()[0] for answer in answered} == {"1", "2"}
    held = {file_of_0(slot.pid) for slot in supervised.slots("web")}
    assert len(held) == 1
    assert held.pop().startswith("socket:")


def file_of_0(pid: int) -> str:
    return str(Path(f"/proc/{pid}/fd/0").readlink())


def test_no_connection_is_lost_while_workers_change(supervised: Supervised, web: Program):
    supervised.put(web)
    client = Client(web)
    with client.asking():
        supervised.stop("web", 1)  # there is no worker at all for a while
        time.sleep(0.3)
        supervised.start("web", 1)
        supervised.put(replace(web, workers=4))
        assert numbers(supervised.slots("web")) == [1, 2, 3, 4]
        pids = {slot.pid for slot in supervised.slots("web")}
        for number in (1, 2, 3, 4):
            supervised.stop("web", number)
            supervised.start("web", number)
        assert not pids & {slot.pid for slot in supervised.slots("web")}
        supervised.put(replace(web, workers=2))
        assert numbers(supervised.slots("web")) == [1, 2]
    assert client.failures == []
    assert len(client.answers) > 200
    assert {answer.split()[0] for answer in client.answers} == {"1", "2", "3", "4"}


def test_connections_wait_while_there_is_no_worker(supervised: Supervised, web: Program):
    supervised.put(web)
    supervised.stop("web", 1)
    waiting = [socket.create_connection((web.host, web.port), timeout=10) for _ in range(300)]
    try:
        for connection in waiting:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        supervised.start("web", 1)
        assert all(connection.recv(1000).startswith(b"HTTP/1.1 200") for connection in waiting)
    finally:
        for connection in waiting:
            connection.close()


def test_a_worker_that_dies_comes_back_and_the_socket_stays(supervised: Supervised, web: Program):
    supervised.put(web)
    (before,) = supervised.slots("web")
    os.kill(before.pid, signal.SIGKILL)
    assert ask(web) != f"1 {before.pid}"  # not refused: it waits for the next one


def test_a_worker_drains_what_it_began(supervised: Supervised, web: Program):
    supervised.put(web)
    client = Client(web)
    with client.asking(["/slow"]):
        time.sleep(0.2)
        supervised.stop("web", 1)
        supervised.start("web", 1)
    assert client.failures == []


def test_a_worker_that_does_not_stop_is_killed(supervised: Supervised, web: Program):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    supervised.put(replace(web, command=(sys.executable, "-c", deaf), stop_seconds=1))
    (slot,) = supervised.slots("web")
    began = time.monotonic()
    supervised.stop("web", 1)
    assert 0.9 < time.monotonic() - began < 5
    assert not psutil.pid_exists(slot.pid)


def test_a_signal_reaches_its_worker(supervised: Supervised, web: Program):
    supervised.put(replace(web, workers=2))
    one, two = supervised.slots("web")
    supervised.signal("web", 2, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while supervised.slots("web")[1].pid in (two.pid, 0):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert supervised.slots("web")[0].pid == one.pid
    supervised.stop("web", 2)
    with pytest.raises(Permanent, match="refuses signalProcess web:2 SIGHUP: NOT_RUNNING"):
        supervised.signal("web", 2, signal.SIGHUP)


def test_a_changed_program_is_taken_over_by_each_restart(supervised: Supervised, web: Program):
    web = replace(web, workers=2, environment={"COLOUR": "red"})
    supervised.put(web)
    pids = [slot.pid for slot in supervised.slots("web")]
    blue = replace(web, environment={"COLOUR": "blue"})
    client = Client(web)
    with client.asking():
        supervised.put(blue)
        assert [slot.pid for slot in supervised.slots("web")] == pids
        assert {slot.digest for slot in supervised.slots("web")} == {web.digest}
        for slot in supervised.slots("web"):
            supervised.stop("web", slot.number)
            supervised.start("web", slot.number)
            assert ask(web, "/program")
    assert client.failures == []
    assert {slot.digest for slot in supervised.slots("web")} == {blue.digest} != {web.digest}
    assert ask(web, "/program") == f"{blue.digest} blue"


def test_the_same_again_changes_nothing(supervised: Supervised, web: Program):
    supervised.put(web)
    before = supervised.slots("web")
    supervised.put(web)
    assert supervised.slots("web") == before


def test_a_slot_that_was_stopped_is_started_by_the_next_put(supervised: Supervised, web: Program):
    supervised.put(replace(web, workers=2))
    supervised.stop("web", 1)
    assert [(slot.number, slot.runs) for slot in supervised.slots("web")] == [(1, False), (2, True)]
    supervised.put(replace(web, workers=2))
    assert numbers(supervised.slots("web")) == [1, 2]


def test_another_address_moves_it(supervised: Supervised, web: Program):
    supervised.put(web)
    moved = replace(web, port=free_port())
    supervised.put(moved)
    assert ask(moved)
    with pytest.raises(ConnectionRefusedError):
        ask(web)


def test_another_time_to_stop_is_taken_over(supervisor: Supervisor, supervised: Supervised, web: Program):
    supervised.put(web)
    supervised.put(replace(web, stop_seconds=7))
    assert ask(web)
    told = supervisor.call("getAllConfigInfo")
    assert {info["stopwaitsecs"] for info in told} == {7}


def test_more_workers_than_slots(supervisor: Supervisor, supervised: Supervised, web: Program):
    idle = replace(web, command=("sleep", "600"), workers=65)
    supervised.put(idle)
    assert len(numbers(supervised.slots("web"))) == 65
    supervised.put(web)
    assert ask(web)


def test_an_address_that_is_taken_is_refused_and_nothing_changes(supervised: Supervised, web: Program):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        there = replace(web, port=taken.getsockname()[1])
        with pytest.raises(Permanent, match=rf"web cannot listen on 127.0.0.1:{there.port}: Address already"):
            supervised.put(there)
        assert supervised.declared("web") is None
        supervised.put(web)
        with pytest.raises(Permanent, match="Address already in use"):
            supervised.put(there)
        assert supervised.declared("web") == web
        assert ask(web)


def test_a_worker_that_fails_is_told_with_its_log(supervised: Supervised, web: Program):
    broken = replace(web, command=(sys.executable, "-c", "raise SystemExit('no model')"))
    with pytest.raises(Permanent, match=r"(?s)Worker 1 of web did not stay up: it is BACKOFF.*no model"):
        supervised.put(broken)
    with pytest.raises(Permanent, match=r"(?s)did not stay up.*no_such_program"):
        supervised.put(replace(web, command=("/no_such_program",)))
    with pytest.raises(Permanent, match=r"(?s)did not stay up.*no/such/folder"):
        supervised.put(replace(web, directory="/no/such/folder"))
    supervised.put(web)
    supervised.stop("web", 1)
    supervised.start("web", 1)
    assert ask(web)


def test_what_it_does_not_know_is_said(supervisor: Supervisor, supervised: Supervised, web: Program):
    assert supervised.declared("web") is None
    assert supervised.slots("web") == []
    supervisor.ensure()
    with pytest.raises(Permanent, match=r"The supervisor in .* has no worker 1 of web"):
        supervised.start("web", 1)
    (supervisor.home / "programs" / "web.json").write_text('{"name": "web"}')
    with pytest.raises(Permanent, match=r"web.json says what runs, and cannot be read"):
        supervised.declared("web")
    supervised.remove("web")
    assert supervised.declared("web") is None


def test_remove_leaves_its_logs(supervisor: Supervisor, supervised: Supervised, web: Program, folder: Path):
    other = replace(web, name="other", port=free_port())
    supervised.put(web)
    supervised.put(other)
    supervised.remove("web")
    supervised.remove("web")
    with pytest.raises(ConnectionRefusedError):
        ask(web)
    assert supervised.declared("web") is None
    assert supervised.slots("web") == []
    assert sorted(file.name for file in (supervisor.home / "programs").iterdir()) == [
        "other.conf",
        "other.json",
        "other.sh",
    ]
    assert (supervisor.home / "logs" / "web-1.log").exists()
    assert ask(other)
    supervisor.stop()
    supervised.remove("other")
    supervisor.ensure()
    assert supervised.programs() == []


def test_stop_and_ensure_bring_everything_back(supervisor: Supervisor, supervised: Supervised, web: Program):
    other = replace(web, name="other", port=free_port(), workers=2)
    supervised.put(web)
    supervised.put(other)
    supervisor.stop()
    assert below(supervisor.home) == []
    assert supervised.slots("web") == []
    supervisor.ensure()
    assert ask(web)
    assert ask(other)
    assert numbers(supervised.slots("other")) == [1, 2]


def test_after_a_kill_of_supervisord_there_is_one_set_of_workers(
    supervisor: Supervisor, supervised: Supervised, web: Program
):
    supervised.put(replace(web, workers=2))
    other = replace(web, name="other", port=free_port())
    supervised.put(other)
    old = {slot.pid for name in ("web", "other") for slot in supervised.slots(name)}
    killed = supervisord(supervisor)
    killed.kill()
    deadline = time.monotonic() + 5
    while supervisor.running():
        assert time.monotonic() < deadline
    assert int(ask(web).split()[1]) in old  # they go on
    assert supervised.slots("web") == []
    client = Client(web)
    with client.asking():
        supervisor.ensure()
    # What is refused falls into one short time, while the old ones drain.
    assert max(client.failed_at, default=0) - min(client.failed_at, default=0) < 3
    assert not [one for one in client.failures if not re.search("Refused|Reset|Disconnected", one)]
    new = {slot.pid for name in ("web", "other") for slot in supervised.slots(name)}
    assert len(new) == 3
    assert not old & new
    # Two programs, each with a holder; three workers; supervisord.
    assert len(below(supervisor.home)) == 2 + 3 + 1
    assert int(ask(web).split()[1]) in new


def test_workers_that_were_left_behind_can_be_stopped_and_removed(
    supervisor: Supervisor, supervised: Supervised, web: Program
):
    other = replace(web, name="other", port=free_port())
    supervised.put(web)
    supervised.put(other)
    supervisord(supervisor).kill()
    time.sleep(0.1)
    supervised.remove("web")
    with pytest.raises(ConnectionRefusedError):
        ask(web)
    assert ask(other)
    supervisor.stop()
    assert below(supervisor.home) == []


def test_a_program_that_cannot_run_keeps_no_other_from_running(
    supervisor: Supervisor, supervised: Supervised, web: Program
):
    other = replace(web, name="other", port=free_port())
    supervised.put(web)
    supervised.put(other)
    supervisor.stop()
    with socket.create_server((web.host, web.port)):
        with pytest.raises(Permanent, match="web cannot listen on"):
            supervisor.ensure()
        assert ask(other)
        supervised.put(replace(other, workers=2))
        with pytest.raises(Permanent, match="web cannot listen on"):
            supervised.put(web)
    supervisor.ensure()  # once the address is free again
    assert ask(web)


def test_a_number_in_the_pid_file_that_is_somebody_elses_now(supervisor: Supervisor):
    supervisor.ensure()
    supervisor.stop()
    with subprocess.Popen(["sleep", "60"], cwd=supervisor.home) as other:
        try:
            (supervisor.home / "pid").write_text(f"{other.pid}\n")
            assert not supervisor.running()
            supervisor.stop()
            supervisor.ensure()
            assert supervisor.running()
            assert other.poll() is None
        finally:
            other.kill()


@pytest.mark.parametrize("lost", ["pid", "supervisor.sock", "password"])
def test_one_that_cannot_be_asked_is_replaced(
    supervisor: Supervisor, supervised: Supervised, web: Program, lost: str
):
    supervised.put(web)
    before = supervisord(supervisor)
    (supervisor.home / lost).unlink()
    supervisor.ensure()
    assert not before.is_running() or before.status() == psutil.STATUS_ZOMBIE
    assert supervisord(supervisor).pid != before.pid
    assert ask(web)
    assert len(below(supervisor.home)) == 3


def test_processes_that_ensure_at_once_get_one_supervisor(
    supervisor: Supervisor, supervised: Supervised, web: Program
):
    supervised.put(web)
    supervisor.stop()
    code = (
        "import sys; from pathlib import Path; from gamma_orch.targets.supervised import Supervisor;"
        "Supervisor(Path(sys.argv[1])).ensure()"
    )
    commands = [
        subprocess.Popen([sys.executable, "-c", code, str(supervisor.home)], cwd=ROOT) for _ in range(3)
    ]
    assert [command.wait(60) for command in commands] == [0, 0, 0]
    assert ask(web)
    assert len(below(supervisor.home)) == 3


def test_it_outlives_ctrl_c(supervisor: Supervisor, supervised: Supervised, web: Program):
    code = (
        "import signal, sys, time; from pathlib import Path;"
        "from gamma_orch.targets.supervised import Supervisor;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "Supervisor(Path(sys.argv[1])).ensure(); print('started', flush=True); time.sleep(60)"
    )
    supervised.put(web)
    supervisor.stop()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(supervisor.home)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as command:
        assert command.stdout
        assert command.stdout.readline() == b"started\n"
        os.killpg(command.pid, signal.SIGINT)
        command.wait(10)
    assert ask(web)


def test_everything_is_private(
    supervisor: Supervisor, supervised: Supervised, web: Program, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SOMEBODYS_SECRET", "hunter2")
    supervised.put(replace(web, environment={"KEY": "hunter3"}))
    for path in (supervisor.home, *supervisor.home.rglob("*")):
        mode = path.stat().st_mode
        private = 0o600 if stat.S_ISREG(mode) else 0o700
        assert stat.S_IMODE(mode) == private, path
    (slot,) = supervised.slots("web")
    environment = psutil.Process(slot.pid).environ()
    assert "SOMEBODYS_SECRET" not in environment
    assert environment["KEY"] == "hunter3"
    assert "hunter3" not in repr(supervised.declared("web"))
    assert "hunter3" not in " ".join(psutil.Process(slot.pid).cmdline())
    listening = [at for process in below(supervisor.home) for at in process.net_connections("inet")]
    assert {at.laddr.port for at in listening} == {web.port}  # no port of supervisord's own


VALUES = ["", "a b", "100%", "%(here)s", '"', "'", "`id`", "$HOME", "a;b #c", "\\n", "é", "-n", "*", "a,b=c"]


def test_every_value_arrives_as_it_is(supervised: Supervised, web: Program, folder: Path):
    odd = folder / 'it\'s 100% #1; "odd"'
    odd.mkdir()
    code = (
        "import json, os, sys, time; from pathlib import Path;"
        "said = [sys.argv[1:], [os.environ[f'V{n}'] for n in range(len(sys.argv) - 1)], os.getcwd()];"
        "Path('told').write_text(json.dumps(said)); time.sleep(600)"
    )
    supervised.put(
        replace(
            web,
            command=(sys.executable, "-c", code, *VALUES),
            environment={f"V{number}": value for number, value in enumerate(VALUES)},
            directory=str(odd),
        )
    )
    assert json.loads((odd / "told").read_text()) == [VALUES, VALUES, str(odd)]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "Web"}, "its name"),
        ({"name": "../web"}, "its name"),
        ({"name": "a]\nb"}, "its name"),
        ({"command": ()}, "its command is empty"),
        ({"command": ("a", "b\nc")}, "the end of a line"),
        ({"directory": "/a\0b"}, "NUL"),
        ({"environment": {"A": "b\r"}}, "the end of a line"),
        ({"environment": {"A B": "c"}}, "a name that a shell does not take"),
        ({"environment": {"A\nB": "c"}}, "a name that a shell does not take"),
        ({"workers": 0}, "less than one worker"),
        ({"host": "::1"}, "neither a name nor an IPv4 address"),
        ({"host": "a\nb"}, "neither a name nor an IPv4 address"),
        ({"port": 0}, "its port"),
        ({"stop_seconds": -1}, "its time to stop"),
    ],
)
def test_what_cannot_be_run_is_refused(web: Program, changed: dict[str, object], said: str):
    with pytest.raises(Permanent, match=f"cannot be run: .*{said}"):
        replace(web, **changed)  # type: ignore[arg-type]


def test_the_socket_of_a_long_path_lies_elsewhere(folder: Path, web: Program):
    supervisor = Supervisor(folder / ("d" * 60) / ("e" * 40) / "supervisor")
    try:
        Supervised(supervisor).put(web)
        assert ask(web)
        assert supervisor.socket.parent == Path(f"/tmp/gamma-{os.geteuid()}")
        supervisord(supervisor).kill()
        time.sleep(0.1)
        supervisor.ensure()  # its orphans are found by the socket
        assert ask(web)
    finally:
        supervisor.destroy()
    assert not supervisor.socket.exists()
    with pytest.raises(ConnectionRefusedError):
        ask(web)


def test_a_path_that_it_cannot_work_in_is_refused(folder: Path):
    with pytest.raises(Permanent, match="for a pattern"):
        Supervisor(folder / "a[b]" / "supervisor").ensure()


def test_a_machine_without_it_says_what_to_do(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Permanent, match="package supervisor, which is not installed"):
        supervisor.ensure()


def test_destroy_leaves_nothing(supervisor: Supervisor, supervised: Supervised, web: Program, folder: Path):
    supervised.put(web)
    supervisor.destroy()
    supervisor.destroy()
    assert list((folder / "dev").iterdir()) == []
    assert below(folder) == []


@as_root
def test_as_an_ordinary_user_it_runs_as_that_user(folder: Path, web: Program):
    who = account()
    assert who.uid
    assert who.gid
    try:
        who.run([sys.executable, "-c", ""], Path("/"), {}, 20)
    except PermissionError:
        pytest.skip("the interpreter of these tests is in a folder that only root can enter")
    mine = folder / "mine"
    mine.mkdir()
    os.chown(mine, who.uid, who.gid)
    code = (
        "import os, sys; from pathlib import Path; import filelock, psutil;"
        "from gamma_orch.targets.supervised import Program, Supervised, Supervisor;"
        f"os.setgroups([]); os.setgid({who.gid}); os.setuid({who.uid}); os.environ['HOME'] = '/';"
        f"Supervised(Supervisor(Path(sys.argv[1]))).put(Program.decoded({web.encoded()!r}))"
    )
    supervisor = Supervisor(mine / "dev" / "supervisor")
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(supervisor.home)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert ask(web)
        assert {process.uids().real for process in below(supervisor.home)} == {who.uid}
    finally:
        supervisor.destroy()
