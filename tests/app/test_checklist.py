"""The usual mistakes of an API, each tried on a real worker: those that no test beside the part itself holds.

docs/security.md lists all of them, and where each is held."""

import ast
import asyncio
import contextlib
import gzip
import hashlib
import hmac
import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import httpx
import psutil
import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from msgspec import Struct
from pydantic import BaseModel
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import gamma_orch.app
from gamma_orch.app import tasks, wire
from gamma_orch.app.api import application
from gamma_orch.app.auth import Gatekeeper
from gamma_orch.app.bundle import ApiKey, Auth, Bundle, Cache, Issuer, Limit, Live, Process
from gamma_orch.app.cache import Answers
from gamma_orch.app.routes import ROUTES
from gamma_orch.app.wire import HEAD
from tests.app.running import KEYS, Running, auth, bundle, free_port, model
from tests.app.server import Server
from tests.app.tinies import changed, problem

PREDICT = "/v1/models/sentiment/predict"
SECRET = "a secret that is long enough for HS256"
CANARY = "canary-91be"
PAIR = RSAKey.generate_key(2048)
# Whoever opens another path changes this, too.
OPEN = {"/v1/token", "/healthz", "/readyz", "/", "/page.js", "/page.css", "/openapi.json"}
SCOPES = {"models", "predict", "metrics", "live", "security"}


@dataclass
class Place:
    worker: Running
    bundle: Bundle
    secrets: dict[str, str]
    valkey: Server

    def client(self, key: str | None = KEYS["all"], **headers: str) -> httpx.Client:
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        return httpx.Client(base_url=self.worker.url, headers=headers, timeout=30)

    def ask(self, key: str | None, body: object, path: str = PREDICT) -> httpx.Response:
        with self.client(key) as client:
            return client.post(path, json=body)

    def raw(self, *parts: bytes, pause: float = 0.0) -> bytes:
        """All that is answered until the connection ends, or nothing comes for a while."""
        with socket.create_connection(("127.0.0.1", self.bundle.process.port), timeout=3) as line:
            for part in parts:
                with contextlib.suppress(OSError):
                    line.sendall(part)
                time.sleep(pause)
            said = b""
            with contextlib.suppress(OSError):
                while piece := line.recv(65_536):
                    said += piece
        return said


def key(name: str, tenant: str, *scopes: str) -> ApiKey:
    return ApiKey(name=name, sha256=_sha256(f"gk_{name}"), scopes=scopes, tenant=tenant)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("checklist")
    public = {**PAIR.as_dict(private=False), "kid": "one"}
    issuers = (
        Issuer(issuer="pairs", audience="a", algorithms=("RS256",), jwks={"keys": [public]}, leeway=0),
        Issuer(issuer="shared", audience="a", algorithms=("HS256",), secret="tokens", leeway=0),
    )
    keys = (
        *auth().keys,
        key("red", "red", "predict", "models"),
        key("blue", "blue", "predict", "models"),
        key("thrice", "", "models"),
    )
    with Server() as valkey:
        found = bundle(
            {"sentiment": model(folder / "sentiment")},
            auth=Auth(keys=keys, issuers=issuers, roles={"caller": ("models", "predict")}),
            cache=Cache(tenants=True),
            limits=(Limit(name="thrice", by="principal", rate=3, per=60, routes=("whoami",)),),
            live=Live(every=0.2),
            process=Process(port=free_port(), body=100_000, drain=2.0),
            secrets={"tokens": "d" * 64, "cache": "e" * 64},
        )
        secrets = {"tokens": SECRET, "cache": valkey.url}
        with Running(folder / "home", found, secrets) as running:
            yield Place(running, found, secrets, valkey)


# --- who may what ---------------------------------------------------------------------------------


def test_every_route_has_a_scope_and_every_route_is_in_the_table() -> None:
    assert {route.path for route in ROUTES if route.scope not in SCOPES} == OPEN
    assert all(route.scope == "open" for route in ROUTES if route.path in OPEN)
    app = application(worker=None)  # type: ignore[arg-type]
    known = {(route.path, method) for route in ROUTES for method in route.methods}
    for route in iter_route_contexts(app.routes):
        assert route.methods, f"{route.path} is no route of the table"
        assert {(route.path, method) for method in route.methods} <= known


