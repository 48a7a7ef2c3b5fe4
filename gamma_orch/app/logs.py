"""What a worker says: JSON lines on standard output, with no secret in them and never waiting for a reader.

A worker calls `configure` first. From then on everything goes one way: `logger()` (structlog), `access` (one
row for each request, on the hot path), Python's `logging` (uvicorn's own loggers among it) and the last words
of an exception that nobody caught. Always:

- What names a secret is not written (`SECRET`: password, token, cookie, text, ...), nor what looks like one
  in any string at any depth: bearer tokens, keys, JWTs, Fernet tokens, the user and password of a URL,
  `password=...`, and the secrets that the worker knows (`known`). Tracebacks are text before that is done.
- The caller never waits: lines are put into a queue, and a thread of their own writes all there are, at once,
  every 50 ms. Where nobody reads, the queue fills, and further lines are counted and dropped.
- A line has a bound in depth and length.
"""

import atexit
import json
import logging
import os
import re
import select
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, ClassVar

import orjson
import structlog

EVERY = 0.05  # seconds between two writes
WAITING = 20_000  # lines that wait, at most
LAST = 1.0  # seconds that the end of a process waits for its reader
DEPTH = 6
STRING = 16_384  # characters of one string, at most
LINE = 32_768  # and of one line, about
NAME = 256  # and of a value in a row of the access log
PIECE = 1_000_000  # bytes of one write, at most

GONE = "[redacted]"
SECRET = re.compile(
    r"(?:^|[^a-z])(?:authorization|pass(?:word|wd|phrase)?|pwd|secrets?|token|cookies?|credentials?|"
    r"api[^a-z]?keys?|private[^a-z]?key|texts?|inputs?)(?:[^a-z]|$)"
)
COUNTED = re.compile(r"(?:^|[^a-z])tokens(?:[^a-z]|$)")  # a secret unless it is a number

_TOKENS = re.compile(
    r"\b[Bb][Ee][Aa][Rr][Ee][Rr]\s+[^\s\"',;]+"
    r"|gk_[\w.~+/=-]+"
    r"|eyJ[\w-]{5,}(?:\.[\w-]*)*"
    r"|gAAAA[\w=-]{5,}"
)
# Of `scheme://user:password@host`. The bounds keep a hostile text from costing its length squared.
_URL = re.compile(r"://(?:[^\s/@\"'<>]{1,256}|[^\s/@:\"'<>]{0,256}:[^\s\"'<>]{0,256})@")
_TO = r"(?:[\\\"']{0,4}\s{0,4}[:=]|[\"'],)\s{0,4}b?\\{0,2}"  # from a name to its value, in many notations
_QUOTED = r"\"[^\"\r\n]*\"?|'[^'\r\n]*'?"
_HEADER = re.compile(rf"((?:authorization|cookie){_TO})(?:{_QUOTED}|[^\"'\r\n][^\r\n]*)", re.IGNORECASE)
_PAIR = re.compile(
    rf"((?:password|passwd|pwd|passphrase|secret|token|api[-_]?key){_TO})(?:{_QUOTED}|[^\s\"'&;,)\]}}]+)",
    re.IGNORECASE,
)
# Where none of these is in a text, in small letters, no pattern can be: looking for them is quick.
_HINTS = (
    *("bearer", "gk_", "eyj", "gaaaa", "://", "authorization", "cookie"),
    *("password", "passwd", "pwd", "passphrase", "secret", "token", "key"),
)
_READ = 65_536  # characters of a string that are looked at

ROW = ("method", "route", "model", "principal", "tenant", "address", "cache")  # the names in a row

Event = MutableMapping[str, Any]
Row = tuple[float, str, int, float, tuple[str, ...]]  # when, request, status, ms, names


