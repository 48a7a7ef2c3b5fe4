import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
dg = pytest.importorskip("dagster")


@pytest.fixture(autouse=True)
def _things(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("GAMMA_") and name not in ("GAMMA_PROFILE", "GAMMA_FUZZ", "GAMMA_SCREENSHOTS"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GAMMA_PLUGINS", "gamma_orch.testing.thing")
    monkeypatch.setenv("GAMMA_ACTOR", "tester")


@pytest.fixture
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with dg.instance_for_test(temp_dir=str(tmp_path_factory.mktemp("dagster"))) as found:
        yield found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "project"