def test_no_body_has_room_for_more_than_it_says() -> None:
    """What nobody has declared is refused, at every depth: nothing can be assigned by the way."""
    app = application(worker=None)  # type: ignore[arg-type]
    seen: set[type] = set()
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, APIRoute) and route.body_field is not None:
            seen |= set(_models(route.body_field.field_info.annotation))
    assert {"Credentials", "ChatBody", "Message", "Part", "StreamOptions"} <= {one.__name__ for one in seen}
    for one in seen:
        assert issubclass(one, BaseModel)
        assert one.model_config["extra"] == "forbid", one
        assert one.model_config["strict"] is True, one
    for struct in (tasks.ReadRequest, tasks.WriteRequest, tasks.ReadParameters, tasks.WriteParameters):
        assert issubclass(struct, Struct)
        assert struct.__struct_config__.forbid_unknown_fields, struct


def _token(algorithm: str, signing: Any, header: dict[str, Any] | None = None, **changes: Any) -> str:
    now = int(time.time())
    claims = {"iss": "pairs", "aud": "a", "sub": "s", "iat": now, "exp": now + 60, "roles": ["caller"]}
    given = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    said = {"alg": algorithm, "typ": "JWT", "kid": "one", **(header or {})}
    if algorithm == "none":
        return b".".join((_part(said), _part(given), b"")).decode()
    return jwt.encode(said, given, signing, algorithms=["RS256", "HS256", "HS512"])


def test_tokens_over_the_wire(place: Place) -> None:
    """As `test_auth` has them, for what stands between it and the wire."""
    other, shared = RSAKey.generate_key(2048), OctKey.import_key(SECRET.encode())
    now = int(time.time())
    good = [_token("RS256", PAIR), _token("HS256", shared, iss="shared")]
    public = OctKey(PAIR.as_pem(private=False), PAIR.as_pem(private=False))
    bad = [
        _token("none", None),
        _token("HS256", public),
        _token("HS512", shared, iss="shared"),
        _token("HS256", shared),
        _token("RS256", other),
        _token("RS256", other, {"jwk": other.as_dict(private=False)}),
        _token("RS256", other, {"jku": "https://evil.example/keys"}),
        *(_token("RS256", PAIR, {"kid": kid}) for kid in ("two", "../one", "one' OR '1'='1", "")),
        _token("RS256", PAIR, {"typ": "logout+jwt"}),
        _token("RS256", PAIR, exp=now - 1),
        _token("RS256", PAIR, nbf=now + 60),
        _token("RS256", PAIR, iat=now + 3600),
        _token("RS256", PAIR, aud="b"),
        _token("RS256", PAIR, iss="shared"),
        _token("RS256", PAIR, iss="Pairs"),
        _token("RS256", PAIR, sub="a\nadmin: true"),
        *(_token("RS256", PAIR, **{name: None}) for name in ("exp", "iat", "aud", "iss", "sub")),
        good[0][:-2],
        good[0] + "A",
    ]
    for number, token in enumerate(good):
        said = place.ask(token, {"inputs": f"good {number}"})
        assert said.status_code == 200, number
    for number, token in enumerate(bad):
        said = place.ask(token, {"inputs": "x"})
        assert said.status_code == 401, number
        assert "invalid_token" in said.headers["www-authenticate"]


