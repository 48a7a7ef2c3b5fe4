"""Does a Model fit together: its task with its data, its passes with each other, its gates with what is
measured? What can be known before anything is fetched is said here, at its line. Pure; called through
`Kind.check`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.diagnostic import Diagnostic, Path, did_you_mean
from gamma_orch.core.resource import Resource

DATA = "GAM701"  # data that does not have what the task needs
NO_DATA = "GAM702"  # something that needs data, and names none
ORDER = "GAM703"  # a pass that cannot stand where it stands
UNMEASURED = "GAM704"  # a gate on what is not measured
ADAPTER = "GAM705"  # an adapter that is to be optimized

All = Mapping[Address, Resource]

# The columns that a dataset must name for a task, to learn from and to be measured on.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "text-classification": ("text", "label"),
    "token-classification": ("tokens", "tags"),
    "embeddings": ("text",),
    "text-generation": ("text",),
    "summarization": ("text", "summary"),
}
SPEED = ("p50", "p95", "speedup", "size", "memory", "load")
MEASURED: Mapping[str, tuple[str, ...]] = {
    "text-classification": ("accuracy", "f1", "relative-quality", *SPEED),
    "token-classification": ("f1", "relative-quality", *SPEED),
    "embeddings": ("cosine", *SPEED),
    "text-generation": ("perplexity", "relative-quality", "tokens-per-second", *SPEED),
    "summarization": ("rouge", "relative-quality", "tokens-per-second", *SPEED),
}
QUALITY = frozenset({"accuracy", "f1", "relative-quality", "cosine", "perplexity", "rouge"})

# What a pass takes and gives: a model in PyTorch, as ONNX, as quantized ONNX, in OpenVINO's form.
TORCH, ONNX, QUANTIZED, OPENVINO = "PyTorch", "ONNX", "quantized ONNX", "OpenVINO"
FORMS: Mapping[str, tuple[str, str]] = {
    "prune": (TORCH, TORCH),
    "distil": (TORCH, TORCH),
    "trim-vocabulary": (TORCH, TORCH),
    "sparsify": (TORCH, TORCH),
    "export": (TORCH, ONNX),
    "fuse": (ONNX, ONNX),
    "quantize-dynamic": (ONNX, QUANTIZED),
    "quantize-static": (ONNX, QUANTIZED),
    "quantize-weights": (ONNX, QUANTIZED),
    "openvino": (ONNX, OPENVINO),
    "quantize-openvino": (OPENVINO, OPENVINO),
}
NEEDS_DATA = frozenset({"distil", "trim-vocabulary", "quantize-static"})


def models(resources: Sequence[Resource], everything: All) -> Iterable[Diagnostic]:
    for resource in resources:
        for code, path, message, hint in _faults(resource.spec, everything):
            yield Diagnostic(code, message, path=("spec", *path), address=resource.address, hint=hint)


Said = tuple[str, Path, str, str]


def _faults(spec: Json, everything: All) -> Iterator[Said]:
    tuned = spec["finetune"]["dataset"] if spec["finetune"] else None
    measured = spec["evaluate"]["dataset"] or tuned
    named = [(("finetune", "dataset"), tuned), (("evaluate", "dataset"), spec["evaluate"]["dataset"])]
    named.append((("optimize", "data"), spec["optimize"]["data"]))
    for path, name in named:
        if isinstance(name, str):
            # What is only run through the model, to find ranges, needs no answers beside it.
            texts_alone = path[0] == "optimize" and not _learns(spec["optimize"])
            yield from _columns(spec, path, name, everything, texts_alone)
    yield from _needs_data(spec, measured, spec["optimize"]["data"] or tuned)
    yield from _gates(spec)
    yield from _order(spec["optimize"]["passes"])
    level = spec["optimize"]["level"]
    if spec["finetune"] and spec["finetune"]["keep"] == "adapter" and level != "none":
        yield (
            ADAPTER,
            ("optimize",),
            "an adapter is kept beside its base, and only a merged model can be optimized",
            "write `keep: merged`, or `optimize: {level: none}`",
        )


def _learns(optimize: Json) -> bool:
    """Whether a pass looks at the answers in the data."""
    listed = {one["pass"]: one for one in optimize["passes"]}
    prunes = "prune" in listed and listed["prune"]["importance"] != "weights"
    return optimize["level"] in ("ultra", "auto") or prunes or "distil" in listed


def _columns(spec: Json, path: Path, name: str, everything: All, texts_alone: bool) -> Iterator[Said]:
    dataset = everything.get(Address("Dataset", name))
    if dataset is None:
        return  # the reference has been complained about
    columns = dataset.spec["columns"]
    for column in COLUMNS[spec["task"]]:
        if not columns.get(column) and not (texts_alone and column != "text"):
            yield (
                DATA,
                path,
                f"{dataset.address} names no {column}, which {spec['task']} needs",
                f"write `columns: {{{column}: ...}}` in {dataset.address}",
            )
    known = sorted(set(dataset.spec["labels"].values()))
    if path[0] != "optimize" and known and spec["labels"]:
        for number, label in enumerate(spec["labels"]):
            if label not in known:
                message = f"{dataset.address} has no label {label!r}; it has {', '.join(known)}"
                yield DATA, ("labels", number), message, did_you_mean(label, known)


def _needs_data(spec: Json, measured: str | None, tuned: str | None) -> Iterator[Said]:
    level, gates = spec["optimize"]["level"], spec["gates"]
    if measured is None:
        why = "`evaluate: {dataset: ...}` names what quality is measured on"
        if level in ("advanced", "ultra", "auto"):
            message = f"without data, nobody can tell whether {level} keeps the model good"
            yield NO_DATA, ("optimize", "level"), message, why
        if spec["budget"]["quality"]:
            yield NO_DATA, ("budget", "quality"), "without data, quality is not measured", why
        for number, gate in enumerate(gates):
            if gate["metric"] in QUALITY:
                message = f"without data, {gate['metric']} is not measured"
                yield NO_DATA, ("gates", number, "metric"), message, why
    if tuned is None:
        for number, one in enumerate(spec["optimize"]["passes"]):
            if one["pass"] in NEEDS_DATA and one.get("least") != 0:
                message = f"the pass {one['pass']} needs data to work with"
                yield NO_DATA, ("optimize", "passes", number), message, "write `data: ...` below optimize"


def _gates(spec: Json) -> Iterator[Said]:
    known = MEASURED[spec["task"]]
    for number, gate in enumerate(spec["gates"]):
        metric, path = gate["metric"], ("gates", number)
        if metric not in known:
            hint = f"measured are {', '.join(known)}"
            yield UNMEASURED, (*path, "metric"), f"{metric} is not measured for {spec['task']}", hint
        elif metric in ("p50", "p95"):
            for one, all_of in (("batch", "batches"), ("length", "lengths")):
                shapes = spec["benchmark"][all_of]
                if gate[one] not in shapes:
                    message = f"the benchmark does not measure {one} {gate[one]}; it measures {shapes}"
                    hint = f"add it to benchmark.{all_of}"
                    yield UNMEASURED, (*path, one), message, hint


def _order(passes: Sequence[Json]) -> Iterator[Said]:
    form = TORCH
    for number, one in enumerate(passes):
        takes, gives = FORMS[one["pass"]]
        if takes != form:
            makers = [name for name, (_, made) in FORMS.items() if made == takes and FORMS[name][0] != takes]
            hint = f"put it after {' or '.join(makers)}" if makers else "put it before `export`"
            message = f"{one['pass']} takes a model in {takes}, and here it is in {form}"
            yield ORDER, ("optimize", "passes", number, "pass"), message, hint
            return
        form = gives
