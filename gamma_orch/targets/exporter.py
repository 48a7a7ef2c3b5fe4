"""The exporter of an environment as the kinds of monitoring see it: one process for all collectors, and a
file for each.

Made by `targets.Targets`. The process runs under the environment's supervisor (`supervised`), so it outlives
the command that started it, is started again where it is killed, and stops with `gamma down`. It looks at its
files itself: a new one needs no word to it. All methods block; call them in a thread.

    <state>/<environment>/exporter/token, port, collectors.d/<name>.json
"""

import http.client
import json
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent, Temporary
from gamma_orch.targets.home import PATIENCE, Home
from gamma_orch.targets.program import Program
from gamma_orch.targets.supervised import Supervised, Supervisor

NAME = "exporter"
FILES = "collectors.d"
TIMEOUT = 5.0  # seconds for one answer


class Exporter:
    def __init__(self, state: Path) -> None:
        """`state`: the environment's folder."""
        self._home = Home((state / NAME).resolve(), "exporter", "gamma_orch.exporter")
        self._programs = Supervised(Supervisor(state / "supervisor"))

    @property
    def exists(self) -> bool:
        """Whether anything was ever put there."""
        return (self._home.folder / FILES).is_dir()

    @property
    def place(self) -> str:
        """host:port. Raises Permanent where it never was started."""
        try:
            return f"127.0.0.1:{int((self._home.folder / 'port').read_text())}"
        except (OSError, ValueError):
            raise Permanent(f"There is no exporter in {self._home.folder}.") from None

    def token(self) -> str:
        """Made once: who asks has to say it."""
        return self._home.password("token")

    def ensure(self, code: str) -> None:
        """Start it where it does not answer, or is not of this version of the program. Raises Permanent or
        Temporary."""
        with self._home.alone():
            self._prepare()
            self.token()
            program = self._program(code)
            self._programs.put(program)
            for slot in self._programs.slots(NAME):
                if slot.runs and slot.digest not in ("", program.digest):
                    self._programs.stop(NAME, slot.number)
                    self._programs.start(NAME, slot.number)
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    self.seen()
                except Temporary:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
                else:
                    return

    def put(self, name: str, text: str | None) -> None:
        """Have this collector, or with None have it no more. The last one gone, the process stops."""
        if text is not None:
            with self._home.alone():
                self._prepare()
                self._home.write(f"{FILES}/{name}.json", text)
            return
        if not self.exists:
            return
        with self._home.alone():
            (self._home.folder / FILES / f"{name}.json").unlink(missing_ok=True)
            if not any((self._home.folder / FILES).glob("*.json")):
                self._programs.remove(NAME)

    def seen(self) -> dict[str, Json]:
        """What it says of each of its collectors: `digest` of the file, `up`, `error`. Raises Temporary."""
        asked = urllib.request.Request(
            f"http://{self.place}/collectors", headers={"Authorization": f"Bearer {self.token()}"}
        )
        try:
            with urllib.request.urlopen(asked, timeout=TIMEOUT) as answer:  # noqa: S310 - as above
                found: dict[str, Json] = json.loads(answer.read())
                return found
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = getattr(error, "reason", None) or error
            raise Temporary(f"The exporter at {self.place} cannot be asked: {why}.") from None

    def _prepare(self) -> None:
        self._home.prepare()
        (self._home.folder / FILES).mkdir(mode=0o700, exist_ok=True)

    def _program(self, code: str) -> Program:
        command = (sys.executable, "-P", "-m", "gamma_orch.exporter", str(self._home.folder))
        port = self._port()
        return Program(NAME, command, 1, host="127.0.0.1", port=port, environment={"GAMMA_CODE": code})

    def _port(self) -> int:
        try:
            return int((self._home.folder / "port").read_text())
        except (OSError, ValueError):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            self._home.write("port", str(port))
            return port
