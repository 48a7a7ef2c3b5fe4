"""What the exporter answers, over HTTP, to who has the token:

    GET /collectors/<name>    the metrics of a collector, collected now. 200 whatever came of it
    GET /collectors           what came of each the last time, and by which content of its file
    GET /metrics              the exporter itself
    GET /healthz              without the token

The token is what the file `token` says at the moment; where it says nothing, nobody has it.
"""

import hmac
import json
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gamma_orch.exporter.collectors import Collectors

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Answer = tuple[int, str, bytes]  # status, content-type, body

TEXT = "text/plain; charset=utf-8"


class App:
    def __init__(self, folder: Path) -> None:
        self._token = folder / "token"
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.collectors = Collectors(folder / "collectors.d", self._registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, media, body = await self._answer(scope)
        headers = [(b"content-type", media.encode()), (b"content-length", str(len(body)).encode())]
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope) -> Answer:
        headers = dict(scope["headers"])
        path = scope["path"]
        if path == "/healthz":
            return 200, TEXT, b"ok\n"
        if not self._may(headers.get(b"authorization", b"")):
            return 401, TEXT, b"It wants the header `Authorization: Bearer <token>`.\n"
        if scope["method"] != "GET":
            return 405, TEXT, b"Only GET is answered.\n"
        accept = headers.get(b"accept", b"").decode("latin-1")
        if path == "/metrics":
            return _page(self._registry, accept)
        if path == "/collectors":
            return 200, "application/json", json.dumps(self._all()).encode()
        if asked := re.fullmatch(r"/collectors/([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)", path):
            running = self.collectors.get(asked[1])
            if running is not None:
                return _page(_Shown((await running.collect()).metrics), accept)
        return 404, TEXT, b"There is nothing of that name.\n"

    def _may(self, given: bytes) -> bool:
        try:
            token = self._token.read_bytes().strip()
        except OSError:
            return False
        return bool(token) and hmac.compare_digest(given, b"Bearer " + token)

    def _all(self) -> dict[str, Any]:
        return {
            name: {
                "digest": running.digest,
                "up": running.told.up,
                "error": running.told.error,
                "at": running.told.at,
                "seconds": running.told.seconds,
            }
            for name, running in self.collectors.all().items()
        }


class _Shown(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _page(shown: Collector, accept: str) -> Answer:
    encode, media = choose_encoder(accept)
    return 200, media, encode(shown)


disable_created_metrics()  # type: ignore[no-untyped-call]
