"""Holds prepared rows against what is expected of them, with Great Expectations: evidence about the data.

    inputs  data: a folder with train.jsonl, ... (`prepare_data`)
    params  {"expectations": [{"expect": "expect_column_values_to_not_be_null", "column": "text",
             "split": "train"}, ...]}; further keys are the expectation's own; no split: all rows
    out     expectations.json: each with its success, what was observed, how many rows were unexpected, and a
            few unexpected values, cut short
    facts   {"passed": n, "failed": []}

An expectation is named as Great Expectations names it, or without its `expect_`. Where one fails, the pass
fails, and `expectations.json` lies in the work folder. Nothing is sent anywhere, and no project of Great
Expectations is made.
"""

import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import did_you_mean
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes.splits import SPLITS

ALL = "all"
_SAMPLES, _LONGEST = 5, 40  # unexpected values shown, and characters of each
_OWN = ("expect", "split")


def run(job: Job) -> Json:
    asked = job.params.get("expectations") or []
    if not asked:
        raise Permanent(
            "There are no expectations to hold the data against: write some, or leave the check out."
        )
    folder = job.inputs["data"]
    there = [name for name in SPLITS if (folder / f"{name}.jsonl").is_file()]
    if not there:
        raise Permanent(f"The input data has none of {', '.join(f'{name}.jsonl' for name in SPLITS)}.")
    known = _known()
    wanted = [_expectation(known, one, number, there) for number, one in enumerate(asked, 1)]
    results = []
    batches: dict[str, Any] = {}
    for number, (one, (split, expectation)) in enumerate(zip(asked, wanted, strict=True)):
        job.tell(f"{_name(one)} ({split})", number / len(wanted))
        if split not in batches:
            batches = {split: _batch(folder, there if split == ALL else [split])}  # one split in memory
        results.append(_result(one, split, batches[split].validate(expectation).to_json_dict()))
    failed = [result for result in results if not result["success"]]
    where = job.work if failed else job.out
    body = json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False)
    (where / "expectations.json").write_text(body + "\n", encoding="utf-8")
    if failed:
        listed = "\n".join(f"- {_told(result)}" for result in failed)
        raise Permanent(
            f"The data is not what is expected of it; {len(failed)} of {len(results)} expectations fail:\n"
            f"{listed}\nAll results are in {where / 'expectations.json'}. Mend the data, or the expectation."
        )
    return {"passed": len(results), "failed": []}


def _gx() -> tuple[Any, Any]:
    # Read when it is imported; without it, each use is reported to the makers.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports of what Python and pandas deprecate
        import great_expectations
        import great_expectations.expectations
    return great_expectations, great_expectations.expectations


def _known() -> dict[str, Any]:
    """The expectations that there are, by their snake_case names."""
    _, module = _gx()
    classes = (value for name, value in vars(module).items() if name.startswith("Expect"))
    return {found.expectation_type: found for found in classes if hasattr(found, "expectation_type")}


def _name(one: Mapping[str, Any]) -> str:
    """ExpectColumnToExist, expect_column_to_exist and column_to_exist are one."""
    name = str(one.get("expect") or "").replace("KLDiv", "KlDiv")
    if not name.islower():
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    return name if name.startswith("expect_") else f"expect_{name}"


def _expectation(
    known: Mapping[str, Any], one: Mapping[str, Any], number: int, there: list[str]
) -> tuple[str, Any]:
    """The split, and the expectation made ready. Raises Permanent for what Great Expectations has not."""
    name, split = _name(one), str(one.get("split") or ALL)
    if name not in known:
        hint = did_you_mean(name, known) or "see the gallery of Great Expectations"
        raise Permanent(f"Expectation {number}: there is no {str(one.get('expect') or '')!r}: {hint}")
    if split != ALL and split not in there:
        raise Permanent(
            f"Expectation {number} ({name}): the data has no split {split!r}: "
            f"{did_you_mean(split, [*there, ALL])}"
        )
    own = {key: value for key, value in one.items() if key not in _OWN}
    fields = (
        set(known[name].model_fields) if hasattr(known[name], "model_fields") else set(known[name].__fields__)
    )
    for key in own:
        if key not in fields:
            raise Permanent(f"Expectation {number} ({name}) takes no {key!r}: {did_you_mean(key, fields)}")
    try:
        return split, known[name](**own)
    except (ValueError, TypeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise Permanent(
            f"Expectation {number} ({name}) is not complete: {'; '.join(lines[1:] or lines)}"
        ) from None


def _batch(folder: Path, names: list[str]) -> Any:
    great_expectations, _ = _gx()
    from great_expectations.data_context.types.base import ProgressBarsConfig

    rows = [row for name in names for row in _rows(folder / f"{name}.jsonl")]
    frame = pd.DataFrame.from_records(rows)
    context = great_expectations.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    return asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _result(one: Mapping[str, Any], split: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    found = answer.get("result") or {}
    result = {
        "expect": _name(one),
        "split": split,
        "arguments": {key: value for key, value in one.items() if key not in _OWN},
        "success": bool(answer["success"]),
        "observed": _short(found.get("observed_value")),
        "rows": found.get("element_count"),
        "unexpected": found.get("unexpected_count"),
        "sample": _sample(found.get("partial_unexpected_list") or []),
    }
    if error := _error(answer.get("exception_info") or {}):
        result["error"] = error
    return result


def _error(told: Mapping[str, Any]) -> str:
    """Great Expectations nests this by metric, and flat where there is none."""
    for part in (told, *(value for value in told.values() if isinstance(value, Mapping))):
        if message := part.get("exception_message"):
            return str(message).strip().splitlines()[0]
    return ""


def _sample(values: list[Any]) -> list[Any]:
    seen = {json.dumps(short, ensure_ascii=False): short for short in map(_short, values)}
    return list(seen.values())[:_SAMPLES]


def _short(value: Any) -> Any:
    """Numbers as they are; a text's beginning only, since the results are shown where rows may not be."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, list):
        return [_short(item) for item in value[:20]]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _told(result: Mapping[str, Any]) -> str:
    column = result["arguments"].get("column")
    head = f"{result['expect']}" + (f" of {column}" if column else "") + f" ({result['split']})"
    if "error" in result:
        return f"{head}: could not be computed: {result['error']}"
    if result["unexpected"] is not None and result["rows"] is not None:
        sample = ", ".join(json.dumps(value, ensure_ascii=False) for value in result["sample"])
        return f"{head}: {result['unexpected']} of {result['rows']} rows are unexpected, such as {sample}"
    return f"{head}: observed {json.dumps(result['observed'], ensure_ascii=False)}"
