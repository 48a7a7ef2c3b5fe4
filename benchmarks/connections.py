"""What open connections cost, and how soon a message has reached everybody who listens. One table.

    python -m benchmarks.connections [--connections N] [--workers N] [--seconds N]

The API runs as a Service runs it: worker processes with one listening socket, keys, metrics and an access
log, and no model. First half of the connections are HTTP, kept alive after one answer to `GET /v1/models`,
and half are WebSockets on `/v1/live`, each with a key; then, on new workers, all are WebSockets. Each worker
publishes the service's figures once a second. Memory is the proportional set size of all workers, before and
after, once each kind of connection has been there and gone, so that what all share is not counted.

The time of a message is from `at`, which the worker writes into it before it collects the figures, to the
moment when the last client has read it, by one clock. The clients are this process: bare sockets on epoll
that read frames and do nothing else. How much of a message's time this process was computing stands beside;
the kernel counts what it does for a send to the sender, up to the receiver's buffer. Meanwhile another
process asks `GET /v1/models` every 10 ms on a connection of its own; an answer's time is counted from when
it should have been asked.
"""

import argparse
import base64
import hashlib
import json
import os
import resource
import select
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Self

import psutil

from gamma_orch.app.bundle import ApiKey, Auth, Bundle, Process

ADDRESS = 20_000  # connections from one address of ours, of the 28,000 ports that Linux gives one
SPARE = 200  # descriptors for anything else
SETTLES = 3.0  # seconds
EVERY = 0.01  # seconds between two questions of the probe
KEY = "k" * 40
# What a browser says beside: a server keeps the head of a request for as long as it needs it, or longer.
COMMON = (
    f"Host: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 "
    "Safari/537.36\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\n"
    "Pragma: no-cache\r\nCache-Control: no-cache\r\n"
)
HTTP = f"GET /v1/models HTTP/1.1\r\nAccept: */*\r\n{COMMON}\r\n".encode()
WEBSOCKET = (
    f"GET /v1/live HTTP/1.1\r\nOrigin: http://localhost\r\n{COMMON}"
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    f"Sec-WebSocket-Key: {base64.b64encode(b'x' * 16).decode()}\r\n\r\n"
).encode()
TEXT, PING = 0x81, 0x89  # the first byte of a frame that is whole


@dataclass(slots=True)
class Heard:
    """One message."""

    clients: int
    last: float  # when the last of them had read it
    begun: float  # seconds that this process had computed when the first had read it
    ended: float  # and the last


class Clients:
    """WebSockets, each with the bytes of a frame that has not come whole."""

    def __init__(self) -> None:
        self.heard: dict[bytes, Heard] = {}
        self.lost = 0
        self._poll = select.epoll()
        self._open: dict[int, tuple[socket.socket, bytearray]] = {}

    def add(self, client: socket.socket, rest: bytes) -> None:
        client.setblocking(False)
        self._open[client.fileno()] = client, bytearray(rest)
        self._poll.register(client, select.EPOLLIN)

    def read(self, seconds: float) -> None:
        """All that there is, and what comes meanwhile."""
        end = time.monotonic() + seconds
        while (ready := self._poll.poll(max(0.0, end - time.monotonic()))) or time.monotonic() < end:
            for fd, _ in ready:
                client, waits = self._open[fd]
                try:
                    came = client.recv(65_536)
                except ConnectionError:
                    came = b""
                if not came:
                    self._poll.unregister(fd)
                    client.close()
                    del self._open[fd]
                    self.lost += 1
                    continue
                waits.extend(came)
                for kind, payload in frames(waits):
                    if kind == TEXT:
                        self._hear(payload)
                    elif kind == PING:  # answered with a mask of zeros
                        client.send(bytes((0x8A, 0x80 | len(payload), 0, 0, 0, 0)) + payload)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client, _waits in self._open.values():
            client.close()
        self._poll.close()

    def _hear(self, payload: bytes) -> None:
        one = self.heard.get(payload)
        if one is None:
            one = self.heard[payload] = Heard(0, 0.0, time.process_time(), 0.0)
        one.clients += 1
        one.last, one.ended = time.time(), time.process_time()


