"""Security events: each kind provoked on a real worker, what is written of it, and what a flood costs."""

import ast
import asyncio
import contextlib
import fcntl
import json
import re
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, get_args

import asyncpg
import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from structlog.testing import capture_logs
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

import gamma_orch.app
from gamma_orch.app import control, passwords, security, wire
from gamma_orch.app import records as records_module
from gamma_orch.app.auth import EXPIRED, MALFORMED, NOT_TAKEN
from gamma_orch.app.bundle import Bundle, Issuer, Limit, Live, Log, Process, User
from gamma_orch.app.login import WRONG
from gamma_orch.app.records import Records
from gamma_orch.app.security import EACH, GROUPS, REASONS, Event, Events, Sign, key_in
from gamma_orch.targets.embedded_postgres import EmbeddedPostgres
from tests.app.running import KEYS, Running, auth, bundle, free_port, model
from tests.app.test_metrics import read
from tests.app.test_records import query, record, until, url_of
from tests.app.tinies import problem, writer
from tests.targets.folders import open_folder

PROXY = "127.0.0.2"  # an address of this machine that is trusted
PASSWORD = "correct horse battery CANARY"
TRIED = "a password CANARY in the wrong field"
SECRETS = {"tokens": "CANARY-tokens-secret-of-forty-characters", "idp": "CANARY-secret-of-another-issuer-32b"}
HMAC = OctKey.import_key(SECRETS["idp"].encode())
PAIR = RSAKey.generate_key(2048)


# --- one process ----------------------------------------------------------------------------------


class Told:
    """Events of one process, by a clock of its own."""

    def __init__(self) -> None:
        self.now, self.counted = 1000.0, 0
        self.events: list[Event] = []
        self.made = Events(b"k" * 32, self._count, self.events.append, lambda: self.now)

    def _count(self, kind: str, reason: str) -> None:
        self.counted += 1

    def note(self, address: str = "192.0.2.1", sign: Sign | None = None, **more: Any) -> None:
        given = {"request": str(uuid.uuid4()), "route": "predict", "method": "POST", **more}
        self.made.note(sign or Sign("key", "unknown"), address=address, **given)

    @property
    def sum(self) -> int:
        return sum(one.count for one in self.events)


def test_a_flood_is_some_events_and_their_sum() -> None:
    told = Told()
    for second in range(1000):
        told.now = 1000.0 + second / 100
        told.note(presented=b"k%d" % second)
    assert [one.count for one in told.events] == [1] * EACH
    told.made.turn()
    last = told.events[-1]
    assert (last.count, last.address, last.kind, last.reason) == (1000 - EACH, "192.0.2.1", "key", "unknown")
    assert (last.at, last.until) == (1000.0 + EACH / 100, 1009.99)
    assert last.fingerprint == last.request == last.route == last.method == ""
    assert told.sum == told.counted == 1000
    told.made.turn()  # an empty window says nothing
    assert told.sum == 1000
    told.note()  # and in the next one is told at once what comes
    assert told.events[-1].count == 1


def test_who_differs_is_told_apart() -> None:
    told = Told()
    told.note()
    for _ in range(EACH):
        told.note("192.0.2.2")
        told.note(principal="anna")
        told.note(sign=Sign("key", "malformed"))
        told.note(sign=Sign("limit", "address", "each"))
        told.note(sign=Sign("limit", "address", "few"))
    assert len(told.events) == 1 + 5 * EACH
    told.note()
    assert len(told.events) == 2 + 5 * EACH


def test_however_many_addresses_there_are_memory_and_events_are_bounded() -> None:
    told = Told()
    for one in range(30_000):
        told.note(str(ip_address(one + 2**24)))
    for one in range(30_000):
        told.note(
            str(ip_address((0x20010DB8 << 96) + (one << 64))), sign=Sign("login", "wrong", tried=str(one))
        )
    kinds = sum(map(len, REASONS.values()))
    assert len(told.made._groups) <= GROUPS + kinds
    told.made.turn()
    assert len(told.events) <= GROUPS * (EACH + 1) + kinds
    assert told.sum == told.counted == 60_000
    others = {one.kind: one for one in told.events if not one.address}
    assert (others["key"].count, others["login"].count) == (30_000 - GROUPS, 30_000)
    assert not told.made._groups


def test_who_has_a_network_of_addresses_is_one() -> None:
    told = Told()
    for one in range(100):
        told.note(f"2001:db8::{one:x}")
    told.made.turn()
    assert len(told.events) == EACH + 1
    assert told.events[-1].address == "2001:db8::"
    assert told.sum == 100


