"""One worker process: `python -m gamma_orch.app.worker HOME`, its number in GAMMA_SLOT.

The supervisor starts it with the listening socket as descriptor 0, systemd as descriptor 3. It loads the
bundle that `HOME/current` names, answers by it, and takes orders on its control socket. Always:

- A bundle is swapped in whole: verified, its secrets there, its models loaded and warm; then one assignment.
  What cannot be taken is refused with every fault, and the old bundle goes on.
- On SIGTERM no connection is taken any more; each answer says `connection: close`; what runs is finished;
  idle connections are closed once nobody has used them for a moment. New ones wait in the socket's backlog,
  which the supervisor holds, for the next worker.
"""

import asyncio
import contextlib
import gc
import os
import re
import resource
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from pydantic import ValidationError
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from gamma_orch.app import logs
from gamma_orch.app.bundle import Bundle, Live, Secrets
from gamma_orch.app.control import Control
from gamma_orch.app.edge import App, Edge, Receive, Request, Scope, Send
from gamma_orch.app.live import Hub
from gamma_orch.app.live import serve as serve_live
from gamma_orch.app.metrics import Recorder
from gamma_orch.app.policy import Policy, Refused, compiled
from gamma_orch.app.security import Event, Events, key_in
from gamma_orch.app.serving import Served, Shelf
from gamma_orch.app.wire import Wire, watch

Json = Any
QUIET = 1.0  # seconds without a request after which a draining worker closes connections that idle
STUCK = 5.0  # seconds that a WebSocket whose end has come has to take what was sent to it
COLLECTED = 20_000, 20, 20  # the collector's thresholds: a request makes hundreds of objects, and no cycles
FEW = 10_240  # open files and connections; below this the log says so


