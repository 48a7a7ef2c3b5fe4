"""How good a model is on one split of its data, alone and beside its reference, row by row.

    inputs  model: a model folder; data: train.jsonl, validation.jsonl, test.jsonl
            reference (optional): what this pass made of the reference model on the same rows
    params  {"split": "validation" | "test", "limit": rows or None, "length": tokens or None, "batch": 32,
             "metrics": names or None (all of the task's), "newTokens": 64 (a summary's, at most)}
    out     evaluation.json, the facts; predictions.safetensors, what each row got, so that later
            evaluations pair with it: no model is run twice
    facts   quality (the task's measure) with its 95 % interval, the other metrics; beside a reference the
            difference and the share of its quality (`relative`) with paired intervals, and how far they agree

What quality is, by task: accuracy; entity F1; the mean cosine to the reference's vectors; perplexity (the
only one of which less is better, so `relative` is the reference's divided by ours); ROUGE-L.

A row is named by a hash of its id. The first `limit` rows of the split are taken. Rows go through the model
in batches of like length, cut at `length` tokens. The bytes depend on the runtime and the processor in the
last bits of the logits. What is measured for each task is in `measures`.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from gamma_orch import runtimes
from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models import intervals
from gamma_orch.kinds.models.intervals import Interval
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import batches
from gamma_orch.kinds.models.passes.measures import TASKS, Arrays, Rows
from gamma_orch.runtimes.errors import ModelError

FACTS = "evaluation.json"
PREDICTIONS = "predictions.safetensors"
_SPLITS = ("validation", "test", "train")


def run(job: Job) -> Json:
    split = job.params.get("split", "validation")
    if split not in _SPLITS:
        raise Permanent(f"There is no split {split!r}; there are: {', '.join(_SPLITS)}.")
    if "data" not in job.inputs:
        raise Permanent("Quality is measured on data, and none is given. Name it in `evaluate.dataset`.")
    try:
        model = runtimes.load(job.inputs["model"], threads=job.threads)
        task = model.card.task
        rows = _rows(job, split, task)
        own = TASKS[task].own(model, job.inputs["model"], rows)
    except ModelError as error:
        raise Permanent(str(error)) from error
    facts: dict[str, Any] = {
        "task": task,
        "split": split,
        "rows": len(rows.rows),
        "length": rows.length,
        "runtime": model.card.runtime,
        "precision": model.card.precision,
        "metric": own.metric,
        "quality": _encoded(own.quality),
        "metrics": dict(own.metrics),
        "relative": None,
        "reference": None,
    }
    if "reference" in job.inputs:
        job.tell("comparing with the reference", None)
        said, theirs = _reference(job.inputs["reference"], rows.ids, task)
        beside = TASKS[task].beside(own.arrays, theirs)
        facts["relative"] = _encoded(beside.relative)
        facts["reference"] = {"quality": said["quality"], "metrics": said["metrics"], **beside.facts}
        facts["quality"] = _encoded(beside.quality) or facts["quality"]
        facts["metrics"].update(beside.metrics or {})
        facts["bootstrap"] = {"draws": intervals.DRAWS, "seed": intervals.SEED, "percent": 95}
    facts["metrics"] = _wanted(facts["metrics"], job.params.get("metrics"))
    save_file({"ids": rows.ids, **own.arrays}, job.out / PREDICTIONS)
    (job.out / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return facts


def _rows(job: Job, split: str, task: str) -> Rows:
    found = batches.rows(job.inputs["data"], split, task)[: job.params.get("limit")]
    return Rows(
        rows=found,
        ids=np.array([_number(row, place) for place, row in enumerate(found)], np.int64),
        length=job.params.get("length"),
        batch=job.params.get("batch") or 32,
        new=job.params.get("newTokens") or 64,
        tell=job.tell,
    )


def _number(row: Json, place: int) -> int:
    name = hashlib.blake2b(str(row.get("id", place)).encode(), digest_size=8)
    return int.from_bytes(name.digest(), "big", signed=True)


def _reference(folder: Path, ids: np.ndarray, task: str) -> tuple[Json, Arrays]:
    """Its facts, and its arrays on exactly these rows. Raises Permanent where it was measured on others."""
    try:
        said = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        theirs = load_file(folder / PREDICTIONS)
    except (OSError, ValueError) as error:
        raise Permanent(f"The reference is no evaluation that can be paired with: {error}.") from error
    if said["task"] != task:
        raise Permanent(f"The reference was measured as {said['task']}, and this model is for {task}.")
    if not np.array_equal(theirs["ids"], ids):
        both = len(np.intersect1d(theirs["ids"], ids))
        raise Permanent(
            f"The reference was measured on {len(theirs['ids'])} rows, this model on {len(ids)}, and "
            f"{both} are the same. Measure both on the same split, with the same `limit`."
        )
    return said, theirs


def _wanted(metrics: Json, names: Sequence[str] | None) -> Json:
    if names is None:
        return metrics
    if absent := [name for name in names if name not in metrics]:
        raise Permanent(f"{', '.join(absent)}: not measured here. Measured are: {', '.join(metrics)}.")
    return {name: metrics[name] for name in names}


def _encoded(found: Interval | None) -> Json:
    return found.encoded() if found else None
