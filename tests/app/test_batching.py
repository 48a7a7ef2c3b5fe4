"""Lines before a model: who is answered with what, in which company, and what happens to the rest."""

import asyncio
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.app.batching import AHEAD, PADDING, READING, RUN, Batcher, together
from gamma_orch.app.errors import Internal, Late, Problem, Unavailable
from gamma_orch.app.line import Line
from gamma_orch.app.writing import Piece, Writer
from gamma_orch.runtimes.generator import Writing

FAR = 60.0


class Model:
    """Answers a text with its upper case; fails a batch that has a bad one."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()

    def read(self, text: str) -> str:
        self.threads.add(threading.get_ident())
        if text.startswith("unreadable"):
            raise ValueError(text)
        return text

    def run(self, texts: Sequence[str]) -> list[str]:
        self.threads.add(threading.get_ident())
        self.batches.append(list(texts))
        self.gate.wait(FAR)
        time.sleep(self.seconds * (1 + len(texts) / 8))
        if any(text.startswith("bad") for text in texts):
            raise RuntimeError("secret: " + "".join(texts))
        return [text.upper() for text in texts]

    def batcher(self, batch: int = 4, queue: int = 1000) -> Batcher[str, str, str]:
        return Batcher(self.read, self.run, batch, queue, "the-model")


def soon(seconds: float = FAR) -> float:
    return time.monotonic() + seconds


@asynccontextmanager
async def closing(line: Line[Any]) -> Any:
    try:
        yield line
    finally:
        await line.aclose(0.0)
        assert not line._thread.is_alive()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - what is waited for happens in a thread
            await asyncio.sleep(0.001)


def test_five_hundred_at_once_with_every_misfortune():
    """Each gets its own answer, or its own misfortune; nothing that nobody waits for is run."""
    draw = random.Random(4)
    model = Model(0.001)
    seen: Counter[str] = Counter()

    async def one(batcher: Batcher[str, str, str], number: int) -> None:
        await asyncio.sleep(draw.random() * 0.3)
        fate = draw.choice(["", "", "", "bad", "unreadable", "late", "cancel", "cancel"])
        texts = [
            f"{fate}{number}-{part}" + "x" * draw.randrange(60) for part in range(draw.choice([1, 1, 1, 5]))
        ]
        if fate in ("bad", "unreadable"):
            texts[1:] = [f"good{number}"] * (len(texts) - 1)
        asked = asyncio.ensure_future(batcher.answer(texts, soon(0.02 if fate == "late" else FAR)))
        if fate == "cancel":
            await asyncio.sleep(draw.random() * 0.05)
            asked.cancel()
        try:
            assert await asked == [text.upper() for text in texts]
            seen[fate or "answered"] += 1
        except Problem as problem:
            seen[type(problem).__name__] += 1
            right = {"bad": Internal, "unreadable": Internal, "late": Late}
            assert isinstance(problem, right[fate])  # noqa: PT017
            assert problem.__cause__ is None or str(number) in str(problem.__cause__)  # noqa: PT017
            assert "secret" not in problem.detail  # noqa: PT017
        except asyncio.CancelledError:
            assert fate == "cancel"
            seen["cancelled"] += 1

    async def all_of_them() -> None:
        batcher = model.batcher(batch=8, queue=5000)
        async with closing(batcher):
            await asyncio.gather(*(one(batcher, number) for number in range(500)))
            await until(lambda: batcher.waiting == 0)

    asyncio.run(all_of_them())
    assert max(map(len, model.batches)) <= 8
    assert len(model.threads) == 1
    assert seen["answered"] > 100
    assert seen["Internal"] > 50
    assert seen["cancelled"] > 20
    assert seen["Late"] + seen["late"] > 20


def test_what_came_while_a_batch_ran_is_the_next_batch():
    model = Model()

    async def run() -> None:
        async with closing(batcher := model.batcher(batch=16)):
            model.gate.clear()
            asked = [asyncio.ensure_future(batcher.answer(["first"], soon()))]
            await until(lambda: model.batches == [["first"]])
            asked += [asyncio.ensure_future(batcher.answer([f"t{n}"], soon())) for n in range(10)]
            await until(lambda: batcher.waiting == 10)
            model.gate.set()
            await asyncio.gather(*asked)

    asyncio.run(run())
    assert [len(batch) for batch in model.batches] == [1, 10]


@pytest.mark.parametrize("crowded", [False, True])
def test_on_a_crowded_worker_a_few_texts_wait_for_some_more(crowded: bool):
    """Where answers wait for the loop anyway, and nowhere else; and who closes it meanwhile does not wait."""

    async def run() -> None:
        model = Model()
        async with closing(model.batcher()) as batcher:

            async def busy() -> None:
                while True:
                    time.sleep(0.002)  # noqa: ASYNC251 - the loop that is at other requests
                    await asyncio.sleep(0)

            other = asyncio.create_task(busy()) if crowded else None
            for _ in range(20):
                assert await batcher.answer(["a"], soon()) == ["A"]
            model.batches.clear()
            waiting = []
            for text in ("b", "c"):
                waiting.append(asyncio.create_task(batcher.answer([text], soon())))
                await asyncio.sleep(0)
                began = time.monotonic()
                while not crowded and len(model.batches) < len(waiting):
                    assert time.monotonic() - began < 5
                    await asyncio.sleep(0)
            assert await asyncio.gather(*waiting) == [["B"], ["C"]]
            assert model.batches == ([["b", "c"]] if crowded else [["b"], ["c"]])
            last = asyncio.create_task(batcher.answer(["d"], soon()))
            await asyncio.sleep(0)
            if other is not None:
                other.cancel()
        with pytest.raises(Unavailable):
            await last

    asyncio.run(run())


def test_never_more_wait_than_the_queue_holds():
    model = Model()

    async def run() -> None:
        async with closing(batcher := model.batcher(batch=2, queue=5)):
            model.gate.clear()
            asked = [asyncio.ensure_future(batcher.answer(["a", "b"], soon()))]
            await until(lambda: bool(model.batches))
            asked += [asyncio.ensure_future(batcher.answer(["c"] * 4, soon()))]
            await until(lambda: batcher.waiting == 4)
            with pytest.raises(Unavailable) as refused:
                await batcher.answer(["d", "e"], soon())
            assert refused.value.headers["Retry-After"] == "1"
            asked += [asyncio.ensure_future(batcher.answer(["d"], soon()))]
            await until(lambda: batcher.waiting == 5)
            with pytest.raises(Unavailable):
                await batcher.answer(["e"], soon())
            asked[1].cancel()
            model.gate.set()  # the places of who went away are free as soon as the thread looks
            assert await asked[2] == ["D"]
            assert await batcher.answer(["e"] * 5, soon()) == ["E"] * 5

    asyncio.run(run())
    assert not any("c" in batch for batch in model.batches)


def test_when_to_come_again_is_by_the_pace():
    model = Model(0.05)

    async def run() -> None:
        async with closing(batcher := model.batcher(batch=1, queue=50)):
            for _ in range(3):
                await batcher.answer(["a"], soon())
            asked = [asyncio.ensure_future(batcher.answer(["a"], soon())) for _ in range(50)]
            await until(lambda: batcher.waiting > 48)
            with pytest.raises(Unavailable) as refused:
                await batcher.answer(["a"] * 3, soon())
            assert 2 <= int(refused.value.headers["Retry-After"]) <= 60  # 50 at 56 ms, on a busy machine
            for one in asked:
                one.cancel()

    asyncio.run(run())


def test_it_is_late_at_the_deadline_whether_it_waits_or_runs():
    model = Model()

    async def run() -> None:
        async with closing(batcher := model.batcher(batch=1)):
            model.gate.clear()
            began = time.monotonic()
            asked = [asyncio.ensure_future(batcher.answer([text], soon(0.1))) for text in "ab"]
            for one in asked:
                with pytest.raises(Late):
                    await one
            assert 0.09 < time.monotonic() - began < 5
            with pytest.raises(Late):
                await batcher.answer(["c"], soon(-1))
            model.gate.set()
            assert await batcher.answer(["d"], soon()) == ["D"]

    asyncio.run(run())
    assert model.batches == [["a"], ["d"]]


def test_one_bad_item_fails_alone():
    model = Model()

    async def run() -> None:
        async with closing(batcher := model.batcher(batch=8)):
            model.gate.clear()
            first = asyncio.ensure_future(batcher.answer(["first"], soon()))
            await until(lambda: bool(model.batches))
            texts = ["good", "bad", "fine", "bad too"]
            asked = [asyncio.ensure_future(batcher.answer([text], soon())) for text in texts]
            await until(lambda: batcher.waiting == 4)
            model.gate.set()
            await first
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert found[::2] == [["GOOD"], ["FINE"]]
            assert [type(one) for one in found[1::2]] == [Internal, Internal]

    asyncio.run(run())


@pytest.mark.parametrize("error", [StopIteration(), SystemExit(), KeyboardInterrupt(), Late("x")])
def test_whatever_a_model_raises_the_line_goes_on(error: BaseException):
    def run(texts: list[str]) -> list[str]:
        if texts == ["bad"]:
            raise error
        return texts[: len(texts) - texts.count("lost")]

    async def ask() -> None:
        async with closing(batcher := Batcher(str, run, 1, 10, "m")):
            for text in ("bad", "lost"):
                with pytest.raises(Problem):
                    await batcher.answer([text], soon())
            assert await batcher.answer(["good"], soon()) == ["good"]
            assert await batcher.answer([], soon()) == []

    asyncio.run(ask())


def test_draining_loses_nothing():
    model = Model(0.002)

    async def run() -> None:
        batcher = model.batcher(batch=4)
        asked = [asyncio.ensure_future(batcher.answer([f"t{n}"], soon())) for n in range(100)]
        await asyncio.sleep(0.01)
        closed = asyncio.ensure_future(batcher.aclose(FAR))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="taken away"):
            await batcher.answer(["new"], soon())
        assert [await one for one in asked] == [[f"T{n}"] for n in range(100)]
        await closed
        assert not batcher._thread.is_alive()
        await batcher.aclose(0)  # again is nothing

    asyncio.run(run())


def test_what_does_not_drain_in_time_is_told():
    model = Model()

    async def run() -> None:
        batcher = model.batcher(batch=1)
        model.gate.clear()
        asked = [asyncio.ensure_future(batcher.answer([text], soon())) for text in "ab"]
        await until(lambda: bool(model.batches))
        closed = asyncio.ensure_future(batcher.aclose(0.05))
        for one in asked:
            with pytest.raises(Unavailable):
                await one
        model.gate.set()
        await closed

    asyncio.run(run())
    assert model.batches == [["a"]]


def test_a_long_request_is_not_read_at_one_stretch():
    """Reading is slow here, and another's text runs in between."""
    order: list[str] = []

    def read(text: str) -> str:
        time.sleep(0.002)
        order.append(f"read {text}")
        return text

    def run(texts: list[str]) -> list[str]:
        order.append("run")
        return texts

    async def ask() -> None:
        async with closing(batcher := Batcher(read, run, 2, 1000, "m")):
            await batcher.answer(["x"] * 40, soon())

    asyncio.run(ask())
    assert order.index("run") < 10
    assert order.count("run") >= 20  # a busy machine reads fewer in between


