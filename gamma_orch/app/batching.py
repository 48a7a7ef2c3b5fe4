"""Continuous batching, for models that answer in one run: what came while the last batch ran is the next
batch. There is no timer, but on a crowded worker: where answers have to wait for the event loop, which is at
other requests, a few texts wait for some more, in a run with which each costs less.

Called by `serving`, one Batcher for each version of a model. Texts are read (made into tokens) in the thread
that runs the model, not in the event loop: 64 texts of 20,000 characters take 0.4 s, and every connection
would wait for them. What always holds, beside what holds for every line (`line`):

- A batch has at most `batch` items: the one that waits longest, and then those nearest to it in length, as
  long as padding them costs less than a run of their own. So nobody starves, whatever else comes.
- What cannot run together, as texts for two adapters, is in no batch together.
- Where a batch fails, its items are run one by one, and only what fails alone has failed.
"""

import time
from collections.abc import Callable, Sequence, Sized
from typing import Any, Generic, TypeVar

from gamma_orch.app import line

Raw = TypeVar("Raw")
Read = TypeVar("Read", bound=Sized)
Result = TypeVar("Result")
Row = TypeVar("Row")

# A batch is as wide as its longest row. Measured on a MiniLM in INT8, one thread: a run costs as much as 11
# tokens before its first; rows of 16 to 32 tokens cost a third less each where 16 run together, and from 64
# tokens on nothing less. So padding soon costs more than a run of its own. 64 callers at once with
# texts of 134 tokens (median): 22 ms CPU each in the order in which they came, 15 with this; of 10 tokens:
# 4.2 and 1.8.
PADDING = 0.1
RUN = 16  # tokens that a run costs beside its own
AHEAD = 8  # batches that are read ahead, to find rows of like length among
READING = 0.005  # seconds of reading between two runs, at most
# Of texts of 24 tokens four in a run cost a quarter less each than alone.
FEW = 4
PATIENCE = 4.0  # times as long as answers wait for the loop
LONGEST = 0.01  # seconds
CROWDED = 0.0005  # seconds: a loop that is no later has nothing else to do


class _Request(line.Request):
    __slots__ = ("left", "results")

    def __init__(self, until: float, count: int) -> None:
        super().__init__(until)
        self.results: list[Any] = [None] * count
        self.left = count


class _Item(line.Item):
    __slots__ = ("error", "place", "raw", "read", "request", "result")

    def __init__(self, request: _Request, place: int, raw: Any) -> None:
        self.request = request
        self.place = place
        self.raw = raw
        self.read: Any = None
        self.result: Any = None
        self.error: BaseException | None = None

    @property
    def over(self) -> bool:
        return self.request.over


class Batcher(line.Line[_Item], Generic[Raw, Read, Result]):
    def __init__(
        self,
        read: Callable[[Raw], Read],
        run: Callable[[list[Read]], Sequence[Result]],
        batch: int,
        queue: int,
        name: str,
        heard: Callable[[Sequence[float]], object] = lambda waited: None,
        group: Callable[[Read], object] = lambda read: None,
    ) -> None:
        """`read` and `run` are called in the thread alone, `run` with what `read` gave; its len is its length
        in tokens. `heard` is told in the loop of each batch: the seconds that each text has waited. Only what
        has the same object for its `group` runs together."""
        super().__init__(queue, name)
        self._heard = heard
        self._group = group
        self._read_one = read
        self._run_all = run
        self._batch = batch
        self._pool: list[_Item] = []  # what is read, in the order in which it came
        self._late = 0.0  # seconds that answers wait for the loop; written by its thread
        self._thread.start()

    async def answer(self, raws: Sequence[Raw], until: float) -> list[Result]:
        """One result for each. `until`: of time.monotonic(). Raises Unavailable, Late, or what the model
        raised, as a Problem."""
        if not raws:
            return []
        request = _Request(until, len(raws))
        items = (_Item(request, place, raw) for place, raw in enumerate(raws))
        with self._asking(request, items, len(raws)):
            results: list[Result] = await request.future
            return results

    def _work(self) -> None:
        # What waits may be more than was read: a text that takes long to read ends the reading.
        while self._collect(block=not self._pool and not self._waiting) and self._gathered():
            self._read()
            if batch := self._next():
                self._run(batch)

    def _gathered(self) -> bool:
        """Wait for some more, where that is worth it. As `_collect`."""
        if self._late <= CROWDED or self._pool or len(self._waiting) >= FEW:
            return True
        time.sleep(min(PATIENCE * self._late, LONGEST))
        return self._collect(block=False)

    def _read(self) -> None:
        stop = time.monotonic() + READING
        while self._waiting and len(self._pool) < AHEAD * self._batch:
            if self._pool and time.monotonic() > stop:
                return
            item = self._waiting.popleft()
            try:
                item.read = self._read_one(item.raw)
            except BaseException as error:  # noqa: BLE001 - a panic of a library in Rust is no Exception
                item.error = error
                self._left += 1
                self._tell(_settle, [item])
            else:
                self._pool.append(item)

    def _next(self) -> list[_Item]:
        """The next batch; it is out of the pool, and so is what nobody waits for."""
        live = [item for item in self._pool if not item.over]
        self._left += len(self._pool) - len(live)
        groups = [self._group(item.read) for item in live]
        near = [item for item, group in zip(live, groups, strict=True) if group is groups[0]]
        batch = together(near, self._batch, lambda item: len(item.read))
        self._left += len(batch)
        taken = set(map(id, batch))
        self._pool = [item for item in live if id(item) not in taken]
        return batch

    def _run(self, items: list[_Item]) -> None:
        began = time.monotonic()
        self._tell(self._heard, [began - item.request.since for item in items])
        try:
            results = self._run_all([item.read for item in items])
            for item, result in zip(items, results, strict=True):
                item.result = result
        except BaseException as error:  # noqa: BLE001 - as above
            if len(items) > 1:
                for item in items:
                    if not item.over:
                        self._run([item])
                return
            items[0].error = error
        ended = time.monotonic()
        self._measured((ended - began) / len(items))
        self._tell(self._settled, items, ended)

    def _settled(self, items: list[_Item], ended: float) -> None:
        self._late += line.SMOOTH * (time.monotonic() - ended - self._late)
        _settle(items)


def together(items: Sequence[Row], most: int, length: Callable[[Row], int]) -> list[Row]:
    """The first and those to be run with it, at most `most`."""
    if not items:
        return []
    first, *others = items
    near = length(first)
    others.sort(key=lambda item: abs(length(item) - near))  # stable: of two as near, the older
    chosen, longest, tokens = [first], near, near
    for item in others[: most - 1]:
        longest, tokens = max(longest, length(item)), tokens + length(item)
        if longest * (len(chosen) + 1) > tokens * (1 + PADDING) + RUN:
            break
        chosen.append(item)
    return chosen


def _settle(items: list[_Item]) -> None:
    """In the loop's thread: the results go to who asked."""
    for item in items:
        request = item.request
        if item.error is not None:
            request.fail(line.problem(item.error))
            continue
        request.results[item.place] = item.result
        request.left -= 1
        if not request.left and not request.future.done():
            request.future.set_result(request.results)
