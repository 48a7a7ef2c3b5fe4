"""Programs that run under supervisord, which Gamma starts and asks through its XML-RPC on a unix socket.

One supervisor an environment. The Service kind puts its programs and restarts their workers one by one;
`gamma down` stops it. Nothing here knows what a worker does, or whether it is ready to answer.

What always holds:

- supervisord owns each listening socket and hands it to every worker as descriptor 0. It stays open while
  workers come, go and are replaced, so that connections wait and none is refused. It is closed only by
  `Supervisor.stop`, by `remove`, and by a `put` with another address, time to stop or limit of slots. It is a
  port, or a Unix socket that its owner alone can open; one whose file is gone is made anew by `put`.
- What runs is told by the files `programs/*.json`: supervisord starts nothing by itself. A program that
  cannot run keeps no other from running.
- After a kill -9 of supervisord its workers go on answering. The next `ensure` starts another supervisord,
  ends them and starts new ones. The two sets never run at once; while the old ones drain, connections are
  refused.

    <state>/<environment>/supervisor/supervisord.conf, supervisord.log, password, pid, supervisor.sock
                                    /programs/<name>.json, .conf, .sh
                                    /logs/<name>-<slot>.log

Where that path is too long for a socket (about 100 bytes) the socket alone is in /tmp/gamma-<user id>;
`socket` says where. All methods block, as long as a worker takes to stop; call them in a thread.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault  # nosec B411  # as in unix_rpc

from gamma_orch.core.provider import Permanent, Temporary
from gamma_orch.targets.home import PATIENCE, Home, end, tail
from gamma_orch.targets.program import HOLDER, Program
from gamma_orch.targets.unix_rpc import call

__all__ = ["Program", "Slot", "Supervised", "Supervisor"]

USER = "gamma"
ANSWER = 15.0  # seconds for one answer
LOAD = 60.0  # seconds for workers to be started
EVERY = 0.05  # seconds between two looks; supervisord itself would wait in a loop that takes a whole core

# Its faults that mean: it is so already. And: it has ended by now, or never began; its state tells more.
ALREADY_STARTED, NOT_RUNNING, SPAWN_ERROR = 60, 70, 50

# Paths are relative to the folder that it runs in, so that none needs quoting.
CONFIGURATION = """\
[supervisord]
logfile=supervisord.log
logfile_maxbytes=5MB
logfile_backups=2
pidfile=pid
childlogdir=logs
nocleanup=true
minprocs=0
umask=077

