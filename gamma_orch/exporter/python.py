"""A function of somebody else's, in a process of its own, which is kept between scrapes. Always: one that is
late is killed with all that it has started, and the next scrape starts another."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Literal

from prometheus_client import Metric
from pydantic import Field, ValidationError

from gamma_orch.exporter import contract
from gamma_orch.exporter.source import Failed, Parts, misfits

ANSWER = 4_000_000  # bytes, at most

_SampleName = Annotated[str, Field(pattern=r"^(?!gamma_collector)[a-zA-Z_:][a-zA-Z0-9_:]*\Z")]


class _Family(contract.Value):
    name: contract.Metric
    type: Literal["counter", "gauge", "summary", "histogram", "gaugehistogram", "unknown", "info", "stateset"]
    help: str
    samples: list[tuple[_SampleName, Mapping[contract.Label, str], float]]


class _Answer(contract.Value):
    """What the child says."""

    families: tuple[_Family, ...] = ()
    error: str = ""


class PythonSource:
    def __init__(self, python: contract.Python) -> None:
        self._function = python.function
        self._question = json.dumps(python.model_dump()).encode() + b"\n"
        self._child: _Child | None = None

    async def collect(self, seconds: float) -> Parts:
        try:
            async with asyncio.timeout(seconds):
                answer = await self._ask()
        except TimeoutError:
            self.close()
            raise Failed(
                f"{self._function} gave nothing in {seconds:.3g} seconds, and was killed.", late=True
            ) from None
        except BaseException:
            self.close()
            raise
        for each in answer.families:
            metric = Metric(each.name, each.help, each.type)
            for name, labels, value in each.samples:
                metric.add_sample(name, dict(labels), value)
            yield metric
        if answer.error:
            raise Failed(f"{self._function} failed: {answer.error}.")

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None

    async def _ask(self) -> _Answer:
        if self._child is None:
            self._child = await _Child.started()
        try:
            line = await self._child.ask(self._question)
        except (OSError, EOFError):
            raise Failed(f"The process of {self._function} {await self._child.ended()}.") from None
        except ValueError:  # of asyncio, where the end of the line does not come
            raise Failed(f"{self._function} gives more than {ANSWER:,} bytes.") from None
        try:
            return _Answer.model_validate_json(line)
        except ValidationError as error:
            raise Failed(f"{self._function} gives what is no metric. {misfits(error)}.") from None


class _Child:
    """The process, and the socket by which it is asked and answers. What it prints goes where this process's
    own words go."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process, self._reader, self._writer = process, reader, writer

    @classmethod
    async def started(cls) -> "_Child":
        ours, theirs = socket.socketpair()
        with theirs:
            process = _start(theirs)
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=ANSWER)
        return cls(process, reader, writer)

    async def ask(self, question: bytes) -> bytes:
        """Raises OSError or EOFError where it is gone, and ValueError where its answer is too long."""
        self._writer.write(question)
        await self._writer.drain()
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return line

    async def ended(self) -> str:
        """How, once it does."""
        for _ in range(20):
            if (status := self._process.poll()) is not None:
                return (
                    f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with {status}"
                )
            await asyncio.sleep(0.01)
        return "does not talk any more"

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._writer.close()
        # Who hangs in the kernel ends later, or never: nobody here waits for it.
        threading.Thread(target=self._process.wait, daemon=True).start()


def _start(stdin: socket.socket) -> "subprocess.Popen[bytes]":
    words = ["-u", "-P", "-m", "gamma_orch.exporter.child", str(os.getpid())]
    return subprocess.Popen([sys.executable, *words], stdin=stdin.fileno(), start_new_session=True)
