"""Requests as no client in its right mind makes them: each part right or wrong by itself, put together at
random, byte by byte. `test_contract` sends them and looks at what is answered."""

import gzip
import json
from collections.abc import Sequence
from typing import TypeVar

from hypothesis import strategies as st

from gamma_orch.app.routes import ROUTES, Route
from tests.app.running import KEYS

T = TypeVar("T")
CANARY = "canary-4c1d"
METHODS = (
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
    *("OPTIONS", "TRACE", "PROPFIND", "CONNECT", "get"),
)
NAMES = (
    *("sentiment", "vectors", "writer", "nothing", CANARY, "a" * 300),
    *("%00", "%2e%2e%2f%2e%2e", "%ff", "%F0%9F%8E%A5"),
)
PATHS = (
    *("{}", "{}/", "/.{}", "/{}", "{}%2f", "{};a=1", "{}#a", "http://evil.example{}", "*"),
    *("{}?q=" + CANARY, "{}?" + "a=1&" * 999),
)
TOKEN = "eyJhbGciOiJub25lIn0.e30."
GOOD = f"Authorization: Bearer {KEYS['all']}"
CREDENTIALS: tuple[tuple[str, ...], ...] = (
    (GOOD,),
    (f"X-Api-Key: {KEYS['all']}",),
    (f"Authorization: Bearer {KEYS['narrow']}",),
    (),
    (f"Authorization: Bearer {CANARY}",),
    (f"X-Api-Key: {CANARY}",),
    (f"Authorization: Bearer {TOKEN}",),
    (f"Authorization: Bearer {TOKEN}{TOKEN}",),
    (f"Authorization: Basic {CANARY}",),
    ("Authorization: ",),
    ("Authorization: Bearer " + "a" * 9000,),
    ("Authorization: Bearer \xff\xfe",),
    (GOOD, f"X-Api-Key: {KEYS['all']}"),
    (GOOD, GOOD.lower()),
)
MEDIA = (
    *("application/json", "application/json; charset=utf-8", "APPLICATION/JSON"),
    *(
        "application/json; charset=utf-16",
        "application/json, text/plain",
        "application/x-www-form-urlencoded",
    ),
    *("multipart/form-data; boundary=x", "", "text/plain", CANARY, "application/cbor", "\xff", "a" * 5000),
)
WEBSOCKET = "Upgrade: websocket"
MORE = (
    *("Content-Encoding: gzip", "Content-Encoding: identity", "Expect: 100-continue", f"Expect: {CANARY}"),
    *("Accept: text/xml", "Accept-Encoding: gzip;q=1, *;q=0", f"Accept-Language: {CANARY}"),
    *("Range: bytes=0-1", "If-None-Match: *", "If-Modified-Since: now", "X-HTTP-Method-Override: DELETE"),
    *("X-Original-URL: /metrics", f"X-Forwarded-For: {CANARY}", "Forwarded: for=1.1.1.1"),
    *(f"X-Request-Id: {CANARY}", f"Cookie: a={CANARY}", "Te: trailers", "Via: 1.0 a", "Connection: close"),
    *("Connection: upgrade\r\nUpgrade: h2c", f"Connection: upgrade\r\n{WEBSOCKET}"),
    *("Host: evil.example", "Host: ", "Origin: null", f"Origin: https://{CANARY}"),
    *("X-Long: " + "a" * 20_000, "X-Long: " + "a" * 40_000, "X-Empty:", "X-Odd: \x01", "X-Latin: \xe9\xff"),
    *("Bad Name: a", "No colon", " folded: a", "\r\nX: a"),
    *("Content-Length: 5", "Content-Length: -1", "Content-Length: 1e3"),
    *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip"),
)
BODIES = (
    *(b"", b"{}", b"[]", b"null", b"0", b"{", b'"\xff"', b"\xef\xbb\xbf{}", b"{}{}", b"[" * 5000),
    *(b" " * 1_000_001, b'{"inputs": NaN}', b'{"inputs": "\\ud800"}', b"--x\r\n\r\n--x--"),
    *(b'{"inputs": 1' + b"0" * 9000 + b"}", '{"inputs": "x"}'.encode("utf-16")),
    *(gzip.compress(b'{"inputs": "x"}'), gzip.compress(b"0" * 10_000_000)),
    *(
        json.dumps(one).encode()
        for one in (
            {"inputs": CANARY},
            {"inputs": [CANARY] * 65},
            {"inputs": CANARY * 2000},
            {"inputs": "x", "parameters": {"max_new_tokens": 2}},
            {"inputs": "x", CANARY: CANARY},
            {"inputs": "x", "parameters": {"adapter": CANARY, "max_new_tokens": 10**30}},
            {"model": "writer", "prompt": CANARY, "max_tokens": 2},
            {"model": "writer", "prompt": CANARY, "max_tokens": 2, "stream": True},
            {"model": "writer", "messages": [{"role": "user", "content": CANARY}], "max_tokens": 2},
            {"model": "vectors", "input": [CANARY, ""]},
            {"model": CANARY, "input": CANARY},
            {"name": CANARY, "password": CANARY},
            {"name": "", "password": "\0"},
        )
    ),
)


class Asked:
    def __init__(self, route: Route, method: str, sent: bytes, upgrades: bool) -> None:
        """`upgrades`: to a WebSocket."""
        self.route, self.method, self.sent, self.upgrades = route, method, sent, upgrades

    def __repr__(self) -> str:
        return f"Asked({self.method} {self.route.path}, {self.sent[:2000]!r})"


@st.composite
def requests(draw: st.DrawFn) -> Asked:
    def one(of: Sequence[T]) -> T:  # not sampled_from, which would write out all of them
        return of[draw(st.integers(0, len(of) - 1))]

    route = one(ROUTES)
    usual = route.methods[0] if route.methods else "GET"
    method = one((usual, usual, usual, *METHODS))
    path = one(("{}", "{}", *PATHS)).format(route.path)
    head = [f"{method} {path.replace('{model}', one(NAMES))} HTTP/1.1", "Host: here", *one(CREDENTIALS)]
    head += [f"Content-Type: {one(MEDIA)}" for _ in range(draw(st.integers(0, 2)))]
    more = [one(MORE) for _ in range(draw(st.integers(0, 3)))]
    body = one(BODIES) if draw(st.booleans()) else draw(st.binary(max_size=200))
    framing = []
    match one(("length", "length", "chunks", "neither")):
        case "length":
            framing = [f"Content-Length: {len(body)}"]
        case "chunks":
            framing = ["Transfer-Encoding: chunked"]
            parts = (b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:1], body[1:]) if part)
            body = b"".join(parts) + b"0\r\nX-Api-Key: %s\r\n\r\n" % CANARY.encode()
    # What is left over ends whatever is not whole, so that nothing is waited for.
    sent = "\r\n".join([*head, *more, *framing, "", ""]).encode("latin-1") + body + b"\r\n" * 3
    return Asked(route, method, sent, any(WEBSOCKET in header for header in more))
