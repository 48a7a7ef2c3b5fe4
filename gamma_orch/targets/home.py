"""The private folder of a server that Gamma runs in the background, and how its process is found again.

Used by the servers that run under the account of Gamma itself (`embedded_valkey`, `supervised`).

What always holds: the folder has mode 0700 and each file in it 0600; a process is taken for the server
only when it works in this folder and its command line says what it is, so that a number that somebody
else has by now (a reboot) is never signalled.
"""

import hashlib
import os
import secrets
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gamma_orch.core.provider import Permanent, Temporary

PATIENCE = 20.0  # seconds for a start
# The kernel takes 107 bytes; supervisord adds its process id to the name while it makes the socket.
LONGEST_SOCKET = 98


@dataclass(frozen=True, slots=True)
class Home:
    folder: Path  # absolute, without links
    what: str  # for people: "Valkey server"
    program: str  # is in its command line

    def prepare(self) -> None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.folder.chmod(0o700)

    def write(self, name: str, text: str) -> None:
        """Whole or not at all."""
        path = self.folder / name
        partial = path.with_name(f"{path.name}.part")
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        partial.replace(path)

    def password(self, name: str = "password") -> str:
        """Made once. In the file of that name."""
        try:
            return (self.folder / name).read_text()
        except FileNotFoundError:
            self.write(name, made := secrets.token_urlsafe(24))
            return made

    def socket(self, name: str) -> Path:
        """In the folder; where the kernel would find that path too long, in /tmp/gamma-<user id>."""
        path = self.folder / name
        if len(os.fsencode(path)) <= LONGEST_SOCKET:
            return path
        key = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        return Path(f"/tmp/gamma-{os.geteuid()}") / f"{key}-{name}"  # noqa: S108  # checked below

    def prepare_socket(self, name: str) -> Path:
        """Where it may be made: in a folder that is ours alone."""
        path = self.socket(name)
        if path.parent != self.folder:
            with suppress(FileExistsError):
                path.parent.mkdir(mode=0o700)
            found = path.parent.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise Permanent(
                    f"The socket of the {self.what} in {self.folder} has to lie in {path.parent}, because "
                    "the path of its own folder is too long for one, and that is not a folder that this user "
                    "alone can enter. Remove it, or move the project to a shorter path."
                )
        return path

    @contextmanager
    def alone(self, patience: float = 3 * PATIENCE) -> Iterator[None]:
        """No other process starts or stops this server meanwhile."""
        from filelock import FileLock, Timeout

        lock = self._lock
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(lock, timeout=patience):
                yield
        except Timeout:
            raise Temporary(
                f"Another process has been starting or stopping the {self.what} in {self.folder} "
                f"for {patience:.0f} seconds; it holds {lock}."
            ) from None
        except PermissionError as error:
            raise Permanent(
                f"The {self.what} in {self.folder} cannot be managed by this user: {error}. "
                "Run Gamma as the user who made it."
            ) from None

    # Its process

    def launch(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> str:
        """Run a program that puts itself into the background; give what it said until then.

        It works in the folder, in a session of its own, and its files are private. Raises Permanent where
        it fails before it is in the background.
        """
        try:
            done = subprocess.run(
                [str(part) for part in command],
                cwd=self.folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=PATIENCE,
                umask=0o077,
                start_new_session=True,
                check=False,
            )
        except OSError as error:
            raise Permanent(f"The {self.what} in {self.folder} cannot be started: {error}.") from None
        except subprocess.TimeoutExpired:
            raise self.failed(f"no answer in {PATIENCE:.0f} seconds") from None
        if done.returncode:
            raise self.failed(done.stdout)
        return done.stdout

    def failed(self, said: str) -> Permanent:
        return Permanent(f"The {self.what} in {self.folder} did not start. What it said last:\n{tail(said)}")

    def pid(self) -> int | None:
        """As its file `pid` says, where it runs."""
        try:
            pid = int((self.folder / "pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if self._is_ours(pid) else None

    def pids(self) -> list[int]:
        """All that run here, in the file or not: a start that was broken off leaves one behind."""
        import psutil

        return [pid for pid in psutil.pids() if self._is_ours(pid)]

    def destroy(self) -> None:
        """Delete all it has. It must not run any more."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.unlink(missing_ok=True)

    @property
    def _lock(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.lock")

    def _is_ours(self, pid: int) -> bool:
        import psutil

        try:
            process = psutil.Process(pid)
            works_here = Path(process.cwd()) == self.folder
            return works_here and any(self.program in word for word in process.cmdline())
        except (psutil.Error, OSError):
            return False


def end(pids: Sequence[int], patience: float) -> None:
    """Ask processes to stop, and kill those that are still there after `patience` seconds."""
    import psutil

    def living(process: psutil.Process) -> bool:
        try:
            # A zombie has ended, whether somebody reaps it or not.
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    processes = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        for process in filter(living, processes):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        deadline = time.monotonic() + seconds
        while any(map(living, processes)) and time.monotonic() < deadline:
            time.sleep(0.02)
    if left := [process.pid for process in processes if living(process)]:
        raise Temporary(f"The processes {left} do not end, although they were killed. Try again.")


def tail(said: str | Path, lines: int = 20) -> str:
    """The last lines of a text, or of a log."""
    if isinstance(said, Path):
        try:
            with said.open("rb") as log:
                log.seek(max(0, said.stat().st_size - 8192))
                said = log.read().decode(errors="replace")
        except OSError:
            said = ""
    return "\n".join(said.strip().splitlines()[-lines:]) or "(nothing)"