[unix_http_server]
file={socket}
chmod=0700
username={user}
password={password}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[include]
files=programs/*.conf
"""

# What workers get of the environment of whoever starts supervisord: no secret of theirs.
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Slot:
    """A worker, or the place of one."""

    number: int  # 1, 2, ...
    pid: int  # 0 where none runs
    state: str  # as supervisord calls it: RUNNING, STARTING, BACKOFF, STOPPING, STOPPED, EXITED, FATAL
    since: float  # when it was started; where none runs, when it ended. Seconds since 1970
    spawnerr: str = ""
    digest: str = ""  # Program.digest of what it was started with; "" where that cannot be told

    @property
    def runs(self) -> bool:
        """Whether it does, or is about to."""
        return self.state in {"STARTING", "RUNNING", "BACKOFF", "STOPPING"}


class Supervisor:
    """supervisord itself."""

    def __init__(self, home: Path) -> None:
        self._home = Home(home.resolve(), "supervisor", "supervisor.supervisord")

    @property
    def home(self) -> Path:
        return self._home.folder

    @property
    def log(self) -> Path:
        return self.home / "supervisord.log"

    @property
    def socket(self) -> Path:
        return self._home.socket("supervisor.sock")

    def running(self) -> bool:
        return self._home.pid() is not None

    def ensure(self) -> None:
        """Start it where it does not answer, and in it what was put.

        Raises Permanent, with the end of a log, where it or a program does not come up; the others do.
        """
        with self.alone():
            if errors := self.recover():
                raise type(errors[0])("\n".join(map(str, errors)))

    def stop(self) -> None:
        """Stop it and all workers, which drain first. `ensure` starts again what was put."""
        if self.home.is_dir():
            with self.alone():
                with suppress(Temporary, Permanent):
                    self.call("shutdown")  # a TERM it notices a second later
                self._stop()
                self.end_orphans()

    def destroy(self) -> None:
        """Stop it and delete all it has."""
        self.stop()
        self._home.destroy()
        self.socket.unlink(missing_ok=True)

    # For Supervised

    def alone(self) -> AbstractContextManager[None]:
        return self._home.alone()

    def recover(self) -> list[Permanent | Temporary]:
        """What `ensure` does; gives what is wrong with single programs. The caller is alone."""
        if not self.running() or not self._answers():
            self._start()
        supervised = Supervised(self)
        known = {info["group"] for info in self.call("getAllProcessInfo")}
        missing = [program for program in supervised.programs() if program.name not in known]
        if missing:
            self.end_orphans()
        errors: list[Permanent | Temporary] = []
        # All sockets first, so that connections wait from then on.
        for step in (supervised.open, supervised.scale):
            for program in tuple(missing):
                try:
                    step(program)
                except (Permanent, Temporary) as error:
                    errors.append(error)
                    missing.remove(program)
        return errors

    def call(self, method: str, *arguments: object, fine: Collection[int] = ()) -> Any:
        """Ask it. Raises Permanent where it refuses, but for faults in `fine`; Temporary where it is mute."""
        try:
            password = self._home.password()
            return call(self.socket, USER, password, ANSWER, f"supervisor.{method}", *arguments)
        except Fault as fault:
            if fault.faultCode in fine:
                return None
            asked = " ".join(map(str, (method, *arguments)))
            raise Permanent(
                f"The supervisor in {self.home} refuses {asked}: {fault.faultString}. Its log is {self.log}."
            ) from None
        except OSError as error:
            raise Temporary(
                f"The supervisor in {self.home} does not answer {method}: {error}. "
                f"The end of {self.log}:\n{tail(self.log, 5)}"
            ) from None

    def write(self, name: str, text: str) -> None:
        self._home.write(name, text)

    def end_orphans(self, name: str | None = None) -> None:
        """End the workers, of one program or of all, that a killed supervisord left behind."""
        end(list(self._orphans(name)), self.drain())

    def drain(self) -> float:
        """Seconds that the slowest worker may take to stop."""
        return max([program.stop_seconds for program in Supervised(self).programs()], default=1)

    # Running

    def _start(self) -> None:
        from importlib.util import find_spec

        if find_spec("supervisor") is None:
            raise Permanent("Services need the package supervisor, which is not installed. Install it.")
        if set(str(self.home)) & set("[*?"):
            raise Permanent(
                f"supervisord cannot work in {self.home}: it takes `[`, `*` and `?` in a path for a pattern. "
                "Move the project to a path without them."
            )
        self._stop()  # one that does not answer, or whose start was broken off
        self._home.prepare()
        for folder in ("programs", "logs"):
            (self.home / folder).mkdir(mode=0o700, exist_ok=True)
        # It would not start at all where it cannot listen for one of them, so they are added afterwards.
        for section in (self.home / "programs").glob("*.conf"):
            section.unlink()
        path = self._home.prepare_socket("supervisor.sock")
        shown = path.name if path.parent == self.home else path
        password = self._home.password()
        self.write("supervisord.conf", CONFIGURATION.format(socket=shown, user=USER, password=password))
        kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
        words = [sys.executable, "-P", "-m", "supervisor.supervisord", "-c", "supervisord.conf"]
        said = self._home.launch(words, kept)
        deadline = time.monotonic() + PATIENCE
        while not self.running() or not self._answers():
            if not (pids := self._home.pids()) or time.monotonic() > deadline:
                end(pids, 0.0)
                raise self._home.failed(said + tail(self.log))
            time.sleep(0.01)

    def _stop(self) -> None:
        """At a TERM it stops its workers, kills those that take too long, and ends."""
        end(self._home.pids(), self.drain() + 10)

    def _answers(self) -> bool:
        try:
            self.call("getState")
        except (Temporary, Permanent):
            return False
        return True

    def _orphans(self, name: str | None) -> Iterator[int]:
        """Workers that are no children of the supervisord that runs now."""
        import psutil

        url, now = f"unix://{self.socket}", self._home.pid()
        for pid in psutil.pids():
            try:
                process = psutil.Process(pid)
                told, parent = process.environ(), process.ppid()
            except (psutil.Error, OSError):
                continue
            if told.get("SUPERVISOR_SERVER_URL") != url or parent == now:
                continue
            worker = told.get("GAMMA_WORKER") == str(pid) or told.get("GAMMA_SLOT") == str(HOLDER)
            if worker and name in (None, told.get("SUPERVISOR_GROUP_NAME")):
                yield pid


class Supervised:
    """The programs that a supervisor runs."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._folder = supervisor.home / "programs"

    def declared(self, name: str) -> Program | None:
        """What was put. A worker may still run what was put before; the digest of its slot tells."""
        file = self._folder / f"{name}.json"
        try:
            return Program.decoded(file.read_text())
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise Permanent(
                f"{file} says what runs, and cannot be read: {error}. Delete it and apply the service again."
            ) from None

    def programs(self) -> list[Program]:
        """All that can be read. One that cannot keeps no other from being started or stopped."""
        found = []
        for file in sorted(self._folder.glob("*.json")):
            with suppress(Permanent):
                if program := self.declared(file.stem):
                    found.append(program)
        return found

    def put(self, program: Program) -> None:
        """Declare it, and have `workers` of it run, in the slots from 1 on.

        Workers that run already stay as they are: whoever changed command, environment or folder restarts
        them. Raises Permanent where its address is taken or a worker does not stay up.
        """
        with self._supervisor.alone():
            self._supervisor.recover()  # another program that cannot run is none of this one's business
            before = self.declared(program.name)
            if before is None or before.place != program.place:
                _check_free(program)
            self.open(program)
            self.scale(program)

    def slots(self, name: str) -> list[Slot]:
        """Those that a worker was ever started in. None where the supervisor does not run."""
        if not self._supervisor.running():
            return []
        return [slot for slot in self._all(name) if slot.number != HOLDER and slot.since]

    def start(self, name: str, number: int) -> None:
        """Start a worker, and wait until it stayed up for a second. Raises Permanent where it does not."""
        self._start(name, [number])

    def stop(self, name: str, number: int) -> None:
        """Stop a worker and wait for its end. It drains, and is killed where it takes too long."""
        self._stop(name, [number])

    def signal(self, name: str, number: int, which: signal.Signals) -> None:
        self._supervisor.call("signalProcess", f"{name}:{number}", which.name)

    def remove(self, name: str) -> None:
        """Stop all of it and forget it. Its logs stay."""
        if not self._folder.is_dir():
            return
        with self._supervisor.alone():
            if running := self._supervisor.running():
                self._drop(name)
            self._supervisor.end_orphans(name)
            for suffix in ("conf", "sh", "json"):
                (self._folder / f"{name}.{suffix}").unlink(missing_ok=True)
            if running:
                self._supervisor.call("reloadConfig")

    # Of these the caller is alone, and the supervisor runs.

    def open(self, program: Program) -> None:
        """Declare it, and have its socket listened on."""
        name = program.name
        if program.unix:
            Path(program.unix).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._supervisor.write(f"programs/{name}.sh", program.script())
        self._supervisor.write(f"programs/{name}.conf", program.section())
        [[added, changed, _]] = self._supervisor.call("reloadConfig")
        lost = bool(program.unix) and name not in added and not Path(program.unix).is_socket()
        if name in changed or lost:
            self._drop(name)
        self._supervisor.write(f"programs/{name}.json", program.encoded())
        if name in added or name in changed or lost:
            self._add(program)
        self._supervisor.call("startProcess", f"{name}:{HOLDER}", False, fine=(ALREADY_STARTED,))

    def scale(self, program: Program) -> None:
        """Have as many workers as it wants."""
        self._start(program.name, range(1, program.workers + 1))
        more = [slot.number for slot in self._all(program.name) if slot.number > program.workers]
        self._stop(program.name, more)

    def _add(self, program: Program) -> None:
        try:
            self._supervisor.call("addProcessGroup", program.name)
        except Temporary as error:  # an answer of 500, mostly because the address was taken
            _check_free(program)
            raise Permanent(f"The program {program.name} was not added: {error}") from None

    def _drop(self, name: str) -> None:
        """The holder last: the socket stays open for the workers that drain."""
        if slots := self._all(name):
            self._stop(name, [slot.number for slot in slots if slot.number != HOLDER])
            self._stop(name, [HOLDER])
            self._supervisor.call("removeProcessGroup", name)

    def _start(self, name: str, numbers: Collection[int]) -> None:
        # A start during a stop would make supervisord forget that the worker holds the socket.
        for slot in self._wait(name, numbers, LOAD, lambda slot: slot.state != "STOPPING"):
            if slot.state == "BACKOFF":  # it waits until it tries again, and the cause may be mended by now
                self._supervisor.call("stopProcess", f"{name}:{slot.number}", False, fine=(NOT_RUNNING,))
            self._supervisor.call(
                "startProcess", f"{name}:{slot.number}", False, fine=(ALREADY_STARTED, SPAWN_ERROR)
            )
        for slot in self._wait(name, numbers, LOAD, lambda slot: slot.state != "STARTING"):
            if slot.state != "RUNNING":
                log = self._supervisor.home / "logs" / f"{name}-{slot.number}.log"
                raise Permanent(
                    f"Worker {slot.number} of {name} did not stay up: it is {slot.state}. {slot.spawnerr}\n"
                    f"The end of {log}:\n{tail(log)}"
                )

    def _stop(self, name: str, numbers: Collection[int]) -> None:
        for number in numbers:
            self._supervisor.call("stopProcess", f"{name}:{number}", False, fine=(NOT_RUNNING,))
        self._wait(name, numbers, self._supervisor.drain() + LOAD, lambda slot: not slot.runs)

    def _wait(
        self, name: str, numbers: Collection[int], patience: float, done: Callable[[Slot], bool]
    ) -> list[Slot]:
        deadline = time.monotonic() + patience
        while True:
            slots = [slot for slot in self._all(name) if slot.number in numbers]
            if lost := sorted(set(numbers) - {slot.number for slot in slots}):
                raise Permanent(
                    f"The supervisor in {self._supervisor.home} has no worker {lost[0]} of {name}."
                )
            if all(map(done, slots)):
                return slots
            if time.monotonic() > deadline:
                late = ", ".join(f"{slot.number} is {slot.state}" for slot in slots if not done(slot))
                raise Temporary(f"Workers of {name} are not there after {patience:.0f} seconds: {late}.")
            time.sleep(EVERY)

    def _all(self, name: str) -> list[Slot]:
        found = (info for info in self._supervisor.call("getAllProcessInfo") if info["group"] == name)
        return sorted(map(_slot, found), key=lambda slot: slot.number)


def _slot(info: dict[str, Any]) -> Slot:
    return Slot(
        number=int(info["name"]),
        pid=info["pid"],
        state=info["statename"],
        since=info["start"] if info["pid"] else info["stop"],
        spawnerr=info["spawnerr"],
        digest=_digest(info["pid"]),
    )


def _digest(pid: int) -> str:
    import psutil

    try:
        return psutil.Process(pid).environ().get("GAMMA_PROGRAM", "") if pid else ""
    except (psutil.Error, OSError):
        return ""


def _check_free(program: Program) -> None:
    if program.unix:
        return  # in a folder of ours: what is left there is replaced
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as supervisord does it
        try:
            probe.bind((program.host, program.port))
        except OSError as error:
            raise Permanent(
                f"The program {program.name} cannot listen on {program.host}:{program.port}: "
                f"{error.strerror}. Free that address, or give the program another one."
            ) from None
