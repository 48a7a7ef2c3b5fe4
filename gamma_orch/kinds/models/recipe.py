"""From the fields of a Model to what has to be built: the reference, and the candidates, rung by rung. Pure.

The *reference* is the model as it is before anything is optimized, in PyTorch and float32: what every
quality and speed is told beside. A *rung* is a level with the candidates that may keep its promise. A level
that keeps none of its promises gives way to the rung below. An explicit list of passes is one rung with one
candidate; `auto` is one rung with all of them.
"""

from dataclasses import dataclass

from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.kinds.models.derivation import Derivation, Given, Versions, derive
from gamma_orch.kinds.models.ladder import LEVELS, PROMISES
from gamma_orch.kinds.models.source import identity
from gamma_orch.spec.quantities import share_of

GENERATES = ("text-generation", "summarization")


@dataclass(frozen=True, slots=True)
class Candidate:
    name: str  # openvino-int8
    built: Derivation
    measured: Derivation  # what stands for it in evaluation: the merged model for an adapter
    runtime: str


@dataclass(frozen=True, slots=True)
class Rung:
    level: str
    candidates: tuple[Candidate, ...]
    quality: float  # promised share of the reference's quality, lower bound


@dataclass(frozen=True, slots=True)
class Recipe:
    reference: Derivation
    rungs: tuple[Rung, ...]  # the asked one first, then what it falls back to
    task: str
    versions: Versions
    fields: Fields
    host: str  # fingerprint of the machine that measures
    data: Given | None

    def evaluation(self, of: Derivation, split: str) -> Derivation:
        """Quality of one model on one split, beside the reference's."""
        said = self.fields["evaluate"]
        params: Json = {"split": split, "limit": said.get("rows")}
        length = said.get("length") or self.fields.get("finetune", {}).get("length")
        if length:
            params["length"] = length
        inputs: dict[str, Derivation | Given] = {"model": of}
        if self.data is not None:
            inputs["data"] = self.data
        if of is not self.reference:
            inputs["reference"] = self.evaluation(self.reference, split)
        return derive(self.versions, "evaluate", params, **inputs)

    def benchmark(self, of: Derivation) -> Derivation:
        """Speed and memory of one model, measured beside the reference, on this machine."""
        said = self.fields["benchmark"]
        params: Json = {
            "batches": said["batches"],
            "lengths": said["lengths"],
            "concurrency": said["concurrency"],
            "seconds": said["seconds"],
            "threads": self.fields["target"]["threads"],
            "host": self.host,
        }
        if said["traffic"] != "steady":
            params["traffic"] = said["traffic"]
        if self.task in GENERATES:
            params["generate"] = {"prompt": min(said["lengths"]), "new": said["newTokens"]}
        return derive(self.versions, "benchmark", params, model=of, baseline=self.reference)

    @property
    def choice(self) -> Derivation:
        """The choice among the candidates, with its report: what a Model resource points through."""
        params: Json = {
            "rungs": [[rung.level, rung.quality, [c.name for c in rung.candidates]] for rung in self.rungs],
            "budget": self.fields["budget"],
            "benchmark": self.fields["benchmark"],
            "evaluate": {k: v for k, v in self.fields["evaluate"].items() if k != "data"},
            "gates": self.fields.get("gates", []),
            "threads": self.fields["target"]["threads"],
            "host": self.host,
        }
        built = {f"{rung.level}/{c.name}": c.built for rung in self.rungs for c in rung.candidates}
        inputs: dict[str, Derivation | Given] = {"reference": self.reference, **built}
        if self.data is not None:
            inputs["data"] = self.data
        return Derivation("report", params, inputs)