@given(st.lists(st.integers(0, 300), min_size=1, max_size=60), st.integers(1, 20))
def test_a_batch_is_the_oldest_and_those_like_it(lengths: list[int], most: int):
    chosen = together(list(enumerate(lengths)), most, lambda item: item[1])
    assert 1 <= len(chosen) <= most
    assert chosen[0] == (0, lengths[0])
    assert len({number for number, _ in chosen}) == len(chosen)
    taken = [length for _, length in chosen]
    assert max(taken) * len(taken) <= sum(taken) * (1 + PADDING) + RUN or len(taken) == 1
    left = [item for item in enumerate(lengths) if item not in chosen]
    farthest = max(abs(length - lengths[0]) for length in taken)
    assert all(abs(length - lengths[0]) >= farthest for _, length in left)


@given(st.lists(st.integers(1, 200), max_size=200), st.integers(1, 16))
def test_nobody_starves(lengths: list[int], most: int):
    """Whoever is first is in the next batch, so the one at place n is in the n-th at the latest."""
    pool = list(enumerate(lengths))
    for _ in range(len(lengths)):
        if not pool:
            break
        oldest, chosen = pool[0], together(pool, most, lambda item: item[1])
        assert oldest in chosen
        pool = [item for item in pool if item not in chosen]
    assert not pool
    assert AHEAD > 1