def test_a_fingerprint_knows_again_what_came_and_shows_nothing_of_it() -> None:
    told = Told()
    for presented in (b"hunter2", b"hunter2", b"hunter3", None):
        told.note(presented=presented)
    told.note(sign=Sign("login", "wrong", tried="hunter2"), presented=b"another")
    one, again, other, none, name = (event.fingerprint for event in told.events)
    assert one == again == name != other
    assert none == ""
    assert re.fullmatch("[0-9a-f]{16}", one)
    elsewhere = Events(b"l" * 32, lambda kind, reason: None, told.events.append)
    elsewhere.note(Sign("key", "unknown"), request="", address="", presented=b"hunter2")
    assert told.events[-1].fingerprint not in (one, "")
    told.note(sign=Sign("login", "wrong", tried="half \ud800 of a pair"))


def test_the_key_of_fingerprints_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: key_in(tmp_path), range(32)))
    assert len(keys) == 1
    file = tmp_path / "fingerprints.key"
    assert file.read_bytes() in keys
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(b"half")  # as power that failed leaves it
    assert len(key_in(tmp_path)) == 32
    assert key_in(tmp_path) == file.read_bytes()
    with file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it


def test_events_are_numbered_for_who_asks() -> None:
    told = Told()
    asked = told.made.since(0.0, 7)
    assert asked == {"began": 1000.0, "last": 0, "events": []}
    told.note("192.0.2.1")
    told.note("192.0.2.2")
    asked = told.made.since(1000.0, 1)
    assert (asked["last"], [one["address"] for one in asked["events"]]) == (2, ["192.0.2.2"])
    assert told.made.since(1000.0, 2)["events"] == []
    assert len(told.made.since(999.0, 2)["events"]) == 2  # of a process that is no more
    for one in range(1000):
        told.note(str(ip_address(one + 2**24)))
    asked = told.made.since(1000.0, 2)
    assert len(asked["events"]) == security.KEPT
    assert asked["last"] == told.made.told


def test_the_largest_answer_to_who_asks_fits_into_a_line() -> None:
    told = Told()
    for one in range(security.KEPT):
        name = "https://issuer.example#" + "\N{SNOWMAN}" * 256
        told.note(f"2001:db8:{one:x}:ffff:ffff:ffff:ffff:ffff", principal=name, presented=b"x")
    assert len(json.dumps(told.made.since(0.0, 0)["events"])) < control.LINE


