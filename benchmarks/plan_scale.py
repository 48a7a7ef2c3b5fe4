"""How the plan grows with the number of resources, and how Terraform's does: `make bench`.

    python -m benchmarks.plan_scale [--sizes 100,1000,10000,100000] [--terraform-sizes 1000]

Gamma plans N resources of the kind Thing (no server, so that it is Gamma's own time); Terraform
plans as many `terraform_data`, which need no server either. Everything is measured from outside,
in fresh processes: see `measure`. Figures are medians of `--repeat` runs.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks import chains
from benchmarks.measure import Cost, Failed, expect, exponent, middle, run

UNWANTED = ("alembic", "asyncpg", "dagster", "pandas", "psycopg2", "sqlalchemy", "torch", "transformers")
NO_CHANGES, CHANGES = 0, 2

Results = dict[str, dict[int, Cost]]


def environment() -> dict[str, str]:
    """The caller's, but for what would slow every start or talk to a network."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    quiet = {"CHECKPOINT_DISABLE": "1", "TF_CLI_CONFIG_FILE": os.devnull, "TF_IN_AUTOMATION": "1"}
    return kept | quiet | {"GAMMA_PLUGINS": "gamma_orch.testing.thing", "NO_COLOR": "1"}


def gamma(*words: str) -> list[str | Path]:
    return [Path(sys.executable).with_name("gamma"), *words]


def measure_gamma(folder: Path, size: int, options: argparse.Namespace) -> Iterator[tuple[str, Cost]]:
    chains.gamma_project(folder, size, options.shape, options.link)
    apply = run(gamma("apply", "-e", "dev", "--yes"), folder, environment())
    yield "gamma apply, first", expect(apply, NO_CHANGES, f"apply of {size}")
    for what, command in (
        ("gamma plan", gamma("plan", "-e", "dev")),
        ("gamma validate", gamma("validate", "-e", "dev")),
    ):
        for warmth in ("cold", "warm"):
            costs = []
            for _ in range(options.repeat):
                if warmth == "cold":
                    shutil.rmtree(folder / ".gamma" / "cache", ignore_errors=True)
                costs.append(expect(run(command, folder, environment()), NO_CHANGES, f"{what} of {size}"))
            yield f"{what}, {warmth}", middle(costs)


def measure_start(folder: Path, repeat: int) -> Iterator[tuple[str, Cost]]:
    for words in (("--help",), ("validate", "--help")):
        costs = [expect(run(gamma(*words), folder, environment()), 0, "help") for _ in range(repeat)]
        yield f"gamma {' '.join(words)}", middle(costs)


def imported(folder: Path, *words: str) -> list[str]:
    """Which of the unwanted packages a command imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *map(str, gamma(*words))],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    roots = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    return sorted(roots.intersection(UNWANTED))


def measure_terraform(folder: Path, size: int, options: argparse.Namespace) -> Iterator[tuple[str, Cost]]:
    limits = {"seconds": options.terraform_seconds, "megabytes": options.terraform_megabytes}
    chains.terraform_project(folder, size, options.shape)
    expect(run(["terraform", "init", "-input=false"], folder, environment()), 0, "terraform init")
    if size <= options.terraform_apply:
        command = ["terraform", "apply", "-input=false", "-auto-approve", "-no-color"]
        yield (
            "terraform apply, first",
            expect(run(command, folder, environment(), **limits), 0, "terraform apply"),
        )
    else:
        chains.terraform_state(folder, size, options.shape, _terraform_version())
    command = ["terraform", "plan", "-input=false", "-detailed-exitcode", "-no-color"]
    plan = expect(run(command, folder, environment(), **limits), NO_CHANGES, f"terraform plan of {size}")
    yield "terraform plan", plan


def _terraform_version() -> str:
    done = subprocess.run(
        ["terraform", "version", "-json"], env=environment(), capture_output=True, text=True, check=True
    )
    return str(json.loads(done.stdout)["terraform_version"])


def show(what: str, size: int, cost: Cost) -> None:
    over = "  stopped at a limit" if cost.stopped else ""
    print(f"{what:24} {size:>8,} {cost.wall:>9.2f} {cost.cpu:>9.2f} {cost.rss:>8.0f}{over}", flush=True)


def conclude(results: Results) -> None:
    """Growth, and how often Terraform's time Gamma's is."""
    print()
    for what, costs in results.items():
        slope = exponent(
            {size: cost.wall for size, cost in costs.items() if size >= 1000 and not cost.stopped}
        )
        if slope is not None:
            print(f"{what}: wall grows with size to the power of {slope:.2f}, from {1000:,} up")
    pairs = {
        "terraform plan": ("gamma plan, cold", "gamma plan, warm"),
        "terraform apply, first": ("gamma apply, first",),
    }
    for theirs, ours in pairs.items():
        for size, cost in results.get(theirs, {}).items():
            for name in ours:
                if size in results.get(name, {}):
                    least = "at least " if cost.stopped else ""
                    times = cost.wall / results[name][size].wall
                    print(f"{theirs} of {size:,} takes {least}{times:.0f} times as long as {name}")


def sizes(text: str) -> list[int]:
    return [int(word) for word in text.split(",") if word]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=sizes, default=[100, 1000, 10_000, 100_000])
    parser.add_argument("--terraform-sizes", type=sizes, default=[1000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--shape", choices=chains.SHAPES, default="chain")
    parser.add_argument("--link", choices=chains.LINKS, default="after", help="by name, or by an output")
    parser.add_argument(
        "--terraform-apply", type=int, default=1000, help="above it the state is written by hand"
    )
    parser.add_argument("--terraform-seconds", type=float, default=1800)
    parser.add_argument("--terraform-megabytes", type=float, default=16_000)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser.parse_args()


def measured(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, int, Cost]]:
    """All of it, smallest first. The first start is not counted: it compiles."""
    run(gamma("--help"), folder, environment())
    for what, cost in measure_start(folder, options.repeat):
        yield what, 0, cost
    for size in options.sizes:
        for what, cost in measure_gamma(folder / f"gamma-{size}", size, options):
            yield what, size, cost
        if size == options.sizes[0]:
            for words in (("--help",), ("validate",)):
                found = ", ".join(imported(folder / f"gamma-{size}", *words)) or "none"
                print(f"gamma {words[0]} imports of {', '.join(UNWANTED)}: {found}")
    if shutil.which("terraform") is None:
        print("no terraform on PATH: nothing to compare with")
        return
    for size in options.terraform_sizes:
        for what, cost in measure_terraform(folder / f"terraform-{size}", size, options):
            yield what, size, cost


def main() -> int:
    options = arguments()
    results: Results = {}
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f}; shape {options.shape}, link by {options.link}")
    print(f"{'':24} {'size':>8} {'wall s':>9} {'CPU s':>9} {'MB':>8}")
    with tempfile.TemporaryDirectory(prefix="gamma-bench-") as name:
        try:
            for what, size, cost in measured(options, Path(name)):
                results.setdefault(what, {})[size] = cost
                show(what, size, cost)
        except Failed as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            if options.json:
                options.json.write_text(json.dumps(_plain(results), indent=1) + "\n", encoding="utf-8")
    conclude(results)
    return 0


def _plain(results: Results) -> Mapping[str, Mapping[int, object]]:
    return {what: {size: asdict(cost) for size, cost in costs.items()} for what, costs in results.items()}


if __name__ == "__main__":
    sys.exit(main())
