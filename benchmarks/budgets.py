"""What `auto` picks under five budgets, beside a search through every candidate. One table.

    python -m benchmarks.budgets [--keep FOLDER]

`sentiment` of the reference project at the level auto, once for each budget, built by `gamma apply` in the
project of `benchmarks.models` (whose artifacts are there already: run that first). The search is written here
a second time, over the figures that the report keeps of every candidate, and knows nothing of ties: where it
names another one, both figures are printed. The last budget cannot be kept; what `gamma apply` says of it
stands below the table.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.models import ROOT, write_project
from gamma_orch.store.artifacts import Artifacts

Json = Any
BUDGETS: dict[str, Json] = {
    "fastest": {"objective": "fastest"},
    "smallest": {"objective": "smallest"},
    "most-accurate": {"objective": "most-accurate"},
    "small-enough": {"objective": "fastest", "size": "30MB", "quality": {"relative": "99%"}},
    "impossible": {"objective": "fastest", "size": "5MB", "quality": {"least": 0.9}},
}


def write_budgets(folder: Path) -> None:
    write_project(folder, None)
    path = folder / "specs" / "models.yaml"
    data, model, *_ = yaml.safe_load_all(path.read_text())
    documents = [data]
    for name, budget in BUDGETS.items():
        spec = {**model["spec"], "optimize": {"level": "auto"}, "budget": budget}
        documents.append({**model, "metadata": {"name": f"auto-{name}"}, "spec": spec})
    path.write_text(yaml.safe_dump_all(documents, sort_keys=False))


def search(table: list[Json], budget: Json) -> tuple[str, float]:
    """The best of those inside the budget, by the plain figures: its name, and what it is best in."""
    inside = [
        one
        for one in table
        if one["size"] <= 1e6 * float(budget.get("size", "inf").removesuffix("MB"))
        and _share(one) >= float(budget.get("quality", {}).get("relative", "0").removesuffix("%")) / 100
    ]
    figures = {one["name"]: _figure(one, budget["objective"]) for one in inside}
    best = (max if budget["objective"] == "most-accurate" else min)(figures, key=lambda name: figures[name])
    return best, figures[best]


def _share(one: Json) -> float:
    return float((one["quality"]["relative"] or {"value": 1.0})["value"])


def _figure(one: Json, objective: str) -> float:
    match objective:
        case "smallest":
            return float(one["size"]) / 1e6
        case "most-accurate":
            return _share(one)
        case _:
            return float(one["time"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", type=Path, default=ROOT / ".gamma" / "benchmarks" / "models")
    keep = parser.parse_args().keep.resolve()
    write_budgets(keep)
    said = ["apply", "-e", "dev", "--yes", "-C", str(keep), "-o", "json"]
    command = [sys.executable, "-m", "gamma_orch.cli", *said]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=sys.stderr, check=False)
    store = Artifacts(str(keep / ".gamma" / "artifacts"), keep / ".gamma" / "builds")
    pointers = {address: body for (_, address), body in store.pointers().items()}
    print("| budget | auto picks | its figure | search finds | its figure | of | on the Pareto front |")
    print("|---|---|---|---|---|---|---|")
    for name, budget in BUDGETS.items():
        body = pointers.get(f"Model/auto-{name}")
        if body is None:
            print(f"| {name} | none | | | | | |")
            continue
        report = store.find(body["told"]["report"])
        assert report is not None
        table, picked = report.facts["table"], body["outputs"]["candidate"]
        [chosen] = [one for one in table if one["name"] == picked]
        best, figure = search(table, budget)
        ours = _figure(chosen, budget["objective"])
        print(
            f"| {name} | {picked} | {ours:.4g} | {best} | {figure:.4g} | {len(table)} | "
            f"{', '.join(report.facts['pareto'])} |"
        )
    for step in json.loads(done.stdout)["steps"]:
        if step["error"]:
            print(f"\n{step['address']}: {step['error']}")


if __name__ == "__main__":
    main()
