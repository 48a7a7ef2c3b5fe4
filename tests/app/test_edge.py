"""What every request goes through, on a real worker: who asks, what they may, how much, and what is said.

The last test ends the worker that the others ask."""

import asyncio
import base64
import contextlib
import json
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from gamma_orch.app import edge as module
from gamma_orch.app.bundle import ApiKey, Bundle, Issuer, Limit, Live, Model, Process
from gamma_orch.app.errors import Malformed
from gamma_orch.app.routes import OPEN, ROUTES, Route
from tests.app.running import KEYS, Running, auth, bundle, free_port, model
from tests.app.tinies import BROKEN, broken, changed, common, problem, three

PROXY, STRANGER = "127.0.0.2", "127.0.0.3"  # addresses of this machine: one is trusted
PAGE = "https://page.example"
BODY = 20_000  # bytes
DRAIN = 10  # seconds
PREDICT = "/v1/models/sentiment/predict"
TEXT = {"inputs": "a warm film"}
CANARY = "canary-7f3a"
GUARDED = [route for route in ROUTES if route.scope != OPEN and not route.socket]
POSTS = [route for route in ROUTES if "POST" in route.methods]
GETS = [route for route in ROUTES if "GET" in route.methods]
SECRET = "a secret that is long enough for HS256"


@dataclass
class Edge:
    worker: Running
    bundle: Bundle
    clients: dict[object, httpx.Client] = field(default_factory=dict)

    def client(self, who: str | None = "all", at: str | None = None, **headers: str) -> httpx.Client:
        """`at`: the address that it asks from. It stays open, as those of callers do."""
        key = (who, at, *headers.items())
        if key not in self.clients:
            self.clients[key] = self.opened(who, at, **headers)
        return self.clients[key]

    def opened(self, who: str | None = "all", at: str | None = None, **headers: str) -> httpx.Client:
        """To be closed by whoever opens it."""
        client = self.worker.client(who, transport=httpx.HTTPTransport(local_address=at))
        client.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
        return client

    def with_key(self, key: str) -> httpx.Client:
        return self.client(None, x_api_key=key)

    @contextmanager
    def swapped(self, given: Mapping[str, str] | None = None, **changes: Any) -> Iterator[None]:
        """Another bundle for a while. `given`: its secrets."""
        told = self.worker.swap(changed(self.bundle, **changes), given)
        assert "error" not in told
        try:
            yield
        finally:
            assert "error" not in self.worker.swap(self.bundle)

    def listen(
        self, who: str | None = "all", path: str = "/v1/live", protocols: Iterable[str] = (), **more: str
    ) -> ClientConnection:
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        if who is not None:
            headers["Authorization"] = f"Bearer {KEYS[who]}"
        url = self.worker.url.replace("http", "ws", 1) + path
        return connect(url, additional_headers=headers, subprotocols=list(protocols) or None, proxy=None)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    folder = tmp_path_factory.mktemp("edge")
    models = three(folder)
    long = models["writer"]
    models |= {
        "busy": long.model_copy(update={"queue": 1, "batch": 1}),
        "late": long.model_copy(update={"deadline": 0.001}),
        "broken": model(broken(folder / "broken"), cached=False),
    }
    found = bundle(
        models,
        limits=(
            Limit(name="few", by="principal", rate=3, per=60, routes=("whoami",)),
            Limit(name="each", by="address", rate=2, per=60, routes=("openapi",)),
        ),
        live=Live(every=0.2),
        process=Process(
            port=free_port(), drain=DRAIN, body=BODY, trusted=(f"{PROXY}/32",), origins=(PAGE,), keep_alive=30
        ),
    )
    with Running(folder / "home", found) as running:
        edge = Edge(running, found)
        yield edge
        for client in edge.clients.values():
            client.close()


def path_of(route: Route, name: str = "sentiment") -> str:
    return route.path.replace("{model}", name)


def named(routes: Iterable[Route]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("route", routes, ids=lambda route: f"{route.name}{route.path}")


def until(what: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


# --- who asks -------------------------------------------------------------------------------------


@named(GUARDED)
def test_who_says_nothing_may_nothing(edge: Edge, route: Route) -> None:
    for client in (edge.client(None), edge.client(None, x_token=KEYS["all"], cookie=f"key={KEYS['all']}")):
        said = client.request(route.methods[0], path_of(route), params={"key": KEYS["all"]})
        problem(said, 401)
        assert said.headers["www-authenticate"] == 'Bearer realm="gamma"'


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Authorization": "Bearer gk_wrong"}, id="a wrong key"),
        pytest.param({"X-Api-Key": "gk_wrong"}, id="a wrong key in the other header"),
        pytest.param({"Authorization": f"Basic {base64.b64encode(b'all:gk').decode()}"}, id="basic"),
        pytest.param({"Authorization": KEYS["all"]}, id="a key without its scheme"),
        pytest.param({"Authorization": f"Bearer  {KEYS['all']}"}, id="two blanks"),
        pytest.param({"Authorization": "Bearer"}, id="nothing after the scheme"),
        pytest.param({"Authorization": f"Bearer {KEYS['all']}", "X-Api-Key": KEYS["all"]}, id="both headers"),
        pytest.param({"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."}, id="a token without a signature"),
    ],
)
def test_credentials_that_are_not_taken(edge: Edge, headers: Mapping[str, str]) -> None:
    said = edge.client(None).post(PREDICT, json=TEXT, headers=headers)
    problem(said, 401)
    assert said.headers["www-authenticate"] == 'Bearer realm="gamma", error="invalid_token"'


