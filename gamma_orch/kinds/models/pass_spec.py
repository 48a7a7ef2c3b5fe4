"""The passes that a Model may list by itself, instead of naming a level. One model a pass.

Each becomes a derivation with the pass's parameters as they stand here; `recipe` puts them in a chain.
"""

from typing import Literal

from pydantic import Field

from gamma_orch.spec.quantities import Share
from gamma_orch.spec.written_out import WrittenOut


class Export(WrittenOut):
    name: Literal["export"] = Field(alias="pass")
    """Write the model as ONNX, and compare it with PyTorch on padded batches."""


class Fuse(WrittenOut):
    name: Literal["fuse"] = Field(alias="pass")
    """Join attention, normalisation and activation into single nodes."""


class QuantizeDynamic(WrittenOut):
    name: Literal["quantize-dynamic"] = Field(alias="pass")
    """INT8 weights, activations quantized as they come. ONNX Runtime; needs no data."""
    per_channel: bool = Field(default=True, alias="perChannel")
    """A scale for each output channel, not one for the whole matrix."""


class QuantizeStatic(WrittenOut):
    name: Literal["quantize-static"] = Field(alias="pass")
    """INT8 weights and activations, with ranges found on calibration data. ONNX Runtime."""
    method: Literal["minmax", "entropy", "percentile"] = "minmax"
    """How a range is found."""
    rows: int = Field(default=200, ge=8)
    """How many rows of the training split are looked at."""


class QuantizeWeights(WrittenOut):
    name: Literal["quantize-weights"] = Field(alias="pass")
    """Weights alone in INT4 or INT8, for models whose memory traffic is the cost: decoders."""
    bits: Literal[4, 8] = 4
    """Bits a weight."""
    block: int = Field(default=32, ge=16, le=256)
    """Weights that share a scale."""


class ToOpenvino(WrittenOut):
    name: Literal["openvino"] = Field(alias="pass")
    """Turn ONNX into OpenVINO's form."""
    precision: Literal["float32", "float16"] = "float32"
    """Of the weights on disk."""


class QuantizeOpenvino(WrittenOut):
    name: Literal["quantize-openvino"] = Field(alias="pass")
    """INT8 by NNCF, with ranges found on calibration data."""
    preset: Literal["performance", "mixed"] = "mixed"
    """Symmetric activations, or asymmetric where that is more exact."""
    rows: int = Field(default=100, ge=8)
    """How many rows of the training split are looked at."""
    weights: Literal["int8", "int4"] | None = None
    """Weights alone, activations as they are."""
    compute: Literal["auto", "bfloat16", "float32"] = "auto"
    """What the rest is multiplied in. auto: bfloat16 where the processor has it."""


class Prune(WrittenOut):
    name: Literal["prune"] = Field(alias="pass")
    """Take out whole layers, heads, or columns of the feed-forward part."""
    layers: list[int] | int | None = None
    """The layers to keep, by index from 0; or how many, spread evenly."""
    ffn: int | Share | None = None
    """The width of the feed-forward part to keep, as a number or a share."""
    heads: int | Share | None = None
    """The attention heads to keep in a layer."""
    importance: Literal["activation", "taylor", "weights"] | None = None
    """What tells which columns and heads stay: the size of their output, the change of the loss without them
    (to first order), or their weights alone. Default: taylor with data, weights without."""


class Distil(WrittenOut):
    name: Literal["distil"] = Field(alias="pass")
    """Train what is left to answer as the model did before (and as the labels say)."""
    epochs: float = Field(default=4, gt=0)
    """Rounds over the training split."""
    batch: int = Field(default=32, ge=1)
    """Rows a step."""
    learning_rate: float = Field(default=2e-4, gt=0, lt=1, alias="learningRate")
    """The highest of the schedule."""
    temperature: float = Field(default=2.0, gt=0)
    """Softens both answers before they are compared."""
    hard: float = Field(default=0.3, ge=0, le=1)
    """The weight of the labels beside the teacher's answers."""
    hidden: float = Field(default=1.0, ge=0)
    """The weight of the hidden states beside the answers."""
    hidden_layers: Literal["last", "all"] = Field(default="last", alias="hiddenLayers")
    """Whose hidden states: the last layer's, or each one's beside the teacher's at that share of depth."""
    hidden_until: Share | None = Field(default=None, alias="hiddenUntil")
    """The share of the steps in which their weight falls to nothing. Default: it stays."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls."""
    windows: int = Field(default=0, ge=0)
    """Further pieces of long texts, labelled by the teacher: at most so many a text."""
    length: int = Field(default=128, ge=8)
    """Tokens of a text that are looked at."""
    seed: int = 0
    """Of the order of rows and of dropout."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: mixed precision."""


class TrimVocabulary(WrittenOut):
    name: Literal["trim-vocabulary"] = Field(alias="pass")
    """Keep only the tokens that the training split has."""
    least: int = Field(default=1, ge=0)
    """How often a token must be there to stay. 0: all stay but those that no text can come to."""


class Sparsify(WrittenOut):
    name: Literal["sparsify"] = Field(alias="pass")
    """Set the smallest weights to zero. This speeds nothing up on common processors; it may compress."""
    ratio: Share = "50%"
    """The share of weights that become zero."""


AnyPass = (
    Export
    | Fuse
    | QuantizeDynamic
    | QuantizeStatic
    | QuantizeWeights
    | ToOpenvino
    | QuantizeOpenvino
    | Prune
    | Distil
    | TrimVocabulary
    | Sparsify
)
