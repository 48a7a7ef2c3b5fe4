"""The folder that a Dagster instance lives in: dagster.yaml and workspace.yaml, written by `gamma dev`.

Everything in it is made from the project, so it is written anew at every start; what Dagster itself
keeps there (runs, events, schedules) stays.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import yaml

from gamma_orch.core.canonical import Json
from gamma_orch.engine.project import STATE, environments, read
from gamma_orch.orchestration.executors import launcher
from gamma_orch.orchestration.keys import ENVIRONMENT_TAG, pool_name
from gamma_orch.spec.environment import EnvironmentSpec
from gamma_orch.store.database import with_driver

STORAGE = "GAMMA_DAGSTER_STORAGE"  # a postgresql:// URL; without it, SQLite files in the folder


def write_instance(root: Path) -> Path:
    """Write the folder's files; its path, for DAGSTER_HOME."""
    home = root / STATE / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    known = {name: _settings(root, name) for name in environments(root)}
    _write(home / "dagster.yaml", instance(known, storage=bool(os.environ.get(STORAGE))))
    _write(home / "workspace.yaml", workspace(root, list(known)))
    bound_pools(home, known)
    return home


def instance(known: Mapping[str, EnvironmentSpec], storage: bool) -> dict[str, Json]:
    """dagster.yaml: nothing is reported to anybody, a run that died is noticed, and no two runs of one
    environment are started at once (that no two act at once is the lease's doing)."""
    body: dict[str, Json] = {
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
        "run_monitoring": {
            "enabled": True,
            "poll_interval_seconds": 10,
            "start_timeout_seconds": 300,
            "cancel_timeout_seconds": 120,
        },
        "concurrency": {
            "pools": {"granularity": "op", "default_limit": 4},
            "runs": {
                "max_concurrent_runs": 10,
                "tag_concurrency_limits": [
                    {"key": ENVIRONMENT_TAG, "value": {"applyLimitPerUniqueValue": True}, "limit": 1}
                ],
            },
        },
        # What a step says is in its events; catching its output too starts four processes a run.
        "compute_logs": {
            "module": "dagster._core.storage.noop_compute_log_manager",
            "class": "NoOpComputeLogManager",
        },
        "schedules": {"use_threads": True, "num_workers": 2},
        "sensors": {"use_threads": True, "num_workers": 4},
        "retention": {
            "schedule": {"purge_after_days": 30},
            "sensor": {"purge_after_days": {"skipped": 2, "failure": 14, "success": 30}},
        },
    }
    if storage:
        # With the driver named: SQLAlchemy's own choice for postgresql:// is another one.
        body["storage"] = {"postgres": {"postgres_url": {"env": f"{STORAGE}_URL"}}}
    # An instance has one launcher: that of Kubernetes only where no environment runs elsewhere.
    launchers = [launcher(spec.runs_on) for spec in known.values()]
    if launchers and launchers[0] is not None and all(found == launchers[0] for found in launchers):
        body["run_launcher"] = launchers[0]
    return body


def workspace(root: Path, names: list[str]) -> dict[str, Json]:
    """workspace.yaml: one code location an environment."""
    return {
        "load_from": [
            {
                "python_file": {
                    "relative_path": str(root / "pipelines" / "definitions.py"),
                    "attribute": name.replace("-", "_"),
                    "location_name": name,
                    "working_directory": str(root),
                    "executable_path": sys.executable,
                }
            }
            for name in names
        ]
    }


def bound_pools(home: Path, known: Mapping[str, EnvironmentSpec]) -> None:
    """Give each target's pool the limit that its `maxParallel` says, where steps are processes."""
    bounds = {
        pool_name(environment, f"{target.type}/{name}"): target.parallel
        for environment, spec in known.items()
        if spec.runs_on.type != "in_process"
        for name, target in spec.targets.items()
    }
    if bounds:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            for pool, limit in bounds.items():
                instance.event_log_storage.set_concurrency_slots(pool, limit)


def storage_url() -> dict[str, str]:
    """What dagster.yaml reads from the environment of its processes."""
    url = os.environ.get(STORAGE)
    if not url:
        return {}
    return {f"{STORAGE}_URL": with_driver(url)}


def _settings(root: Path, environment: str) -> EnvironmentSpec:
    project = read(root, environment)
    return project.desired.environment if project.desired else EnvironmentSpec()


def _write(path: Path, body: dict[str, Json]) -> None:
    text = "# Written by gamma dev at each start; changes here are lost.\n"
    path.write_text(text + yaml.safe_dump(body, sort_keys=False), encoding="utf-8")