def test_what_cannot_run_together_is_in_no_batch_together():
    """Each batch is of one group, that of the one that waits longest, and full where there are enough."""
    model = Model()
    names = [f"{'abc'[number % 3]} {number:02}" for number in range(60)]

    async def run() -> None:
        by_letter = Batcher(model.read, model.run, 4, 1000, "m", group=lambda text: sys.intern(text[0]))
        async with closing(by_letter):
            model.gate.clear()
            held = asyncio.ensure_future(by_letter.answer(["a held"], soon()))
            await until(lambda: len(model.batches) == 1)
            asked = [asyncio.ensure_future(by_letter.answer([name], soon())) for name in names]
            await until(lambda: by_letter.waiting == 60)
            model.gate.set()
            assert [(await one)[0] for one in asked] == [name.upper() for name in names]
            await held

    asyncio.run(run())
    batches = model.batches[1:]
    assert all(len({text[0] for text in batch}) == 1 for batch in batches)
    assert [len(batch) for batch in batches] == [4] * 15
    left = list(names)
    for batch in batches:
        assert left[0] in batch
        left = [name for name in left if name not in batch]


# --- writing --------------------------------------------------------------------------------------


class Words(Writing):
    """Writes the numbers from 0, each a piece."""

    def __init__(self, script: "Script", name: str, count: int) -> None:
        self._script, self._name, self._count = script, name, count
        self.read = len(name)
        self.ids = []
        self.finish = ""

    @property
    def text(self) -> str:
        return "".join(f"{number} " for number in self.ids)

    def __next__(self) -> str:
        self._script.step(self._name)
        if self._name.startswith("bad") and len(self.ids) == 2:
            raise RuntimeError(self._name)
        if len(self.ids) == self._count:
            self.finish = "length"
            raise StopIteration
        self.ids.append(len(self.ids))
        return f"{self.ids[-1]} "


