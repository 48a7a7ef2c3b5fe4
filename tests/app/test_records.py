"""The request log on a real PostgreSQL: what arrives, what is lost and counted, and what an outage costs."""

import asyncio
import hashlib
import ipaddress
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from gamma_orch.app import records as module
from gamma_orch.app.bundle import Log
from gamma_orch.app.records import Prediction, Record, Records
from gamma_orch.targets.embedded_postgres import EmbeddedPostgres, Server
from tests.targets.folders import open_folder

pytestmark = pytest.mark.postgres

SOON = {"requests": True, "every": 0.05}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with open_folder() as path:
        embedded = EmbeddedPostgres(path / "dev" / "postgres-main")
        embedded.start()
        yield embedded
        embedded.destroy()


@pytest.fixture
def schema() -> str:
    return f"s{uuid.uuid4().hex[:12]}"


@pytest.fixture
def url(server: EmbeddedPostgres) -> str:
    return url_of(server.start())


@pytest.fixture
def nobody() -> str:
    """Where no server listens."""
    return "postgresql://gamma:hunter2@127.0.0.1:9/postgres"


def url_of(at: Server, user: str = "", password: str = "") -> str:
    return f"postgresql://{user or at.user}:{password or at.password}@{at.host}:{at.port}/postgres"


async def query(url: str, text: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(text))
    finally:
        await connection.close()


async def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.02)


HOSTILE = "o'hara\"); drop table gamma_requests; -- \\\n\t%s $1 {0}"  # a value is a value, whatever is in it


def record(**more: Any) -> Record:
    return Record(**{"request": str(uuid.uuid4()), "service": "shop", "route": "predict", "status": 200,
                     "seconds": 0.0125, **more})  # fmt: skip


def test_every_column_arrives(url: str, schema: str) -> None:
    one = record(
        model="sentiment",
        digest="ab" * 32,
        principal=HOSTILE,
        tenant=HOSTILE,
        address="2001:db8::7",
        cache="local",
        tokens_in=7,
        tokens_out=1,
    )

    async def run() -> list[Any]:
        kept = Records(Log(**SOON), url, schema=schema)
        kept.add(one)
        kept.add(record(address="unix:", status=503))
        await kept.aclose()
        assert kept.dropped == 0
        return await query(url, f"select * from {schema}.gamma_requests order by status")

    first, second = asyncio.run(run())
    row = dict(first)
    at = row.pop("at")
    assert at.tzinfo is not None
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)
    assert row == {
        "request": uuid.UUID(one.request),
        "service": "shop",
        "route": "predict",
        "model": "sentiment",
        "digest": "ab" * 32,
        "principal": HOSTILE,
        "tenant": HOSTILE,
        "address": ipaddress.ip_address("2001:db8::7"),
        "status": 200,
        "milliseconds": 12.5,
        "cache": "local",
        "tokens_in": 7,
        "tokens_out": 1,
    }
    assert second["address"] is None


def test_predictions_are_digests_or_sealed_and_never_plain(url: str, schema: str) -> None:
    said = Prediction("the given", "the answer")

    async def run() -> list[Any]:
        digests = Records(Log(predictions="digests"), url, schema=schema)
        texts = Records(Log(predictions="texts"), url, lambda text: text[::-1].encode(), schema=schema)
        for kept in (digests, texts):
            kept.add(record(), said)
            kept.add(record())  # no prediction: and requests are not wanted
            await kept.aclose()
        assert await query(url, f"select * from {schema}.gamma_requests") == []
        return await query(
            url,
            "select input_sha256, answer_sha256, input_sealed, answer_sealed "
            f"from {schema}.gamma_predictions order by at",
        )

    digests, texts = asyncio.run(run())
    sha = [hashlib.sha256(text.encode()).digest() for text in said]
    assert tuple(digests) == (*sha, None, None)
    assert tuple(texts) == (None, None, b"nevig eht", b"rewsna eht")


def test_texts_without_a_seal_are_refused(nobody: str) -> None:
    with pytest.raises(ValueError, match="no key to seal them with"):
        Records(Log(predictions="texts"), nobody)


def test_what_is_not_wanted_is_not_kept(nobody: str) -> None:
    async def run() -> None:
        for kept in (Records(Log(), nobody), Records(Log(requests=True), None)):
            kept.add(record(), Prediction("a", "b"))
            assert kept.waiting == 0
            await kept.aclose()
            assert kept.dropped == 0

    asyncio.run(run())


def test_a_full_batch_does_not_wait_for_its_time(url: str, schema: str) -> None:
    async def run() -> None:
        kept = Records(Log(requests=True, batch=10, every=3600), url, schema=schema)
        for _ in range(25):
            kept.add(record())
        await until(lambda: kept.waiting == 0)
        await kept.aclose()
        assert await query(url, f"select count(*) from {schema}.gamma_requests") == [(25,)]

    asyncio.run(run())


@pytest.mark.parametrize("rows", [33, 3333])
def test_an_orderly_close_loses_nothing(url: str, schema: str, rows: int) -> None:
    async def run() -> None:
        kept = Records(Log(requests=True, batch=100, every=3600), url, schema=schema)
        for _ in range(rows):
            kept.add(record())
        await kept.aclose()
        assert (kept.waiting, kept.dropped) == (0, 0)
        kept.add(record())
        assert kept.dropped == 1  # after its end
        assert await query(url, f"select count(*) from {schema}.gamma_requests") == [(rows,)]

    asyncio.run(run())


