"""Makes the rows that models learn from and are measured on: mapped, cleaned, split for good.

    inputs  raw: a folder with one file (`fetch_data`)
    params  {"format": "auto", "columns": {"text": "text", "label": "label"}, "labels": {"map": {...}},
             "clean": {...}, "splits": {"test": 0.2, "validation": 0.1}, "splitBy": "text", "limit": None,
             "seed": ""}
    out     train.jsonl, and validation.jsonl and test.jsonl where they have a share: {"id", "text", "label"}
    facts   rows and labels of each split, what was dropped and why, lengths

The bytes depend on the set of rows and the parameters, never on the order of the source. How a row finds
its split is in `splits`, what is done to it in `cleaning`. All that is wrong is said at once.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import did_you_mean
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import rows, splits
from gamma_orch.kinds.models.passes.cleaning import Cleaning, Record, Rules
from gamma_orch.kinds.models.passes.rows import Complaints
from gamma_orch.kinds.models.passes.spool import Spool, percentiles

_EVERY = 5000  # rows between two words of progress
# JSON leaves these as they are, and many readers of lines take them for the end of one.
_ENDS = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def run(job: Job) -> Json:
    params = job.params
    path = _raw(job.inputs["raw"])
    kind = rows.format_of(path, params.get("format") or "auto")
    columns: Mapping[str, str] = {
        name: column
        for name, column in (params.get("columns") or {"text": "text", "label": "label"}).items()
        if column
    }
    there = rows.columns(path, kind)
    if "tokens" in columns and columns.get("text") not in there:
        columns = {name: column for name, column in columns.items() if name != "text"}
    fractions = _fractions(params.get("splits") or {})
    by = params.get("splitBy") or "text"
    by = None if by in ("text", "tokens") else columns.get(by, by)
    labels = (params.get("labels") or {}).get("map")
    cleaning = Cleaning(
        columns, Rules.of(params.get("clean")), labels and {str(k): v for k, v in labels.items()}
    )
    limit = params.get("limit")
    if limit is not None and limit < len(fractions):
        raise Permanent(
            f"limit is {limit}: with {len(fractions)} splits, it must be {len(fractions)} at least."
        )
    _check_columns(path, there, columns, [*cleaning.rules.where, *([by] if by else [])])

    complaints = Complaints()
    spool = Spool(job.work / "rows.spool")
    names: dict[str, int] = {"": 0}  # label -> its number in the spool
    try:
        digest_of = splits.hasher(params.get("seed") or "")
        read = 0
        for line, row in rows.read(path, kind, complaints):
            read += 1
            if read % _EVERY == 0:
                job.tell(f"{read:,} rows read", None)
            record = cleaning.record(row, line, complaints)
            if record is None:
                continue
            text = splits.normalised(record.text)
            digest = digest_of(text)
            key = digest
            if by and (value := splits.normalised(str(row.get(by) or ""))):
                key = digest_of(value)
            split = splits.SPLITS.index(splits.split_of(key, fractions))
            label = names.setdefault(record.label or "", len(names))
            spool.add(
                digest, split, label, _line(digest, record), len(record.text), text.count(" ") + bool(text)
            )
        spool.seal()
        _unknown_labels(cleaning, complaints)
        if complaints:
            raise Permanent(_text(path, complaints.texts()))
        return _written(job, path, spool, list(names), cleaning, fractions, read)
    finally:
        spool.close()


def _written(
    job: Job,
    path: Path,
    spool: Spool,
    names: list[str],
    cleaning: Cleaning,
    fractions: Mapping[str, float],
    read: int,
) -> Json:
    dropped = Counter(cleaning.dropped)
    chosen: dict[str, list[int]] = {name: [] for name in splits.SPLITS if name in fractions}
    for group in spool.groups():
        kept = group
        if cleaning.rules.drop_duplicates and len(group) > 1:
            agree = len({spool.labels[number] for number in group}) == 1
            kept = group[:1] if agree else []
            dropped["duplicate" if agree else "contradictory"] += len(group) - len(kept)
        for number in kept:
            chosen[splits.SPLITS[spool.splits[number]]].append(number)
    sizes = {name: len(numbers) for name, numbers in chosen.items()}
    quotas = splits.quotas(sizes, job.params.get("limit"))
    dropped["limit"] = sum(sizes.values()) - sum(quotas.values())
    chosen = {name: numbers[: quotas[name]] for name, numbers in chosen.items()}
    counts = {
        name: Counter(names[spool.labels[number]] for number in numbers) for name, numbers in chosen.items()
    }
    reasons = {reason: dropped[reason] for reason in sorted(dropped) if dropped[reason]}
    labelled = "label" in cleaning.columns
    if wrong := _thin(chosen, counts if labelled else {}, fractions, read, reasons):
        raise Permanent(_text(path, wrong))
    for name, numbers in chosen.items():
        job.tell(f"writing {name}", None)
        spool.write(numbers, job.out / f"{name}.jsonl")
    everything = [number for numbers in chosen.values() for number in numbers]
    return {
        "read": read,
        "rows": {name: len(numbers) for name, numbers in chosen.items()},
        "labels": {name: dict(sorted(count.items())) for name, count in counts.items()} if labelled else {},
        "dropped": reasons,
        "characters": percentiles(spool.characters[number] for number in everything),
        "words": percentiles(spool.words[number] for number in everything),
    }


def _line(digest: str, record: Record) -> bytes:
    text = json.dumps({"id": digest[:16], **record.body}, ensure_ascii=False, separators=(", ", ": "))
    return (text.translate(_ENDS) if not text.isascii() else text).encode("utf-8", "backslashreplace") + b"\n"


def _raw(folder: Path) -> Path:
    found = sorted(path for path in folder.iterdir() if path.is_file() and path.name.startswith("raw"))
    if len(found) != 1:
        raise Permanent(f"The input raw has {len(found)} files named raw.*, and one is needed.")
    return found[0]


def _fractions(given: Mapping[str, float]) -> dict[str, float]:
    """The share of each split that has one, train included. Raises Permanent."""
    fractions = {name: float(share) for name, share in given.items() if share}
    for name, share in fractions.items():
        if name not in splits.SPLITS[1:]:
            raise Permanent(
                f"There is no split {name!r}: {did_you_mean(name, splits.SPLITS[1:])} (train takes the rest)"
            )
        if not 0 < share < 1:
            raise Permanent(f"The share of {name} is {share}: write a fraction between 0 and 1.")
    if (taken := sum(fractions.values())) >= 1:
        raise Permanent(f"The splits take {taken:.0%} of the rows, and leave none for training.")
    return {splits.TRAIN: 1 - taken, **fractions}


def _check_columns(path: Path, there: list[str], columns: Mapping[str, str], others: Iterable[str]) -> None:
    wrong = []
    if "text" not in columns and "tokens" not in columns:
        wrong.append("`columns` names neither text nor tokens: say which column has the text.")
    for column in dict.fromkeys([*columns.values(), *others]):
        if column not in there:
            hint = did_you_mean(column, there)
            wrong.append(
                f"there is no column {column!r}"
                + (f": {hint}" if hint else "")
                + f" The columns are: {', '.join(there) or 'none'}."
            )
    if wrong:
        raise Permanent(_text(path, wrong))


def _unknown_labels(cleaning: Cleaning, complaints: Complaints) -> None:
    known = cleaning.labels or {}
    for label, (count, first) in sorted(cleaning.unknown.items(), key=lambda item: (-item[1][0], item[0])):
        complaints.add(
            "labels",
            f"the label {label[:60]!r} ({count} rows, the first at line {first}) is not in labels.map, "
            f"which has {', '.join(map(repr, known))}. Add it, or leave its rows out with clean.where.",
        )


def _thin(
    chosen: Mapping[str, list[int]],
    counts: Mapping[str, Counter[str]],
    fractions: Mapping[str, float],
    read: int,
    dropped: Mapping[str, int],
) -> list[str]:
    lost = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none"
    total = sum(map(len, chosen.values()))
    if not total:
        return [f"no row is left of {read}; dropped: {lost}. Loosen `clean`."]
    wrong = [
        f"the {name} split is empty: {fractions[name]:.0%} of {total} rows. Give it a larger share, "
        "or more rows (a larger `limit`)."
        for name, numbers in chosen.items()
        if not numbers
    ]
    classes = set().union(*counts.values())
    if counts and len(classes) == 1:
        wrong.append(
            f"there is only one class: all {total} rows are {next(iter(classes))!r}, and nothing "
            "can be told apart. Is the right column mapped to label, and does clean.where keep the others?"
        )
    elif counts and len(counts[splits.TRAIN]) < len(classes) and chosen[splits.TRAIN]:
        absent = ", ".join(sorted(classes - set(counts[splits.TRAIN])))
        wrong.append(f"the train split has no row of: {absent}. Add rows, or raise `limit`.")
    return wrong


def _text(path: Path, wrong: list[str]) -> str:
    if len(wrong) == 1:
        return f"{path.name} cannot be used: {wrong[0]}"
    return f"{path.name} cannot be used:\n" + "\n".join(f"- {line}" for line in wrong)
