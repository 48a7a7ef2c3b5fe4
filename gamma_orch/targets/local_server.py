"""A server with an HTTP API that Gamma runs in the background with the distribution's own program: what
`embedded_prometheus` and `embedded_alertmanager` have in common.

What always holds: it listens on 127.0.0.1 alone, and answers one user with a password that was made for it;
two processes that ensure it at once get the same server; one that was killed is started again, with all it
had written; its folder is private.

    <state>/<environment>/<kind>-<name>/web.yml, port, password, pid, server.log, and what the server has

All methods block; call them in a thread.
"""

import socket
import time
import urllib.request
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from gamma_orch.core.provider import Permanent
from gamma_orch.targets.distribution import Distribution, Program
from gamma_orch.targets.embedded_postgres import State
from gamma_orch.targets.home import PATIENCE, Home, end, tail

USER = "gamma"
COST = 4  # of bcrypt, for a password of 32 random letters: each request is checked by it
# It does not put itself into the background.
LAUNCH = 'umask 077; "$0" "$@" >>server.log 2>&1 </dev/null & echo $! >pid'


class LocalServer(ABC):
    WHAT: ClassVar[str]  # for people
    PROGRAM: ClassVar[Program]
    CONFIGURATION: ClassVar[str]  # the file whose presence says that it was made

    def __init__(self, home: Path, tools: Path) -> None:
        """`home` is the server's folder, `tools` where programs of the distribution are unpacked."""
        self._home = Home(home.resolve(), self.WHAT, self.PROGRAM.name)
        self._distribution = Distribution(tools)

    @property
    def home(self) -> Path:
        return self._home.folder

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    @property
    def url(self) -> str:
        """Without the password. Raises Permanent where it never was started."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """Raises Permanent where it never was started."""
        try:
            return int((self.home / "port").read_text())
        except (OSError, ValueError):
            raise Permanent(f"There is no {self.WHAT} in {self.home}.") from None

    def authorization(self) -> str:
        """The value of the header. Raises Permanent where it never was started."""
        try:
            password = (self.home / "password").read_text()
        except OSError as error:
            raise Permanent(f"There is no {self.WHAT} in {self.home}: {error}.") from None
        return "Basic " + b64encode(f"{USER}:{password}".encode()).decode()

    def state(self) -> State:
        if not (self.home / self.CONFIGURATION).exists():
            return State.ABSENT
        return State.RUNNING if self._home.pid() is not None else State.STOPPED

    def ensure(self) -> None:
        """Make it where there is none, start it where it does not answer.

        Raises Missing where its program is not there and cannot be brought, and Permanent, with the end of
        its log, where it does not come up.
        """
        with self._home.alone():
            if self._home.pid() is None or not self._answers():
                end(self._home.pids(), 5.0)
                self._start()

    def stop(self) -> None:
        if self.home.is_dir():
            with self._home.alone():
                end(self._home.pids(), 10.0)

    def destroy(self) -> None:
        """Stop it and delete all it has."""
        self.stop()
        self._home.destroy()

    @abstractmethod
    def _files(self, port: int) -> Mapping[str, str]:
        """What it reads at its start, beside `web.yml`; paths are relative to its folder."""

    @abstractmethod
    def _arguments(self) -> list[str]: ...

    def _start(self) -> None:
        program = self._distribution.bring(self.PROGRAM)
        self._home.prepare()
        self._distribution.link(self.PROGRAM, self.home)
        port = self._free()
        self._home.write("port", str(port))
        self._home.write("web.yml", f"basic_auth_users: {{{USER}: '{self._hashed()}'}}\n")
        for name, text in self._files(port).items():
            self._home.write(name, text)
        with suppress(FileNotFoundError):
            self.log.replace(self.log.with_suffix(".log.1"))
        place = f"127.0.0.1:{port}"
        # The links of messages would have the name of the machine, where it does not listen.
        web = [
            "--web.config.file=web.yml",
            f"--web.listen-address={place}",
            f"--web.external-url=http://{place}",
        ]
        command = ["sh", "-c", LAUNCH, str(program), *web, *self._arguments()]
        said = self._home.launch(command, {"PATH": "/usr/bin:/bin"})
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if not (pids := self._home.pids()) or time.monotonic() > deadline:
                end(pids, 0.0)
                raise self._home.failed(said + tail(self.log))
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            asked = urllib.request.Request(  # noqa: S310 - of our own making
                f"{self.url}/-/ready", headers={"Authorization": self.authorization()}
            )
            with urllib.request.urlopen(asked, timeout=3) as answer:  # noqa: S310 - as above
                return bool(answer.status == 200)
        except (OSError, Permanent):
            return False

    def _free(self) -> int:
        """The port of before, where nobody has it by now."""
        known = 0
        with suppress(Permanent):
            known = self.port
        for port in (known, 0):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with suppress(OSError):
                    probe.bind(("127.0.0.1", port))
                    return int(probe.getsockname()[1])
        raise Permanent("There is no free port on 127.0.0.1.")

    def _hashed(self) -> str:
        import bcrypt

        return bcrypt.hashpw(self._home.password().encode(), bcrypt.gensalt(COST)).decode()
