"""Where layers, heads and feed-forward columns are, by architecture: in the modules and the configuration.

A table for `prune`. A *stack* is a list of like layers; an encoder-decoder has two. `inner` are the
matrices into a block, cut by rows of their output, `outer` is the one out of it, cut by its input.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from gamma_orch.core.provider import Permanent


class Heads(StrEnum):
    """How a configuration says that there are fewer heads."""

    LISTED = "pruned_heads"  # names those gone, by layer; the width of a head stays hidden / all heads
    COUNTED = "counted"  # says how many, and how wide each is
    TIED = "tied"  # hidden size = heads x width, with no way round it


@dataclass(frozen=True, slots=True)
class Attention:
    inner: tuple[str, ...]
    outer: str
    shared: tuple[str, ...] = ()  # of `inner`: have key-value heads, fewer than query heads


@dataclass(frozen=True, slots=True)
class Stack:
    role: str  # encoder, decoder, or empty for the only one
    layers: str  # path of the list of layers from the model's body
    count: str  # the configuration's field for how many
    attentions: tuple[Attention, ...]
    ffn_inner: tuple[str, ...]
    ffn_outer: str
    ffn_width: str  # the configuration's field


@dataclass(frozen=True, slots=True)
class Anatomy:
    stacks: tuple[Stack, ...]
    heads: Heads
    head_count: str
    fused: bool = False  # one matrix holds query, key and value, and is stored input first (GPT-2's Conv1D)


_BERT = Anatomy(
    (
        Stack(
            "",
            "encoder.layer",
            "num_hidden_layers",
            (
                Attention(
                    ("attention.self.query", "attention.self.key", "attention.self.value"),
                    "attention.output.dense",
                ),
            ),
            ("intermediate.dense",),
            "output.dense",
            "intermediate_size",
        ),
    ),
    Heads.LISTED,
    "num_attention_heads",
)


def _t5(role: str, count: str, gated: bool) -> Stack:
    last = 1 if role == "encoder" else 2
    own = Attention(tuple(f"layer.0.SelfAttention.{name}" for name in "qkv"), "layer.0.SelfAttention.o")
    cross = Attention(tuple(f"layer.1.EncDecAttention.{name}" for name in "qkv"), "layer.1.EncDecAttention.o")
    wide = f"layer.{last}.DenseReluDense"
    return Stack(
        role,
        f"{role}.block",
        count,
        (own,) if role == "encoder" else (own, cross),
        (f"{wide}.wi_0", f"{wide}.wi_1") if gated else (f"{wide}.wi",),
        f"{wide}.wo",
        "d_ff",
    )


def _bart(role: str) -> Stack:
    names = ("self_attn",) if role == "encoder" else ("self_attn", "encoder_attn")
    return Stack(
        role,
        f"{role}.layers",
        f"{role}_layers",
        tuple(
            Attention(tuple(f"{name}.{part}_proj" for part in "qkv"), f"{name}.out_proj") for name in names
        ),
        ("fc1",),
        "fc2",
        f"{role}_ffn_dim",
    )


_ANATOMIES: dict[str, Callable[[Any], Anatomy]] = {
    "bert": lambda config: _BERT,
    "roberta": lambda config: _BERT,
    "distilbert": lambda config: Anatomy(
        (
            Stack(
                "",
                "transformer.layer",
                "n_layers",
                (Attention(("attention.q_lin", "attention.k_lin", "attention.v_lin"), "attention.out_lin"),),
                ("ffn.lin1",),
                "ffn.lin2",
                "hidden_dim",
            ),
        ),
        Heads.LISTED,
        "n_heads",
    ),
    "gpt2": lambda config: Anatomy(
        (
            Stack(
                "",
                "h",
                "n_layer",
                (Attention(("attn.c_attn",), "attn.c_proj"),),
                ("mlp.c_fc",),
                "mlp.c_proj",
                "n_inner",
            ),
        ),
        Heads.LISTED,
        "n_head",
        fused=True,
    ),
    "llama": lambda config: Anatomy(
        (
            Stack(
                "",
                "layers",
                "num_hidden_layers",
                (
                    Attention(
                        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
                        "self_attn.o_proj",
                        ("self_attn.k_proj", "self_attn.v_proj"),
                    ),
                ),
                ("mlp.gate_proj", "mlp.up_proj"),
                "mlp.down_proj",
                "intermediate_size",
            ),
        ),
        Heads.COUNTED,
        "num_attention_heads",
    ),
    "t5": lambda config: Anatomy(
        (
            _t5("encoder", "num_layers", config.is_gated_act),
            _t5("decoder", "num_decoder_layers", config.is_gated_act),
        ),
        Heads.COUNTED,
        "num_heads",
    ),
    "bart": lambda config: Anatomy(
        (_bart("encoder"), _bart("decoder")), Heads.TIED, "encoder_attention_heads"
    ),
}


def of(model: Any) -> Anatomy:
    """Of the stacks that the model has: a tagger made of a T5 has no decoder.

    Raises Permanent where the architecture is not in the table.
    """
    config = model.config
    try:
        whole = _ANATOMIES[config.model_type](config)
    except KeyError:
        raise Permanent(
            f"Pruning does not know the architecture {config.model_type}; it knows {', '.join(_ANATOMIES)}. "
            "Take the pass out, or choose level advanced."
        ) from None
    there = {name for name, _ in model.base_model.named_modules()}
    return replace(whole, stacks=tuple(stack for stack in whole.stacks if stack.layers in there))
