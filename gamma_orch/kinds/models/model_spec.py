"""What may be written about a Model, and how it becomes the fields that are compared. Pure."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Of
from gamma_orch.core.leaves import Ref
from gamma_orch.kinds.models.pass_spec import AnyPass
from gamma_orch.kinds.models.source import Source, stated
from gamma_orch.spec.model import Names
from gamma_orch.spec.quantities import Latency, Share, Size
from gamma_orch.spec.written_out import WrittenOut

Task = Literal[
    "text-classification", "token-classification", "embeddings", "text-generation", "summarization"
]
Level = Literal["none", "basic", "advanced", "ultra", "auto"]
Runtime = Literal["onnxruntime", "openvino"]
Metric = Literal[
    "accuracy", "f1", "relative-quality", "cosine", "perplexity", "rouge",
    "p50", "p95", "tokens-per-second", "speedup", "size", "memory", "load",
]  # fmt: skip
DatasetName = Annotated[str, Names("Dataset")]


class ModelSource(Source):
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """The type that the weights are kept in."""


class EarlyStop(WrittenOut):
    patience: int = Field(default=3, ge=1)
    """Looks at the validation split without a better result, after which training ends."""


class Finetune(WrittenOut):
    dataset: DatasetName
    """What it learns from: the train split. The validation split decides on an early stop."""
    method: Literal["lora"] = "lora"
    """LoRA: small matrices beside the frozen ones (Hu et al., 2021)."""
    rank: int = Field(default=16, ge=1, le=1024)
    """The rank of the small matrices."""
    alpha: float = Field(default=32, gt=0)
    """Their scale is alpha / rank."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    """Of their input, in training."""
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """The layers that get them, by the end of their names: query, value."""
    epochs: float = Field(default=2, gt=0)
    """Rounds over the train split."""
    max_steps: int | None = Field(default=None, ge=1, alias="maxSteps")
    """Stop after so many steps, wherever that is."""
    batch: int = Field(default=32, ge=1)
    """Rows a step."""
    accumulate: int = Field(default=1, ge=1)
    """Steps whose gradients are added up before the weights change."""
    learning_rate: float = Field(default=5e-4, gt=0, lt=1, alias="learningRate")
    """The highest of the schedule."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls."""
    warmup: Share = 0.06
    """The part of the steps in which it rises first."""
    weight_decay: float = Field(default=0.01, ge=0, alias="weightDecay")
    """AdamW's."""
    length: int = Field(default=128, ge=8)
    """Tokens of a text that are looked at."""
    seed: int = 0
    """Of the new weights, the order of rows, and dropout."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: mixed precision, on processors that have it."""
    gradient_checkpointing: bool = Field(default=False, alias="gradientCheckpointing")
    """Compute activations twice instead of keeping them: slower, in less memory."""
    evaluate_every: int | None = Field(default=None, ge=1, alias="evaluateEvery")
    """Steps between looks at the validation split. Default: once an epoch."""
    early_stop: EarlyStop | None = Field(default=None, alias="earlyStop")
    """End when the validation split stops improving, and keep the best."""
    keep: Literal["merged", "adapter"] = "merged"
    """merged: one model. adapter: the small matrices alone; many adapters share a base."""


class Optimize(WrittenOut):
    level: Level | None = None
    """none: as it is. basic: an exported graph, at parity. advanced: INT8. ultra: pruned, recovered by
    distillation, and INT8. auto: build what may be worth it, measure, take the best inside the budget.
    A level that does not keep its promise on this model gives way to the one before, and says so."""
    passes: list[AnyPass] = Field(default_factory=list)
    """Exactly these passes, in this order, instead of a level."""
    data: DatasetName | None = None
    """The data for calibration and distillation. Default: that of finetune."""
    runtimes: list[Runtime] = Field(default=["openvino", "onnxruntime"], min_length=1)
    """The runtimes that a level may choose from."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.passes) == (self.level is not None):
            raise ValueError("optimize has either a `level` or `passes`")
        return self


class Target(WrittenOut):
    device: Literal["cpu"] = "cpu"
    """Where it will run."""
    instructions: list[str] = Field(default_factory=list)
    """The instruction sets it may count on: avx512_vnni. Default: those of the machine that builds."""
    threads: int = Field(default=1, ge=1, le=256)
    """Threads of one session, in benchmarks and in serving."""
    memory: Size | None = None
    """The memory that is there for it."""


class At(WrittenOut):
    p95: Latency
    """The 95th percentile of the latency of one request."""
    batch: int = Field(default=1, ge=1)
    """Texts a request."""
    length: int = Field(default=128, ge=1)
    """Tokens a text."""


class Quality(WrittenOut):
    least: float | None = None
    """The least value of the task's measure (accuracy, F1, cosine)."""
    relative: Share | None = None
    """The least share of the source's: 99.5%. The lower bound of the paired 95 % interval is tested."""