def test_without_a_database_rows_wait_within_bounds_and_the_rest_is_counted(nobody: str) -> None:
    told: list[tuple[str, int]] = []

    async def run() -> float:
        log = Log(requests=True, batch=10, every=0.01, waiting=100)
        kept = Records(log, nobody, dropped=lambda kind, rows: told.append((kind, rows)))
        for _ in range(130):
            kept.add(record())
        await asyncio.sleep(0.3)
        assert (kept.waiting, kept.dropped) == (100, 30)
        began = time.monotonic()
        await kept.aclose(limit=0.5)
        assert (kept.waiting, kept.dropped) == (0, 130)
        return time.monotonic() - began

    assert asyncio.run(run()) < 3
    assert sum(rows for _, rows in told) == 130
    assert {kind for kind, _ in told} == {"requests"}


def test_texts_that_wait_have_a_bound_in_characters(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TEXTS", 100)

    async def run() -> None:
        kept = Records(Log(requests=True, predictions="texts"), nobody, str.encode)
        for _ in range(5):
            kept.add(record(), Prediction("x" * 30, "y" * 10))
        assert (kept.waiting, kept.dropped) == (5, 3)  # the requests stay, and two of the texts
        await kept.aclose(limit=0)

    asyncio.run(run())


def test_texts_that_are_written_make_room_for_others(
    url: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TEXTS", 100)

    async def run() -> None:
        kept = Records(Log(predictions="texts", every=0.01), url, str.encode, schema=schema)
        for _ in range(3):
            for _ in range(2):
                kept.add(record(), Prediction("x" * 30, "y" * 10))
            await until(lambda: kept.waiting == 0)
        await kept.aclose()
        assert kept.dropped == 0

    asyncio.run(run())


def test_rows_that_come_in_an_outage_do_not_hurry_the_next_try(
    nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    async def refuse(*_: object, **__: object) -> None:
        nonlocal tries
        tries += 1
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncpg, "connect", refuse)

    async def run() -> None:
        kept = Records(Log(requests=True, batch=1, every=0.01), nobody)
        for _ in range(50):
            kept.add(record())
            await asyncio.sleep(0.02)
        await kept.aclose(limit=0)

    asyncio.run(run())
    assert 1 <= tries <= 3


def test_a_database_that_goes_and_comes_back_costs_nothing(server: EmbeddedPostgres, schema: str) -> None:
    url = url_of(server.start())
    sent = [record(status=number) for number in range(300)]

    async def run() -> None:
        kept = Records(Log(batch=20, **SOON), url, schema=schema)
        for one in sent[:100]:
            kept.add(one)
        await until(lambda: kept.waiting == 0)
        await asyncio.to_thread(server.stop)
        for one in sent[100:200]:
            kept.add(one)
        await asyncio.sleep(0.3)
        assert kept.waiting == 100
        at = await asyncio.to_thread(server.start)
        assert url_of(at) == url
        for one in sent[200:]:
            kept.add(one)
        await until(lambda: kept.waiting == 0)
        await kept.aclose()
        assert kept.dropped == 0
        rows = await query(url, f"select status from {schema}.gamma_requests order by 1")
        assert [row[0] for row in rows] == list(range(300))

    asyncio.run(run())


def test_a_row_that_is_not_taken_keeps_no_other_waiting(url: str, schema: str) -> None:
    def seal(text: str) -> bytes:
        return text.encode()  # which takes no half of a surrogate pair

    async def run() -> None:
        kept = Records(Log(predictions="texts", **SOON), url, seal, schema=schema)
        kept.add(record(principal="with\0nul \ud800", status=1), Prediction("\ud800", "b"))
        kept.add(record(request="no uuid", status=2))
        kept.add(record(tokens_in=2**40, status=3))
        kept.add(record(status=4), Prediction("good", "answer"))
        await until(lambda: kept.waiting == 0)
        assert kept.dropped == 3
        await kept.aclose()
        rows = await query(url, f"select status, principal from {schema}.gamma_requests order by 1")
        assert [tuple(row) for row in rows] == [(1, "withnul ?"), (4, "")]
        texts = await query(url, f"select input_sealed from {schema}.gamma_predictions")
        assert [row[0] for row in texts] == [b"good"]

    asyncio.run(run())


def test_workers_that_start_at_once_make_the_tables_once(url: str, schema: str) -> None:
    async def run() -> None:
        many = [Records(Log(**SOON), url, schema=schema) for _ in range(8)]
        for kept in many:
            kept.add(record())
        with capture_logs() as said:
            await asyncio.gather(*(kept.aclose() for kept in many))
        assert said == []
        assert [kept.dropped for kept in many] == [0] * 8
        assert await query(url, f"select count(*) from {schema}.gamma_requests") == [(8,)]

    asyncio.run(run())


def test_a_role_that_may_make_nothing_writes_where_the_tables_are(
    server: EmbeddedPostgres, url: str, schema: str
) -> None:
    tables = f"{schema}.gamma_requests, {schema}.gamma_predictions"

    async def run() -> None:
        kept = Records(Log(**SOON), url, schema=schema)
        kept.add(record())
        await kept.aclose()
        for text in (
            f"create role {schema} login password 'modest'",
            f"grant usage on schema {schema} to {schema}",
            f"grant insert, select on {tables} to {schema}",
        ):
            await query(url, text)
        modest = Records(Log(**SOON), url_of(server.server(), schema, "modest"), schema=schema)
        modest.add(record())
        await modest.aclose()
        assert modest.dropped == 0
        assert await query(url, f"select count(*) from {schema}.gamma_requests") == [(2,)]

    asyncio.run(run())


def test_a_strange_name_of_a_schema_is_quoted(url: str) -> None:
    schema = 'odd "name"; drop'

    async def run() -> None:
        kept = Records(Log(**SOON), url, schema=schema)
        kept.add(record())
        await kept.aclose()
        assert kept.dropped == 0
        assert await query(url, 'select count(*) from "odd ""name""; drop".gamma_requests') == [(1,)]

    asyncio.run(run())