def test_a_key_comes_in_either_header_in_any_case(edge: Edge) -> None:
    for headers in ({"authorization": f"bearer {KEYS['all']}"}, {"X-API-KEY": KEYS["all"]}):
        assert edge.client(None).get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key"])
def test_credentials_that_are_there_twice_are_refused(edge: Edge, name: str) -> None:
    key = f"Bearer {KEYS['all']}" if name == "Authorization" else KEYS["all"]
    for second in (key, "Bearer gk_other"):
        said = edge.client(None).get("/v1/models", headers=[(name, key), (name.lower(), second)])
        assert "twice" in problem(said, 400)["detail"]


def test_a_key_in_the_address_is_no_key(edge: Edge) -> None:
    for name in ("key", "api_key", "access_token", "authorization"):
        problem(edge.client(None).get("/v1/models", params={name: KEYS["all"]}), 401)


# --- what they may --------------------------------------------------------------------------------


def test_who_may_not_does_not_learn_what_exists(edge: Edge) -> None:
    """The same answer for a model that is there and for one that is not; and before the body is looked at."""
    client = edge.client("narrow")
    for route in (one for one in GUARDED if "{model}" in one.path):
        texts = set()
        for name in ("sentiment", "nothing", "%00", "a" * 300):
            said = problem(client.request(route.methods[0], path_of(route, name), content=b"{"), 403)
            texts.add((said["type"], said["title"], said["detail"]))
        assert len(texts) == 1
    for path, more in (
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
    ):
        bodies = [{"model": name, **more} for name in ("writer", "nothing")]
        asked = [problem(client.post(path, json=body), 403)["detail"] for body in bodies]
        assert asked[0] == asked[1]


def test_a_key_for_one_model_asks_that_one(edge: Edge) -> None:
    """Wherever the name of the model stands: in the path, or in the body."""
    one = ApiKey(name="one", sha256=_sha256("gk_one"), scopes=("predict:vectors", "predict:wri*"))
    with edge.swapped(auth=auth().model_copy(update={"keys": (*auth().keys, one)})):
        client = edge.with_key("gk_one")
        assert client.post("/v1/models/vectors/predict", json=TEXT).status_code == 200
        assert client.post("/v1/embeddings", json={"model": "vectors", "input": "x"}).status_code == 200
        asked = {"model": "writer", "prompt": "x", "max_tokens": 1}
        assert client.post("/v1/completions", json=asked).status_code == 200
        problem(client.post(PREDICT, json=TEXT), 403)
        problem(client.post("/v1/embeddings", json={"model": "sentiment", "input": "x"}), 403)
        problem(client.get("/v1/models"), 403)


@named([route for route in GUARDED if route.scope != "predict"])
def test_a_scope_is_needed(edge: Edge, route: Route) -> None:
    none = ApiKey(name="none", sha256=_sha256("gk_none"), scopes=("predict",))
    with edge.swapped(auth=auth().model_copy(update={"keys": (*auth().keys, none)})):
        client = edge.with_key("gk_none")
        problem(client.request(route.methods[0], path_of(route)), 403)


def test_who_may_say_nothing_has_no_name(edge: Edge) -> None:
    """They are limited by their address: one of them does not use up what the others have."""
    with edge.swapped(auth=auth(anonymous=("models",))):
        for address in ("203.0.113.1", "203.0.113.2"):
            client = edge.client(None, at=PROXY, x_forwarded_for=address)
            said = [client.get("/v1/whoami") for _ in range(4)]
            assert [one.status_code for one in said] == [200, 200, 200, 429]
            assert said[0].json() == {
                "name": "anonymous",
                "kind": "anonymous",
                "tenant": "",
                "scopes": ["models"],
                "expires": None,
            }
        problem(edge.client(None).post(PREDICT, json=TEXT), 403)


# --- what there is --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/v1", "/v1/models/", "/v1/models/sentiment/predict/", "/docs", "/v1/live", "/page.html", "/%2e%2e/etc"],
)
@pytest.mark.parametrize("who", [None, "all"])
def test_there_is_no_other_path(edge: Edge, path: str, who: str | None) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        problem(edge.client(who).request(method, path), 404)


@named([route for route in GUARDED if "{model}" in route.path])
def test_there_is_no_other_model(edge: Edge, route: Route) -> None:
    for name in ("nothing", "%22%0a", "%F0%9F%8E%A5"):
        asked = edge.client().request(route.methods[0], path_of(route, name), json=TEXT)
        assert "no such model" in problem(asked, 404)["detail"]


@named([route for route in ROUTES if not route.socket])
def test_every_other_method_is_refused(edge: Edge, route: Route) -> None:
    allowed = ["GET", "HEAD"] if "GET" in route.methods else ["POST"]
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} - set(allowed):
        for who in (None, "all"):
            said = edge.client(who).request(method, path_of(route))
            problem(said, 405)
            assert said.headers["allow"] == ", ".join(allowed)
    if "HEAD" not in allowed:
        assert edge.client().head(path_of(route)).status_code == 405


