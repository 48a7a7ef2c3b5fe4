"""The listening socket that a worker is given: by systemd as descriptor 3, and of either family."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from gamma_orch.app.address import UNIX
from gamma_orch.app.bundle import Process
from tests.app.running import KEYS, Running, bundle, free_port

COMMAND = 'export LISTEN_PID=$$ LISTEN_FDS=1; exec 3<&0 </dev/null; exec "$@"'


class BySystemd(Running):
    """As systemd starts it; the supervisor's descriptor 0 is no socket then."""

    def launch(self, slot: int) -> None:
        with (self.home / f"{slot}.log").open("ab") as log:
            self.processes[slot] = subprocess.Popen(
                ["/bin/sh", "-c", COMMAND, "sh", *self.command],
                stdin=self.listening.fileno(),
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "GAMMA_SLOT": str(slot)},
            )

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "gamma_orch.app.worker", str(self.home)]


def test_one_from_systemd(tmp_path: Path) -> None:
    with BySystemd(tmp_path, bundle({})) as running, running.client() as client:
        assert client.get("/healthz").status_code == 200


def test_one_of_its_own_behind_a_proxy(tmp_path: Path) -> None:
    """Whoever comes by it is believed, and has no address himself."""
    made = bundle({}, process=Process(port=free_port(), trusted=(UNIX,)))
    running = Running(tmp_path, made)
    running.listening.close()
    running.listening = socket.socket(socket.AF_UNIX)
    running.listening.bind(path := str(tmp_path / "own.sock"))
    running.listening.listen(16)
    given = "0" * 8 + "-1111-4222-8333-" + "4" * 12
    with running, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        head = f"GET /v1/whoami HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEYS['all']}\r\n"
        connection.sendall(f"{head}X-Forwarded-For: 203.0.113.7\r\nX-Request-Id: {given}\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, answer.headers["X-Request-Id"]) == (200, given)
        answer.read()
        end = time.monotonic() + 10
        while given not in running.log():  # it is written beside the answers
            assert time.monotonic() < end
            time.sleep(0.05)
        [line] = [json.loads(line) for line in running.log().splitlines() if given in line]
    assert line["address"] == "203.0.113.7"
