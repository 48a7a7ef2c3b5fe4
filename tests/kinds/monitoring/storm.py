"""What a storm of alerts needs: figures that fire (`Storm`), and a process that is told (`Endpoint`), as
Slack, a webhook and a mail server are. It writes down what came before it answers, so that a kill loses
nothing that it took. Run as a module it is that process."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

ALERTS, ZONES = 500, 10
ALL = frozenset(range(ALERTS))


def zone(number: int) -> int:
    return number % ZONES


class Storm:
    """Shows metrics: a series for each number that has begun, which is 1 until it is `ended`. They begin one
    after the other, over `rise` seconds from `begin` on."""

    def __init__(self, rise: float) -> None:
        storm = self
        self.rise, self._since = rise, 0.0
        self.ended: AbstractSet[int] = frozenset()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                said = "".join(
                    f'storm{{n="{n}",zone="{zone(n)}"}} {int(n not in storm.ended)}\n'
                    for n in sorted(storm.begun)
                )
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(said.encode())

            def log_message(self, *_: object) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._http.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def begin(self) -> None:
        self._since = time.monotonic()

    @property
    def begun(self) -> AbstractSet[int]:
        if not self._since:
            return frozenset()
        return frozenset(range(min(ALERTS, int(ALERTS * (time.monotonic() - self._since) / self.rise))))

    @property
    def fires(self) -> AbstractSet[int]:
        return self.begun - self.ended


@dataclass(frozen=True, slots=True)
class Message:
    to: str  # the first part of the path, or "mail"
    at: float  # of the monotonic clock, which all processes share
    refused: bool
    group: str
    says: str  # firing or resolved; else what people read
    alerts: dict[int, bool]  # whether each that it names fires


class Endpoint:
    """The process that is told, at ports that stay the same."""

    def __init__(self, folder: Path, http: int, mail: int) -> None:
        self.http, self.mail = http, mail
        self._file = folder / "came.jsonl"
        self._file.touch()
        self._read = 0
        self._came: list[Message] = []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, refusing: bool = False) -> None:
        words = [str(self.http), str(self.mail), str(self._file), "refuse" * refusing]
        self._process = subprocess.Popen([sys.executable, "-m", __name__, *words], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.communicate()
            self._process = None

    def came(self, to: str = "", since: float = 0.0, refused: bool = False) -> list[Message]:
        with self._file.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                said = json.loads(line)
                said["alerts"] = {int(number): fires for number, fires in said["alerts"].items()}
                self._came.append(Message(**said))
        return [m for m in self._came if to in ("", m.to) and m.at >= since and m.refused is refused]

    def firing(self, to: str) -> AbstractSet[int]:
        """What this receiver takes to fire. Each message names all of its group that fires, and so takes the
        place of the one before."""
        known: dict[str, AbstractSet[int]] = {}
        for message in self.came(to):
            known[message.group] = {number for number, fires in message.alerts.items() if fires}
        return frozenset[int]().union(*known.values())

    def singly(self, to: str) -> AbstractSet[int]:
        """What it would take to fire if it looked at each alert alone, and at no group."""
        known: dict[int, bool] = {}
        for message in self.came(to):
            known |= message.alerts
        return frozenset(number for number, fires in known.items() if fires)


def serve(http: int, mail: int, path: str, refusing: bool) -> None:
    from aiosmtpd.controller import Controller

    file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def keep(to: str, group: str, says: str, alerts: dict[int, bool]) -> None:
        message = Message(to, time.monotonic(), refusing, group, says, alerts)
        fields = {name: getattr(message, name) for name in Message.__slots__}
        os.write(file, json.dumps(fields).encode() + b"\n")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body: Any = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            to = self.path.split("/")[1]
            if to == "slack":
                shown = body["attachments"][0]
                keep(to, "", f"{shown['fallback']} {shown.get('title', '')}", {})
            else:
                alerts = {int(a["labels"]["n"]): a["status"] == "firing" for a in body["alerts"]}
                keep(to, json.dumps(body["groupLabels"]), body["status"], alerts)
            self.send_response(500 if refusing else 200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    class Mail:
        """It refuses a sender, as one does whose disk is full. What is said after the text of a mail is not
        heard: to Alertmanager before 0.28 a mail that is refused there is sent."""

        async def handle_MAIL(  # noqa: N802
            self, server: Any, session: Any, envelope: Any, address: str, options: Any
        ) -> str:
            if refusing:
                keep("mail", "", "", {})
                return "452 not now"
            envelope.mail_from = address
            return "250 OK"

        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
            keep("mail", "", str(message_from_bytes(envelope.content)["Subject"]), {})
            return "250 OK"

    Controller(Mail(), hostname="127.0.0.1", port=mail).start()
    listening = Server(("127.0.0.1", http), Handler)
    print("ready", flush=True)
    listening.serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "refuse")