@named([route for route in GETS if route.name != "openapi"])
def test_a_head_is_a_get_without_its_body(edge: Edge, route: Route) -> None:
    path = path_of(route)
    head, get = edge.client().head(path), edge.client().get(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    changing = {"date", "x-request-id", "ratelimit-remaining", "ratelimit-reset"}
    if route.name == "metrics":
        changing.add("content-length")
    assert head.headers.keys() == get.headers.keys()
    assert {k: v for k, v in head.headers.items() if k not in changing} == {
        k: v for k, v in get.headers.items() if k not in changing
    }
    assert edge.client(None).head(path).content == b""


# --- how much -------------------------------------------------------------------------------------


def pieces(size: int) -> Iterator[bytes]:
    """So that the length is not known before."""
    for _ in range(0, size, 1000):
        yield b" " * 1000


@named(POSTS)
def test_a_body_has_a_largest_size(edge: Edge, route: Route) -> None:
    path, client = path_of(route), edge.client(content_type="application/json")
    for content in (b" " * (BODY + 1), pieces(BODY + 1000), b" " * 3_000_000, pieces(3_000_000)):
        assert f"{BODY:,} bytes" in problem(client.post(path, content=content), 413)["detail"]
    for content in (b" " * BODY, pieces(BODY)):
        problem(client.post(path, content=content), 400)
    assert client.get("/healthz").status_code == 200  # on the same connection


def test_a_declared_size_is_refused_before_it_comes(edge: Edge) -> None:
    with _raw(edge) as (wire, read):
        wire.sendall(_head("POST", PREDICT, ("Content-Length", "10000000000"), ("Expect", "100-continue")))
        assert read().startswith(b"HTTP/1.1 413 ")


def test_texts_and_characters_have_a_largest_number(edge: Edge) -> None:
    client = edge.client()
    said = problem(client.post(PREDICT, json={"inputs": ["x"] * 5}), 413)
    assert said["errors"] == [{"at": "/inputs", "says": "It has 5 texts, and at most 4 are taken at once."}]
    said = problem(client.post(PREDICT, json={"inputs": ["x", "y" * 2001]}), 413)
    assert said["errors"] == [
        {"at": "/inputs/1", "says": "It has 2001 characters, and at most 2000 are taken."}
    ]
    assert client.post(PREDICT, json={"inputs": ["é" * 2000] * 4}).status_code == 200


def test_a_body_that_does_not_end(edge: Edge) -> None:
    """Who goes away in the middle is forgotten; the worker answers on."""
    for _ in range(3):
        with _raw(edge) as (wire, _):
            wire.sendall(_head("POST", PREDICT, ("Content-Length", "1000")) + b'{"inputs":')
    until(lambda: edge.worker.state()["inflight"] == 0)
    assert edge.client().post(PREDICT, json=TEXT).status_code == 200


def test_a_body_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends the head of a request and nothing more does not hold a place for ever."""
    monkeypatch.setattr(module, "BODY", 0.05)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b" ", "more_body": True}

    with pytest.raises(Malformed, match="not here within") as late:
        asyncio.run(module._body({"headers": []}, receive, 100))
    assert late.value.headers == {"Connection": "close"}


def test_who_is_cancelled_while_a_body_comes_is_not_late() -> None:
    async def run() -> None:
        reading = asyncio.create_task(module._body({"headers": []}, asyncio.Event().wait, 100))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(run())


@named(POSTS)
@pytest.mark.parametrize(
    "media",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json", ""],
)
def test_a_body_is_json(edge: Edge, route: Route, media: str) -> None:
    client = edge.client()
    problem(client.post(path_of(route), content=b"{}", headers={"Content-Type": media}), 415)


@named(POSTS)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'"\xff"', id="no UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", id="with a mark of order"),
        pytest.param(b"[" * 5000, id="deep"),
        pytest.param(b'{"a":' * 3000 + b"1" + b"}" * 3000, id="deep and whole"),
        pytest.param(b'{"inputs": NaN}', id="NaN"),
        pytest.param(b'{"model": "writer", "inputs": "\\ud800"}', id="half of a pair"),
        pytest.param(b'{"model": "writer", "max_tokens": ' + b"9" * 9000 + b"}", id="a long number"),
        pytest.param(b"{}{}", id="two"),
    ],
)
def test_what_is_malformed(edge: Edge, route: Route, body: bytes) -> None:
    for media in ({"Content-Type": "application/json; charset=utf-8"}, {}):
        problem(edge.client().post(path_of(route), content=body, headers=media), 400)


# --- how often ------------------------------------------------------------------------------------


def test_a_limit(edge: Edge) -> None:
    client = edge.client("caller")
    answers = [client.get("/v1/whoami") for _ in range(6)]
    assert [one.status_code for one in answers] == [200, 200, 200, 429, 429, 429]
    for number, one in enumerate(answers):
        assert one.headers["ratelimit-limit"] == "3"
        assert one.headers["ratelimit-remaining"] == str(max(0, 2 - number))
        assert 0 < int(one.headers["ratelimit-reset"]) <= 60
    for one in answers[3:]:
        assert "The limit few is used up" in problem(one, 429)["detail"]
        assert 1 <= int(one.headers["retry-after"]) <= 20
        assert one.headers.get_list("retry-after") == [one.headers["retry-after"]]
    other = client.get("/v1/models")  # the limit is of one route
    assert other.status_code == 200
    assert "ratelimit-limit" not in other.headers
    assert "ratelimit-limit" not in client.get("/healthz").headers


def test_an_address_is_believed_from_a_proxy_alone(edge: Edge) -> None:
    def statuses(at: str, forwarded: str | None, times: int = 3) -> list[int]:
        client = edge.client(None, at=at)
        headers = [] if forwarded is None else [("X-Forwarded-For", forwarded)]
        return [client.get("/openapi.json", headers=headers).status_code for _ in range(times)]

    assert statuses(PROXY, "198.51.100.1") == [200, 200, 429]
    assert statuses(PROXY, "198.51.100.2") == [200, 200, 429]
    assert statuses(PROXY, "6.6.6.6, 198.51.100.2", 1) == [429]  # what the client wrote is to the left
    lies = [statuses(STRANGER, f"198.51.100.{number}", 1)[0] for number in range(3, 6)]
    assert lies == [200, 200, 429]
    until(lambda: '"198.51.100.2"' in edge.worker.log())
    assert not any(text in edge.worker.log() for text in ("198.51.100.3", "198.51.100.5", "6.6.6.6"))


def test_a_proxy_may_add_a_header_of_its_own(edge: Edge) -> None:
    """Behind the client's, which then is another line with the same name."""
    client = edge.client(None, at=PROXY)
    lies = [("X-Forwarded-For", f"203.0.113.{number}") for number in range(3)]
    mine = ("X-Forwarded-For", "198.51.100.20")
    said = [client.get("/openapi.json", headers=[lie, mine]).status_code for lie in lies]
    assert said == [200, 200, 429]


def test_an_id_is_believed_from_a_proxy_alone(edge: Edge) -> None:
    mine = str(uuid.uuid4())
    for at, given, taken in (
        (PROXY, mine, True),
        (PROXY, mine.upper(), True),
        (PROXY, "1; DROP TABLE requests", False),
        (PROXY, "", False),
        (STRANGER, mine, False),
    ):
        said = edge.client(at=at, x_request_id=given).get("/v1/nothing")
        assert (said.headers["x-request-id"] == mine) is taken
        problem(said, 404)


def test_a_queue_that_is_full(edge: Edge) -> None:
    """503, and when to come again; with a stream, too, before it has begun."""
    body = {"model": "busy", "prompt": "the film", "max_tokens": 300}
    with ThreadPoolExecutor(8) as pool:
        ask = [
            lambda: edge.client().post("/v1/models/busy/predict", json=_write("the film", 300)),
            lambda: edge.client().post("/v1/completions", json=body),
            lambda: edge.client().post("/v1/models/busy/stream", json=_write("the film", 300)),
            lambda: edge.client().post("/v1/completions", json={**body, "stream": True}),
        ] * 2
        answers = list(pool.map(lambda one: one(), ask))
    refused = [one for one in answers if one.status_code != 200]
    assert 1 <= len(refused) <= 6
    for one in refused:
        assert "busy has 1 texts waiting" in problem(one, 503)["detail"]
        assert int(one.headers["retry-after"]) >= 1


def test_what_is_too_late(edge: Edge) -> None:
    client = edge.client()
    for said in (
        client.post("/v1/models/late/predict", json=_write("the film", 500)),
        client.post("/v1/models/late/stream", json=_write("the film", 500)),
        client.post("/v1/completions", json={"model": "late", "prompt": "the film", "max_tokens": 500}),
    ):
        assert "deadline" in problem(said, 504)["detail"]


# --- what is said, and what is not ----------------------------------------------------------------


def test_a_fault_of_ours_is_told_to_the_log(edge: Edge) -> None:
    client = edge.client()
    for said in (
        client.post("/v1/models/broken/predict", json={"inputs": f"{CANARY} {BROKEN}"}),
        client.post("/v1/models/broken/predict", json={"inputs": ["fine", BROKEN]}),
    ):
        problem(said, 500)
        line = _logged(edge, said.headers["x-request-id"], "fault")
        assert "ModelError" in str(line["where"])
        assert "loaded.py" in str(line["where"])
    assert client.post("/v1/models/broken/predict", json={"inputs": "fine"}).status_code == 200
    assert CANARY not in edge.worker.log()


def test_nothing_that_was_sent_is_said_again(edge: Edge) -> None:
    """A canary in every place of every kind of request: it is in no answer and in no line of the log."""
    with edge.swapped(
        {"tokens": SECRET},
        auth=auth(issuers=(Issuer(issuer="i", audience="a", algorithms=("HS256",), secret="tokens"),)),
        secrets={"tokens": "d" * 64},
    ):
        token = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part({'iss': 'i', 'sub': CANARY})}.AAAA"
        words = dict.fromkeys(("x_canary", "user_agent", "cookie", "x_forwarded_for"), CANARY)
        client, nobody = edge.client(**words), edge.client(None, **words)
        client.params = nobody.params = httpx.QueryParams({"q": CANARY})
        said = [
            nobody.get("/v1/models", headers={"Authorization": f"Bearer gk_{CANARY}"}),
            nobody.get("/v1/models", headers={"Authorization": f"Bearer {token}"}),
            nobody.get("/v1/models", headers={"Authorization": f"{CANARY} {CANARY}"}),
            nobody.get("/v1/models", headers={"X-Api-Key": CANARY}),
            nobody.get("/v1/models", headers=[("X-Api-Key", CANARY), ("X-Api-Key", CANARY)]),
            nobody.get(f"/{CANARY}"),
            client.get(f"/v1/models/{CANARY}"),
            client.post(f"/v1/models/{CANARY}"),
            client.post(f"/v1/models/{CANARY}/predict", json=TEXT),
            edge.client("narrow").post(f"/v1/models/{CANARY}/predict", json=TEXT),
            client.post(PREDICT, content=CANARY, headers={"Content-Type": CANARY}),
            client.post(PREDICT, content=CANARY),
            client.post(PREDICT, json={"inputs": {CANARY: CANARY}}),
            client.post(PREDICT, json={"inputs": CANARY, f"{CANARY}/x": CANARY}),
            client.post(PREDICT, json={"inputs": CANARY, "parameters": {CANARY: 1}}),
            client.post(PREDICT, json={"inputs": CANARY, "parameters": {"adapter": CANARY}}),
            client.post(PREDICT, json={"inputs": CANARY * 1000}),
            client.post(PREDICT, json={"inputs": [CANARY] * 9}),
            client.post("/v1/models/broken/predict", json={"inputs": f"{CANARY} {BROKEN}"}),
        ]
        for path, body in (
            ("/v1/completions", {"prompt": CANARY}),
            ("/v1/embeddings", {"input": CANARY}),
            ("/v1/chat/completions", {"messages": [{"role": "assistant", "content": CANARY}]}),
            ("/v1/token", {"name": CANARY, "password": CANARY}),
        ):
            bodies = (
                {"model": CANARY},
                {"model": "writer", "messages": [{"role": CANARY, "content": CANARY}]},
                {"model": "writer", CANARY: CANARY},
                {"model": "writer", f"{CANARY}/x": CANARY, "stream": CANARY},
                {"model": {CANARY: CANARY}, "user": [CANARY]},
                {"model": "writer", "stream_options": {f"{CANARY}/x": CANARY}},
            )
            said += [client.post(path, json={**body, **more}) for more in bodies]
            said.append(client.post(path, content=CANARY))
        refused_by_template = {"model": "writer", "messages": [{"role": "assistant", "content": CANARY}]}
        said.append(client.post("/v1/chat/completions", json=refused_by_template))
        with pytest.raises(InvalidStatus) as refused:
            edge.listen(None, f"/{CANARY}?{CANARY}={CANARY}", [f"bearer.{CANARY}"], x_canary=CANARY)
        with edge.listen("all", f"/v1/live?{CANARY}={CANARY}", ["gamma.live"], x_canary=CANARY) as socket:
            socket.recv()
        with _raw(edge) as (wire, read):
            wire.sendall(f"GET /{CANARY} HTTP/1.1\r\n{CANARY}\r\n\r\n".encode())
            nonsense = read()
        time.sleep(0.3)  # the log is written every 50 ms
        log = edge.worker.log()
    assert CANARY not in str(refused.value.response)
    assert CANARY.encode() not in nonsense
    assert {one.status_code for one in said} == {400, 401, 403, 404, 405, 413, 415, 422, 500}
    for one in said:
        problem(one, one.status_code)
        assert CANARY not in one.text
        assert CANARY not in str(one.headers)
    assert CANARY not in log
    assert SECRET not in log
    for key in KEYS.values():
        assert key not in log


