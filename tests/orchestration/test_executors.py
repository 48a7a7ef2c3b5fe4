"""`Environment.spec.executor` as Dagster's executors and run launcher, against their own config schemas."""

import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._config import process_config, resolve_to_config_type

from gamma_orch.core.provider import GammaError
from gamma_orch.orchestration import location
from gamma_orch.orchestration.executors import celery_config, executor, k8s_config, launcher
from gamma_orch.orchestration.instance import instance, write_instance
from gamma_orch.orchestration.scene import Scene, scene
from gamma_orch.spec.environment import EnvironmentSpec, ExecutorSpec
from tests.orchestration.projects import project, thing

CANARY = "canary-77aa-broker-password"
CELERY = (
    "{type: celery, broker: 'redis://:${secret.valkey}@10.0.0.9:6379/0', backend: 'redis://10.0.0.9/1', "
    "maxConcurrent: 6, redeliverAfter: 15m}"
)
K8S = "{type: k8s, image: 'registry.example/app@sha256:00', namespace: gamma, maxConcurrent: 7}"


def seen(root: Path, settings: str) -> Scene:
    project(root, thing("a"), settings=f"  executor: {settings}\n")
    found = scene(root, "dev")
    assert not found.broken, found.problems
    return found


def accepted(schema: Any, config: Any) -> Any:
    """The config as a schema of Dagster's takes it."""
    checked = process_config(resolve_to_config_type(schema), config)
    assert checked.success, checked.errors
    return checked.value


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ("in_process", "in_process"),
        ("multiprocess", "multiprocess"),
        ("{type: multiprocess, maxConcurrent: 3}", "multiprocess"),
        (CELERY, "celery"),
        (K8S, "k8s"),
    ],
)
def test_each_type_is_dagsters_own_executor(
    root: Path, monkeypatch: pytest.MonkeyPatch, settings: str, name: str
) -> None:
    monkeypatch.setenv("GAMMA_SECRET_VALKEY", CANARY)
    monkeypatch.setenv("GAMMA_LEDGER", f"sqlite:///{root}/ledger.db")
    found = seen(root, settings)
    assert executor(found).name == name
    [job] = [one for one in location(root, "dev").get_all_jobs() if one.name == "reconcile"]
    assert job.executor_def.name == name


def test_multiprocess_bounds_its_processes(root: Path) -> None:
    made = executor(seen(root, "{type: multiprocess, maxConcurrent: 3}"))
    assert isinstance(made, dg.ExecutorDefinition)
    assert resolved(made)["max_concurrent"] == 3


def resolved(made: dg.ExecutorDefinition) -> Any:
    """The config that an executor is made with at last."""
    outcome = made.apply_config_mapping({"config": {}})
    assert outcome.success, outcome.errors
    assert outcome.value is not None
    return outcome.value["config"]


def test_celery_takes_its_configuration(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster_celery import celery_executor
    from dagster_celery.executor import CeleryExecutor
    from dagster_celery.make_app import make_app

    monkeypatch.setenv("GAMMA_SECRET_VALKEY", CANARY)
    found = seen(root, CELERY)
    config = accepted(celery_executor.config_schema.config_type, celery_config(found, found.settings.runs_on))
    app = make_app(CeleryExecutor.for_cli(**{k: v for k, v in config.items() if k != "retries"}).app_args())
    assert app.conf.broker_url == f"redis://:{CANARY}@10.0.0.9:6379/0"
    assert app.conf.result_backend == "redis://10.0.0.9/1"
    # A step is acknowledged at its end, one is fetched at a time, and the broker waits for it.
    assert app.conf.task_acks_late
    assert app.conf.task_reject_on_worker_lost
    assert (app.conf.worker_prefetch_multiplier, app.conf.worker_concurrency) == (1, 6)
    assert app.conf.worker_max_tasks_per_child == 1
    assert app.conf.broker_transport_options["visibility_timeout"] == 900
    assert resolved(executor(found))["broker"] == app.conf.broker_url


def test_a_secret_of_the_broker_is_revealed_to_celery_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAMMA_SECRET_VALKEY", CANARY)
    found = seen(root, CELERY)
    assert CANARY in str(celery_config(found, found.settings.runs_on)["broker"])
    assert CANARY not in repr(found)
    assert CANARY not in found.digest
    home = write_instance(root)
    for file in (*home.iterdir(), *(root / ".gamma").rglob("*")):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes(), file
    shown = location(root, "dev").get_job("reconcile")
    assert CANARY not in str(dg.serialize_value(shown.get_job_snapshot()))


def test_a_secret_that_is_missing_is_named(root: Path) -> None:
    found = scene(project(root, thing("a"), settings=f"  executor: {CELERY}\n"), "dev")
    assert found.broken
    assert "GAMMA_SECRET_VALKEY" in found.problems


def test_kubernetes_wants_a_ledger_that_pods_share(root: Path) -> None:
    with pytest.raises(GammaError, match=r"^The executor k8s needs a ledger that the pods share: set GAMMA_"):
        executor(seen(root, K8S))


def test_kubernetes_takes_the_executors_configuration(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster_k8s import k8s_job_executor

    monkeypatch.setenv("GAMMA_LEDGER", f"sqlite:///{root}/ledger.db")

    found = seen(root, K8S)
    config = accepted(k8s_job_executor.config_schema.config_type, k8s_config(found.settings.runs_on))
    assert config["job_image"] == "registry.example/app@sha256:00"
    assert (config["job_namespace"], config["max_concurrent"]) == ("gamma", 7)
    assert resolved(executor(found))["job_namespace"] == "gamma"


def test_kubernetes_takes_the_launchers_configuration(root: Path) -> None:
    from dagster_k8s import K8sRunLauncher

    spec = seen(root, K8S).settings
    mixed = instance({"dev": spec, "local": EnvironmentSpec()}, storage=True)
    assert "run_launcher" not in mixed, "an instance has one, and local's runs are no pods"
    body = instance({"dev": spec, "prod": spec}, storage=True)
    assert body["run_launcher"] == launcher(spec.runs_on)
    assert (body["run_launcher"]["module"], body["run_launcher"]["class"]) == (
        "dagster_k8s",
        "K8sRunLauncher",
    )
    config = accepted(K8sRunLauncher.config_type(), body["run_launcher"]["config"])
    assert (config["job_image"], config["job_namespace"]) == ("registry.example/app@sha256:00", "gamma")


@pytest.mark.parametrize("kind", ["in_process", "multiprocess"])
def test_here_runs_start_as_dagster_starts_them(kind: Any) -> None:
    assert launcher(ExecutorSpec(type=kind)) is None
    assert "run_launcher" not in instance({"dev": EnvironmentSpec(executor=kind)}, storage=False)


@pytest.mark.parametrize(("settings", "name"), [(CELERY, "celery"), (K8S, "k8s")])
def test_a_missing_package_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, settings: str, name: str
) -> None:
    monkeypatch.setenv("GAMMA_SECRET_VALKEY", CANARY)
    monkeypatch.setitem(sys.modules, f"dagster_{name}", None)
    with pytest.raises(GammaError) as caught:
        executor(seen(root, settings))
    assert str(caught.value) == (
        f"The executor {name} needs the package dagster-{name}: pip install 'gamma-orch[{name}]'"
    )
