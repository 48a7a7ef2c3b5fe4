"""An environment as Dagster definitions; and as a code location whose runs build only what they need.

Dagster builds all assets of a location in each process of a run. With 10,000 resources that takes
ten seconds, for five that changed. So `location` gives a repository that makes the whole only for
whoever asks for the whole (the webserver), and the job of a run from the run's own selection.
"""

import gc
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import RepositoryData, RepositoryDefinition
from dagster_shared.record import replace

from gamma_orch.core.address import Address
from gamma_orch.core.provider import GammaError
from gamma_orch.engine.project import find_root, require_environment
from gamma_orch.orchestration import assets, jobs, triggers
from gamma_orch.orchestration.executors import executor
from gamma_orch.orchestration.keys import ENVIRONMENT_TAG, address_of, pool_name
from gamma_orch.orchestration.scene import Scene, scene
from gamma_orch.orchestration.work import Reconciler

# With more resources than this they share one definition in the webserver's view of the location.
SINGLY = 200
NAME = "__repository__"  # Dagster's own name for the only repository of a location


def definitions(root: Path, environment: str) -> dg.Definitions:
    """Everything of one environment, for a user of Dagster who mounts it among other definitions."""
    home = find_root(root.resolve())
    require_environment(home, environment)
    found = scene(home, environment)
    return _definitions(found, [*found.wanted, *found.unwanted], whole=True)


def location(root: Path, environment: str) -> RepositoryDefinition:
    """The same as a code location of its own. Reads nothing yet."""
    home = find_root(root.resolve())
    require_environment(home, environment)
    return _Location(home, environment)


def _definitions(found: Scene, addresses: Sequence[Address], whole: bool) -> dg.Definitions:
    runs_on = executor(found)
    in_process = found.settings.runs_on.type == "in_process"
    shown: list[Any]
    if whole and len(addresses) > SINGLY:
        shown = [assets.listed(found, addresses)]
    else:
        shown = [assets.single(found, address, _pool(found, address)) for address in addresses]
    reconcile = dg.define_asset_job(
        "reconcile",
        selection=dg.AssetSelection.assets(*[key for one in shown for key in one.keys]),
        description="Converge the environment, or the selected resources of it.",
        tags={ENVIRONMENT_TAG: found.environment},
        executor_def=runs_on,
    )
    return dg.Definitions(
        assets=[assets.environment_spec(found), *shown] if whole else shown,
        jobs=[*([reconcile] if shown else []), *(jobs.jobs(found) if whole else [])],
        sensors=triggers.sensors(found) if whole and shown else None,
        schedules=triggers.schedules(found) if whole and shown else None,
        resources={assets.RESOURCE: Reconciler.configure_at_launch(in_process=in_process)},
        executor=runs_on,
    )


def _pool(found: Scene, address: Address) -> str | None:
    """Bounds the work on one target over all processes of a run. In one process the engine does it."""
    target = found.target.get(address)
    if not target or found.settings.runs_on.type == "in_process":
        return None
    return pool_name(found.environment, target)


class _Location(RepositoryDefinition):
    def __init__(self, root: Path, environment: str) -> None:
        # As in the command line: trees of values that live as long as the process are not garbage, and
        # looking for it in them takes a third of the time of a tick.
        gc.set_threshold(200_000, 50, 100)
        # Its methods are set below the class.
        self._whole = _Whole(lambda: scene(root, environment))  # type: ignore[abstract]
        super().__init__(NAME, repository_data=self._whole)

    def get_maybe_subset_job_def(
        self,
        job_name: str,
        op_selection: Iterable[str] | None = None,
        asset_selection: AbstractSet[dg.AssetKey] | None = None,
        asset_check_selection: AbstractSet[dg.AssetCheckKey] | None = None,
    ) -> dg.JobDefinition:
        """The job of a run. Of a selection, it knows that selection alone."""
        if not asset_selection:
            whole: dg.JobDefinition = super().get_maybe_subset_job_def(
                job_name, op_selection, asset_selection, asset_check_selection
            )
            return whole
        found = self._whole.scene
        asked = {address_of(key) for key in asset_selection if len(key.path) == 3}
        known = [a for a in (*found.wanted, *found.unwanted, *sorted(found.gone)) if a in asked]
        if gone := sorted(asked - set(known)):
            raise GammaError(
                f"{', '.join(map(str, gone))}: neither declared nor recorded in {found.environment} any more."
            )
        slim = _definitions(found, known, whole=False).get_repository_def()
        job: dg.JobDefinition = slim.get_job(job_name).get_subset(
            asset_selection=asset_selection, asset_check_selection=asset_check_selection
        )
        if self._whole.made and job.asset_selection_data:
            # The webserver and the daemon know the whole job, and look for it as this one's parent.
            whole = self.get_job(job_name)
            job._subset_selection_data = replace(job.asset_selection_data, parent_job_def=whole)
        return job


class _Whole(RepositoryData):
    """All definitions, made when something of them is asked for."""

    def __init__(self, read: Callable[[], Scene]) -> None:
        self._read = read

    @cached_property
    def scene(self) -> Scene:
        return self._read()

    @property
    def made(self) -> bool:
        return "data" in vars(self)

    @cached_property
    def data(self) -> RepositoryData:
        found = self.scene
        whole = _definitions(found, [*found.wanted, *found.unwanted], whole=True)
        made: RepositoryData = whole.get_repository_def()._repository_data
        return made


def _passed_on(name: str) -> Callable[..., Any]:
    def method(self: _Whole, *arguments: Any, **named: Any) -> Any:
        return getattr(self.data, name)(*arguments, **named)

    return method


# Every question that Dagster may put to a repository goes to `data`.
for _name in [name for name in vars(RepositoryData) if name.startswith(("get_", "has_", "load_"))]:
    setattr(_Whole, _name, _passed_on(_name))
_Whole.__abstractmethods__ = frozenset()