def test_an_answer_says_what_it_is(edge: Edge) -> None:
    client = edge.client()
    for path, media in (
        ("/", "text/html; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/healthz", "application/json"),
        ("/readyz", "application/json"),
        ("/v1/models", "application/json"),
        ("/metrics", "text/plain; version=1.0.0; charset=utf-8"),
    ):
        said = client.get(path)
        common(said)
        assert said.headers["content-type"] == media
    said = client.post(PREDICT, json=TEXT)
    common(said)
    assert said.headers["content-type"] == "application/json"


def test_a_page_is_whole_or_not_there(edge: Edge) -> None:
    """No part of a file, and no answer in words of a library."""
    for part in ("bytes=0-5", "bytes=999999-", "nonsense"):
        said = edge.client(None, range=part).get("/page.js")
        assert said.status_code == 200
        assert said.text.startswith("// The page")


# --- caches and bundles ---------------------------------------------------------------------------


def test_levels_of_the_cache(edge: Edge) -> None:
    client, text = edge.client(), {"inputs": "asked for the first time"}
    first, second = client.post(PREDICT, json=text), client.post(PREDICT, json=text)
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("made", "l1")
    assert first.content == second.content
    for refused in ('{"inputs": []}', '{"inputs": "x", "more": 1}'):
        assert "x-cache" not in client.post(PREDICT, content=refused).headers
    drawn = {"inputs": "the", "parameters": {"temperature": 1.0, "max_new_tokens": 2}}
    spelled = json.dumps(drawn).replace("temp", "\\u0074emp")  # the same to whoever reads JSON
    assert "\\u0074emp" in spelled
    for sent in (json.dumps(drawn), json.dumps(drawn), spelled, spelled):
        assert "x-cache" not in client.post("/v1/models/writer/predict", content=sent).headers
    with ThreadPoolExecutor(8) as pool:
        body = json.dumps(_write("asked by many at once", 60)).encode()
        answers = list(
            pool.map(lambda _: edge.client().post("/v1/models/writer/predict", content=body), range(8))
        )
    levels = [one.headers["x-cache"] for one in answers]
    assert levels.count("made") == 1
    assert set(levels) <= {"made", "shared", "l1"}
    assert len({one.content for one in answers}) == 1


