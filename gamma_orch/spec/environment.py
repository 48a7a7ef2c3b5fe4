"""What one environment says about itself: the kind Environment, `environments/<env>/environment.yaml`.

`spec.resolve` evaluates it before everything else; the engine reads targets and secrets from it.
To extend it, add a field: the schema, `explain` and every error message follow from the model.
"""

from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, model_validator

from gamma_orch.spec.durations import Duration
from gamma_orch.spec.model import Spec
from gamma_orch.spec.reconcile import ReconcileSpec


class Generate(Spec):
    """A secret that Gamma makes up once and keeps."""

    length: int = Field(default=32, ge=8, le=1024)
    """How many characters."""


class SecretSource(Spec):
    """Where a secret's bytes come from: exactly one of the three."""

    env: str | None = Field(default=None, min_length=1)
    """The environment variable that holds it."""
    file: str | None = Field(default=None, min_length=1)
    """The file that holds it; a path relative to the project's root. A last line end is dropped."""
    generate: Generate | None = None
    """Make it up at first use and keep it under .gamma/ (for development)."""

    @model_validator(mode="after")
    def _exactly_one(self) -> "SecretSource":
        given = [name for name in ("env", "file", "generate") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                "A secret has exactly one source: env, file or generate; here "
                + (f"are {' and '.join(given)}." if given else "is none.")
            )
        return self


class TargetSpec(Spec):
    """A system that resources are put on."""

    type: Literal["postgres", "prometheus", "alertmanager", "grafana"]
    """What it is."""
    embedded: bool = False
    """Run one under .gamma/ (for development)."""
    url: str | None = Field(default=None, min_length=1)
    """Where it is; a password in it comes from ${secret.…}."""
    rules: str | None = Field(default=None, min_length=1)
    """Prometheus by its url: the folder that its `rule_files` read (`FOLDER/*.yml`), from here."""
    scrapes: str | None = Field(default=None, min_length=1)
    """Prometheus by its url: the folder that its `scrape_config_files` read (`FOLDER/*.yml`), from here.
    Without it nothing is collected for it."""
    alertmanager: str | None = Field(default=None, min_length=1)
    """An embedded Prometheus: the name of the target that it sends alerts to."""
    interval: Duration = timedelta(seconds=5)
    """An embedded Prometheus: how often it scrapes, and evaluates rules. From its next start on."""
    token: str | None = Field(default=None, min_length=1)
    """Grafana by its url: the token of a service account, from ${secret.…}."""
    folder: str | None = Field(default=None, min_length=1)
    """Grafana: the uid of the folder there; or in the place of a url the folder that its provisioning reads
    dashboards from, from here."""
    max_parallel: int | None = Field(default=None, ge=1, le=256, alias="maxParallel")
    """How many steps may run on it at once. Default: 8; on a Prometheus or an Alertmanager 64, for those that
    come together are one reload."""

    @property
    def parallel(self) -> int:
        return self.max_parallel or (8 if self.type == "postgres" else 64)

    @model_validator(mode="after")
    def _one_place(self) -> "TargetSpec":
        if self.type == "grafana":
            return self._grafana()
        if self.token is not None or self.folder is not None:
            raise ValueError(f"`{'folder' if self.token is None else 'token'}` is for a Grafana.")
        if self.embedded == (self.url is not None):
            raise ValueError("A target is either embedded (embedded: true) or has a url.")
        has, wants = self.rules is not None, self.type == "prometheus" and not self.embedded
        if wants and not has:
            raise ValueError("A Prometheus by its url needs the folder that it reads `rules` from.")
        if (has or self.scrapes is not None) and not wants:
            name = "rules" if has else "scrapes"
            raise ValueError(f"`{name}` is for a Prometheus by its url: an embedded one has its own folder.")
        if self.alertmanager is not None and (self.type != "prometheus" or not self.embedded):
            raise ValueError("`alertmanager` is for an embedded Prometheus.")
        if self.type == "alertmanager" and not self.embedded:
            raise ValueError(
                "An Alertmanager is embedded: its one file of configuration is not to be shared."
            )
        return self

    def _grafana(self) -> "TargetSpec":
        if self.embedded:
            raise ValueError(
                "Gamma runs no Grafana: name its url, or the folder that it reads dashboards from."
            )
        if self.url is None and self.folder is None:
            raise ValueError("A Grafana has a url, or a folder that it reads dashboards from.")
        if self.url is None and self.token is not None:
            raise ValueError("`token` goes with the url of a Grafana.")
        return self


