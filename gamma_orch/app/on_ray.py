"""A worker as a replica on Ray Serve: the same app and the same bundles, with Serve's proxy before it.

Serve imports `application` on the cluster, by the config that the Service kind has put there; `user_config`
names the bundle. Ray is imported here alone, and only where it runs. Always:

- Another bundle is taken without a restart. One that is refused leaves the old one in force, and nothing is
  raised, or Serve would end the replica and start it again and again: a file in the service's folder says
  what is the matter. A replica that has no bundle yet raises.
- Serve's proxy is what nginx is elsewhere: who asks, and the id of the request, are what it says.
- A number is one replica's for as long as it lives. Serve's own (the rank) moves from one to another.
"""

import fcntl
import importlib.metadata
import json
import os
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from gamma_orch.app import code
from gamma_orch.app.edge import App, Receive, Scope, Send
from gamma_orch.app.policy import Refused
from gamma_orch.app.worker import Worker

Json = Any
DEPLOYMENT = "worker"
FIRST = 10_000  # the number before the first replica's: those below are supervised workers'
ID = b"x-request-id"
# As in Serve's proxy, which is uvicorn with its defaults.
_BELIEVES = ProxyHeadersMiddleware(None, os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1")).trusted_hosts  # type: ignore[arg-type]


def application(args: dict[str, str]) -> Any:
    """`home`: the service's folder, which every node sees at this path. `code`: Serve restarts replicas where
    it is another one."""
    from ray import serve

    deployment: Any = serve.deployment(
        serve.ingress()(Replica),
        name=DEPLOYMENT,
        max_surge_percent=1,  # one more than wanted: an old replica answers until a new one does
        logging_config={"enable_access_log": False},  # there is ours
    )
    return deployment.bind(args["home"])


class Replica:
    async def __init__(self, home: str) -> None:  # type: ignore[misc]  # Serve awaits it
        from ray import serve

        self._home = Path(home)
        _check(self._home)
        slot, self._lock = seat(self._home)
        self._id = serve.get_replica_context().replica_id.unique_id
        self._wanted = ""
        self._worker = Worker(self._home, slot)
        self._app = Relative(await self._worker.start())

    def __serve_build_asgi_app__(self) -> App:
        return self._app

    async def reconfigure(self, config: dict[str, str]) -> None:
        """Serve calls it at the start, and with each other `user_config`."""
        self._wanted = config["bundle"]
        try:
            await self._worker.take(self._wanted)
        except Exception as error:
            if self._worker.policy is None:
                raise
            self._worker.fault = str(error) or type(error).__name__
        finally:
            self._tell()

    async def __del__(self) -> None:
        """Serve calls it when nobody waits for an answer any more, or the drain is over."""
        if hasattr(self, "_worker"):  # or else it could not even begin
            await self._worker.aclose()
            (self._home / "ray" / f"{self._id}.json").unlink(missing_ok=True)

    def _tell(self) -> None:
        worker, folder = self._worker, self._home / "ray"
        told = {
            "replica": self._id,
            "slot": worker.slot,
            "code": f"{importlib.metadata.version('gamma-orch')}+{code.digest()}",
            "wanted": self._wanted,
            "bundle": worker.policy.bundle.digest if worker.policy else "",
            "fault": worker.fault,
        }
        folder.mkdir(mode=0o700, exist_ok=True)
        draft = folder / f"{self._id}.draft"
        draft.write_text(json.dumps(told), encoding="utf-8")
        draft.replace(folder / f"{self._id}.json")


class Relative:
    """Takes from a request what Serve's proxy has put on it, so that it is as one of nginx's."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        peer = (b"x-forwarded-for", _peer(scope).encode("latin-1"))
        inner = {
            **scope,
            "path": scope["path"].removeprefix(scope.get("root_path", "")) or "/",
            "root_path": "",
            "client": None,  # as what comes by a socket that nobody else can open
            "headers": [*scope["headers"], peer],
        }

        async def said(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [one for one in message["headers"] if one[0] != ID]  # Serve says it
            await send(message)

        await self._app(inner, receive, said)


def _peer(scope: Scope) -> str:
    """Who connected to Serve's proxy. Clients on its own machine (FORWARDED_ALLOW_IPS) it believes whatever
    address they say that they pass on for, and does not say that it did: then it is that machine."""
    client = tuple(scope.get("client") or ("", 0))
    said = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    if said and client == _BELIEVES.get_trusted_client_address(b", ".join(said).decode("latin-1")):
        return "127.0.0.1"
    return str(client[0])


def seat(home: Path) -> tuple[int, TextIO]:
    """A number that no living replica has, and what holds it."""
    folder = home / "slots"
    for number in count(FIRST + 1):
        file = (folder / f"{number}.lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
        else:
            return number, file
    raise AssertionError


def _check(home: Path) -> None:
    """Raises Refused where this node does not see the service's folder."""
    try:
        next((home / "bundles").iterdir(), None)
    except OSError as error:
        raise Refused(
            f"{home / 'bundles'} cannot be read on this node of the cluster: {error.strerror}. Every "
            "node needs the folder .gamma of the project at this path, and the right to read and write it."
        ) from None