def test_two_names_of_one_model_do_not_answer_for_each_other(edge: Edge) -> None:
    named = {**edge.bundle.models, "mood": edge.bundle.models["sentiment"]}
    with edge.swapped(models=named):
        for name in ("sentiment", "mood", "sentiment", "mood"):
            said = edge.client().post(f"/v1/models/{name}/predict", json={"inputs": "two names"})
            assert said.json()["model"] == name


def test_another_model_never_answers_from_the_old_ones_cache(edge: Edge, tmp_path: Path) -> None:
    """Under load, while it is swapped to and fro: what says that it is from a model is from that model."""
    other = {**edge.bundle.models, "sentiment": model(tmp_path / "other", seed=7)}
    digests = [edge.bundle.models["sentiment"].versions[0].digest, other["sentiment"].versions[0].digest]
    over, said = threading.Event(), []

    def ask() -> None:
        with edge.opened() as client:
            while not over.is_set():
                said.append(client.post(PREDICT, json={"inputs": "the same for all"}))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            with edge.swapped(models=other):
                with edge.opened() as client:
                    new = [client.post(PREDICT, json={"inputs": "the same for all"}) for _ in range(3)]
                assert {one.json()["digest"] for one in new} == {digests[1]}
                time.sleep(0.1)
            old = edge.client().post(PREDICT, json={"inputs": "the same for all"})
            assert old.json()["digest"] == digests[0]
            time.sleep(0.1)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert {one.status_code for one in said} == {200}
    assert {one.json()["digest"] for one in said} == set(digests)
    outputs = {(one.json()["digest"], json.dumps(one.json()["outputs"])) for one in said}
    assert len(outputs) == 2


