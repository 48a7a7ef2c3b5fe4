"""The embedded servers of an environment, without starting one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from gamma_orch.engine import embedded
from gamma_orch.targets.embedded_postgres import State


class Fake:
    """A server that is in the state its name says."""

    stopped: ClassVar[list[str]] = []

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home / "server.log"

    def state(self) -> State:
        return State(self.home.name.partition("-")[2])

    def server(self) -> Any:
        return SimpleNamespace(port=20123)

    def stop(self) -> None:
        Fake.stopped.append(self.home.name)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(embedded, "EmbeddedPostgres", Fake)
    Fake.stopped = []
    return Fake.stopped


def folders(state: Path, *names: str) -> Path:
    for name in names:
        (state / name).mkdir(parents=True)
    return state


def site(state: Path) -> Any:
    return SimpleNamespace(environment="dev", world=SimpleNamespace(targets=SimpleNamespace(state=state)))


def test_there_are_none(tmp_path: Path):
    assert embedded.servers(tmp_path / "none", "dev") == []
    assert list(embedded.stop(tmp_path, "dev")) == []
    assert list(embedded.running(site(tmp_path))) == []
    assert list(tmp_path.iterdir()) == []


def test_found_by_their_folders(tmp_path: Path):
    state = folders(tmp_path, "dev/postgres-b", "dev/postgres-a", "prod/postgres-c", "dev/secrets")
    (state / "dev/postgres-a.lock").write_text("")
    (state / "dev/postgres-gone").symlink_to(tmp_path / "nowhere")
    found = embedded.servers(state, "dev")
    assert [server.home.name for server in found] == ["postgres-a", "postgres-b"]


def test_those_that_run_are_shown(tmp_path: Path, fakes: list[str]):
    state = folders(tmp_path, "dev/postgres-running", "dev/postgres-stopped", "dev/postgres-absent")
    home = state / "dev/postgres-running"
    assert list(embedded.running(site(state))) == [
        "PostgreSQL 'running' of dev runs on 127.0.0.1:20123",
        f"  user gamma; password in {home / 'password'}; log in {home / 'server.log'}",
    ]


def test_those_that_run_are_stopped(tmp_path: Path, fakes: list[str]):
    state = folders(tmp_path, "dev/postgres-running", "dev/postgres-stopped", "prod/postgres-running")
    told = [(line, list(fakes)) for line in embedded.stop(state, "dev")]
    assert told == [
        ("Stopping PostgreSQL 'running' of dev.", []),
        ("PostgreSQL 'stopped' of dev does not run.", ["postgres-running"]),
    ]
    assert fakes == ["postgres-running"]


def test_forgetting_takes_the_folder_of_that_environment_alone(tmp_path: Path):
    state = folders(tmp_path, "dev/postgres-main/data", "dev/secrets", "prod/postgres-main")
    (state / "dev/secrets/pw").write_text("x")
    (state / "ledger.db").write_text("")
    (state / "key").write_text("")
    assert list(embedded.forget(state, "dev")) == [f"Deleted {state / 'dev'}."]
    assert sorted(path.name for path in state.iterdir()) == ["key", "ledger.db", "prod"]
    assert (state / "prod/postgres-main").is_dir()
    assert list(embedded.forget(state, "dev")) == [f"Deleted {state / 'dev'}."], "twice is once"


def test_forgetting_follows_a_server_to_where_its_data_really_is(tmp_path: Path):
    state = folders(tmp_path / "state", "dev")
    real = folders(tmp_path / "elsewhere", "postgres-main") / "postgres-main"
    (real / "data").mkdir()
    (state / "dev/postgres-main").symlink_to(real)
    list(embedded.forget(state, "dev"))
    assert not real.exists()
    assert not (state / "dev").exists()
