"""What a model's folder says of itself: `gamma-model.json`, beside the weights and the tokenizer.

Written by the pass that makes the folder, read by `runtimes.load` and by every later pass. Weights are
safetensors, ONNX or OpenVINO IR, never pickle.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Self

NAME = "gamma-model.json"

Task = Literal[
    "text-classification", "token-classification", "embeddings", "text-generation", "summarization"
]
Runtime = Literal["torch", "onnxruntime", "openvino"]


@dataclass(frozen=True, slots=True)
class Card:
    task: Task
    architecture: str  # transformers' model_type: bert, distilbert, roberta, gpt2, llama, t5, bart
    runtime: Runtime
    precision: str = "float32"  # of the weights: float32, bfloat16, int8, int4
    # The graphs by role, as paths inside the folder. torch: {"model": "model.safetensors"}. Encoders:
    # {"model": "model.onnx"}. Decoders: {"model": ...} with past keys. Encoder-decoders: encoder, decoder,
    # decoder_with_past.
    graphs: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()  # of a classifier, by index
    pooling: Literal["", "mean", "cls"] = ""  # of an embedder
    normalize: bool = False  # an embedder's vectors have length 1
    max_length: int = 512  # tokens that the model sees at most
    # What OpenVINO does multiplications in where weights are not quantized. auto: bfloat16 where the
    # processor has it. A part of what was measured of a model, so it is kept with it.
    compute: Literal["float32", "bfloat16", "auto"] = "float32"
    base: str = ""  # of an adapter: the digest of the folder it goes with

    def write(self, folder: Path) -> None:
        body = {**asdict(self), "labels": list(self.labels), "graphs": dict(self.graphs)}
        (folder / NAME).write_text(json.dumps(body, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises FileNotFoundError where the folder is no model's, ValueError where the file is broken."""
        body = json.loads((folder / NAME).read_text(encoding="utf-8"))
        try:
            return cls(**{**body, "labels": tuple(body["labels"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"{folder / NAME} is not what this version of Gamma writes: {error}") from error