def test_a_bundle_that_is_refused_changes_nothing(edge: Edge, tmp_path: Path) -> None:
    """And every fault is in the one answer."""
    spoilt = model(tmp_path / "spoilt", seed=3)
    (tmp_path / "spoilt" / "config.json").write_text("{}")
    twice = tuple(ApiKey(name=name, sha256=_sha256("same"), scopes=()) for name in ("ann", "bob"))
    bad = changed(
        edge.bundle,
        models={**edge.bundle.models, "spoilt": spoilt, "gone": _gone(spoilt)},
        auth=auth().model_copy(update={"keys": (*auth().keys, *twice)}),
        secrets={"cache": "c" * 64, "tokens": "d" * 64},
    )
    told = edge.worker.swap(bad, {"tokens": SECRET})
    for fault in (
        "The secret cache is not there.",
        "These API keys are one and the same: ann, bob.",
        "config.json is not what was built",
        f"folder {tmp_path / 'gone'} is not there",
    ):
        assert fault in told["error"]
    assert SECRET not in told["error"]
    state = edge.worker.state()
    assert state["bundle"] == edge.bundle.digest
    assert state["fault"] == told["error"]
    assert edge.client().post(PREDICT, json=TEXT).status_code == 200
    problem(edge.client().post("/v1/models/spoilt/predict", json=TEXT), 404)
    unknown = edge.worker.home / "bundles" / f"{'a' * 64}.json"
    unknown.write_text(edge.bundle.encoded())
    unknown.with_suffix(".secrets.json").write_text("{}")
    for digest, why in (
        ("a" * 64, "another digest"),
        ("b" * 64, "cannot be read"),
        ("../x", "64 hex digits"),
    ):
        assert why in edge.worker.ask("swap", digest=digest)["error"]
    with edge.swapped(auth=auth(revoked=("another",))):
        assert edge.worker.state()["fault"] == ""


def test_a_key_that_is_taken_away_is_not_taken_from_then_on(edge: Edge) -> None:
    """By connections that are open, too."""
    with edge.opened("caller") as client:
        assert client.get("/v1/models").status_code == 200
        with edge.swapped(auth=auth().model_copy(update={"keys": auth().keys[:1]})):
            problem(client.get("/v1/models"), 401)
        assert client.get("/v1/models").status_code == 200


# --- the live stream ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "protocols", "more", "spoken"),
    [
        pytest.param("all", [], {}, None, id="the header"),
        pytest.param("all", ["gamma.live"], {}, "gamma.live", id="and a subprotocol"),
        pytest.param(None, ["gamma.live", f"bearer.{KEYS['all']}"], {}, "gamma.live", id="as a subprotocol"),
        pytest.param(None, [], {"x_api_key": KEYS["all"]}, None, id="the other header"),
        pytest.param("all", [], {"origin": PAGE}, None, id="a page that is let"),
    ],
)
def test_who_may_listen_hears(
    edge: Edge, who: str | None, protocols: list[str], more: dict[str, str], spoken: str | None
) -> None:
    with edge.listen(who, protocols=protocols, **more) as heard:
        assert heard.subprotocol == spoken
        first = json.loads(heard.recv(timeout=20))
        edge.client().post(PREDICT, json=TEXT)
        second = json.loads(heard.recv(timeout=20))
    assert first["event"] == second["event"] == "metrics"
    assert second["at"] > first["at"]
    assert second["totals"]["gamma_requests_total"] > first["totals"]["gamma_requests_total"]
    assert second["totals"]["gamma_live_clients"] >= 1


