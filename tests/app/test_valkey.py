"""The connection to Valkey, against a real one: replies are never mixed up, and a server that is dead, silent
or late costs one time-out."""

import asyncio
import datetime as dt
import ipaddress
import logging
import random
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.app.valkey import TIMEOUT, Gone, Refused, Script, Valkey
from tests.app.server import Server, until

SLACK = 0.3  # seconds: the machine is shared
DETECTED = 1.0 + 1.2 * TIMEOUT + SLACK  # until a silent server is noticed by an idle client


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the libraries of other tests have done to logging in this process."""
    logger = logging.getLogger("gamma_orch.app.valkey")
    for one in (logger, *_above(logger)):
        monkeypatch.setattr(one, "disabled", False)
        monkeypatch.setattr(one, "propagate", True)
    monkeypatch.setattr(logging.root.manager, "disable", logging.NOTSET)
    caplog.set_level(logging.WARNING, logger.name)


def _above(logger: logging.Logger) -> Iterator[logging.Logger]:
    while logger.parent is not None:
        logger = logger.parent
        yield logger


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@asynccontextmanager
async def connected(url: str, waiting: int = 10_000) -> AsyncIterator[Valkey]:
    valkey = Valkey(url, waiting=waiting)
    await valkey.start()
    try:
        yield valkey
    finally:
        await valkey.aclose()


async def refused(reply: Awaitable[object]) -> float:
    """How long it took to be told."""
    began = time.monotonic()
    with pytest.raises(Gone):
        await reply
    return time.monotonic() - began


def test_replies(server: Server) -> None:
    async def scenario() -> None:
        async with connected(server.url) as valkey:
            assert await valkey.send("SET", "k", b"\x00\r\n\xff") == b"OK"
            assert await valkey.send("GET", "k") == b"\x00\r\n\xff"
            assert await valkey.send("GET", "none") is None
            assert await valkey.send("INCRBY", "n", 3) == 3
            await valkey.send("HSET", "h", "a", 1)
            assert await valkey.send("HGETALL", "h") == {b"a": b"1"}
            valkey.tell("LPUSH", "k", "x")  # refused, and nobody asked
            with pytest.raises(Refused, match=r"^WRONGTYPE"):
                await valkey.send("LPUSH", "k", "x")
            assert valkey.up

    asyncio.run(scenario())


def test_the_commands_of_a_tick_leave_in_one_write(server: Server) -> None:
    async def reads(valkey: Valkey) -> int:
        found = re.search(rb"total_reads_processed:(\d+)", await valkey.send("INFO", "stats"))
        assert found
        return int(found[1])

    async def scenario() -> None:
        async with connected(server.url) as valkey:

            async def one(number: int) -> None:
                assert await valkey.send("ECHO", number) == str(number).encode()

            before = await reads(valkey)
            await asyncio.gather(*(one(number) for number in range(100)))
            assert await reads(valkey) - before <= 3  # this INFO's own, and a PING

    asyncio.run(scenario())


def test_no_reply_goes_to_another(server: Server) -> None:
    fate = st.sampled_from(["wait", "cancel", "drop"])

    async def scenario(valkey: Valkey, fates: list[str], turns: int) -> None:
        waiting = [valkey.send("ECHO", number) for number in range(len(fates))]
        for _ in range(turns):  # so that some are cancelled before they leave, and some after
            await asyncio.sleep(0)
        for future, fate in zip(waiting, fates, strict=True):
            if fate == "cancel":
                future.cancel()
        for number, (future, fate) in enumerate(zip(waiting, fates, strict=True)):
            if fate == "wait":
                assert await future == str(number).encode()

    with asyncio.Runner() as runner:
        valkey = Valkey(server.url)
        runner.run(valkey.start())

        @given(st.lists(fate, min_size=1, max_size=60), st.integers(0, 3))
        def law(fates: list[str], turns: int) -> None:
            runner.run(scenario(valkey, fates, turns))

        law()
        runner.run(valkey.aclose())


def test_no_reply_goes_to_another_while_the_server_comes_and_goes(server: Server) -> None:
    answered = gone = 0

    async def one(valkey: Valkey, name: str, choice: random.Random) -> None:
        nonlocal answered, gone
        for number in range(300):
            said = f"{name}-{number}"
            try:
                async with asyncio.timeout(choice.choice([0.0005, 0.002, 5])):
                    assert await valkey.send("ECHO", said) == said.encode()
                answered += 1
            except TimeoutError:
                pass
            except Gone:
                gone += 1
                await asyncio.sleep(0.01)
            await asyncio.sleep(choice.random() * 0.005)

    async def trouble() -> None:
        for turn in range(4):
            await asyncio.sleep(0.1)
            server.freeze()
            await asyncio.sleep((0.1, 0.5)[turn % 2])  # shorter and longer than the time-out
            server.thaw()
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)

    async def scenario() -> None:
        async with connected(server.url) as valkey:
            choice = random.Random(1)
            await asyncio.gather(trouble(), *(one(valkey, str(name), choice) for name in range(20)))
            await until(lambda: valkey.up)
            assert await valkey.send("ECHO", "end") == b"end"
        assert answered > 1000
        assert gone > 20

    asyncio.run(scenario())


def test_a_server_that_is_not_there(server: Server) -> None:
    async def scenario() -> None:
        server.stop()
        async with connected(server.url) as valkey:
            assert not valkey.up
            assert await refused(valkey.send("PING")) < 0.05
            valkey.tell("SET", "a", "b")
            await asyncio.to_thread(server.start)
            await until(lambda: valkey.up, 1 + SLACK)
            assert await valkey.send("GET", "a") is None

    asyncio.run(scenario())


def test_a_server_that_is_killed(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with connected(server.url) as valkey:
            server.freeze()
            waiting = [valkey.send("PING") for _ in range(10)]
            await asyncio.sleep(0.05)
            await asyncio.to_thread(server.kill)
            assert max([await refused(one) for one in waiting]) < 0.1
            assert not valkey.up
            assert valkey.losses == 1
            await asyncio.to_thread(server.start)
            await until(lambda: valkey.up, 1 + SLACK)
            assert await valkey.send("PING") == b"PONG"
        assert [record.message for record in caplog.records] == [
            f"Valkey at {server.socket} is gone. The connection to Valkey was cut off.",
            *[record.message for record in caplog.records[1:-1]],
            f"Valkey at {server.socket} is there again.",
        ]
        assert len(caplog.records) <= 4  # not one for each try

    asyncio.run(scenario())


def test_a_server_that_hangs_costs_one_time_out(server: Server) -> None:
    async def scenario() -> None:
        async with connected(server.url) as valkey:
            server.freeze()
            took = await refused(valkey.send("PING"))
            assert TIMEOUT <= took < 1.2 * TIMEOUT + SLACK
            assert not valkey.up
            assert await refused(valkey.send("PING")) < 0.05
            await asyncio.sleep(1)  # it takes new connections, and does not answer on them either
            assert not valkey.up
            server.thaw()
            await until(lambda: valkey.up, 1 + SLACK)
            assert await valkey.send("ECHO", "x") == b"x"

    asyncio.run(scenario())


def test_a_server_that_hangs_is_noticed_though_nobody_asks(server: Server) -> None:
    async def scenario() -> None:
        async with connected(server.url) as valkey:
            server.freeze()
            await until(lambda: not valkey.up, DETECTED)

    asyncio.run(scenario())


def test_a_server_that_answers_late(server: Server) -> None:
    async def scenario() -> None:
        async with connected(server.url) as valkey, connected(server.url) as other:
            await other.send("CLIENT", "PAUSE", 2 * int(1000 * TIMEOUT), "ALL")
            late = [valkey.send("ECHO", f"late {number}") for number in range(5)]
            for one in late:
                await refused(one)
            await until(lambda: valkey.up)
            for number in range(100):
                assert await valkey.send("ECHO", number) == str(number).encode()

    asyncio.run(scenario())


def test_a_loop_that_stands_still_is_no_server_that_hangs(server: Server) -> None:
    async def scenario() -> None:
        async with connected(server.url) as valkey:
            reply = valkey.send("ECHO", "x")
            await asyncio.sleep(0)
            time.sleep(4 * TIMEOUT)  # noqa: ASYNC251 - a model that holds the loop
            assert await reply == b"x"
            assert valkey.losses == 0

    asyncio.run(scenario())


def test_no_more_wait_than_may(server: Server) -> None:
    async def scenario() -> None:
        async with connected(server.url, waiting=100) as valkey:
            replies = [valkey.send("ECHO", number) for number in range(110)]
            for number, reply in enumerate(replies[:100]):
                assert await reply == str(number).encode()
            for reply in replies[100:]:
                with pytest.raises(Gone, match="100 commands wait"):
                    await reply
            assert valkey.up
            assert await valkey.send("PING") == b"PONG"

    asyncio.run(scenario())


def test_a_script_is_known_again_after_it_was_forgotten(server: Server) -> None:
    async def scenario() -> None:
        async with connected(server.url) as valkey:
            script = Script("return {KEYS[1], ARGV[1], ARGV[2]}")
            for _ in range(2):
                assert await valkey.call(script, ["k"], 1, "b") == [b"k", b"1", b"b"]
                await valkey.send("SCRIPT", "FLUSH")
            with pytest.raises(Refused, match=r"^ERR"):
                await valkey.call(Script("return redis.call('NONSENSE')"), [])

    asyncio.run(scenario())


def test_a_user_with_a_password(caplog: pytest.LogCaptureFixture) -> None:
    # As Gamma's own server has it: nothing without a password, and nothing dangerous.
    lines = ["user default off", "user gamma on >p@ss/w:rd ~* &* +@all -@dangerous"]
    with Server(lines, b"-NOAUTH") as server:

        async def scenario() -> None:
            async with connected(f"unix://gamma:p%40ss%2Fw%3Ard@{server.socket}?db=3") as valkey:
                assert valkey.up
                ear = Ear()
                valkey.track(b"a:", ear)
                await valkey.call(Script("redis.call('SET', 'a:1', 'x')"), [])
                assert ear.take() == [b"a:1"]
                assert b"db=3" in await valkey.send("CLIENT", "INFO")
                with pytest.raises(Refused, match=r"^NOPERM"):
                    await valkey.send("FLUSHALL")
            caplog.clear()
            async with connected(f"unix://gamma:Wr0ng@{server.socket}") as valkey:
                assert not valkey.up
                await refused(valkey.send("PING"))
                await asyncio.sleep(0.5)
            (record,) = caplog.records
            assert record.message == (
                f"Valkey at {server.socket} is gone. "
                "WRONGPASS invalid username-password pair or user is disabled."
            )

        asyncio.run(scenario())


@pytest.mark.parametrize(
    "url", ["http://u:canary@host", "redis://u:can/ary@host:6379", "rediss://u:canary@h?ssl_ca_certs=/none"]
)
def test_what_is_no_url_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="cannot be used") as error:
        Valkey(url)
    assert "can" not in str(error.value).replace("cannot", "")


def test_what_is_no_valkey(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read()
            writer.close()

        async with await asyncio.start_unix_server(answer, tmp_path / "s"):
            async with connected(f"unix://{tmp_path}/s") as valkey:
                assert not valkey.up
                await refused(valkey.send("PING"))
            await asyncio.sleep(0.05)

    asyncio.run(scenario())


class Ear:
    """What it was told, a None for anything."""

    def __init__(self) -> None:
        self.heard: list[bytes | None] = []

    def __call__(self, keys: list[bytes] | None) -> None:
        self.heard += [None] if keys is None else keys

    def take(self) -> list[bytes | None]:
        heard, self.heard = self.heard, []
        return heard


def test_changes_by_others_are_heard(server: Server) -> None:
    async def scenario() -> None:
        async with connected(server.url) as other:
            valkey, ear, second = Valkey(server.url), Ear(), Ear()
            valkey.track(b"a:", ear)
            end = valkey.track(b"b:", second)
            await valkey.start()
            assert ear.take() == [None]  # made anew
            second.take()

            await valkey.send("SET", "a:1", "own")
            assert await valkey.send("GET", "a:1") == b"own"
            assert ear.take() == []

            await asyncio.gather(
                other.send("SET", "a:1", "x"), other.send("DEL", "b:9"), other.send("SET", "b:1", "x")
            )
            await other.send("SET", "c:1", "x")
            # The order of Valkey: who sees the new value has heard before that the old one is gone.
            assert await valkey.send("GET", "a:1") == b"x"
            assert (ear.take(), second.take()) == ([b"a:1"], [b"b:1"])

            await other.send("SET", "a:2", "x", "PX", 20)
            await until(lambda: ear.heard.count(b"a:2") == 2)  # written, and expired
            ear.take()

            end()
            await other.send("FLUSHALL")
            await until(lambda: ear.take() == [None])
            assert second.take() == []

            late = Ear()
            valkey.track(b"d:", late)
            await valkey.send("PING")
            await other.send("SET", "d:1", "x")
            await until(lambda: late.take() == [b"d:1"])
            assert valkey.losses == 0
            await valkey.aclose()

    asyncio.run(scenario())


def test_who_may_not_track_has_no_valkey(caplog: pytest.LogCaptureFixture) -> None:
    with Server(["user default on nopass ~* +@all -client|tracking"]) as server:

        async def scenario() -> None:
            async with connected(server.url) as valkey:
                assert valkey.up
                valkey.track(b"a:", Ear())
                await until(lambda: not valkey.up)
                for _ in range(10):
                    await asyncio.sleep(0.03)
                    await refused(valkey.send("PING"))
            (record,) = caplog.records
            assert "NOPERM" in record.message

        asyncio.run(scenario())


@pytest.mark.parametrize("how", ["kill", "freeze", "stop"])
def test_a_lost_channel_is_heard(server: Server, how: str) -> None:
    async def scenario() -> None:
        valkey, ear = Valkey(server.url), Ear()
        valkey.track(b"a:", ear)
        await valkey.start()
        ear.take()
        await asyncio.to_thread(getattr(server, how))
        took = await until(lambda: ear.heard == [None], DETECTED)
        assert not valkey.up
        assert how == "freeze" or took < 0.1
        if how == "freeze":
            server.thaw()
        else:
            await asyncio.to_thread(server.start)
        await until(lambda: valkey.up, 1 + SLACK)
        assert ear.heard == [None, None]  # and that it is there again
        await valkey.aclose()

    asyncio.run(scenario())


def test_over_tls(server: Server, tmp_path: Path) -> None:
    """Valkey has no TLS in this build, so something with TLS stands before it."""
    _certificate(tmp_path)

    async def scenario() -> None:
        async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
            writer.close()

        async def behind(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            back, forth = await asyncio.open_unix_connection(server.socket)
            await asyncio.gather(pipe(reader, forth), pipe(back, writer), return_exceptions=True)

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
        async with await asyncio.start_server(behind, "127.0.0.1", 0, ssl=context) as door:
            port = door.sockets[0].getsockname()[1]
            url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={tmp_path}/certificate.pem"
            async with connected(url) as valkey:
                assert await valkey.send("ECHO", "x" * 100_000) == b"x" * 100_000
            async with connected(f"rediss://127.0.0.1:{port}") as valkey:  # nobody vouches for it
                assert not valkey.up
            await asyncio.sleep(0.05)

    asyncio.run(scenario())


def _certificate(folder: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "valkey")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(secret)