class Redactor:
    """Takes the secrets out of what shall be written; what comes out is plain JSON."""

    def __init__(self, known: Collection[str] = ()) -> None:
        """`known`: secrets by their bytes. One of under 6 characters would be found in every word."""
        self._known = tuple(sorted((one for one in known if len(one) >= 6), key=len, reverse=True))

    def text(self, text: str) -> str:
        if len(text) > _READ:
            # Cut where a space is: half of a token would not be known for one.
            kept = text[:_READ].rsplit(None, 1)
            text = kept[0] if len(kept) == 2 else f"[{len(text):,} characters]"
        for one in self._known:
            text = text.replace(one, GONE)
        small = text.lower()
        if any(hint in small for hint in _HINTS):
            text = _HEADER.sub(rf"\1{GONE}", text)
            text = _TOKENS.sub(GONE, text)
            text = _URL.sub(f"://{GONE}@", text)
            text = _PAIR.sub(rf"\1{GONE}", text)
        if len(text) > STRING:
            half = STRING // 2
            text = f"{text[:half]} [{len(text) - STRING:,} characters] {text[-half:]}"
        return text

    def event(self, event: Mapping[str, Any]) -> dict[str, Any]:
        plain = _Walk(self).value(event, 0)
        assert isinstance(plain, dict)
        return plain


