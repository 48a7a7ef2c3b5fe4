from collections.abc import Iterator
from pathlib import Path

import pytest

from gamma_orch.targets.embedded_postgres import EmbeddedPostgres
from tests.targets.coroutines import pytest_pyfunc_call
from tests.targets.folders import open_folder

__all__ = ["pytest_pyfunc_call"]


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as path:
        yield path


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A server that was never started, and is destroyed whatever happens."""
    embedded = EmbeddedPostgres(folder / "dev" / "postgres-main")
    yield embedded
    embedded.destroy()


@pytest.fixture(scope="module")
def running() -> Iterator[EmbeddedPostgres]:
    """A server that tests only read, or leave as they found it."""
    with open_folder() as path:
        embedded = EmbeddedPostgres(path / "dev" / "postgres-main")
        embedded.start()
        yield embedded
        embedded.destroy()
