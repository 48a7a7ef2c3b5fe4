"""The generated instance: what Dagster makes of it, its storage on PostgreSQL, its pools."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from gamma_orch.orchestration import location
from gamma_orch.orchestration.instance import STORAGE, instance, storage_url, write_instance
from gamma_orch.spec.environment import EnvironmentSpec
from gamma_orch.targets.embedded_postgres import EmbeddedPostgres
from tests.cli.gamma import folder
from tests.orchestration.projects import key, project, reconcile, thing


def test_it_is_one_that_dagster_takes(root: Path) -> None:
    project(root, thing("a"))
    home = write_instance(root)
    with dg.DagsterInstance.from_config(str(home)) as found:
        assert not found.telemetry_enabled
        assert not found.nux_enabled
        assert found.run_monitoring_enabled
    locations = yaml.safe_load((home / "workspace.yaml").read_text())["load_from"]
    assert [one["python_file"]["location_name"] for one in locations] == ["dev"]


def test_no_password_is_written_down(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE, "postgres://gamma:canary-77@db.internal/dagster")
    settings = instance({"dev": EnvironmentSpec()}, storage=True)
    assert settings["storage"]["postgres"]["postgres_url"] == {"env": "GAMMA_DAGSTER_STORAGE_URL"}
    assert "canary" not in yaml.safe_dump(settings)
    assert storage_url() == {
        "GAMMA_DAGSTER_STORAGE_URL": "postgresql+psycopg2://gamma:canary-77@db.internal/dagster"
    }


@pytest.fixture
def server() -> Iterator[str]:
    with folder() as home:
        embedded = EmbeddedPostgres(home / "tests" / "postgres-dagster")
        at = embedded.start()
        yield f"postgresql://{at.user}:{at.password}@{at.host}:{at.port}/postgres"
        embedded.destroy()


@pytest.mark.postgres
def test_runs_are_kept_in_postgresql(root: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE, server)
    for name, value in storage_url().items():
        monkeypatch.setenv(name, value)
    home = write_instance(project(root, thing("a"), thing("b", after="a")))
    with dg.DagsterInstance.from_config(str(home)) as found:
        result = reconcile(root, found)
        assert result.success
    with dg.DagsterInstance.from_config(str(home)) as found:
        assert found.get_runs_count() == 1
        assert len(found.fetch_materializations(key("b"), limit=5).records) == 1
    assert not list(home.rglob("*.db")), "nothing is left in SQLite"


TABLE = """\
apiVersion: gamma/v1
kind: Role
metadata: {name: reader}
spec: {server: main}
---
apiVersion: gamma/v1
kind: Role
metadata: {name: other}
spec: {server: second}
"""
TARGETS = """\
  targets:
    main: {type: postgres, embedded: true, maxParallel: 3}
    second: {type: postgres, embedded: true}
"""


@pytest.mark.parametrize(("executor", "bound"), [("multiprocess", True), ("in_process", False)])
def test_a_pool_for_each_target(
    root: Path, monkeypatch: pytest.MonkeyPatch, executor: str, bound: bool
) -> None:
    """In one process the engine itself keeps to maxParallel."""
    monkeypatch.delenv("GAMMA_PLUGINS")
    project(root, TABLE, settings=f"{TARGETS}  executor: {executor}\n")
    home = write_instance(root)
    where = location(root, "dev")
    pools = {one.op.name: one.op.pool for one in where.assets_defs_by_key.values() if one.is_executable}
    assert pools == (
        {"Role__reader": "dev_postgres_main", "Role__other": "dev_postgres_second"}
        if bound
        else {"Role__reader": None, "Role__other": None}
    )
    with dg.DagsterInstance.from_config(str(home)) as found:
        limits = {one.name: one.limit for one in found.event_log_storage.get_pool_limits()}
    assert limits == ({"dev_postgres_main": 3, "dev_postgres_second": 8} if bound else {})