class Budget(WrittenOut):
    size: Size | None = None
    """On disk, at most."""
    memory: Size | None = None
    """Resident, at most."""
    latency: At | None = None
    """Of one request, at most."""
    quality: Quality | None = None
    """How good it must stay."""
    objective: Literal["fastest", "smallest", "most-accurate", "balanced"] = "fastest"
    """What is best among those inside the budget."""


class Benchmark(WrittenOut):
    batches: list[int] = Field(default_factory=lambda: [1, 16], min_length=1)
    """Texts a request."""
    lengths: list[int] = Field(default_factory=lambda: [32, 128], min_length=1)
    """Tokens a text."""
    concurrency: list[int] = Field(default_factory=lambda: [1], min_length=1)
    """Requests at once."""
    traffic: Literal["steady", "mixed"] = "steady"
    """steady: each shape over and over, as a job that reads a table. mixed: the shapes by turns, as a server
    is asked; a runtime that makes itself ready for each new shape then shows what that costs."""
    new_tokens: int = Field(default=32, ge=1, alias="newTokens")
    """Tokens that a generator adds."""
    seconds: float = Field(default=1.0, gt=0, le=600)
    """How long each shape is measured, at least."""

    @model_validator(mode="after")
    def _something_to_mix(self) -> Self:
        if self.traffic == "mixed" and len(set(self.batches)) * len(set(self.lengths)) == 1:
            raise ValueError("mixed traffic needs two shapes or more: name more `batches` or `lengths`")
        return self


class Evaluate(WrittenOut):
    dataset: DatasetName | None = None
    """Whose validation split choices are made on, and whose test split results are reported on.
    Default: that of finetune."""
    rows: int | None = Field(default=None, ge=10)
    """At most so many rows of each."""
    length: int | None = Field(default=None, ge=8)
    """Tokens of a text that are looked at. Default: as in finetune, else what the model can take."""


class Gate(WrittenOut):
    metric: Metric
    """What is measured."""
    least: float | None = Field(default=None, alias="min")
    """The least it may be. Of a quality, the lower bound of the 95 % interval is tested."""
    most: float | None = Field(default=None, alias="max")
    """The most it may be. Sizes are in MB, latencies in ms, load in s."""
    batch: int = Field(default=1, ge=1)
    """For p50 and p95: texts a request."""
    length: int = Field(default=128, ge=1)
    """For p50 and p95: tokens a text."""

    @model_validator(mode="after")
    def _a_bound(self) -> Self:
        if self.least is None and self.most is None:
            raise ValueError("a gate has a `min`, a `max`, or both")
        return self


class ModelSpec(WrittenOut):
    task: Task
    """What it does."""
    source: ModelSource
    """Where its weights come from: safetensors, ONNX or GGUF. Pickle is refused."""
    labels: list[str] = Field(default_factory=list)
    """The labels of a classifier, in the order of its outputs. Default: those of the data."""
    pooling: Literal["mean", "cls"] | None = None
    """How an embedding is made of a text's tokens. Default: what the source says, else mean."""
    normalize: bool = True
    """Whether embeddings have length 1."""
    max_length: int | None = Field(default=None, ge=8, alias="maxLength")
    """Tokens that it sees at most. Default: what the source says."""
    finetune: Finetune | None = None
    """What it learns beyond the source."""
    optimize: Optimize = Optimize(level="basic")
    """How it is made small and fast."""
    target: Target = Target()
    """What it will run on."""
    budget: Budget = Budget()
    """What it may cost, and how good it must stay."""
    evaluate: Evaluate = Evaluate()
    """What its quality is measured on."""
    benchmark: Benchmark = Benchmark()
    """How its speed is measured."""
    gates: list[Gate] = Field(default_factory=list)
    """What must hold before anything points at it."""


_DATA = ("finetune", "optimize", "evaluate")


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    """The spec without what it leaves open, each dataset by name and by the digest of its content."""
    fields: dict[str, Any] = {key: _kept(value) for key, value in spec.items() if value not in (None, [])}
    fields["source"] = stated(spec["source"])
    tuned = (spec["finetune"] or {}).get("dataset")
    named = {
        "finetune": tuned,
        "optimize": spec["optimize"]["data"] or tuned,
        "evaluate": spec["evaluate"]["dataset"] or tuned,
    }
    for part, name in named.items():
        if part in fields:
            body = {k: v for k, v in fields[part].items() if k not in ("dataset", "data")}
            fields[part] = {**body, "data": _data(name)} if name else body
    return fields


def _kept(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _kept(inner) for key, inner in value.items() if inner is not None}
    return value


def _data(name: str) -> Mapping[str, Json]:
    return {"dataset": name, "digest": Ref(Address("Dataset", name), "digest")}


def datasets(fields: Fields) -> Iterator[tuple[str, Json]]:
    """The datasets that the fields name, each with its digest (a text once it is known)."""
    seen = set()
    for part in _DATA:
        data = fields.get(part, {}).get("data")
        if data and data["dataset"] not in seen:
            seen.add(data["dataset"])
            yield data["dataset"], data["digest"]
