"""Texts that are written at the same time by one model: each gets a token in turn.

Called by `serving`, one Writer for each version of a model that generates. One thread goes round the texts
that are being written; a new one is begun between two tokens. What always holds, beside what holds for every
line (`line`):

- At most `running` texts are being written; each keeps the model's memory of it.
- A text of which nobody waits for the rest is written no further than the token of that moment.
- A reader that is slow makes nobody wait, itself neither: what it has not taken is kept for it, at most all
  that its text may become, and comes as one piece.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gamma_orch.app import line
from gamma_orch.runtimes.generator import Writing

Asked = TypeVar("Asked")


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    end: Writing | None = None  # the last piece has it: what was written, and why it ended


class _Text(line.Item):
    __slots__ = ("asked", "news", "pieces", "request", "writing")

    def __init__(self, asked: Any, until: float, read: bool) -> None:
        self.asked = asked
        self.request = line.Request(until)
        self.pieces: list[str] | None = [] if read else None  # None: only the whole is wanted
        self.news = asyncio.Event()
        self.request.future.add_done_callback(lambda future: self.news.set())
        self.writing: Writing | None = None  # the thread's, until it has ended

    @property
    def over(self) -> bool:
        return self.request.over

    def add(self, piece: str) -> None:
        assert self.pieces is not None
        self.pieces.append(piece)
        self.news.set()

    def taken(self) -> str:
        assert self.pieces is not None
        found = "".join(self.pieces)
        self.pieces.clear()
        return found

    def end(self, writing: Writing) -> None:
        if not self.request.future.done():
            self.request.future.set_result(writing)


class Writer(line.Line[_Text], Generic[Asked]):
    def __init__(self, start: Callable[[Asked], Writing], running: int, queue: int, name: str) -> None:
        """`start` is called in the thread alone."""
        super().__init__(queue, name)
        self._start = start
        self._together = running
        self._running: deque[_Text] = deque()
        self._finished = 0.0  # when the last text was
        self._thread.start()

    async def whole(self, asked: Asked, until: float) -> Writing:
        """When it has ended. `until`: of time.monotonic(). Raises Unavailable, Late, or what the model
        raised, as a Problem."""
        text = _Text(asked, until, read=False)
        with self._asking(text.request, [text], 1):
            written: Writing = await text.request.future
            return written

    async def pieces(self, asked: Asked, until: float) -> AsyncIterator[Piece]:
        """As it is written; raises as `whole` does, with the first piece or with a later one."""
        text = _Text(asked, until, read=True)
        with self._asking(text.request, [text], 1):
            while not text.request.future.done():
                await text.news.wait()
                text.news.clear()
                if not text.request.future.done() and (found := text.taken()):
                    yield Piece(found)
            written: Writing = await text.request.future
            yield Piece(text.taken(), written)

    def _work(self) -> None:
        while self._collect(block=not self._running and not self._waiting):
            while self._waiting and len(self._running) < self._together:
                self._running.append(self._waiting.popleft())
                self._left += 1
            if self._running:
                self._write(self._running.popleft())

    def _write(self, text: _Text) -> None:
        """The next token of one text."""
        if text.over:
            text.writing = None  # the model's memory of it goes with it
            return
        try:
            if text.writing is None:
                text.writing = self._start(text.asked)
            piece = next(text.writing, None)
        except BaseException as error:  # noqa: BLE001 - a panic of a library in Rust is no Exception
            text.writing = None
            self._tell(text.request.fail, line.problem(error))
            return
        if piece is None:
            self._tell(text.end, text.writing)
            self._pass()
            return
        self._running.append(text)
        if piece and text.pieces is not None:
            self._tell(text.add, piece)

    def _pass(self) -> None:
        """A text is finished, and one that waits may begin."""
        now = time.monotonic()
        if self._running:  # else it did nothing in between, which is no pace
            self._measured(now - self._finished)
        self._finished = now