class _Walk:
    """Of one event, with what is left of the length that it may have."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._left = LINE

    def value(self, value: object, depth: int) -> object:
        self._left -= 8
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            return value if abs(value) < 2**63 else self._text(str(value))
        if isinstance(value, str):
            return self._text(value)
        if self._left <= 0 or depth >= DEPTH:
            return "[cut]"
        if isinstance(value, Mapping):
            return dict(self._items(value, depth))
        if isinstance(value, list | tuple | set | frozenset | deque):
            return list(self._elements(value, depth))
        if isinstance(value, bytes | bytearray):
            return self._text(value.decode("utf-8", "replace"))
        try:
            return self._text(str(value) if isinstance(value, datetime | BaseException) else repr(value))
        except Exception:  # noqa: BLE001 - somebody else's __repr__ must not lose the line
            return f"[{type(value).__name__}]"

    def _items(self, mapping: Mapping[Any, Any], depth: int) -> Iterator[tuple[str, object]]:
        for key, value in mapping.items():
            if self._left <= 0:
                yield "cut", True
                return
            name = self._text(key if isinstance(key, str) else str(self.value(key, depth)))
            yield name, GONE if is_secret(name, value) else self.value(value, depth + 1)

    def _elements(self, values: Collection[object], depth: int) -> Iterator[object]:
        for value in values:
            if self._left <= 0:
                yield "[cut]"
                return
            yield self.value(value, depth + 1)

    def _text(self, text: str) -> str:
        if self._left <= 0:
            return "[cut]"
        text = self._redactor.text(text)
        self._left -= len(text)
        return text


def is_secret(name: str, value: object) -> bool:
    """Whether what this names may not be written. `max_tokens: 5` may, `tokens: [...]` may not."""
    kind = _kind(name[:NAME])
    return kind == "secret" or (kind == "counted" and not isinstance(value, int | float | None))


@lru_cache(maxsize=4096)
def _kind(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return "secret" if SECRET.search(words) else "counted" if COUNTED.search(words) else ""


class Writer:
    """The queue and its thread. `add` is called by any thread and never waits."""

    current: ClassVar["Writer | None"] = None

    def __init__(self, fd: int, redactor: Redactor, dropped: Callable[[int], None], waiting: int) -> None:
        """`dropped` is told, in any thread, how many lines there was no room for."""
        self.fd, self._most = fd, waiting
        self._lines: deque[bytes | Row] = deque()
        self.change(redactor, dropped)
        # Several workers may write to one pipe: what is longer than this they would mix.
        self._piece = select.PIPE_BUF if stat.S_ISFIFO(os.fstat(fd).st_mode) else PIECE
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gamma-log", daemon=True)
        self._thread.start()

    def change(self, redactor: Redactor, dropped: Callable[[int], None]) -> None:
        self.redactor, self._dropped = redactor, dropped
        self._named = lru_cache(maxsize=4096)(self._clean)

    def add(self, line: bytes | Row) -> None:
        if len(self._lines) < self._most:
            self._lines.append(line)
        else:
            self._dropped(1)

    def close(self) -> None:
        """Write what waits, within `LAST` seconds."""
        self._ending.set()
        self._thread.join(LAST)

    def _run(self) -> None:
        while not self._ending.wait(EVERY):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        piece = bytearray()
        for _ in range(len(self._lines)):  # those that are there now: more may come meanwhile
            line = self._lines.popleft()
            encoded = line if isinstance(line, bytes) else self._row(*line)
            if len(piece) + len(encoded) > self._piece:
                self._write(piece)
                piece = bytearray()
            piece += encoded
        self._write(piece)

    def _write(self, piece: bytearray) -> None:
        left = memoryview(piece)
        while left:
            try:
                left = left[os.write(self.fd, left) :]
            except BlockingIOError:  # whoever gave us the descriptor made it so
                select.select((), (self.fd,), ())
            except OSError:  # nobody reads any more, or the disk is full
                self._dropped(piece.count(b"\n"))
                return

    def _row(self, at: float, request: str, status: int, ms: float, names: tuple[str, ...]) -> bytes:
        plain: dict[str, Any] = {"at": datetime.fromtimestamp(at, UTC), "event": "request", "level": "info"}
        plain |= self._named(names)
        plain["request"], plain["status"], plain["ms"] = request, status, ms
        return _encoded(plain)

    def _clean(self, names: tuple[str, ...]) -> dict[str, str]:
        """By far the most rows have names that a row had before."""
        short = (one if len(one) <= NAME else f"[{len(one):,} characters]" for one in names)
        return {name: self.redactor.text(one) for name, one in zip(ROW, short, strict=True)}


def _encoded(event: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)
    except TypeError:  # half of a surrogate pair, which json writes as an escape
        return json.dumps(event, default=str).encode() + b"\n"


def configure(
    level: int = logging.INFO,
    fd: int = 1,
    known: Collection[str] = (),
    dropped: Callable[[int], None] = lambda rows: None,
    waiting: int = WAITING,
) -> Writer:
    """Everything goes to this descriptor from now on. Called again for the same one, it changes `known` and
    `dropped`, and nothing else."""
    before, redactor = Writer.current, Redactor(known)
    if before is not None and before.fd == fd:
        before.change(redactor, dropped)  # and not closed: that waits for the reader
        return before
    writer = Writer.current = Writer(fd, redactor, dropped, waiting)
    if before is not None:
        atexit.unregister(before.close)
        before.close()
    atexit.register(writer.close)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _line,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Lines,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_Handler()]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    return writer


def logger() -> Any:
    """A structlog logger: `logger().info("what happened", key=value)`."""
    return structlog.get_logger()


def access(
    *,
    request: str,
    method: str,
    route: str,
    model: str,
    status: int,
    ms: float,
    principal: str,
    address: str,
    cache: str = "",
    tenant: str = "",
) -> None:
    """One request was answered. `request` is its id, which we made, and is not looked into."""
    if (writer := Writer.current) is not None:
        names = (method, route, model, principal, tenant, address, cache)
        writer.add((time.time(), request, status, ms, names))


class _Lines:
    """Where structlog's chain ends."""

    def msg(self, line: bytes) -> None:
        if (writer := Writer.current) is not None:
            writer.add(line)

    debug = info = warning = error = critical = exception = fatal = log = msg


def _line(_logger: object, _method: str, event: Event) -> bytes:
    redactor = Writer.current.redactor if Writer.current is not None else Redactor()
    return _encoded({"at": datetime.now(UTC), **redactor.event(event)})


class _Handler(logging.Handler):
    """Python's own logging, as the same lines."""

    def emit(self, record: logging.LogRecord) -> None:
        event: Event = {"level": record.levelname.lower(), "logger": record.name}
        try:
            event["event"] = record.getMessage()
        except Exception:  # noqa: BLE001 - a log call must not break what called it
            event["event"] = f"A message whose values do not fit it, from {record.pathname}:{record.lineno}."
        if record.exc_info:
            event["exception"] = logging.Formatter().formatException(record.exc_info)
        _Lines().msg(_line(None, "", event))


def _uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("gamma").critical("The worker ends by an error.", exc_info=(kind, error, traceback))
