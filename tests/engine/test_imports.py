"""The YAML of what exists, from what its provider says of it."""

from typing import Any

import pytest

from gamma_orch.core.provider import GammaError, Permanent
from gamma_orch.engine.imports import describe
from tests.engine.bench import Bench, item, kind


class Describing:
    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, str]] = []

    async def describe(self, server: str, database: str, name: str) -> Any:
        self.asked.append((server, database, name))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def provider(bench: Bench, answer: Any) -> Describing:
    there = Describing(answer)
    bench.kinds["Item"] = kind(lambda targets: there)  # type: ignore[arg-type, return-value]
    return there


@pytest.mark.parametrize(
    ("what", "asked"),
    [
        ("shop", ("main", "shop", "shop")),
        ("shop/orders", ("main", "shop", "orders")),
        ("other/shop/orders", ("other", "shop", "orders")),
    ],
)
async def test_what_is_asked_and_written(bench: Bench, what: str, asked: tuple[str, str, str]):
    there = provider(bench, {"value": "1"})
    assert await describe(bench.site(), item("a"), what) == {
        "apiVersion": "gamma/v1",
        "kind": "Item",
        "metadata": {"name": "a"},
        "spec": {"value": "1"},
    }
    assert there.asked == [asked]


@pytest.mark.parametrize("what", ["", "/", "shop/", "/orders", "a//b", "a/b/c/d"])
async def test_what_names_nothing(bench: Bench, what: str):
    there = provider(bench, {})
    with pytest.raises(GammaError, match="names no object"):
        await describe(bench.site(), item("a"), what)
    assert there.asked == []


async def test_what_is_not_there(bench: Bench):
    provider(bench, None)
    with pytest.raises(GammaError, match=r"^There is no Item 'orders' in database 'shop' on 'main'\.$"):
        await describe(bench.site(), item("a"), "shop/orders")


async def test_what_cannot_be_described(bench: Bench):
    provider(bench, Permanent("The server is away."))
    with pytest.raises(GammaError, match=r"^The server is away\.$"):
        await describe(bench.site(), item("a"), "shop")


async def test_a_kind_that_describes_nothing(bench: Bench):
    with pytest.raises(GammaError, match="cannot describe what exists"):
        await describe(bench.site(), item("a"), "shop")


async def test_a_kind_that_there_is_not(bench: Bench):
    bench.kinds.clear()
    with pytest.raises(GammaError, match="There is no kind Item"):
        await describe(bench.site(), item("a"), "shop")