class Script:
    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.steps: list[str] = []
        self.started: list[str] = []
        self.most = 0  # at the same time
        self.gate = threading.Event()
        self.gate.set()

    def start(self, asked: tuple[str, int]) -> Writing:
        self.started.append(asked[0])
        return Words(self, *asked)

    def step(self, name: str) -> None:
        self.gate.wait(FAR)
        time.sleep(self.seconds)
        self.steps.append(name)

    def writer(self, running: int = 4, queue: int = 1000) -> Writer[tuple[str, int]]:
        return Writer(self.start, running, queue, "the-model")


def numbers(count: int) -> str:
    return "".join(f"{number} " for number in range(count))


async def read(pieces: Any, pause: float = 0.0) -> tuple[str, Writing]:
    text, end = "", None
    async for piece in pieces:
        assert isinstance(piece, Piece)
        assert end is None
        text, end = text + piece.text, piece.end
        await asyncio.sleep(pause)
    assert end is not None
    return text, end


def test_texts_are_written_in_turns():
    script = Script()

    async def run() -> None:
        async with closing(writer := script.writer(running=3)):
            script.gate.clear()
            asked = [asyncio.ensure_future(writer.whole((name, 5), soon())) for name in "abcd"]
            await until(lambda: writer.waiting == 1)
            script.gate.set()
            found = await asyncio.gather(*asked)
            assert [one.text for one in found] == [numbers(5)] * 4
            assert {one.finish for one in found} == {"length"}

    asyncio.run(run())
    assert script.steps == [*"abc"] * 6 + ["d"] * 6


