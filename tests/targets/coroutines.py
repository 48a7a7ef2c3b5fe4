"""Test functions that are coroutines: each gets an event loop of its own.

An argument that has `aclose` (a fixture) is closed in the same loop, where its connections live.
A conftest takes part with `from tests.targets.coroutines import pytest_pyfunc_call`.
"""

import asyncio
import inspect

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    given = {name: pyfuncitem.funcargs[name] for name in names}

    async def run() -> None:
        try:
            await function(**given)
        finally:
            for value in pyfuncitem.funcargs.values():
                if hasattr(value, "aclose"):
                    await value.aclose()

    asyncio.run(run())
    return True
