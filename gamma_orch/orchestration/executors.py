"""`Environment.spec.executor` as Dagster's own executors and run launchers."""

import os

import dagster as dg

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import GammaError
from gamma_orch.orchestration.scene import Scene
from gamma_orch.spec.environment import ExecutorSpec


def executor(scene: Scene) -> dg.ExecutorDefinition:
    """Raises GammaError where Dagster's package for it is not installed."""
    spec = scene.settings.runs_on
    match spec.type:
        case "in_process":
            return dg.in_process_executor
        case "multiprocess":
            return dg.multiprocess_executor.configured({"max_concurrent": spec.max_concurrent})
        case "celery":
            return _celery(scene, spec)
        case "k8s":
            return _k8s(spec)


def _celery(scene: Scene, spec: ExecutorSpec) -> dg.ExecutorDefinition:
    try:
        from dagster_celery import celery_executor
    except ImportError:
        raise _missing("celery") from None
    return celery_executor.configured(celery_config(scene, spec))


def _missing(name: str) -> GammaError:
    return GammaError(
        f"The executor {name} needs the package dagster-{name}: pip install 'gamma-orch[{name}]'"
    )


def celery_config(scene: Scene, spec: ExecutorSpec) -> dict[str, Json]:
    """A step is acknowledged when it is done: one whose worker dies is given to another."""
    reveal = scene.project.secrets.reveal
    return {
        "broker": reveal(spec.broker),
        "backend": reveal(spec.backend),
        "config_source": {
            "task_acks_late": True,
            "task_reject_on_worker_lost": True,
            "worker_prefetch_multiplier": 1,
            "worker_concurrency": spec.max_concurrent,
            # A new process for each step: Dagster keeps the definitions that it has once loaded, and a
            # worker outlives the specs that they were made from.
            "worker_max_tasks_per_child": 1,
            "broker_transport_options": {
                "visibility_timeout": int(spec.redeliver_after.total_seconds()),
                # Look every 10 s for what is to be given to another; its own default is every 100 s.
                "unacked_restore_interval": 10,
                "unacked_restore_throttle": 1,
            },
        },
    }


def _k8s(spec: ExecutorSpec) -> dg.ExecutorDefinition:
    try:
        from dagster_k8s import k8s_job_executor
    except ImportError:
        raise _missing("k8s") from None
    if not os.environ.get("GAMMA_LEDGER"):
        raise GammaError(
            "The executor k8s needs a ledger that the pods share: set GAMMA_LEDGER to a postgresql:// URL, "
            "here and in their image or configuration."
        )
    return k8s_job_executor.configured(k8s_config(spec))


def k8s_config(spec: ExecutorSpec) -> dict[str, Json]:
    return {
        "job_image": spec.image,
        "job_namespace": spec.namespace,
        "max_concurrent": spec.max_concurrent,
    }


def launcher(spec: ExecutorSpec) -> dict[str, Json] | None:
    """The `run_launcher` of dagster.yaml; None where Dagster's default is right."""
    if spec.type != "k8s":
        return None
    return {
        "module": "dagster_k8s",
        "class": "K8sRunLauncher",
        "config": {
            "job_image": spec.image,
            "job_namespace": spec.namespace,
            "service_account_name": "dagster",
            "load_incluster_config": True,
            "instance_config_map": "dagster-instance",
        },
    }
