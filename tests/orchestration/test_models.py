"""A model in Dagster: its card and pictures on the materialization, a check for each gate."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from gamma_orch.kinds.models import building
from gamma_orch.orchestration import location
from gamma_orch.orchestration.assets import gate_name
from tests.kinds.models.test_laws import Stand
from tests.orchestration.projects import key, project, reconcile

MODEL = """---
apiVersion: gamma/v1
kind: Model
metadata: {name: mini}
spec:
  task: text-classification
  source: {package: mini==1.0}
  optimize: {level: basic}
  gates:
    - {metric: size, max: 1}
    - {metric: p95, max: 200, batch: 1, length: 128}
"""


@pytest.fixture
def made(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(building, "Worker", Stand)
    return project(root, MODEL)


def test_a_gate_is_a_check_and_its_figures_are_shown(made: Path, instance: dg.DagsterInstance) -> None:
    result = reconcile(made, instance)
    assert result.success
    checks = {e.check_name: (e.passed, e.metadata) for e in result.get_asset_check_evaluations()}
    assert set(checks) == {"in_sync", "healthy", "gate_size", "gate_p95_1x128"}
    assert all(passed for passed, _ in checks.values())
    told = checks["gate_p95_1x128"][1]
    assert told["asked"].value == "p95 1x128 at most 200 ms"
    assert str(told["now"].value).startswith("91.43 ms")


def test_the_card_and_the_pictures_are_on_the_materialization(
    made: Path, instance: dg.DagsterInstance
) -> None:
    result = reconcile(made, instance)
    [found] = result.asset_materializations_for_node("Model__mini")
    said: dict[str, Any] = {name: value.value for name, value in found.metadata.items()}
    assert said["card"] == "# mini\n"
    assert said["choice"] == "![](data:image/png;base64,iVBORw==)"
    assert said["outputs"]["candidate"] == "openvino-float32"


def test_a_gate_that_fails_fails_the_step_with_its_figures(
    root: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "Worker", Stand)
    result = reconcile(project(root, MODEL.replace("max: 200", "max: 2")), instance)
    assert not result.success
    [failed] = [e for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    told = str(failed.message) + str(failed.step_failure_data.error_display_string)
    assert "does not pass: p95 1x128: 91.43 ms; asked for p95 1x128 at most 2 ms" in told
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert checks == {"gate_size": True, "gate_p95_1x128": False}


def test_every_gate_has_a_check_before_anything_ran(made: Path) -> None:
    where = location(made, "dev")
    names = {one.name for one in where.asset_graph.asset_check_keys if one.asset_key == key("mini", "Model")}
    assert names == {"in_sync", "healthy", "gate_size", "gate_p95_1x128"}


def test_names_that_dagster_takes() -> None:
    assert gate_name("tokens-per-second") == "gate_tokens_per_second"
    assert gate_name("p95 1x128") == "gate_p95_1x128"