def test_three_hundred_texts_with_every_misfortune():
    draw = random.Random(7)
    script = Script(0.0002)
    seen: Counter[str] = Counter()

    async def one(writer: Writer[tuple[str, int]], number: int) -> None:
        await asyncio.sleep(draw.random() * 0.3)
        fate = draw.choice(["", "", "", "bad", "late", "leave", "cancel", "slow"])
        count = draw.randrange(30)
        asked = (f"{fate}{number}", count)
        deadline = soon(0.02 if fate == "late" else FAR)
        try:
            if draw.random() < 0.3 and fate != "leave":
                assert (await writer.whole(asked, deadline)).text == numbers(count)
            elif fate == "leave":
                async for _ in writer.pieces(asked, deadline):
                    break
            else:
                work = asyncio.ensure_future(read(writer.pieces(asked, deadline), 0.01 * (fate == "slow")))
                if fate == "cancel":
                    await asyncio.sleep(draw.random() * 0.05)
                    work.cancel()
                text, end = await work
                assert text == end.text == numbers(count)
            seen["answered"] += 1
        except Late:
            assert fate == "late"
            seen["late"] += 1
        except Internal as problem:
            assert fate == "bad"
            assert str(problem.__cause__) == asked[0]  # noqa: PT017
            seen["bad"] += 1
        except asyncio.CancelledError:
            assert fate == "cancel"
            seen["cancelled"] += 1

    async def all_of_them() -> None:
        async with closing(writer := script.writer(running=8, queue=5000)):
            await asyncio.gather(*(one(writer, number) for number in range(300)))
            await until(lambda: not writer.waiting and not writer._running)

    asyncio.run(all_of_them())
    assert seen["answered"] > 100
    assert min(seen["late"], seen["bad"], seen["cancelled"]) > 5


def test_a_slow_reader_makes_nobody_wait():
    script = Script()

    async def run() -> None:
        async with closing(writer := script.writer(running=2)):
            slow = writer.pieces(("slow", 500), soon())
            first = await anext(slow)
            quick = await asyncio.gather(*(read(writer.pieces((f"q{n}", 50), soon())) for n in range(20)))
            assert [text for text, _ in quick] == [numbers(50)] * 20
            await until(lambda: script.steps.count("slow") == 501)
            rest, end = await read(slow)  # what was written meanwhile is there at once
            assert first.text + rest == numbers(500)
            assert len(end.ids) == 500

    asyncio.run(run())


@pytest.mark.parametrize("how", ["break", "close", "cancel", "late"])
def test_a_text_that_nobody_reads_is_written_no_further(how: str):
    script = Script(0.001)

    async def run() -> None:
        async with closing(writer := script.writer(running=1)):
            pieces = writer.pieces(("left", 100_000), soon(0.1 if how == "late" else FAR))
            if how == "cancel":
                work = asyncio.ensure_future(read(pieces))
                await until(lambda: len(script.steps) > 3)
                work.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await work
            elif how == "late":
                with pytest.raises(Late):
                    await read(pieces)
            else:
                async for _ in pieces:
                    break
                if how == "close":
                    await pieces.aclose()  # type: ignore[attr-defined]
            del pieces
            assert (await writer.whole(("next", 3), soon())).text == numbers(3)
            steps = len(script.steps)
            await asyncio.sleep(0.02)
            assert len(script.steps) == steps

    asyncio.run(run())


def test_writers_are_full_and_drain_too():
    script = Script(0.0005)

    async def run() -> None:
        writer = script.writer(running=2, queue=3)
        script.gate.clear()
        asked = [asyncio.ensure_future(writer.whole((f"r{n}", 20), soon())) for n in range(2)]
        await until(lambda: len(writer._running) + 1 == 2 and writer.waiting == 0)
        asked += [asyncio.ensure_future(writer.whole((f"w{n}", 20), soon())) for n in range(3)]
        await until(lambda: writer.waiting == 3)
        with pytest.raises(Unavailable):
            await writer.whole(("more", 1), soon())
        with pytest.raises(Unavailable):
            await anext(writer.pieces(("more", 1), soon()))
        script.gate.set()
        await writer.aclose(FAR)
        assert [one.result().text for one in asked] == [numbers(20)] * 5

    asyncio.run(run())


@pytest.fixture(autouse=True)
def _no_noise(recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """asyncio says in its log what was never looked at."""
    yield
    assert "never retrieved" not in caplog.text


def test_texts_that_take_long_to_read_are_all_answered():
    """None comes after them that would wake the thread."""

    class Slow(Model):
        def read(self, text: str) -> str:
            time.sleep(2 * READING)
            return super().read(text)

    async def run() -> None:
        async with closing(Slow().batcher()) as batcher:
            for count in (1, 2, 5):
                texts = [f"{count}-{number}" for number in range(count)]
                assert await batcher.answer(texts, soon(20)) == texts

    asyncio.run(run())
