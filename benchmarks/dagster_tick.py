"""What Dagster costs with many resources: a tick in which nothing changed, and a run of five that did.

    python -m benchmarks.dagster_tick [--size 10000] [--changed 5] [--repeat 3]

Beside Gamma, in the same run: plain Dagster, one asset a resource, and the same five selected from
all. Each figure is processor time (user and system) of a fresh process, from after the imports of
dagster and gamma_orch to the end, on an instance in SQLite files; the median of `--repeat` runs.
What is carried out takes no time on either side: the assets of plain Dagster do nothing, and a Thing
is a line in a file.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import chains

SHAPE = "tree"  # of a chain of 10,000 assets Dagster makes no job: it walks it by recursion


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--changed", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--inside", choices=sorted(INSIDE), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(INSIDE[options.inside](options)))
        return
    with tempfile.TemporaryDirectory(prefix="gamma-bench-") as name:
        folder = Path(name)
        chains.gamma_project(folder, options.size, SHAPE, "after")
        gamma = [str(Path(sys.executable).with_name("gamma"))]
        subprocess.run([*gamma, "apply", "-e", "dev", "--yes"], cwd=folder, env=environment(), check=True)
        report(options, folder)


def report(options: argparse.Namespace, folder: Path) -> None:
    print(f"\n{options.size:,} resources; seconds of processor time after the imports, median\n")
    tick = measure("tick", options, folder)
    line("tick, nothing changed", tick["cpu"], f"events {tick['events']}, runs {tick['runs']}")
    line("the tick after that", tick["cpu_again"], f"events {tick['events_again']}")
    ours = measure("gamma", options, folder)
    line(
        f"run of {options.changed}, Gamma",
        ours["cpu"],
        f"of which until the job is there {ours['build']:.2f}",
    )
    theirs = measure("plain", options, folder)
    note = f"of which until the job is there {theirs['build']:.2f}"
    line(f"run of {options.changed}, plain Dagster", theirs["cpu"], note)
    print(f"\nplain Dagster takes {theirs['cpu'] / ours['cpu']:.1f} times as much")


def line(what: str, seconds: float, note: str) -> None:
    print(f"  {what:24}{seconds:8.2f}   {note}", flush=True)


def measure(what: str, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Medians over fresh processes."""
    command = [sys.executable, "-m", "benchmarks.dagster_tick", "--inside", what, "--folder", str(folder)]
    command += ["--size", str(options.size), "--changed", str(options.changed)]
    found = []
    for _ in range(options.repeat):
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"GAMMA_PLUGINS": "gamma_orch.testing.thing", "DAGSTER_DISABLE_TELEMETRY": "1"}


# --- inside the measured processes ------------------------------------------------------------------


def cpu() -> float:
    used = os.times()
    return used.user + used.system


def inside_tick(options: argparse.Namespace) -> dict[str, float]:
    """As in the code server: the location is loaded, the tick is not its first."""
    import dagster as dg

    from gamma_orch.orchestration import location
    from gamma_orch.orchestration.pulse import pulse  # noqa: F401 - imports do not count

    with _instance() as instance:
        where = location(options.folder, "dev")
        where.load_all_definitions()
        sensor = where.get_sensor_def("drift")

        def stored() -> int:
            storage = instance.event_log_storage
            kinds = [
                dg.DagsterEventType.ASSET_MATERIALIZATION,
                dg.DagsterEventType.ASSET_OBSERVATION,
                dg.DagsterEventType.ASSET_CHECK_EVALUATION,
            ]
            return sum(len(storage.get_event_records(dg.EventRecordsFilter(kind))) for kind in kinds)

        def tick() -> float:
            before = cpu()
            context = dg.build_sensor_context(instance=instance, repository_def=where)
            found = sensor.evaluate_tick(context)
            assert not found.run_requests, found
            return cpu() - before

        first = tick()
        events = stored()
        second = tick()
        return {
            "cpu": first,
            "events": events,
            "cpu_again": second,
            "events_again": stored() - events,
            "runs": instance.get_runs_count(),
        }


def inside_gamma(options: argparse.Namespace) -> dict[str, float]:
    from gamma_orch.core.address import Address
    from gamma_orch.orchestration import location
    from gamma_orch.orchestration.keys import asset_key
    from gamma_orch.testing.world import World

    world = World(options.folder / ".gamma" / "dev" / "world.jsonl")
    names = sorted(world.things)[:: max(1, options.size // options.changed)][: options.changed]
    for name in names:
        world.effect("update", name, {**world.things[name]["fields"], "value": "changed outside"})
    with _instance() as instance:
        before = cpu()
        keys = {asset_key("dev", Address("Thing", name)) for name in names}
        where = location(options.folder, "dev")
        job = where.get_maybe_subset_job_def("reconcile", asset_selection=keys)
        built = cpu()
        result = job.execute_in_process(instance=instance)
        used = cpu() - before
    assert result.success
    assert len(result.get_asset_materialization_events()) == options.changed
    assert all("changed outside" not in str(thing) for thing in world.things.values())
    return {"cpu": used, "build": built - before}


def inside_plain(options: argparse.Namespace) -> dict[str, float]:
    import dagster as dg

    with _instance() as instance:
        before = cpu()

        def one(number: int) -> dg.AssetsDefinition:
            above = chains.parent(number, SHAPE)
            deps = [] if above is None else [dg.AssetKey(["dev", "Thing", f"t{above}"])]

            @dg.asset(
                key=["dev", "Thing", f"t{number}"],
                deps=deps,
                description="as declared",
                check_specs=[
                    dg.AssetCheckSpec("in_sync", asset=["dev", "Thing", f"t{number}"]),
                    dg.AssetCheckSpec("healthy", asset=["dev", "Thing", f"t{number}"]),
                ],
            )
            def made():  # type: ignore[no-untyped-def] # Dagster reads an annotation as one output
                names = ("in_sync", "healthy")
                checks = [dg.AssetCheckResult(passed=True, check_name=name) for name in names]
                return dg.MaterializeResult(metadata={"action": "update"}, check_results=checks)

            return made

        assets = [one(number) for number in range(options.size)]
        job = dg.define_asset_job("reconcile", selection=dg.AssetSelection.all())
        where = dg.Definitions(assets=assets, jobs=[job]).get_repository_def()
        step = max(1, options.size // options.changed)
        keys = [dg.AssetKey(["dev", "Thing", f"t{n}"]) for n in range(0, options.size, step)][
            : options.changed
        ]
        subset = where.get_maybe_subset_job_def("reconcile", asset_selection=set(keys))
        built = cpu()
        result = subset.execute_in_process(instance=instance)
        used = cpu() - before
    assert result.success
    assert len(result.get_asset_materialization_events()) == options.changed
    return {"cpu": used, "build": built - before}


def _instance() -> Any:
    import logging

    import dagster as dg

    logging.disable(logging.CRITICAL)
    return dg.instance_for_test()


INSIDE: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "tick": inside_tick,
    "gamma": inside_gamma,
    "plain": inside_plain,
}

if __name__ == "__main__":
    main()