def recipe(fields: Fields, versions: Versions, host: str) -> Recipe:
    """`fields`: normalised, every reference resolved; a `path` source with its sha256."""
    make = _Maker(fields, versions)
    reference = make.reference()
    said = fields["optimize"]
    if fields.get("finetune", {}).get("keep") == "adapter":
        adapter = Candidate("adapter", make.adapter(), reference, "torch")
        rungs: tuple[Rung, ...] = (Rung("none", (adapter,), 0.0),)
    elif passes := said.get("passes"):
        rungs = (Rung("passes", (make.listed(passes, reference),), 0.0),)
    elif said["level"] == "auto":
        found = [c for level in LEVELS for c in make.candidates(level, reference)]
        rungs = (Rung("auto", tuple(found), 0.0),)
    else:
        below = LEVELS[: LEVELS.index(said["level"]) + 1]
        rungs = tuple(
            Rung(level, tuple(make.candidates(level, reference)), make.promise(level))
            for level in reversed(below)
        )
    rungs = tuple(rung for rung in rungs if rung.candidates)
    return Recipe(reference, rungs, fields["task"], versions, fields, host, make.given("evaluate"))


@dataclass(frozen=True, slots=True)
class _Maker:
    fields: Fields
    versions: Versions

    def derive(self, op: str, params: Json, **inputs: Derivation | Given) -> Derivation:
        return derive(self.versions, op, params, **inputs)

    def given(self, part: str) -> Given | None:
        data = self.fields.get(part, {}).get("data")
        return Given(data["digest"]) if data else None

    def promise(self, level: str) -> float:
        wanted = self.fields["budget"].get("quality", {}).get("relative")
        return share_of(wanted) if wanted is not None and level != "none" else PROMISES[level].quality

    def source(self) -> Derivation:
        said = identity(self.fields["source"])
        dtype = said.pop("dtype")
        params: Json = {"source": said, "task": self.fields["task"], "dtype": dtype}
        for name in ("labels", "pooling", "normalize", "maxLength"):
            if self.fields.get(name) not in (None, []):
                params[name] = self.fields[name]
        return self.derive("fetch_model", params)

    def adapter(self) -> Derivation:
        said = self.fields["finetune"]
        early = said.get("earlyStop")
        params: Json = {
            "rank": said["rank"],
            "alpha": said["alpha"],
            "dropout": said["dropout"],
            "targets": said["targets"],
            "epochs": said["epochs"],
            "maxSteps": said.get("maxSteps"),
            "batch": said["batch"],
            "gradientAccumulation": said["accumulate"],
            "learningRate": said["learningRate"],
            "schedule": said["schedule"],
            "warmup": share_of(said["warmup"]),
            "weightDecay": said["weightDecay"],
            "length": said["length"],
            "seed": said["seed"],
            "precision": said["precision"],
            "gradientCheckpointing": said["gradientCheckpointing"],
            "evaluateEvery": said.get("evaluateEvery"),
            "earlyStop": {"patience": early["patience"]} if early else None,
            "labels": self.fields.get("labels") or None,
        }
        return self.derive("finetune", params, model=self.source(), data=self._need("finetune"))

    def reference(self) -> Derivation:
        if "finetune" not in self.fields:
            return self.source()
        return self.derive("merge", {}, model=self.source(), adapter=self.adapter())

    def _need(self, part: str) -> Given:
        given = self.given(part)
        if given is None:
            raise ValueError(f"{part} names no dataset")  # the kind's check has said so at its line
        return given

    # --- levels -----------------------------------------------------------------------------------

    def candidates(self, level: str, reference: Derivation) -> list[Candidate]:
        """What may keep the promise of a level, the likelier first: a tie goes to the earlier."""
        match level:
            case "none":
                return [Candidate("torch", reference, reference, "torch")]
            case "basic":
                return self._on_runtimes("float32", self.export(self.read_whole(reference)))
            case "advanced":
                return self._on_runtimes("int8", self.export(self.read_whole(reference)))
            case _ if self.fields["task"] in GENERATES:
                return self._on_runtimes("int4", self.export(reference))
            case _ if self.given("optimize") is not None:
                small = self.export(self.shrunk(reference))
                return [self._renamed(c, f"pruned-{c.name}") for c in self._on_runtimes("int8", small)]
            case _:
                return []

    def export(self, model: Derivation) -> Derivation:
        return self.derive("export", {}, model=model)

    def read_whole(self, reference: Derivation) -> Derivation:
        """Without the embeddings of tokens that no text can come to: every answer stays the same."""
        if self.fields["task"] in GENERATES:
            return reference
        return self.derive("trim_vocabulary", {"least": 0}, model=reference)

    def shrunk(self, reference: Derivation) -> Derivation:
        """Fewer layers, recovered by distillation, and the vocabulary of the data."""
        data = self._need("optimize")
        pruned = self.derive("prune", ULTRA_PRUNE, model=reference, data=data)
        length = self.fields.get("finetune", {}).get("length", 128)
        taught = self.derive(
            "distil", {**ULTRA_DISTIL, "length": length}, model=pruned, teacher=reference, data=data
        )
        return self.derive("trim_vocabulary", ULTRA_TRIM, model=taught, data=data)

    def _on_runtimes(self, precision: str, graph: Derivation) -> list[Candidate]:
        makers = {"openvino": self._openvino, "onnxruntime": self._onnxruntime}
        found = []
        for runtime in self.fields["optimize"]["runtimes"]:
            built = makers[runtime](precision, graph)
            found.append(Candidate(f"{runtime}-{precision}", built, built, runtime))
        return found

    def _renamed(self, candidate: Candidate, name: str) -> Candidate:
        return Candidate(name, candidate.built, candidate.measured, candidate.runtime)

    def _openvino(self, precision: str, graph: Derivation) -> Derivation:
        moved = self.derive("to_openvino", {"precision": "float32"}, model=graph)
        if precision == "float32":
            return moved
        data = self.given("optimize")
        if precision == "int4" or self.fields["task"] in GENERATES or data is None:
            return self.derive("quantize_openvino", {"weights": precision}, model=moved)
        params: Json = {"preset": "mixed", "rows": 100}
        return self.derive("quantize_openvino", params, model=moved, data=data)

    def _onnxruntime(self, precision: str, graph: Derivation) -> Derivation:
        if precision == "float32":
            return graph
        if precision == "int4":
            return self.derive("quantize_weights", {"bits": 4, "block": 32}, model=graph)
        if self.fields["task"] in GENERATES:
            # Quantizing activations as they come costs a decoder much of its quality.
            return self.derive("quantize_weights", {"bits": 8, "block": 32}, model=graph)
        return self.derive("quantize_dynamic", {"perChannel": True}, model=graph)

    # --- an explicit list -------------------------------------------------------------------------

    def listed(self, passes: list[Json], reference: Derivation) -> Candidate:
        model, runtime = reference, "torch"
        for one in passes:
            params = {key: value for key, value in one.items() if key != "pass"}
            op = one["pass"].replace("-", "_")
            match op:
                case "openvino":
                    op, runtime = "to_openvino", "openvino"
                case "export":
                    runtime = "onnxruntime"
            for name in ("ratio", "hiddenUntil"):
                if params.get(name) is not None:
                    params[name] = share_of(params[name])
            inputs: dict[str, Derivation | Given] = {"model": model}
            if op == "distil":
                inputs["teacher"] = reference
            if op in TAKES_DATA and (data := self.given("optimize")) is not None:
                inputs["data"] = data
            model = self.derive(op, params, **inputs)
        names = "+".join(one["pass"] for one in passes)
        return Candidate(names, model, model, runtime)


TAKES_DATA = frozenset({"quantize_static", "quantize_openvino", "prune", "distil", "trim_vocabulary"})
# Found on MiniLM and film reviews: a sixth of the layers and a third of the feed-forward width go, and one
# round over the labels and the teacher's answers brings back what they took. docs/models.md has the figures.
ULTRA_PRUNE: Json = {
    "layers": {"keep": 0.84, "choose": "spread"},
    "ffn": 0.6667,
    "importance": "activation",
}
ULTRA_TRIM: Json = {"least": 3}  # how often a token must be there: rarer ones are spelled by their pieces
ULTRA_DISTIL: Json = {
    "epochs": 1.0,
    "batch": 32,
    "learningRate": 2e-4,
    "schedule": "cosine",
    "temperature": 2.0,
    "hard": 0.5,
    "hidden": 0.5,
    "hiddenUntil": 1.0,
    "hiddenLayers": "all",
    "precision": "bfloat16",
}