def test_signatures_of_a_shared_secret_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    true = hmac.compare_digest

    def compare(one: Any, other: Any) -> bool:
        compared.append(other)
        return true(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    issuer = Issuer(issuer="shared", audience="a", algorithms=("HS256",), secret="tokens")
    gate = Gatekeeper(Auth(issuers=(issuer,)), {"tokens": SECRET})
    token = _token("HS256", OctKey.import_key(SECRET.encode()), iss="shared")
    assert gate.who(f"Bearer {token}".encode(), None).name == "shared#s"
    assert len(compared) == 1


def test_a_page_of_others_reads_nothing(place: Place) -> None:
    """No answer lets another origin read it, whatever a browser asks before."""
    with place.client() as client:
        for origin in ("https://evil.example", "null", place.worker.url):
            for method, path in (
                ("OPTIONS", PREDICT),
                ("POST", PREDICT),
                ("GET", "/v1/models"),
                ("GET", "/"),
            ):
                asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
                said = client.request(method, path, headers=asks, json={"inputs": "x"})
                assert not any(name.startswith("access-control-") for name in said.headers)
                assert "set-cookie" not in said.headers  # nor is there anything that it could ride on


def test_a_limit_is_one_whatever_the_spelling(place: Place) -> None:
    """Another header, letters of the path written otherwise, more in the address: one principal still."""
    asked = [
        ("/v1/whoami", {"Authorization": "Bearer gk_thrice"}),
        ("/v1/%77hoami", {"X-Api-Key": "gk_thrice"}),
        ("/v1/whoami?a=1", {"authorization": "bearer gk_thrice"}),
        ("/v1/whoami", {"Authorization": "Bearer gk_thrice"}),
        ("/v1/whoam%69?b", {"X-API-KEY": "gk_thrice", "X-Forwarded-For": "203.0.113.9"}),
    ]
    with place.client(None) as client:
        said = [client.get(path, headers=headers).status_code for path, headers in asked]
        assert said == [200, 200, 200, 429, 429]
    for path in ("/V1/whoami", "/v1/WHOAMI", "/v1/whoami/", "//v1/whoami", "/v1/./whoami", "/v1/whoami%20"):
        assert _status(place.raw(_head("GET", path, "X-Api-Key: gk_thrice"))) == 404


# --- what is kept ---------------------------------------------------------------------------------


def test_no_tenant_is_answered_from_the_cache_of_another(place: Place) -> None:
    body = {"inputs": "a text of two tenants"}
    levels = [place.ask(key, body).headers["x-cache"] for key in ("gk_red", "gk_blue", "gk_red", "gk_blue")]
    assert levels == ["made", "made", "l1", "l1"]


def test_an_answer_that_is_kept_is_not_for_who_may_no_longer_ask(place: Place) -> None:
    body = {"inputs": "a text that is kept"}
    assert place.ask("gk_red", body).status_code == place.ask("gk_red", body).status_code == 200
    less = changed(
        place.bundle,
        auth=place.bundle.auth.model_copy(
            update={"keys": (*auth().keys, key("red", "red", "models", "predict:other"))}
        ),
    )
    assert "error" not in place.worker.swap(less, place.secrets)
    try:
        problem(place.ask("gk_red", body), 403)
        problem(place.ask("gk_blue", body), 401)
    finally:
        assert "error" not in place.worker.swap(place.bundle, place.secrets)


@given(
    one=st.tuples(st.text(max_size=6), st.binary(max_size=6)),
    other=st.tuples(st.text(max_size=6), st.binary(max_size=6)),
)
def test_two_requests_share_a_key_only_if_they_are_one(
    one: tuple[str, bytes], other: tuple[str, bytes]
) -> None:
    answers = Answers(Cache(tenants=True), None, "shop")
    same = answers.key("a" * 64, *one) == answers.key("a" * 64, *other)
    assert same is (one == other)
    # And where one's bytes are moved over the border between them.
    tenant, body = one
    if tenant.isascii() and tenant:
        moved = (tenant[:-1], tenant[-1:].encode() + body)
        assert answers.key("a" * 64, *one) != answers.key("a" * 64, *moved)


def test_an_error_is_not_kept(place: Place) -> None:
    for _ in range(2):
        said = place.ask("gk_red", {"inputs": ["x"] * 65})
        problem(said, 413)
        assert "x-cache" not in said.headers


def test_no_key_in_valkey_has_a_word_of_who_asked_or_what(place: Place) -> None:
    assert place.ask("gk_red", {"inputs": CANARY}).status_code == 200
    with place.client("gk_red") as client:
        assert client.get("/v1/whoami").status_code == 200

    async def everything() -> list[bytes]:
        from redis.asyncio import Redis

        async with Redis(unix_socket_path=str(place.valkey.socket)) as valkey:
            return [name async for name in valkey.scan_iter()]

    names = b"\n".join(asyncio.run(everything()))
    assert re.search(rb"^a:test:[0-9a-f]{64}:[0-9a-f]{40}$", names, re.MULTILINE)
    assert re.search(rb"^l:test:thrice:[0-9a-f]{32}$", names, re.MULTILINE)
    assert CANARY.encode() not in names
    assert b"red" not in names


# --- what comes over the wire ---------------------------------------------------------------------


def _head(method: str, path: str, *lines: str, ends: bool = True) -> bytes:
    """`ends`: nothing is to come after it on its connection."""
    said = [f"{method} {path} HTTP/1.1", "Host: here", *lines, *["Connection: close"] * ends, "", ""]
    return "\r\n".join(said).encode("latin-1")


def _status(said: bytes) -> int:
    return int(said.split(b" ", 2)[1])


MINE = f"X-Api-Key: {KEYS['all']}"


def test_what_comes_behind_a_body_is_no_header(place: Place) -> None:
    """A proxy that strikes out a header looks for it in the head."""
    body = b'{"inputs": "x"}'
    chunks = b"%x\r\n%s\r\n0\r\n%s\r\n\r\n"
    sent = chunks % (len(body), body, MINE.encode())
    said = place.raw(_head("POST", PREDICT, "Transfer-Encoding: chunked", "Trailer: X-Api-Key") + sent)
    assert _status(said) == 401
    sent = chunks % (len(body), body, b"X-Api-Key: gk_other")  # or it would be there twice
    said = place.raw(_head("POST", PREDICT, "Transfer-Encoding: chunked", MINE) + sent)
    assert _status(said) == 200


@pytest.mark.parametrize("second", ["Host: x", "hOST: y", "Host:"])
def test_a_request_has_one_host(place: Place, second: str) -> None:
    assert _status(place.raw(_head("GET", "/healthz"))) == 200
    said = place.raw(_head("GET", "/healthz", second))
    assert _status(said) == 400
    assert b"Host is there twice" in said


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_head_has_a_largest_size(place: Place, pieces: int) -> None:
    for size, status in ((HEAD - 500, 200), (HEAD + 500, 431)):
        head = _head("GET", "/healthz", "X-Long: " + "a" * size)
        step = len(head) // pieces + 1
        said = place.raw(*(head[at : at + step] for at in range(0, len(head), step)), pause=0.05)
        assert _status(said) == status
        assert said.count(b"HTTP/1.1 ") == 1
        if status == 431:
            assert b"\r\ncontent-type: application/problem+json\r\n" in said
            assert b"\r\nconnection: close\r\n" in said
            assert b"\r\ncache-control: no-store\r\n" in said
    many = _head("GET", "/healthz", *(f"X-{number}: a" for number in range(9000)))
    assert _status(place.raw(many)) == 431
    assert _status(place.raw(_head("GET", "/" + "a" * HEAD))) == 431


def test_trailers_have_a_largest_size_and_a_body_in_chunks_has_its_own(place: Place) -> None:
    head = _head("POST", PREDICT, "Transfer-Encoding: chunked", MINE)
    said = place.raw(head + b"0\r\n", *[b"X-Long: " + b"a" * 9000 + b"\r\n"] * 5, pause=0.02)
    assert _status(said) == 431
    # Many small chunks, and one that comes slowly, are no trailers.
    body = b'{"inputs": "a warm film"' + b" " * 15_000 + b"}"
    small = b"".join(b"1\r\n%c\r\n" % letter for letter in body) + b"0\r\n\r\n"
    assert _status(place.raw(head + small[:30_000], small[30_000:60_000], small[60_000:], pause=0.05)) == 200
    body += b" " * 2 * HEAD
    large = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    pieces = (large[at : at + 9000] for at in range(0, len(large), 9000))
    assert _status(place.raw(head, *pieces, pause=0.02)) == 200


class _Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_a_head_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a real socket, with another clock: who says nothing, who says little, who drips after an answer."""
    clock = _Clock()
    monkeypatch.setattr(wire, "time", clock)
    monkeypatch.setattr(wire, "EVERY", 0.01)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def run() -> None:
        import uvicorn
        from uvicorn.server import ServerState

        config = uvicorn.Config(app, http=wire.Wire, lifespan="off", log_config=None, timeout_keep_alive=75)
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: wire.Wire(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        watching = asyncio.create_task(wire.watch(state.connections))
        port = server.sockets[0].getsockname()[1]
        get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        silent, begins, drips, idles, asks = [
            await asyncio.open_connection("127.0.0.1", port) for _ in range(5)
        ]
        begins[1].write(b"GET / HTTP/1.1\r\nX: ")
        for one in (drips, idles):
            one[1].write(get)
            assert b"204" in await one[0].readuntil(b"\r\n\r\n")
        drips[1].write(b"\r\n")  # the end of nothing, and the beginning of nothing
        await asyncio.sleep(0.05)
        clock.now += 31
        said = await asyncio.wait_for(begins[0].read(), 5)
        assert said.startswith(b"HTTP/1.1 400 ")
        assert b"within 30 seconds" in said
        asks[1].write(get)  # not too late: nothing had begun
        assert b"204" in await asyncio.wait_for(asks[0].readuntil(b"\r\n\r\n"), 5)
        clock.now += 45
        for one in (silent, drips, idles):
            assert await asyncio.wait_for(one[0].read(), 5) == b""
        asks[1].write(get)
        assert b"204" in await asyncio.wait_for(asks[0].readuntil(b"\r\n\r\n"), 5)
        watching.cancel()
        for _, writer in (silent, begins, drips, idles, asks):
            writer.close()
        server.close()

    asyncio.run(run())


@pytest.mark.nightly
def test_a_worker_does_not_wait_for_a_head_for_ever(place: Place) -> None:
    with socket.create_connection(("127.0.0.1", place.bundle.process.port), timeout=wire.WAIT + 10) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nX: ")
        assert _status(slow.recv(65_536)) == 400
        assert slow.recv(1) == b""


def test_a_second_request_that_is_none_does_not_cost_the_first_its_answer(place: Place) -> None:
    body = b'{"inputs": "before nonsense"}'
    good = _head("POST", PREDICT, MINE, f"Content-Length: {len(body)}", ends=False) + body
    said = place.raw(good + b"nonsense\r\n\r\n")
    assert _status(said) == 200
    assert said.count(b"HTTP/1.1 ") == 1
    said = place.raw(good, b"nonsense\r\n\r\n", pause=0.5)
    assert re.findall(rb"HTTP/1.1 (\d+)", said) == [b"200", b"400"]
    # A body that breaks off in nonsense is one request, with one answer.
    said = place.raw(_head("POST", PREDICT, MINE, "Transfer-Encoding: chunked") + b"2\r\n{}\r\n", b"zz\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", said) == [b"400"]


UPGRADE = (
    *("Connection: Upgrade", "Upgrade: websocket"),
    *("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + "A" * 22 + "=="),
)


def test_a_handshake_that_is_none_is_told_so(place: Place) -> None:
    """Rather than held open, which costs whoever sends it nothing."""
    for sent in (
        _head("POST", "/v1/live", *UPGRADE, "Content-Length: 2", ends=False) + b"{}",
        _head("GET", "/v1/live", *UPGRADE, "Content-Length: 2", ends=False) + b"{}",
        _head("GET", "/v1/live", *UPGRADE, *(f"X-{number}: a" for number in range(200)), ends=False),
        _head("GET", "/v1/live", *UPGRADE, "X-Long: " + "a" * 9000, ends=False),
    ):
        said = place.raw(sent)
        assert _status(said) == 400
        assert b"no handshake" in said
        assert said.count(b"HTTP/1.1 ") == 1
    # One that comes before the answer to the request ahead of it does not get in between.
    body = b'{"inputs": "ahead of a handshake"}'
    ahead = _head("POST", PREDICT, MINE, f"Content-Length: {len(body)}", ends=False) + body
    said = place.raw(ahead + _head("GET", "/v1/live", *UPGRADE, MINE, ends=False))
    assert re.findall(rb"HTTP/1.1 (\d+)", said) == [b"200"]


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["Content-Length: 3", "Transfer-Encoding: chunked"], id="a length and chunks"),
        pytest.param(["Transfer-Encoding: chunked", "Content-Length: 3"], id="chunks and a length"),
        pytest.param(["Content-Length: 3", "Content-Length: 3"], id="a length twice"),
        pytest.param(["Content-Length: 3, 3"], id="two lengths in one"),
        pytest.param(["Content-Length: 0x3"], id="a length in hexadecimal"),
        pytest.param(["Transfer-Encoding: xchunked"], id="nearly chunked"),
        pytest.param(["Transfer-Encoding: chunked, identity"], id="chunked, and not last"),
        pytest.param(["Transfer-Encoding : chunked"], id="a blank before the colon"),
        pytest.param(["Transfer-Encoding\t: chunked"], id="a tab before the colon"),
        pytest.param(["X: a\rTransfer-Encoding: chunked"], id="a bare CR"),
        pytest.param(["X: a\x00b"], id="a NUL"),
        pytest.param([" X: folded"], id="folded"),
    ],
)
def test_a_request_that_two_could_read_as_two_is_none(place: Place, lines: list[str]) -> None:
    """Each would let somebody hide a request from a proxy ahead, or lay one before somebody else's."""
    smuggled = b"0\r\n\r\n" + _head("GET", "/metrics", MINE)
    said = place.raw(_head("POST", PREDICT, MINE, *lines, ends=False) + smuggled)
    assert _status(said) == 400
    assert said.count(b"HTTP/1.1 ") == 1
    assert b"gamma_requests_total" not in said


def test_no_line_of_an_answer_can_be_written_by_who_asks(place: Place) -> None:
    break_out = "%0d%0aSet-Cookie:%20a=b%0d%0a%0d%0a<script>"
    for path in (f"/{break_out}", f"/v1/models/{break_out}", f"/v1/models/{break_out}/predict"):
        said = place.raw(_head("GET", path, MINE, f"X-Request-Id: {break_out}", f"Origin: {break_out}"))
        assert _status(said) in (404, 405)
        assert b"set-cookie" not in said.lower()
        assert b"<script>" not in said


def test_a_line_of_the_log_cannot_be_written_by_who_asks(place: Place) -> None:
    forged = '%0a{"event":"request","principal":"admin-' + CANARY + '"}'
    for path in (f"/{forged}", f"/v1/models/{forged}", f"/v1/models/{forged}/predict"):
        place.raw(_head("GET", path, MINE, f"X-Forwarded-For: {CANARY}\t{CANARY}", f"User-Agent: {CANARY}"))
    time.sleep(0.3)  # it is written every 50 ms
    log = place.worker.log()
    assert CANARY not in log
    for line in log.splitlines():
        assert isinstance(json.loads(line), dict)


def test_what_is_packed_is_not_unpacked(place: Place) -> None:
    """A small body that would be a large one is what it is: no JSON."""
    bomb = gzip.compress(b'{"inputs": "' + b"0" * 10_000_000 + b'"}')
    assert len(bomb) < 20_000
    process = psutil.Process(place.worker.processes[1].pid)
    before = process.memory_info().rss
    with place.client() as client:
        for coding in ("gzip", "deflate", "br", "zstd"):
            headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
            problem(client.post(PREDICT, content=bomb, headers=headers), 400)
    assert process.memory_info().rss - before < 9_000_000


def test_a_listener_who_says_much_is_closed(place: Place) -> None:
    url = place.worker.url.replace("http", "ws", 1) + "/v1/live"
    headers = {"Authorization": f"Bearer {KEYS['all']}"}
    with connect(url, additional_headers=headers, proxy=None) as heard:
        heard.recv(timeout=20)
        heard.send("a" * 60_000)  # thrown away
        heard.recv(timeout=20)
        heard.send("a" * 70_000)
        with contextlib.suppress(ConnectionClosed):
            for _ in range(200):
                heard.recv(timeout=20)
        assert heard.close_code == 1009


# --- what the code may not do ---------------------------------------------------------------------

# Each of these can run what it is given, go where it is told, or open what it should not.
BANNED = {
    *("pickle", "marshal", "shelve", "dill", "joblib", "yaml", "tarfile", "zipfile", "xml"),
    *("urllib.request", "http.client", "httpx", "requests", "aiohttp", "ftplib", "smtplib"),
}


def test_the_app_fetches_nothing_and_runs_nothing_that_it_was_sent() -> None:
    """No client of HTTP, so there is no address that a request could make it ask; and no pickle, no YAML, no
    archive and no shell."""
    for path in sorted(Path(gamma_orch.app.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=names):
                    found = {name.name for name in names}
                case ast.ImportFrom(module=str(module), names=names):
                    found = {module} | {f"{module}.{name.name}" for name in names}
                case ast.Call(func=ast.Name(id=("eval" | "exec" | "compile" | "__import__") as name)):
                    raise AssertionError(f"{path.name}:{node.lineno} calls {name}")
                case ast.keyword(arg="shell"):
                    raise AssertionError(f"{path.name}:{node.lineno} asks for a shell")
                case _:
                    continue
            roots = {name.split(".")[0] for name in found}
            assert not BANNED & (found | roots), f"{path.name} imports {found & BANNED or roots & BANNED}"


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "../" * 21 + "a",
        "/etc/passwd",
        "a" * 63 + "/",
        "a" * 63,
        "A" * 63 + ".",
        "٣" * 64,
        "a" * 63 + "\0",
    ],
)
def test_a_bundle_is_named_by_a_digest_and_by_no_path(place: Place, digest: str) -> None:
    told = place.worker.ask("swap", digest=digest)
    assert "64 hex digits" in told["error"]  # and nothing was opened
    assert place.worker.state()["bundle"] == place.bundle.digest


