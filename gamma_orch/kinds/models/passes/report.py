"""Writes down what a build came to: choice.json, the card in Markdown, and pictures of the loss and of the
choice. Its parameters are what `selection` has found out; it has no inputs, and decides nothing.
"""

import json

from gamma_orch.core.canonical import Json
from gamma_orch.kinds.models.card import Data, Made, Subject, card
from gamma_orch.kinds.models.choice import Candidate, Choice, Latency, Shape
from gamma_orch.kinds.models.intervals import Interval
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import plots

TRAININGS = ("finetune", "distil")


def run(job: Job) -> Json:
    found = job.params
    candidates = [_candidate(row) for row in found["table"]]
    choice = Choice(found["candidate"], found["rejected"], tuple(found["pareto"]))
    (job.out / "choice.json").write_text(
        json.dumps({key: value for key, value in found.items() if key != "lineage"}, indent=1, sort_keys=True)
        + "\n",
        encoding="utf-8",
    )
    (job.out / "card.md").write_text(card(_subject(found, candidates, choice)), encoding="utf-8")
    if len(candidates) > 1:
        points = plots.points(candidates, choice)
        plots.pareto_png(points, job.out / "choice.png", f"{found['name']}: the candidates")
    for one in found["lineage"]:
        if one["op"] in TRAININGS and one["facts"].get("loss"):
            plots.loss_png(
                one["facts"], job.out / f"loss-of-{one['op']}.png", f"{found['name']}: {one['op']}"
            )
    return {}


def _candidate(row: Json) -> Candidate:
    quality = row["quality"] or {}
    return Candidate(
        name=row["name"],
        key=row["key"],
        size=row["size"],
        time=row["time"],
        memory=row["memory"],
        latency={
            Shape(one["batch"], one["length"]): Latency(one["p50"], one["p95"]) for one in row["shapes"]
        },
        load=row["load"],
        quality=_interval(quality.get("value")),
        relative=_interval(quality.get("relative")),
        runtime=row["runtime"],
    )


def _interval(body: Json) -> Interval | None:
    return Interval.decoded(body) if body else None


def _subject(found: Json, candidates: list[Candidate], choice: Choice) -> Subject:
    lineage = found["lineage"]
    source: Json = next((one["facts"] for one in lineage if one["op"] == "fetch-model"), {})
    model = found["speed"]["model"]
    return Subject(
        name=found["name"],
        task=found["task"],
        source=str(source.get("source", "")),
        key=found["chosen"]["key"],
        digest=found["chosen"]["digest"],
        runtime=model["runtime"],
        precision=model["precision"],
        licence=str(source.get("licence") or ""),
        labels=found["fields"].get("labels", ()),
        lineage=[Made(one["op"], one["key"], one["params"]) for one in lineage],
        data=[
            Data(one["name"], one["digest"], one["rows"], one.get("licence") or "") for one in found["data"]
        ],
        evaluation=found["evaluation"],
        benchmark=found["speed"],
        candidates=candidates,
        choice=choice,
        levels=found["sentences"],
        limits=_limits(source),
        built_for=found["builtFor"],
        host=found["host"],
        versions={name: version for one in lineage for name, version in one["tools"].items()},
    )


def _limits(source: Json) -> list[str]:
    if not (quantization := source.get("quantization")):
        return []
    text = (
        f"The source's weights are {quantization} already: what further quantization costs looks smaller "
        "here than beside the full weights."
    )
    return [text]
