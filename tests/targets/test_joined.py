"""`Joined`: one read for all who ask before it begins, and never an old one."""

import asyncio
from collections.abc import Callable

import pytest

from gamma_orch.targets.joined import Joined


class Source:
    def __init__(self) -> None:
        self.reads = 0
        self.value = 1
        self.pause = asyncio.Event()
        self.reached = asyncio.Event()

    async def read(self, begun: Callable[[], None]) -> int:
        self.reads += 1
        begun()
        seen = self.value
        self.reached.set()
        await self.pause.wait()
        return seen


async def test_callers_of_one_moment_share_a_read():
    joined, source = Joined(), Source()
    source.pause.set()
    assert await asyncio.gather(*(joined.ask("k", source.read) for _ in range(5))) == [1] * 5
    assert source.reads == 1


async def test_other_keys_are_other_reads():
    joined, source = Joined(), Source()
    source.pause.set()
    await asyncio.gather(joined.ask("a", source.read), joined.ask("b", source.read))
    assert source.reads == 2


async def test_nobody_joins_a_read_that_has_begun():
    joined, source = Joined(), Source()
    first = asyncio.create_task(joined.ask("k", source.read))
    await source.reached.wait()
    source.value = 2  # an effect, after the first read looked
    second = asyncio.create_task(joined.ask("k", source.read))
    await asyncio.sleep(0.01)
    source.pause.set()
    assert (await first, await second) == (1, 2)


async def test_an_error_reaches_everybody_and_is_not_kept():
    joined = Joined()
    broken = True

    async def read(begun: Callable[[], None]) -> str:
        if broken:
            raise ValueError("no")
        return "yes"

    answers = await asyncio.gather(*(joined.ask("k", read) for _ in range(2)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ValueError, ValueError]
    broken = False
    assert await joined.ask("k", read) == "yes"


async def test_who_gives_up_takes_the_answer_from_nobody():
    joined, source = Joined(), Source()
    first, second = (asyncio.create_task(joined.ask("k", source.read)) for _ in range(2))
    await source.reached.wait()
    first.cancel()
    source.pause.set()
    assert await second == 1
    with pytest.raises(asyncio.CancelledError):
        await first