def test_every_sign_is_one_of_those_that_there_are() -> None:
    """What is not in the list would be a label of the metric that nobody expects."""
    found: set[tuple[Any, Any]] = set()
    for path in Path(gamma_orch.app.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Sign", "_refusal"):
                words = node.args[1:] if getattr(node.func, "id", "") == "_refusal" else node.args
                kind, reason = (getattr(word, "value", None) for word in words[:2])
                found.add((kind, reason))
    assert {("token", "issuer"), ("wire", "head"), ("login", "busy"), ("key", "unknown")} <= found
    # What is put together elsewhere is provoked below.
    assert {one for one in found if None not in one} <= {
        (kind, one) for kind in REASONS for one in REASONS[kind]
    }
    assert set(get_args(Limit.model_fields["by"].annotation)) < set(REASONS["limit"])
    assert set(REASONS) == set(get_args(security.Kind))


# --- the database ---------------------------------------------------------------------------------

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with open_folder() as path:
        embedded = EmbeddedPostgres(path / "dev" / "postgres-main")
        embedded.start()
        yield embedded
        embedded.destroy()


def event(**more: Any) -> Event:
    now = time.time()
    usual = Event(
        at=now,
        until=now,
        count=1,
        service="shop",
        kind="key",
        reason="unknown",
        detail="",
        route="predict",
        method="POST",
        principal="",
        address="192.0.2.1",
        fingerprint="ab" * 8,
        request=str(uuid.uuid4()),
    )
    return replace(usual, **more)


@pytest.fixture
def schema() -> str:
    return f"s{uuid.uuid4().hex[:12]}"


@pytest.fixture
def url(server: EmbeddedPostgres) -> str:
    return url_of(server.start())


def test_a_row_for_each_and_indexes_for_who_asks(url: str, schema: str) -> None:
    hostile = "o'hara\"); drop table gamma_security_events; --\0\ud800"
    one = event(principal=hostile)
    several = event(count=2**40, address="", request="", fingerprint="", at=one.at - 60)

    async def run() -> None:
        kept = Records(Log(requests=True, every=0.05), url, schema=schema)
        kept.event(one)
        kept.add(record())
        kept.event(several)
        await kept.aclose()
        assert kept.dropped == 0
        first, second = await query(url, f"select * from {schema}.gamma_security_events order by at")
        assert second["request"] == uuid.UUID(one.request)
        assert second["principal"] == "o'hara\"); drop table gamma_security_events; --?"
        assert second["address"] == ip_address("192.0.2.1")
        assert (second["kind"], second["reason"], second["count"]) == ("key", "unknown", 1)
        assert (first["request"], first["address"], first["count"]) == (None, None, 2**40)
        assert 59 < (first["until"] - first["at"]).total_seconds() < 61
        asked = f"select indexdef from pg_indexes where schemaname = '{schema}' order by indexname"
        said = [row[0].partition("USING ")[2] for row in await query(url, asked)]
        assert said == ["btree (at)", "btree (kind, at)"]

    asyncio.run(run())


def test_events_have_room_of_their_own(url: str, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither drives the other out, while the database is away."""
    monkeypatch.setattr(records_module, "EVENTS", 3)
    lost: list[tuple[str, int]] = []

    async def run() -> None:
        nowhere = "postgresql://gamma:hunter2@127.0.0.1:9/postgres"
        log = Log(requests=True, every=0.05, waiting=5)
        kept = Records(log, nowhere, schema=schema, dropped=lambda kind, rows: lost.append((kind, rows)))
        for _ in range(7):
            kept.add(record())
        for _ in range(5):
            kept.event(event())
        kept.add(record())
        assert lost == [("requests", 1)] * 2 + [("security", 1)] * 2 + [("requests", 1)]
        assert kept.waiting == 8
        await kept.aclose(limit=0.1)
        assert lost[5:] == [("requests", 5), ("security", 3)]
        kept.event(event())
        assert lost[-1] == ("security", 1)

    asyncio.run(run())


def test_events_that_waited_make_room_when_they_are_written(
    url: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_module, "EVENTS", 3)

    async def run() -> None:
        kept = Records(Log(requests=True, every=0.05), url, schema=schema)
        for _ in range(3):
            for _ in range(3):
                kept.event(event())
            kept.add(record())
            await until(lambda: kept.waiting == 0)
        await kept.aclose()
        assert kept.dropped == 0
        assert await query(url, f"select count(*) from {schema}.gamma_security_events") == [(9,)]

    asyncio.run(run())


def test_a_role_that_may_not_make_the_table_writes_the_others(
    server: EmbeddedPostgres, url: str, schema: str
) -> None:
    """As after an upgrade: the tables of before are there, and whoever made them has made no other."""
    tables = f"{schema}.gamma_requests, {schema}.gamma_predictions"
    lost: list[tuple[str, int]] = []

    async def run() -> None:
        kept = Records(Log(requests=True, every=0.05), url, schema=schema)
        kept.add(record())
        await kept.aclose()
        for text in (
            f"drop table {schema}.gamma_security_events",
            f"create role {schema} login password 'modest'",
            f"grant usage on schema {schema} to {schema}",
            f"grant insert, select on {tables} to {schema}",
        ):
            await query(url, text)
        with capture_logs() as said:
            at = url_of(server.server(), schema, "modest")
            log = Log(requests=True, every=0.05)
            modest = Records(log, at, schema=schema, dropped=lambda kind, rows: lost.append((kind, rows)))
            modest.add(record())
            modest.event(event())
            modest.add(record())
            await modest.aclose()
        assert lost == [("security", 1)]
        assert [one["event"] for one in said] == ["security events not written"]
        assert await query(url, f"select count(*) from {schema}.gamma_requests") == [(3,)]

    asyncio.run(run())


# --- a worker -------------------------------------------------------------------------------------


def token(key: Any = HMAC, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
    now = int(time.time())
    said = {"iss": "shared", "aud": "a", "sub": "mallory", "iat": now, "exp": now + 60, **claims}
    given = {"alg": "HS256", "typ": "JWT", **(header or {})}
    return jwt.encode(
        given, {name: one for name, one in said.items() if one is not None}, key, ["HS256", "RS256"]
    )


@dataclass
class Place:
    worker: Running
    bundle: Bundle
    schema: str
    database: str
    slow: socket.socket
    addresses: Iterator[str]
    presented: set[str] = field(default_factory=set)  # all credentials that were sent

    @contextlib.contextmanager
    def client(self, address: str, **headers: str) -> Iterator[httpx.Client]:
        """Behind the trusted proxy, for this address."""
        self.presented |= set(headers.values())
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        transport = httpx.HTTPTransport(local_address=PROXY)
        with httpx.Client(
            base_url=self.worker.url,
            headers={"X-Forwarded-For": address, **given},
            transport=transport,
            timeout=30,
        ) as client:
            yield client

    def get(self, address: str, path: str = "/v1/models", **headers: str) -> httpx.Response:
        with self.client(address, **headers) as client:
            return client.get(path)

    def login(self, address: str, name: str, password: str) -> httpx.Response:
        self.presented.add(password)
        with self.client(address) as client:
            return client.post("/v1/token", json={"name": name, "password": password})

    def listen(self, path: str = "/v1/security", key: str = KEYS["all"], **headers: str) -> ClientConnection:
        given = {"Authorization": f"Bearer {key}", **headers}
        return connect(self.worker.url.replace("http", "ws", 1) + path, additional_headers=given, proxy=None)

    def raw(self, text: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.bundle.process.port), timeout=5) as line:
            line.sendall(text)
            return line.recv(65_536)

    def rows(self, where: str, count: int = 1) -> list[Any]:
        """Once there are so many."""
        text = f"select * from {self.schema}.gamma_security_events where {where} order by at"
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(asyncpg.UndefinedTableError):
                found = asyncio.run(query(self.database, text))
                if len(found) >= count:
                    return found
            assert time.monotonic() < end, f"no row where {where}"
            time.sleep(0.05)

    def counted(self, kind: str, reason: str) -> float:
        with self.worker.client() as client:
            page = read(client.get("/metrics").content)
        return page[f'gamma_security_events_total{{kind="{kind}",reason="{reason}"}}']


@pytest.fixture(scope="module")
def place(server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("security")
    database, schema = url_of(server.start()), f"s{uuid.uuid4().hex[:12]}"
    public = {**PAIR.as_dict(private=False), "kid": "one"}
    issuers = (
        Issuer(issuer="pairs", audience="a", algorithms=("RS256",), jwks={"keys": [public]}, leeway=0),
        Issuer(issuer="shared", audience="a", algorithms=("HS256",), secret="idp", leeway=0),
    )
    users = (User(name="anna", hash=passwords.hashed(PASSWORD, "anna"), scopes=("models",)),)

    def limit(by: Any, route: str, **more: Any) -> Limit:
        return Limit(name=f"of-{by}", **{"by": by, "rate": 1, "per": 3600, "routes": (route,), **more})

    limits = (
        limit("principal", "whoami"),
        limit("tenant", "model"),
        limit("address", "openapi"),
        limit("route", "stream"),
        limit("everyone", "page"),
        limit("principal", "completions", counts="tokens").model_copy(update={"name": "of-tokens"}),
        limit("address", "embeddings", without="closed").model_copy(update={"name": "of-closed"}),
    )
    found = bundle(
        {"sentiment": model(folder / "sentiment"), "writer": model(writer(folder / "writer"))},
        auth=auth(issuers=issuers, users=users, revoked=("stolen",), roles={"caller": ("models", "predict")}),
        limits=limits,
        log=Log(requests=True, tables=schema, every=0.05),
        live=Live(every=0.2),
        process=Process(port=free_port(), drain=2.0, trusted=(f"{PROXY}/32",)),
        secrets=dict.fromkeys((*SECRETS, "database", "cache"), "d" * 64),
    )
    secrets = {**SECRETS, "database": database, "cache": f"unix://{folder}/nobody"}
    with (
        Running(folder / "home", found, secrets) as running,
        socket.create_connection(("127.0.0.1", found.process.port)) as slow,
    ):
        slow.sendall(b"GET / HTTP/1.1\r\nX: ")  # nothing else comes, and much later that is told
        addresses = (f"198.51.100.{number}" for number in range(1, 255))
        yield Place(running, found, schema, database, slow, addresses)


Provoke = Callable[[Place, str], httpx.Response | bytes]


def _bearer(make: Callable[[], str]) -> Provoke:
    return lambda place, at: place.get(at, Authorization=f"Bearer {make()}")


def _twice(path: str, key: str = KEYS["all"], body: Any = None) -> Callable[[Place, str], httpx.Response]:
    def provoke(place: Place, at: str) -> httpx.Response:
        with place.client(at, Authorization=f"Bearer {key}") as client:
            first = client.get(path) if body is None else client.post(path, json=body)
            assert first.status_code != 429
            return client.get(path) if body is None else client.post(path, json=body)

    return provoke


def _waits(place: Place, at: str) -> httpx.Response:
    for _ in range(20):
        said = place.login(at, TRIED + " often", "CANARY-not-it")
        if said.status_code == 429:
            return said
    raise AssertionError


def _busy(place: Place, at: str) -> httpx.Response:
    def one(number: int) -> httpx.Response:
        return place.login(at, f"nobody-{number}", "CANARY-not-it")

    with ThreadPoolExecutor(80) as pool:
        return next(said for said in pool.map(one, range(160)) if said.status_code == 503)


def _origin(place: Place, at: str) -> bytes:
    with pytest.raises(InvalidStatus) as refused:
        place.listen(Origin="https://evil.example")
    assert refused.value.response.status_code == 403
    return b""


def _long(place: Place, at: str) -> bytes:
    return place.raw(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * (wire.HEAD + 10))


def _handshake(place: Place, at: str) -> bytes:
    lines = ("Host: a", "Upgrade: websocket", "Connection: Upgrade", "Content-Length: 2", "", "{}")
    return place.raw("\r\n".join(("POST /v1/live HTTP/1.1", *lines)).encode())


def _completions(place: Place, at: str) -> httpx.Response:
    body = {"model": "writer", "prompt": "It was", "max_tokens": 2}
    return _twice("/v1/completions", body=body)(place, at)


# kind, reason, status, principal, detail, whether there is a fingerprint, and what provokes it
PROVOKED: Sequence[tuple[str, str, int, str, str, bool, Provoke]] = [
    ("login", "wrong", 401, "", "", True, lambda place, at: place.login(at, TRIED, "CANARY-not-it")),
    ("login", "wrong", 401, "anna", "", True, lambda place, at: place.login(at, "anna", "CANARY-not-it")),
    ("login", "waits", 429, "", "", True, _waits),
    ("login", "busy", 503, "", "", False, _busy),
    ("token", "malformed", 401, "", "", True, _bearer(lambda: "CANARY.b.c")),
    ("token", "issuer", 401, "", "", True, _bearer(lambda: token(iss="nobody"))),
    ("token", "header", 401, "", "", True, _bearer(lambda: token(header={"typ": "logout+jwt"}))),
    (*("token", "key", 401, "", "", True),
     _bearer(lambda: token(PAIR, {"alg": "RS256", "kid": "two"}, iss="pairs"))),
    (*("token", "algorithm", 401, "", "", True), _bearer(lambda: token(header={"kid": "one"}, iss="pairs"))),
    (*("token", "signature", 401, "", "", True),
     _bearer(lambda: token(OctKey.import_key("another CANARY of thirty-two bytes!")))),
    ("token", "expired", 401, "shared#mallory", "", True, _bearer(lambda: token(exp=int(time.time()) - 1))),
    ("token", "audience", 401, "shared#mallory", "", True, _bearer(lambda: token(aud="others"))),
    ("token", "claims", 401, "", "", True, _bearer(lambda: token(sub=None))),
    ("token", "claims", 401, "shared#mallory", "", True, _bearer(lambda: token(iat=None))),
    ("token", "revoked", 401, "shared#mallory", "", True, _bearer(lambda: token(jti="stolen"))),
    (*("token", "user", 401, "ghost", "", True),
     _bearer(lambda: token(OctKey.import_key(SECRETS["tokens"]), iss="gamma/test", aud="test", sub="ghost"))),
    ("key", "unknown", 401, "", "", True, lambda place, at: place.get(at, X_Api_Key="gk_CANARY_0123456789")),
    ("key", "malformed", 401, "", "", True, lambda place, at: place.get(at, X_Api_Key="CANARY" * 1500)),
    ("credentials", "missing", 401, "", "", False, lambda place, at: place.get(at)),
    (*("credentials", "malformed", 401, "", "", True),
     lambda place, at: place.get(at, Authorization="Basic Q0FOQVJZOmh1bnRlcjI=")),
    (*("credentials", "malformed", 401, "", "", True),
     lambda place, at: place.get(at, Authorization="Bearer gk_CANARY_one", X_Api_Key="gk_CANARY_two")),
    (*("forbidden", "scope", 403, "caller", "", True),
     lambda place, at: place.get(at, "/metrics", X_Api_Key=KEYS["caller"])),
    ("forbidden", "origin", 403, "", "", True, _origin),
    ("limit", "principal", 429, "caller", "of-principal", True, _twice("/v1/whoami", KEYS["caller"])),
    ("limit", "tenant", 429, "narrow", "of-tenant", True, _twice("/v1/models/other", KEYS["narrow"])),
    ("limit", "address", 429, "", "of-address", True, _twice("/openapi.json")),
    (*("limit", "route", 429, "all", "of-route", True),
     _twice("/v1/models/sentiment/stream", body={"inputs": "a"})),
    ("limit", "everyone", 429, "", "of-everyone", True, _twice("/")),
    ("limit", "tokens", 429, "all", "of-tokens", True, _completions),
    (*("limit", "closed", 429, "all", "of-closed", True),
     lambda place, at: _post(place, at, "/v1/embeddings")),
    ("wire", "head", 431, "", "", False, _long),
    (*("wire", "host", 400, "", "", False),
     lambda place, at: place.raw(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")),
    ("wire", "handshake", 400, "", "", False, _handshake),
    ("wire", "http", 400, "", "", False, lambda place, at: place.raw(b"CANARY\r\n\r\n")),
]  # fmt: skip


def _post(place: Place, at: str, path: str) -> httpx.Response:
    with place.client(at, Authorization=f"Bearer {KEYS['all']}") as client:
        return client.post(path, json={"model": "sentiment", "input": "a"})


@pytest.mark.parametrize(
    ("kind", "reason", "status", "principal", "detail", "known", "provoke"),
    PROVOKED,
    ids=[f"{one[0]}-{one[1]}-{one[3] or one[2]}" for one in PROVOKED],
)
def test_what_is_refused_is_counted_and_written(
    place: Place,
    kind: str,
    reason: str,
    status: int,
    principal: str,
    detail: str,
    known: bool,
    provoke: Provoke,
) -> None:
    address, before = next(place.addresses), place.counted(kind, reason)
    began = time.time()
    said = provoke(place, address)
    direct = kind == "wire" or reason == "origin"
    where = f"kind = '{kind}' and reason = '{reason}' and address = '{'127.0.0.1' if direct else address}'"
    row = place.rows(where)[0]
    if isinstance(said, httpx.Response):
        detail_said = problem(said, status)["detail"]
        assert row["request"] == uuid.UUID(said.headers["x-request-id"]) or reason == "busy"  # one of many
        if kind in ("token", "key"):  # the caller learns no more than before
            assert detail_said == {"malformed": MALFORMED, "expired": EXPIRED}.get(reason, NOT_TAKEN)
        assert reason != "wrong" or detail_said == WRONG
    elif said:
        assert said.startswith(b"HTTP/1.1 %d" % status)
        assert str(row["request"]).encode() in said
    assert (row["principal"], row["detail"], row["service"]) == (principal, detail, "test")
    assert bool(row["fingerprint"]) == known
    assert row["count"] == 1
    assert began - 1 < row["at"].timestamp() <= time.time() + 1
    assert row["method"] == (
        "" if kind == "wire" else said.request.method if isinstance(said, httpx.Response) else "GET"
    )
    assert (row["route"] == "none") == (kind == "wire")
    after = place.counted(kind, reason)
    assert after > before if reason == "busy" else after == before + 1


def test_all_that_there_are_are_provoked() -> None:
    provoked = {(kind, reason) for kind, reason, *_ in PROVOKED}
    assert {(kind, reason) for kind, reasons in REASONS.items() for reason in reasons} - provoked == {
        ("wire", "slow")  # below, as it takes long
    }


def test_one_key_is_one_fingerprint_whichever_way_it_comes(place: Place) -> None:
    """And a name that was tried is known again by whoever tries it."""
    first, second, third = (next(place.addresses) for _ in range(3))
    key = "gk_CANARY_that_goes_round"
    place.get(first, Authorization=f"Bearer {key}")
    place.get(second, X_Api_Key=key)
    with pytest.raises(InvalidStatus):
        place.listen(key=key)
    place.get(third, X_Api_Key=key + "s")
    found = {one: place.rows(f"address = '{one}'")[0]["fingerprint"] for one in (first, second, third)}
    socket_row = place.rows("kind = 'key' and route = 'security'")[-1]
    assert found[first] == found[second] == socket_row["fingerprint"] != found[third]


def test_a_request_that_is_fine_is_no_event(place: Place) -> None:
    at = next(place.addresses)
    before = [place.counted(kind, reason) for kind, reasons in REASONS.items() for reason in reasons]
    with place.client(at, Authorization=f"Bearer {KEYS['all']}") as client:
        assert client.post("/v1/models/sentiment/predict", json={"inputs": "a"}).status_code == 200
        assert client.get("/v1/models").status_code == 200
        assert client.get("/nothing").status_code == 404
        assert client.post("/v1/models/sentiment/predict", json={}).status_code in (400, 422)
    assert place.login(at, "anna", PASSWORD).status_code == 200
    place.get(next(place.addresses))  # what comes afterwards is written afterwards
    place.rows(f"address = '198.51.100.{int(at.rpartition('.')[2]) + 1}'")
    text = f"select count(*) from {place.schema}.gamma_security_events where address = '{at}'"
    assert asyncio.run(query(place.database, text)) == [(0,)]
    after = [place.counted(kind, reason) for kind, reasons in REASONS.items() for reason in reasons]
    assert sum(after) == sum(before) + 1


def test_an_address_that_anyone_can_write_is_not_believed(place: Place) -> None:
    forged = next(place.addresses)
    with httpx.Client(base_url=place.worker.url, headers={"X-Forwarded-For": forged}) as stranger:
        stranger.get("/v1/models", headers={"X-Api-Key": "gk_CANARY_forged"})
    assert (
        str(place.rows("kind = 'key' and address = '127.0.0.1' and route = 'models'")[0]["principal"]) == ""
    )
    text = f"select count(*) from {place.schema}.gamma_security_events where address = '{forged}'"
    assert asyncio.run(query(place.database, text)) == [(0,)]


def test_the_questions_of_the_docs_are_answered(place: Place) -> None:
    addresses = [next(place.addresses) for _ in range(4)]
    once = token(aud="others", sub="eve")
    for address in addresses:
        place.get(address, Authorization=f"Bearer {once}")
        place.rows(f"address = '{address}'")
    text = (Path(__file__).parents[2] / "docs/serving.md").read_text()
    logins, tokens = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    there = f"from {place.schema}.gamma_security_events"
    said, found = (
        asyncio.run(query(place.database, one.replace("from gamma_security_events", there)))
        for one in (logins, tokens)
    )
    assert said[0]["failures"] > said[-1]["failures"] >= 1
    assert max(row["names"] for row in said) > 5
    [stolen] = found
    assert (stolen["principal"], stolen["addresses"], stolen["times"]) == ("shared#eve", 4, 4)
    assert stolen["reasons"] == ["audience"]


# --- who listens ----------------------------------------------------------------------------------


def test_who_may_listen_hears_of_all_workers(place: Place) -> None:
    worker = place.worker
    worker.start(2)
    before = place.counted("key", "unknown")
    try:
        with place.listen() as heard:
            time.sleep(0.5)
            told: dict[str, Any] = {}
            addresses = [next(place.addresses) for _ in range(20)]
            with ThreadPoolExecutor(20) as pool:  # at once, each on a connection: both workers have some
                for said in pool.map(lambda at: place.get(at, X_Api_Key="gk_CANARY_heard"), addresses):
                    assert said.status_code == 401
            while set(addresses) - told.keys():
                message = json.loads(heard.recv(timeout=20))
                assert message["event"] == "security"
                told[message["address"]] = message
        assert place.counted("key", "unknown") == before + len(addresses)  # whichever worker is asked
        lines = worker.log(2)
        assert any(address in lines for address in addresses), "the other worker had none of them"
        assert any(address not in lines for address in addresses)
        one = told[addresses[0]]
        assert (one["kind"], one["reason"], one["count"], one["route"]) == ("key", "unknown", 1, "models")
        assert {*one} == {"event", *asdict(event())}
    finally:
        worker.signal(signal.SIGTERM, 2)
        worker.processes.pop(2).wait(20)
    with place.listen() as heard:  # nothing of before, and the worker that is gone hurts nobody
        time.sleep(0.5)
        last = next(place.addresses)
        place.get(last, X_Api_Key="gk_CANARY_heard")
        assert json.loads(heard.recv(timeout=20))["address"] == last


@pytest.mark.parametrize("key", ["caller", "narrow"])
def test_who_may_not_listen_is_refused(place: Place, key: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        place.listen(key=KEYS[key])
    assert refused.value.response.status_code == 403


def test_who_may_see_figures_sees_no_events(place: Place) -> None:
    with place.listen("/v1/live") as heard:
        heard.recv(timeout=20)
        place.get(next(place.addresses), X_Api_Key="gk_CANARY_unheard")
        for _ in range(4):
            said = json.loads(heard.recv(timeout=20))
            assert said["event"] == "metrics"
            assert "address" not in str(said)


# --- trouble --------------------------------------------------------------------------------------


def test_a_flood_over_http_is_bounded_and_counted(place: Place) -> None:
    address, before = next(place.addresses), place.counted("key", "unknown")
    with place.client(address) as client:
        for number in range(300):
            assert (
                client.get("/v1/models", headers={"X-Api-Key": f"gk_CANARY_{number:016}"}).status_code == 401
            )
    assert place.counted("key", "unknown") == before + 300
    place.get(next(place.addresses))  # what comes afterwards is written afterwards
    rows = place.rows(f"address = '{address}'", EACH)
    assert len(rows) <= 2 * EACH + 1  # a window may have ended in between
    assert all(row["count"] == 1 for row in rows[:EACH])
    assert place.worker.log().count(f'"address":"{address}"') - 300 <= 2 * EACH + 1  # beside the access log


def test_a_database_that_is_away_costs_no_request_and_no_event(
    place: Place, server: EmbeddedPostgres
) -> None:
    addresses = [next(place.addresses) for _ in range(5)]
    server.stop()
    try:
        for address in addresses:
            assert place.get(address, X_Api_Key="gk_CANARY_away").status_code == 401
            assert place.get(address, Authorization=f"Bearer {KEYS['all']}").status_code == 200
    finally:
        assert url_of(server.start()) == place.database
    listed = ", ".join(f"'{address}'" for address in addresses)
    assert len(place.rows(f"address in ({listed})", 5)) == 5


def test_a_head_that_never_comes_is_told(place: Place) -> None:
    place.slow.settimeout(wire.WAIT + 10)
    assert place.slow.recv(65_536).startswith(b"HTTP/1.1 400")
    assert place.rows("kind = 'wire' and reason = 'slow'")[0]["count"] == 1


def test_without_a_database_there_are_the_metric_and_the_log(tmp_path: Path) -> None:
    with Running(tmp_path, bundle({})) as worker:
        with worker.client() as client:
            client.get("/v1/models", headers={"Authorization": "Bearer gk_CANARY_0123456789"})
            page = read(client.get("/metrics").content)
        assert page['gamma_security_events_total{kind="key",reason="unknown"}'] == 1
        assert page['gamma_log_rows_dropped_total{log="security"}'] == 0
        end = time.monotonic() + 10
        while '"event":"security"' not in worker.log():
            assert time.monotonic() < end
            time.sleep(0.05)
        line = next(json.loads(one) for one in worker.log().splitlines() if '"event":"security"' in one)
    left_out = {"until", "detail", "principal"}  # a line has its time, and nothing that is empty
    assert {*line} == {"event", "level", *asdict(event())} - left_out
    assert (line["level"], line["kind"], line["reason"]) == ("warning", "key", "unknown")
    assert "CANARY" not in worker.log()


def test_what_was_only_counted_is_written_at_the_end_and_nothing_secret_is_anywhere(place: Place) -> None:
    """The last one: it ends the worker."""
    tables = ("gamma_security_events", "gamma_requests", "gamma_predictions")
    address = next(place.addresses)
    with place.client(address) as client:
        for _ in range(EACH + 25):
            client.get("/v1/models", headers={"X-Api-Key": "gk_CANARY_last"})
    with place.worker.client() as client:
        page = client.get("/metrics").text
    asked = json.dumps(_kept(place))
    place.worker.signal(signal.SIGTERM)
    place.worker.processes[1].wait(20)
    rows = place.rows(f"address = '{address}'", EACH + 1)
    assert sum(row["count"] for row in rows) == EACH + 25
    assert max(row["count"] for row in rows) > 1
    dump = str(
        [asyncio.run(query(place.database, f"select t::text from {place.schema}.{one} t")) for one in tables]
    )
    assert "mallory" in dump
    assert "mallory" in asked
    secret = {PASSWORD, TRIED, *SECRETS.values(), *KEYS.values(), *place.presented}
    words = {
        word
        for one in secret
        for word in (one, one.removeprefix("Bearer "), *one.split("."))
        if len(word) > 7
    }
    assert len(words) > 40
    for place_of, text in (("rows", dump), ("log", place.worker.log()), ("metrics", page), ("stream", asked)):
        assert not [word for word in words if word in text], place_of
        assert "CANARY" not in text, place_of


def _kept(place: Place) -> Any:
    with ThreadPoolExecutor(1) as pool:  # as `Running.ask`
        asked = control.ask(place.worker.home, 1, "security", began=0.0, after=0)
        return pool.submit(asyncio.run, asked).result()