def test_what_is_secret_is_for_its_owners_eyes(place: Place) -> None:
    """Where the tests do not write it themselves: the control socket obeys whoever can open it."""
    sockets = [path for path in place.worker.home.rglob("*") if path.is_socket()]
    assert sockets
    for path in sockets:
        assert path.stat().st_mode & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "path",
    [
        "/" + "a" * 30_000,
        "/v1/models/" + "a" * 30_000 + "/x",
        "/v1/models/" * 2500,
        "/v1" * 9000 + "/predict",
    ],
)
def test_no_path_takes_long(place: Place, path: str) -> None:
    began = time.monotonic()
    assert _status(place.raw(_head("GET", path, MINE))) in (404, 405)
    assert time.monotonic() - began < 2


# --- the page -------------------------------------------------------------------------------------


def test_every_test_that_the_page_names_is_there() -> None:
    root = Path(__file__).parents[2]
    there = {
        (path.stem, name)
        for path in root.glob("tests/**/test_*.py")
        for name in re.findall(r"def test_(\w+)", path.read_text())
    }
    files = {stem for stem, _ in there}
    named = 0
    for row in (root / "docs" / "security.md").read_text().splitlines():
        stem = ""
        for word in re.findall(r"`([^`]+)`", row.rpartition(" | ")[2]):
            if word.rpartition("/")[2].startswith("test_"):
                stem = word.rpartition("/")[2]
                assert stem in files or (root / word).is_dir(), word
            elif stem and "/" not in word and "." not in word:
                begins = word.removesuffix("…")
                found = {name for one, name in there if one == stem and name.startswith(begins)}
                assert found if begins != word else begins in found, f"{stem} has no {word}"
                named += 1
    assert named > 50


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Those that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from _models(field.annotation)
    for part in get_args(annotation):
        yield from _models(part)


def _part(value: object) -> bytes:
    import base64

    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