class Worker:
    def __init__(self, home: Path, slot: int) -> None:
        self.home, self.slot = home, slot
        self.log = logs.logger()
        self.metrics = Recorder(home / "metrics", slot)
        self.metrics.watch("in_flight", lambda: self.inflight)
        self.security = Events(key_in(home), self.metrics.security, self._secure)
        self.answers = self.faults = 0  # requests answered, and those of them with a 500
        self.shelf = Shelf(self.metrics, home / "compiled")
        self.policy: Policy | None = None
        self.fault = ""  # why the last bundle was refused
        self.inflight = 0
        self.draining = False
        self.since = time.time()
        self.busy = time.monotonic()  # when the last request ended
        self._swapping = asyncio.Lock()
        self._server: Server | None = None
        self._writer = logs.configure(dropped=self._lost)
        orders = {"state": self._state, "swap": self._swap, "drain": self._drain, "security": self._since}
        self._control = Control(home, slot, orders)
        self._hubs: dict[str, Hub] = {}  # by the names of their routes
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> App:
        """What answers requests from now on, on whatever socket; with a 503 until a bundle is taken."""
        from gamma_orch.app.api import application

        await self._control.start()
        self._start(self.metrics.beat())
        self._start(self._watch_valkey())
        self._start(self.security.run())
        return Edge(self, application(self))

    async def serve(self, listening: socket.socket) -> None:
        app = await self.start()
        wanted = _current(self.home)
        if wanted:
            with contextlib.suppress(Refused):  # `fault` says it
                await self.take(wanted)
        keep_alive = self.policy.bundle.process.keep_alive if self.policy else 75.0
        config = uvicorn.Config(
            app,
            http=Wire,
            ws=WebSocket,
            ws_ping_interval=20.0,  # proxies close what is silent for a minute
            ws_ping_timeout=20.0,  # and who does not answer is gone
            ws_max_size=65_536,
            ws_per_message_deflate=False,  # a broadcast is packed for each client anew
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,  # `address` knows whom to believe
            timeout_keep_alive=int(keep_alive),
            backlog=4096,  # what supervisord has given the socket: the last to say it decides for all
            timeout_graceful_shutdown=5,  # for what is left when the drain is over
        )
        self._server = Server(config, self)
        self._start(watch(self._server.server_state.connections))
        await self._server.serve(sockets=[listening])

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._control.aclose()
        self.security.turn()
        if self.policy is not None:
            await self.policy.aclose(None)
        await self.shelf.aclose()
        self._writer.close()

    # --- bundles ----------------------------------------------------------------------------------

    async def take(self, digest: str) -> None:
        """Answer by this bundle from now on. Raises Refused; then nothing has changed but `fault`."""
        try:
            await self._take(digest)
        except Refused as error:
            self.fault = str(error)
            self.log.error("bundle refused", bundle=digest, why=self.fault)  # noqa: TRY400 - it is said
            raise

    async def _take(self, digest: str) -> None:
        async with self._swapping:
            before = self.policy
            if before is not None and before.bundle.digest == digest:
                self.fault = ""
                return
            bundle, secrets = _read(self.home, digest)
            # What is secret now is in no line from now on, whatever wants to log it.
            self._writer = logs.configure(known=_known(secrets), dropped=self._lost)
            made = await compiled(bundle, secrets, before, self.shelf, self.metrics, self._tell)
            if before is None or before.bundle.live != bundle.live:
                self._open(bundle.live)
            self.policy = made  # the swap
            self.fault = ""
            self.security.service = bundle.service
            self._watch(made)
            self.metrics.bundle(digest, bundle.models)
            self.log.info("bundle taken", bundle=digest)
            if before is not None:
                self._start(before.aclose(made))
            self._start(self.shelf.release(bundle))

    # --- orders -----------------------------------------------------------------------------------

    async def _state(self, order: Mapping[str, Json]) -> Json:
        policy = self.policy
        return {
            "slot": self.slot,
            "pid": os.getpid(),
            "since": self.since,
            "bundle": policy.bundle.digest if policy else "",
            "code": policy.bundle.process.code if policy else "",
            "ready": self.ready,
            "draining": self.draining,
            "inflight": self.inflight,
            "answers": self.answers,
            "faults": self.faults,
            "fault": self.fault,
            "models": policy.versions() if policy else {},
        }

    async def _swap(self, order: Mapping[str, Json]) -> Json:
        try:
            await self.take(str(order["digest"]))
        except Refused as error:
            return {"error": str(error)}
        return await self._state(order)

    async def _since(self, order: Mapping[str, Json]) -> Json:
        return self.security.since(order["began"], order["after"])

    async def _drain(self, order: Mapping[str, Json]) -> Json:
        if self._server is not None:
            self._server.should_exit = True
        return await self._state(order)

    @property
    def ready(self) -> bool:
        return self.policy is not None and not self.draining

    # --- what the edge calls ----------------------------------------------------------------------

    def answered(self, request: Request, status: int, method: str) -> None:
        """The request is over: metrics, access log, request log."""
        self.busy = time.monotonic()
        self.answers += 1
        self.faults += status == 500  # a full queue (503) and a late answer (504) are no fault of a bundle
        seconds = time.perf_counter() - request.started
        self.metrics.request(request.route, request.model, status, seconds, request.cache)
        if request.tokens_in:
            self.metrics.tokens(request.model, request.tokens_in, request.tokens_out)
            if request.policy.counts_tokens:
                self._start(request.policy.spend(request))
        if request.policy is not None:
            request.policy.record(request, status, seconds)
            if request.trace is not None and request.policy.traces is not None:
                request.step("answer")
                request.policy.traces.end(request.trace, request, method, status)
        logs.access(
            request=request.id,
            method=method,
            route=request.route,
            model=request.model,
            status=status,
            ms=round(seconds * 1000, 3),
            principal=request.principal.name,
            address=request.address,
            cache=request.cache,
        )

    async def live(
        self, scope: Scope, receive: Receive, send: Send, subprotocol: str | None, route: str
    ) -> None:
        await serve_live(scope, receive, send, self._hubs[route], subprotocol)

    def _pulse(self) -> dict[str, Json]:
        return {"event": "metrics", "at": time.time(), "totals": self.metrics.snapshot()}

    def _open(self, live: Live) -> None:
        """Streams with these bounds; those that there were end."""
        for hub in self._hubs.values():
            hub.close(1012)
        figures, events = Hub(live), Hub(live)
        self._hubs = {"live": figures, "security": events}
        self.metrics.watch("clients", lambda: figures.clients + events.clients)
        self._start(figures.pulse(self._pulse, live.every))
        self._start(events.relay(self.home, live.every))

    def _secure(self, event: Event) -> None:
        said = {name: value for name, value in asdict(event).items() if value != ""}
        del said["at"], said["until"]  # a line has its time
        self.log.warning("security", **said)
        if self.policy is not None and self.policy.records is not None:
            self.policy.records.event(event)

    # --- the loop ---------------------------------------------------------------------------------

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _watch(self, policy: Policy) -> None:
        for name, served in policy.models.items():
            self.metrics.watch("queue", partial(_waiting, served), name)

    async def _watch_valkey(self) -> None:
        while True:
            if self.policy is not None and self.policy.valkey is not None:
                self.metrics.valkey(self.policy.valkey.up)
            await asyncio.sleep(1)

    def _tell(self, text: str) -> None:
        self.log.info("loading", what=text)

    def _lost(self, rows: int) -> None:
        self.metrics.dropped("access", rows)

    async def drained(self, server: "Server") -> None:
        """Take no more connections, and wait until those that there are have been left alone."""
        self.draining = True
        for listening in server.servers:
            listening.close()
        for hub in self._hubs.values():
            hub.close(1012)
        limit = self.policy.bundle.process.drain if self.policy else 0.0
        end = time.monotonic() + limit
        while time.monotonic() < end and server.server_state.connections:
            idle = not self.inflight and time.monotonic() - self.busy > QUIET
            if idle and not server.server_state.tasks:
                break
            await asyncio.sleep(0.02)


