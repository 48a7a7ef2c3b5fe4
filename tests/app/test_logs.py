"""The log: whole lines of JSON, with no secret in them, and nobody waits for it to be read."""

import asyncio
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.app import logs
from gamma_orch.app.logs import GONE, Redactor, Writer, is_secret

ROOT = Path(__file__).parents[2]

# Each is nowhere in the output, however it came there: the canary is what is looked for.
CANARY = "CANARY7f3a9"
TEXTS = {
    "bearer": f"asked with Bearer {CANARY}.x",
    "bearer in small letters": f"bearer   {CANARY}",
    "key": f"the key gk_{CANARY} is not taken",
    "jwt": f"token eyJhbGciOi{CANARY}.eyJzdWIi{CANARY}.{CANARY}-_x is old",
    "fernet": f"sealed gAAAAABm{CANARY}_-==",
    "url": f"connect to postgresql://gamma:{CANARY}@db.example:5432/main failed",
    "url with a strange password": f"redis://:p/w@{CANARY}@cache:6379/0",
    "url with a user only": f"https://{CANARY}@git.example/x",
    "query": f"GET /v1/live?token={CANARY}&x=1",
    "api key in a query": f"/v1/models?api_key={CANARY}",
    "pair": f"password={CANARY} host=db",
    "pair with spaces": f"secret = '{CANARY} and {CANARY}'",
    "json": json.dumps({"password": CANARY, "user": "u"}),
    "json in json": json.dumps(json.dumps({"token": CANARY})),
    "repr": repr({"api_key": CANARY, "n": 1}),
    "header": f"Authorization: Basic {CANARY}",
    "cookie": f"Cookie: a=1; session={CANARY}; b={CANARY}",
    "asgi headers": repr([(b"cookie", f"session={CANARY}".encode()), (b"host", b"h")]),
    "camel": f"accessToken: {CANARY}",
}
NAMES = (
    *("password", "user_password", "Authorization", "X-Api-Key", "apiKey", "api_key", "APIKEY"),
    *("access_token", "token", "tokens", "client_secret", "clientSecret", "secrets", "Set-Cookie"),
    *("cookies", "text", "texts", "inputs", "input", "inputText", "credentials", "private_key"),
)

UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
)


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """What `configure` changes belongs to the process, and the process to pytest."""
    root, hook = logging.getLogger(), sys.excepthook
    handlers, level = root.handlers[:], root.level
    yield
    if Writer.current is not None:
        Writer.current.close()
        Writer.current = None
    root.handlers, sys.excepthook = handlers, hook
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


class Log:
    """What is written to a file."""

    def __init__(self, path: Path, **options: Any) -> None:
        self._path = path
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.writer = logs.configure(fd=fd, **options)

    def text(self) -> str:
        self.writer.close()
        return self._path.read_text()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log")


def test_a_line_has_time_level_event_and_values(log: Log) -> None:
    logs.logger().info("bundle taken", bundle="abc", models=3, took=0.5, ready=True, fault=None)
    logs.logger().debug("not told")
    (line,) = log.lines()
    assert line.pop("at").endswith("Z")
    assert line == {
        "event": "bundle taken",
        "level": "info",
        "bundle": "abc",
        "models": 3,
        "took": 0.5,
        "ready": True,
        "fault": None,
    }


def test_a_row_of_the_access_log(log: Log) -> None:
    logs.access(
        request="4b1e",
        method="POST",
        route="predict",
        model="sentiment",
        status=200,
        ms=1.25,
        principal="alice",
        address="::1",
        cache="local",
    )
    (line,) = log.lines()
    assert time.time() - _seconds(line.pop("at")) < 60
    assert line == {
        "event": "request",
        "level": "info",
        "method": "POST",
        "route": "predict",
        "model": "sentiment",
        "principal": "alice",
        "tenant": "",
        "address": "::1",
        "cache": "local",
        "request": "4b1e",
        "status": 200,
        "ms": 1.25,
    }


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_secret_in_any_string_anywhere(log: Log, text: str) -> None:
    logger = logs.logger()
    logger.info(text)
    logger.info("value", why=text)
    logger.info("nested", deep={"list": [1, {"tuple": (text, text.encode())}], "set": {text}})
    logger.info("key", why={text: 1})
    logger.info("object", why=ValueError(text), shown=_Shown(text))
    with structlog.contextvars.bound_contextvars(bound=text):
        logger.info("bound")
    logging.getLogger("uvicorn.error").warning("said %s and %r", text, {"a": text})
    logs.access(
        request="1",
        method="GET",
        route="none",
        model=text,
        status=404,
        ms=1,
        principal=text,
        address=text,
        tenant=text,
    )
    try:
        _fail(text)
    except ValueError as error:
        logger.warning("fault", exc_info=error)
        logger.exception("fault")
        logging.getLogger("uvicorn.error").exception("fault")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(text, stacklevel=1)
    written = log.text()
    assert CANARY not in written
    assert len(written.splitlines()) == 12
    assert written.count("Traceback") == 6  # each with its cause
    assert written.count(GONE) >= 20