def test_a_page_of_ours_may_listen(edge: Edge) -> None:
    with edge.listen(origin=edge.worker.url) as heard:
        assert json.loads(heard.recv(timeout=20))["event"] == "metrics"


@pytest.mark.parametrize(
    ("who", "path", "protocols", "more"),
    [
        pytest.param(None, "/v1/live", [], {}, id="nobody"),
        pytest.param("caller", "/v1/live", [], {}, id="the wrong scope"),
        pytest.param(None, "/v1/live", ["gamma.live", "bearer.gk_wrong"], {}, id="a wrong key"),
        pytest.param(None, f"/v1/live?key={KEYS['all']}", [], {}, id="a key in the address"),
        pytest.param(None, "/v1/live", [KEYS["all"]], {}, id="a key that is no bearer"),
        pytest.param("all", "/v1/live", [], {"origin": "https://evil.example"}, id="a page of others"),
        pytest.param("all", "/v1/live", [], {"origin": "null"}, id="a page of nobody"),
        pytest.param("all", "/v1/live", [], {"origin": f"{PAGE}.evil.example"}, id="a page that looks alike"),
        pytest.param("all", "/v1/nothing", [], {}, id="no such path"),
        pytest.param("all", "/v1/models", [], {}, id="no socket"),
    ],
)
def test_who_may_not_listen_is_told_so_before_it_opens(
    edge: Edge, who: str | None, path: str, protocols: list[str], more: dict[str, str]
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        edge.listen(who, path, protocols, **more)
    assert refused.value.response.status_code == 403
    assert "gk_" not in str(refused.value.response.headers)


def test_a_key_is_not_answered_as_a_subprotocol(edge: Edge) -> None:
    with edge.listen(None, protocols=[f"bearer.{KEYS['all']}"]) as heard:
        assert heard.subprotocol is None


def test_who_may_no_longer_listen_is_closed(edge: Edge) -> None:
    with edge.listen() as heard:
        heard.recv(timeout=20)
        with edge.swapped(auth=auth().model_copy(update={"keys": auth().keys[1:]})):
            assert _code(heard) == 1008
    with edge.listen() as heard:  # and who still may is not
        heard.recv(timeout=20)
        with edge.swapped(auth=auth(revoked=("x",))):
            assert json.loads(heard.recv(timeout=20))["event"] == "metrics"


def test_a_token_that_expires_closes_its_connection(edge: Edge) -> None:
    issuer = Issuer(issuer="i", audience="a", algorithms=("HS256",), secret="tokens", leeway=0)
    with edge.swapped(
        {"tokens": SECRET},
        auth=auth(issuers=(issuer,), roles={"r": ("live", "models")}),
        secrets={"tokens": "d" * 64},
    ):
        now = int(time.time())
        claims = {"iss": "i", "aud": "a", "sub": "s", "iat": now, "exp": now + 3, "roles": "r"}
        token = jwt.encode({"alg": "HS256", "typ": "JWT"}, claims, OctKey.import_key(SECRET.encode()))
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.get(edge.worker.url + "/v1/whoami", headers=headers).json()["expires"] == now + 3
        with edge.listen(None, protocols=[f"bearer.{token}"]) as heard:
            assert _code(heard) == 1008
            assert time.time() >= now + 3
        problem(httpx.get(edge.worker.url + "/v1/whoami", headers=headers), 401)


# --- connections ----------------------------------------------------------------------------------


def test_who_leaves_a_stream_ends_the_writing(edge: Edge) -> None:
    """`busy` writes one text at a time: the next is answered at once, the first is not written to its end."""
    for path, body in (
        ("/v1/models/busy/stream", _write("the film", 2000)),
        ("/v1/completions", {"model": "busy", "prompt": "the film", "max_tokens": 2000, "stream": True}),
    ):
        before, process = _written(edge), psutil.Process(edge.worker.processes[1].pid)
        began = sum(process.cpu_times()[:2])
        with edge.client().stream("POST", path, json=body) as said:
            assert said.status_code == 200
            next(said.iter_raw())
        assert edge.client().post("/v1/models/busy/predict", json=_write("the", 1)).status_code == 200
        until(lambda: edge.worker.state()["inflight"] == 0)
        assert sum(process.cpu_times()[:2]) - began < 0.6  # all of it would be 1.7 seconds of work
        written = _written(edge) - before
        assert 1 <= written < 1000  # and what was written is counted


def test_requests_that_are_sent_at_once_are_answered_in_their_order(edge: Edge) -> None:
    with _raw(edge) as (wire, read):
        body = json.dumps(TEXT).encode()
        post = _head("POST", PREDICT, ("Content-Length", str(len(body)))) + body
        wire.sendall(post + _head("GET", "/healthz") + _head("GET", "/nothing") + post)
        said = b""
        while said.count(b"HTTP/1.1") < 4 or said.count(b"outputs") < 2:
            said += read()
    assert [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"404", b"200"]


def test_two_requests_are_not_made_of_one(edge: Edge) -> None:
    """A length and chunks, two lengths, a length that is none: a proxy ahead may read them otherwise."""
    for headers in (
        [("Content-Length", "3"), ("Transfer-Encoding", "chunked")],
        [("Content-Length", "3"), ("Content-Length", "4")],
        [("Content-Length", "+3")],
        [("Content-Length", "-1")],
        [("Transfer-Encoding", "gzip, chunked, gzip")],
    ):
        with _raw(edge) as (wire, read):
            wire.sendall(_head("POST", PREDICT, *headers) + b"0\r\n\r\n" + _head("GET", "/healthz"))
            said = read()
            assert said.startswith(b"HTTP/1.1 400 ")
            assert b'"ok"' not in said + read()


def test_a_worker_without_a_bundle_lives_and_says_when_to_come_again(tmp_path: Path) -> None:
    worker = Running(tmp_path, bundle({}))
    (tmp_path / "current").unlink()
    digest = next((tmp_path / "bundles").glob("*.secrets.json")).name.partition(".")[0]
    worker.launch(1)
    try:
        until(lambda: bool(worker.state()), 60)
        assert not worker.state()["ready"]
        with worker.client() as client:
            for path in ("/v1/models", "/readyz", "/", "/nothing"):
                said = client.get(path)
                assert "no bundle yet" in problem(said, 503)["detail"]
                assert said.headers["retry-after"] == "1"
            alive = client.get("/healthz")
            common(alive)
            assert alive.json() == {"status": "ok"}
            with pytest.raises(InvalidStatus):
                connect(worker.url.replace("http", "ws", 1) + "/v1/live", proxy=None)
            assert "error" not in worker.ask("swap", digest=digest)
            assert client.get("/readyz").json() == {"status": "ready"}
    finally:
        worker.close()


def test_no_request_is_lost_when_a_worker_is_replaced(edge: Edge) -> None:
    """Two share the socket, and one is told to go while twenty ask and one listens: none of the twenty sees
    anything but answers, and who listens is told to connect again."""
    worker = edge.worker
    over = threading.Event()
    closed, failed, answered = [], [], [0] * 20

    def ask(number: int) -> None:
        with edge.opened("caller") as client:
            while not over.is_set():
                try:
                    said = client.post(PREDICT, json={"inputs": f"text {answered[number] % 50}"})
                except httpx.HTTPError as error:
                    failed.append(repr(error))
                    return
                if said.status_code != 200:
                    failed.append(said.text)
                    return
                if said.headers.get("connection") == "close":
                    closed.append(number)
                answered[number] += 1

    with edge.listen() as heard:
        heard.recv(timeout=20)
        worker.start(2)
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: min(answered) > 5)
            worker.signal(signal.SIGTERM)
            assert _code(heard) == 1012
            worker.processes[1].wait(DRAIN - 2)  # nobody new came to it, so it was soon left alone
            at_the_end = list(answered)
            until(lambda: bool(failed) or all(a > b + 5 for a, b in zip(answered, at_the_end, strict=True)))
        finally:
            over.set()
            for thread in threads:
                thread.join()
    assert failed == []
    assert closed, "nobody was asked to connect anew"
    assert worker.state(1) == {}
    assert worker.state(2)["faults"] == 0
    assert edge.client().get("/readyz").status_code == 200