class BuildsSpec(Spec):
    """Where and how artifacts (datasets, models) are built."""

    store: str | None = Field(default=None, min_length=1)
    """Where they are kept: a folder, or a URL such as s3://bucket/folder. Environments that name the same
    store build each thing once. Default: .gamma/artifacts, for all environments of this checkout."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """How many threads a build uses. Default: as many as there are cores."""
    max_parallel: int = Field(default=1, ge=1, le=64, alias="maxParallel")
    """How many are built at once."""


class ExecutorSpec(Spec):
    """Dagster's executor and run launcher for this environment."""

    type: Literal["in_process", "multiprocess", "celery", "k8s"] = "in_process"
    """In the run's own process, in a process a step, on Celery's workers, or in a Kubernetes job a step."""
    broker: str | None = None
    """Celery: the URL of the broker."""
    backend: str | None = None
    """Celery: the URL where results are kept."""
    redeliver_after: Duration = Field(default=timedelta(hours=1), alias="redeliverAfter")
    """Celery on Redis or Valkey: when a step that has not ended is given to another worker. Longer than any
    step takes: else a worker that is only slow is not alone with it any more."""
    image: str | None = None
    """Kubernetes: the container image, with this project and Gamma in it."""
    namespace: str = "default"
    """Kubernetes: the namespace of the jobs."""
    max_concurrent: int = Field(default=4, ge=1, le=256, alias="maxConcurrent")
    """How many steps of a run (Celery: of a worker) run at once. Not in_process: there the targets' limits
    count alone."""

    @model_validator(mode="after")
    def _what_it_needs(self) -> "ExecutorSpec":
        needed = {"celery": ("broker", "backend"), "k8s": ("image",)}
        missing = [name for name in needed.get(self.type, ()) if getattr(self, name) is None]
        if missing:
            raise ValueError(f"The executor {self.type} needs {' and '.join(missing)}.")
        return self


class EnvironmentSpec(Spec):
    """One environment: where things are and what differs there."""

    variables: dict[str, Any] = Field(default_factory=dict)
    """Values for ${var.name}; maps are reached into with ${var.name.key}."""
    secrets: dict[str, SecretSource] = Field(default_factory=dict)
    """Where ${secret.name} comes from. One not named here is read from GAMMA_SECRET_<NAME>."""
    targets: dict[str, TargetSpec] = Field(default_factory=dict)
    """The systems that resources of this environment are put on, by name."""
    reconcile: ReconcileSpec = ReconcileSpec(suspend=True)
    """What happens without anybody asking: schedules, drift, freeze windows. Without it: nothing."""
    builds: BuildsSpec = BuildsSpec()
    """Where artifacts are kept, and how they are built."""
    executor: Literal["in_process", "multiprocess"] | ExecutorSpec = "in_process"
    """Where the steps of a run execute: the name of an executor, or its settings."""

    @property
    def runs_on(self) -> ExecutorSpec:
        return ExecutorSpec(type=self.executor) if isinstance(self.executor, str) else self.executor


def default_source(name: str) -> SecretSource:
    """The source of a secret that the environment does not declare."""
    spelled = "".join(c.upper() if c.isalnum() else "_" for c in name)
    return SecretSource(env=f"GAMMA_SECRET_{spelled}")