@pytest.mark.parametrize("name", NAMES)
def test_no_value_of_what_names_a_secret(log: Log, name: str) -> None:
    logs.logger().info("said", **{name: CANARY})
    logs.logger().info("said", deep=[{"in": {name: {"more": [CANARY]}}}])
    logs.logger().info("said", deep={name.encode(): CANARY.encode()})
    assert CANARY not in log.text()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 5),
        ("tokens_in", 7),
        ("tokens", 1.5),
        ("context", "x"),
        ("secretary", "x"),
        ("key", "x"),
    ],
)
def test_what_only_sounds_like_a_secret_is_told(name: str, value: object) -> None:
    assert not is_secret(name, value)


@pytest.mark.parametrize(
    "text",
    [
        "The bundle 3fa8 was taken in 2.5 s.",
        "Uvicorn running on http://127.0.0.1:8000 (Press CTRL+C to quit)",
        "GET /v1/models?max_tokens=5 from 10.0.0.1",
        "The token has expired.",
        "mail to someone@example.com, see https://example.com/a?b=c",
    ],
)
def test_innocent_texts_stay_as_they_are(text: str) -> None:
    assert Redactor().text(text) == text


def test_secrets_that_the_worker_knows_are_found_in_any_words(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", known=[CANARY, "", "a"])
    logs.logger().info(f"a password of which nobody says so: x{CANARY}x", a=[{"b": CANARY}])
    written = log.text()
    assert CANARY not in written
    assert "a password of which nobody says so" in written


def test_the_last_words_of_a_process(tmp_path: Path) -> None:
    code = (
        "from gamma_orch.app import logs\nlogs.configure()\n"
        f"logs.logger().info('first')\nraise ValueError('postgresql://u:{CANARY}@h/d')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr == ""
    first, last = map(json.loads, done.stdout.splitlines())
    assert first["event"] == "first"
    assert last["level"] == "critical"
    assert "ValueError" in last["exception"]
    assert CANARY not in done.stdout


def test_the_server_says_everything_through_it(log: Log) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
            return
        raise ValueError(f"password={CANARY}")

    async def run() -> None:
        server = uvicorn.Server(
            uvicorn.Config(
                app, port=0, lifespan="off", log_config=None, access_log=True, ws="websockets-sansio"
            )
        )
        server.config.load()
        task = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        for upgrade in ("", UPGRADE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET /x?token={CANARY} HTTP/1.1\r\nHost: h\r\n{upgrade}\r\n".encode())
            await reader.readline()
            writer.close()
        server.should_exit = True
        await task

    asyncio.run(run())
    lines = log.lines()
    assert CANARY not in json.dumps(lines)
    assert any("Traceback" in line.get("exception", "") for line in lines)
    assert any("/x?token=" in line["event"] for line in lines if line["logger"] == "uvicorn.access")
    assert any("WebSocket /x?token=" in line["event"] for line in lines if line["logger"] == "uvicorn.error")


def test_values_that_json_does_not_know(log: Log) -> None:
    loop: list[Any] = []
    loop.append(loop)
    logs.logger().info(
        "odd \ud800",
        big=2**80,
        nan=float("nan"),
        raw=b"\xff\x00",
        path=Path("/x"),
        broken=_Broken(),
        loop=loop,
        keys={1: 2, None: 3},
        half="\udcff",
    )
    # Not by a logger: pytest listens to those too, and raises.
    logs._Handler().handle(logging.LogRecord("x", logging.ERROR, "x.py", 1, "%d is", ("no number",), None))
    odd, wrong = log.lines()
    assert odd["big"] == str(2**80)
    assert odd["raw"] == "\ufffd\x00"
    assert odd["broken"] == "[_Broken]"
    assert odd["keys"] == {"1": 2, "None": 3}
    assert "cut" in json.dumps(odd["loop"])
    assert "whose values do not fit" in wrong["event"]


def test_a_line_has_bounds(log: Log) -> None:
    deep: Any = CANARY
    for _ in range(1000):
        deep = {"a": deep}
    logs.logger().info("deep", deep=deep)
    logs.logger().info("long", long="x" * 10_000_000, words=f"secret={CANARY} " * 1_000_000)
    logs.logger().info("wide", wide=list(range(1_000_000)))
    logs.logger().info("broad", broad={f"{n}": "x" * 100 for n in range(100_000)})
    written = log.text()
    assert CANARY not in written
    for line in written.splitlines():
        assert len(line) < 3 * logs.LINE
        json.loads(line)


@pytest.mark.parametrize(
    "text", ["://", "bearer ", "eyJ", "password=", "token'", "://a:", "cookie", "\\", "gk_"]
)
def test_no_text_takes_long(text: str) -> None:
    redactor = Redactor()
    began = time.process_time()
    redactor.text((text * 100_000)[:100_000])
    redactor.text("token" + text * 100_000)
    assert time.process_time() - began < 1


@given(st.text(max_size=40), st.sampled_from(["Bearer {}", "gk_{}", "x://u:{}@h", "password={}"]), st.text())
def test_a_secret_is_found_between_whatever_stands_around_it(before: str, shape: str, after: str) -> None:
    text = f"{before} {shape.format(CANARY)} {after}"
    assert CANARY not in Redactor().text(text)


def test_nobody_waits_for_a_reader_and_what_is_lost_is_counted() -> None:
    reading, writing = os.pipe()
    lost: list[int] = []
    writer = logs.configure(fd=writing, waiting=1000, dropped=lost.append)
    longest = 0.0
    for number in range(20_000):
        began = time.perf_counter()
        logs.logger().info("line", number=number)
        longest = max(longest, time.perf_counter() - began)
    assert longest < 1
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: _read(reading, got.append))
    reader.start()
    _until(lambda: len(writer._lines) == 0)
    logs.logger().info("after")
    writer.close()
    os.close(writing)
    reader.join(5)
    lines = [json.loads(line) for line in b"".join(got).splitlines()]
    assert lines[-1]["event"] == "after"
    assert sum(lost) > 10_000
    assert len(lines) + sum(lost) == 20_001


def test_a_reader_that_is_gone_is_survived() -> None:
    reading, writing = os.pipe()
    lost: list[int] = []
    writer = logs.configure(fd=writing, dropped=lost.append)
    os.close(reading)
    logs.logger().info("nobody")
    _until(lambda: lost == [1])
    logs.logger().info("hears")
    writer.close()
    assert sum(lost) == 2
    os.close(writing)


def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    writer = logs.configure(fd=writing)
    for _ in range(3000):
        logs.logger().info("x" * 100)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: _read(reading, got.append))
    reader.start()
    _until(lambda: len(writer._lines) == 0)
    writer.close()
    os.close(writing)
    reader.join(5)
    assert len(b"".join(got).splitlines()) == 3000


def test_workers_that_share_a_pipe_do_not_mix_their_lines() -> None:
    code = (
        "import sys; from gamma_orch.app import logs; logs.configure()\n"
        "for n in range(3000): logs.logger().info(sys.argv[1] * 300, n=n)\n"
    )
    reading, writing = os.pipe()
    workers = [
        subprocess.Popen([sys.executable, "-c", code, letter], cwd=ROOT, stdout=writing) for letter in "abc"
    ]
    os.close(writing)
    time.sleep(1)  # the pipe is full now, which is when writes are broken in two
    got: list[bytes] = []
    _read(reading, got.append)
    assert [worker.wait(10) for worker in workers] == [0, 0, 0]
    lines = [json.loads(line) for line in b"".join(got).splitlines()]
    assert len(lines) == 9000
    assert all(len(set(line["event"])) == 1 for line in lines)
    for letter in "abc":
        assert [line["n"] for line in lines if line["event"][0] == letter] == list(range(3000))


def test_it_may_go_to_another_place(tmp_path: Path) -> None:
    before = Log(tmp_path / "before")
    logger = logs.logger()
    logger.info("one")
    after = Log(tmp_path / "after", known=[CANARY])
    logger.info("two", x=CANARY)
    logging.getLogger("x").info("three")
    assert [line["event"] for line in before.lines()] == ["one"]
    assert [line["event"] for line in after.lines()] == ["two", "three"]
    assert CANARY not in after.text()


def test_new_secrets_are_known_at_once_and_nothing_waits_for_a_reader() -> None:
    reading, writing = os.pipe()
    lost: list[int] = []
    writer = logs.configure(fd=writing, waiting=10)
    _access(CANARY)
    for _ in range(1000):
        logs.logger().info("x" * 1000)  # more than the pipe takes
    time.sleep(0.2)
    began = time.perf_counter()
    assert logs.configure(fd=writing, known=[CANARY], dropped=lost.append) is writer
    assert time.perf_counter() - began < logs.LAST / 2
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: _read(reading, got.append))
    reader.start()
    _until(lambda: len(writer._lines) == 0)
    got.clear()
    _access(CANARY)
    writer.close()
    os.close(writing)
    reader.join(5)
    # What was written before may be read after: the last line is what counts.
    *_, last = (line for line in b"".join(got).splitlines() if b"predict" in line)
    assert CANARY.encode() not in last


def _access(principal: str) -> None:
    logs.access(
        request="1",
        method="GET",
        route="predict",
        model="m",
        status=200,
        ms=1,
        principal=principal,
        address="::1",
    )


class _Shown:
    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return f"<shown {self._text}>"


class _Broken:
    def __repr__(self) -> str:
        raise RuntimeError


def _fail(text: str) -> None:
    try:
        {"": ""}[text]
    except KeyError as error:
        raise ValueError(text) from error


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _read(fd: int, take: Callable[[bytes], None]) -> None:
    while piece := os.read(fd, 65_536):
        take(piece)
    os.close(fd)


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_line_of_the_access_log_fits_into_a_pipe_in_one_piece() -> None:
    writer = Writer(os.open(os.devnull, os.O_WRONLY), Redactor(), lambda rows: None, 10)
    row = writer._row(time.time(), "x" * 36, 200, 1.0, ("\u20ac" * 400,) * 7)
    writer.close()
    assert len(row) < select.PIPE_BUF
