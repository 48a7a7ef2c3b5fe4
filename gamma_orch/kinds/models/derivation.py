"""A derivation: one pass with everything that goes into it, and the key that is the hash of all that.

Equal keys mean equal artifacts, in every environment and on every machine that shares the store: what has
been built once is pointed at. In the key: the pass, its parameters, the keys of its inputs, and the versions
of the libraries that decide its result. Not in the key: labels, descriptions, names, and the number of
threads and the kind of processor, which change the last bits of a trained weight and no promise about it.
Where two machines build one key, the first to finish is the artifact.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from gamma_orch.core.canonical import Json, digest

# Raised by one when a pass of that name makes something else than before from the same input.
REVISIONS: Mapping[str, int] = {"export": 1, "quantize_weights": 1, "to_openvino": 1, "trim_vocabulary": 1}

_TORCH = ("torch", "transformers")
_ONNX = ("onnx", "onnxruntime")
TOOLS: Mapping[str, tuple[str, ...]] = {
    "fetch_model": ("transformers",),
    "fetch_data": (),
    "prepare_data": (),
    "check_data": ("great-expectations",),
    "finetune": (*_TORCH, "peft"),
    "merge": (*_TORCH, "peft"),
    "prune": _TORCH,
    "distil": _TORCH,
    "trim_vocabulary": ("tokenizers",),
    "export": (*_TORCH, "optimum", "optimum-onnx", "onnx"),
    "fuse": _ONNX,
    "quantize_dynamic": _ONNX,
    "quantize_static": _ONNX,
    "quantize_weights": _ONNX,
    "sparsify": ("torch",),
    "to_openvino": ("openvino",),
    "quantize_openvino": ("openvino", "nncf"),
    "evaluate": ("torch", "onnxruntime", "openvino"),
    "benchmark": ("torch", "onnxruntime", "openvino"),
    "report": (),
}
Versions = Callable[[str], str]  # of an installed package; "" where it is not installed


@dataclass(frozen=True, slots=True)
class Given:
    """An input that another resource has made, by the digest of its content."""

    digest: str

    @property
    def key(self) -> str:
        return f"digest:{self.digest}"


@dataclass(frozen=True)
class Derivation:
    op: str
    params: Json
    inputs: Mapping[str, "Derivation | Given"] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def recipe(self) -> Json:
        """What the artifact's manifest says of its making. The key is its digest."""
        return {
            "op": self.op,
            "params": self.params,
            "inputs": {name: source.key for name, source in self.inputs.items()},
            "tools": dict(self.tools),
        }

    @cached_property
    def key(self) -> str:
        return digest(self.recipe)


def derive(versions: Versions, op: str, params: Json, **inputs: Derivation | Given) -> Derivation:
    """A derivation with the versions that matter for its pass. Raises KeyError for a pass there is not."""
    tools = {name: versions(name) for name in TOOLS[op]}
    if op in REVISIONS:
        tools["gamma"] = str(REVISIONS[op])
    return Derivation(op, params, inputs, tools)


def title(op: str) -> str:
    """The name of a pass as people write it."""
    return op.replace("_", "-")


def in_order(*wanted: Derivation) -> Iterator[Derivation]:
    """The derivations and all that they are made from, each once, inputs first."""
    seen: set[str] = set()
    stack = list(reversed(wanted))
    while stack:
        top = stack[-1]
        if top.key in seen:
            stack.pop()
            continue
        missing = [i for i in top.inputs.values() if isinstance(i, Derivation) and i.key not in seen]
        if missing:
            stack.extend(reversed(missing))
        else:
            seen.add(top.key)
            yield top
            stack.pop()