def frames(waits: bytearray) -> Iterator[tuple[int, bytes]]:
    """What a server sends is not masked. What is whole is taken out."""
    while len(waits) >= 2:
        size, start = waits[1], 2
        if size == 126:
            size, start = int.from_bytes(waits[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(waits[2:10], "big"), 10
        if len(waits) < start + size:
            return
        kind, payload = waits[0], bytes(waits[start : start + size])
        del waits[: start + size]
        yield kind, payload


def connect(port: int, number: int) -> socket.socket:
    client = socket.socket()
    client.settimeout(60)
    client.bind((f"127.0.0.{2 + number // ADDRESS}", 0))
    client.connect(("127.0.0.1", port))
    return client


def ask(client: socket.socket, request: bytes, status: int) -> bytes:
    """What came after the head of the answer."""
    client.sendall(request)
    came = b""
    while b"\r\n\r\n" not in came:
        more = client.recv(65_536)
        if not more:
            raise ConnectionError("The server closed a connection.")
        came += more
    head, _, rest = came.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 %d " % status):
        raise RuntimeError(head.decode("latin-1"))
    if status == 200:
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        while len(rest) < length:
            rest += client.recv(65_536)
    return rest


def probe(port: int, seconds: float) -> list[float]:
    """The milliseconds of each answer. Runs in a process of its own."""
    found = []
    with connect(port, 0) as client:
        due = time.monotonic()
        end = due + seconds
        while due < end:
            time.sleep(max(0.0, due - time.monotonic()))
            ask(client, HTTP, 200)
            found.append(1000 * (time.monotonic() - due))
            due += EVERY
    return found


@dataclass(frozen=True)
class Found:
    http: float  # KiB a connection
    websocket: float
    lags: list[float]  # seconds from each message to the last who read it
    client: list[float]  # and of these this process was computing
    cpu: float  # microseconds of a worker, for each message and client
    probe: list[float]  # ms
    lost: int  # connections that did not stay open
    unheard: int  # messages that not everybody has heard


def memory(workers: list[psutil.Process]) -> float:
    """KiB of all together."""
    return sum(worker.memory_full_info().pss for worker in workers) / 1024


def cpu(workers: list[psutil.Process]) -> float:
    return sum(sum(worker.cpu_times()[:2]) for worker in workers)


def measure(http: int, websockets: int, count: int, seconds: float, pool: ProcessPoolExecutor) -> Found:
    from tests.app.running import Running, free_port  # which imports torch: the probe needs none

    known = ApiKey(name="client", sha256=hashlib.sha256(KEY.encode()).hexdigest(), scopes=("models", "live"))
    port = free_port()
    process = Process(port=port, keep_alive=600.0)  # none is to end before the last one is there
    served = Bundle(service="benchmark", process=process, auth=Auth(keys=(known,)))
    with tempfile.TemporaryDirectory() as home, Running(Path(home), served) as running, Clients() as clients:
        for slot in range(2, count + 1):
            running.start(slot)
        workers = [psutil.Process(process.pid) for process in running.processes.values()]
        with Clients() as gone:
            for number in range(200 * count):
                with connect(port, number) as client:
                    ask(client, HTTP, 200)
                client = connect(port, number)
                gone.add(client, ask(client, WEBSOCKET, 101))
            gone.read(SETTLES)
        clients.read(SETTLES)
        empty = memory(workers)
        idle = []
        for number in range(http):
            idle.append(connect(port, number))
            ask(idle[-1], HTTP, 200)
        clients.read(SETTLES)
        with_http, descriptors = memory(workers), [worker.num_fds() for worker in workers]
        for number in range(http, http + websockets):
            client = connect(port, number)
            clients.add(client, ask(client, WEBSOCKET, 101))
            if number % 100 == 0:
                clients.read(0)
        clients.read(SETTLES)
        with_all = memory(workers)
        whole = {worker.num_fds() - before for worker, before in zip(workers, descriptors, strict=True)}
        used, start = cpu(workers), time.time()
        probing = pool.submit(probe, port, seconds)
        clients.read(seconds)
        used, end = cpu(workers) - used, time.time()
        clients.read(SETTLES)  # what was published in the last moment
        messages = [
            (text, one) for text, one in clients.heard.items() if start < json.loads(text).get("at", 0) < end
        ]
        for client in idle:  # that they are open still, and good for an answer
            with client:
                ask(client, HTTP, 200)
        return Found(
            (with_http - empty) / max(http, 1),
            (with_all - with_http) / max(websockets, 1),
            [one.last - json.loads(text)["at"] for text, one in messages],
            [one.ended - one.begun for _, one in messages],
            1e6 * used / sum(one.clients for _, one in messages),
            probing.result(),
            clients.lost,
            sum(one.clients not in whole for _, one in messages),
        )


COLUMNS = (
    "HTTP", "WebSockets", "workers", "KiB an HTTP", "KiB a WebSocket", "messages", "to all ms", "worst",
    "clients' part", "CPU us", "GET p50 ms", "p99", "worst", "lost",
)  # fmt: skip


def row(http: int, websockets: int, workers: int, found: Found) -> str:
    asked = sorted(found.probe)
    cells = (
        f"{http:,}", f"{websockets:,}", str(workers), f"{found.http:.1f}" if http else "",
        f"{found.websocket:.1f}", str(len(found.lags)), f"{1000 * statistics.median(found.lags):.0f}",
        f"{1000 * max(found.lags):.0f}", f"{1000 * statistics.median(found.client):.0f}", f"{found.cpu:.0f}",
        f"{asked[len(asked) // 2]:.1f}", f"{asked[len(asked) * 99 // 100]:.1f}", f"{asked[-1]:.0f}",
        str(found.lost + found.unheard),
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=15.0)
    asked_for = parser.parse_args()
    connections = asked_for.connections
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"{hard:,} descriptors are allowed to each process.")
    if hard - SPARE < connections:
        connections = hard - SPARE
        print(f"So there are {connections:,} connections, and not {asked_for.connections:,}.")
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---" * len(COLUMNS) + "|", flush=True)
    half = connections // 2
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(os.getpid).result()  # it is there before its processor time would be missed
        for http, websockets in ((half, connections - half), (0, connections)):
            found = measure(http, websockets, asked_for.workers, asked_for.seconds, pool)
            print(row(http, websockets, asked_for.workers, found), flush=True)


if __name__ == "__main__":
    main()
