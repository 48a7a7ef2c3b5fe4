"""A bench for each test, on a ledger whose tables are there already: making them takes longer than
most tests."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gamma_orch.engine import execute
from gamma_orch.store.database import Database
from tests.engine.bench import Bench
from tests.targets.coroutines import pytest_pyfunc_call  # noqa: F401 - a hook: tests may be coroutines
from tests.targets.folders import open_folder


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's settings comes in, and nobody waits before trying again."""
    for name in list(os.environ):
        if name.startswith("GAMMA_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(execute, "FIRST_WAIT", 0.0)
    # The tests say of a single read what it gives; one of them asks for more.
    monkeypatch.setattr(execute, "READS", 1)


@pytest.fixture(scope="session")
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    database = Database(f"sqlite:///{path}")
    with database.transaction():
        pass
    database.close()
    return path


@pytest.fixture
def bench(empty_ledger: Path) -> Iterator[Bench]:
    with open_folder() as folder:  # in memory: a commit need not wait for a disk here
        shutil.copy(empty_ledger, folder / "ledger.db")
        database = Database(f"sqlite:///{folder}/ledger.db")
        yield Bench(folder, database)
        database.close()