# --- helpers --------------------------------------------------------------------------------------


def _write(text: str, tokens: int) -> dict[str, Any]:
    return {"inputs": text, "parameters": {"max_new_tokens": tokens}}


def _sha256(key: str) -> str:
    import hashlib

    return hashlib.sha256(key.encode()).hexdigest()


def _part(claims: Mapping[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")


def _gone(of: Model) -> Model:
    """One whose folder is not there."""
    (version,) = of.versions
    folder = str(Path(version.folder).with_name("gone"))
    gone = version.model_copy(update={"folder": folder, "digest": "e" * 64})
    return of.model_copy(update={"versions": (gone,)})


def _logged(edge: Edge, request: str, event: str) -> Mapping[str, Any]:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        lines = [json.loads(text) for text in edge.worker.log().splitlines()]
        for line in lines:
            if line.get("request") == request and line["event"] == event:
                return line  # type: ignore[no-any-return]
        time.sleep(0.05)
    raise AssertionError("it is not in the log")


def _code(heard: ClientConnection) -> int | None:
    """With which it is closed."""
    end = time.monotonic() + 20
    try:
        while time.monotonic() < end:
            heard.recv(timeout=20)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None
    raise AssertionError("it is not closed")


def _written(edge: Edge) -> float:
    """Tokens that `busy` has written."""
    wanted = 'gamma_tokens_total{direction="out",model="busy"} '
    for line in edge.client().get("/metrics").text.splitlines():
        if line.startswith(wanted):
            return float(line.removeprefix(wanted))
    return 0.0


def _head(method: str, path: str, *headers: tuple[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {KEYS['all']}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@contextmanager
def _raw(edge: Edge) -> Iterator[tuple[socket.socket, Callable[[], bytes]]]:
    """A connection, byte by byte."""
    with socket.create_connection(("127.0.0.1", edge.bundle.process.port), timeout=20) as wire:

        def read() -> bytes:
            with contextlib.suppress(ConnectionError):
                return wire.recv(65_536)
            return b""

        yield wire, read