class Server(uvicorn.Server):
    """uvicorn's, which drains before it closes, and lets the worker go while it still lives: after `serve` it
    sends itself the signal that has ended it, and what waits for the database would be lost."""

    def __init__(self, config: uvicorn.Config, worker: Worker) -> None:
        super().__init__(config)
        self._worker = worker

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._worker.drained(self)
        await super().shutdown(sockets)
        await self._worker.aclose()


class WebSocket(WebSocketsSansIOProtocol):
    """uvicorn's, without two things that it keeps.

    The headers of the handshake: a browser's are a quarter of what a connection costs. And the connection of
    a client that reads nothing: a transport that is closed waits until all is taken, which is for ever."""

    def start_keepalive(self) -> None:  # once, when it is accepted
        self.request.headers.clear()
        self.response.headers.clear()
        super().start_keepalive()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        if self.transport.get_write_buffer_size():
            self.loop.call_later(STUCK, self.transport.abort)


def descriptors() -> int:
    """As many as this process may have from now on: each connection is one, and at first it is often 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # where no limit is one, and more than the kernel gives
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft


def _known(secrets: Mapping[str, str]) -> set[str]:
    """What no line of a log may have in it: each secret, and the password in each that is a URL."""
    passwords = {urlsplit(value).password or "" for value in secrets.values() if "://" in value}
    return {*secrets.values(), *passwords} - {""}


def _waiting(served: Served) -> int:
    return sum(served.waiting.values())


def _current(home: Path) -> str:
    try:
        return (home / "current").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def _read(home: Path, digest: str) -> tuple[Bundle, Mapping[str, str]]:
    """Raises Refused for what is not there, not whole, or not what its name says."""
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise Refused("A bundle is named by its digest, 64 hex digits.")
    folder = home / "bundles"
    try:
        bundle = Bundle.decoded((folder / f"{digest}.json").read_bytes())
        secrets = Secrets.model_validate_json((folder / f"{digest}.secrets.json").read_bytes())
    except OSError as error:
        raise Refused(f"The bundle {digest[:12]} cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        # Without the input: a bundle's is long, and a secret's is secret.
        faults = (f"{'.'.join(map(str, one['loc'])) or 'the whole'}: {one['msg']}" for one in error.errors())
        raise Refused(f"The bundle {digest[:12]} is not valid. " + "; ".join(faults)) from None
    if bundle.digest != digest:
        raise Refused(f"The bundle {digest[:12]} has another digest, {bundle.digest[:12]}: it was changed.")
    return bundle, secrets.values


def main() -> None:
    import uvloop

    home, slot = Path(sys.argv[1]).absolute(), int(os.environ.get("GAMMA_SLOT", "0"))
    listening = socket.socket(fileno=os.dup(_given()))
    # What was imported is there for good: half a million objects that the collector need not look at again.
    gc.freeze()
    gc.set_threshold(*COLLECTED)
    uvloop.run(_main(home, slot, listening))


def _given() -> int:
    """The descriptor of the listening socket."""
    by_systemd = os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS", "0") != "0"
    return 3 if by_systemd else 0


async def _main(home: Path, slot: int, listening: socket.socket) -> None:
    worker = Worker(home, slot)
    allowed = descriptors()
    if allowed < FEW:
        worker.log.warning(
            "few descriptors",
            allowed=allowed,
            why="Each connection takes one, and when none is left new connections are refused. "
            "Raise the hard limit of who starts the workers: `ulimit -Hn`, LimitNOFILE of systemd.",
        )
    await worker.serve(listening)


if __name__ == "__main__":
    main()
