"""A classifier of texts reads its last layer at the first token alone: so compute it only there.

In the last layer of an encoder every token still gives a key and a value, and only the first asks: query,
output and feed-forward part run on one token instead of all. Nothing is approximated; what is left out is
what the head never reads. Called by `export`, whose parity check compares the result with the model before.
"""

import math
from typing import Any

import torch
from torch import nn

from gamma_orch.runtimes.folder import Card


def narrowed(model: Any, card: Card) -> bool:
    """Change the last layer of a model in place. False, and untouched, where the head reads more than the
    first token or the architecture is not one of those known here."""
    if card.task != "text-classification":
        return False
    body = model.base_model
    match card.architecture:
        case "bert" | "roberta":
            layers = body.encoder.layer
            layers[-1] = _Bert(layers[-1])
        case "distilbert":
            layers = body.transformer.layer
            layers[-1] = _DistilBert(layers[-1])
        case _:
            return False
    return True


def _attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, heads: int
) -> torch.Tensor:
    """Attention of [batch, 1, width] over [batch, tokens, width]; `mask` as transformers hands it to a layer:
    [batch, tokens] of 0 and 1, or [batch, 1, tokens, tokens] that is added, or of truth values."""

    def split(tensor: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = tensor.shape
        return tensor.view(batch, tokens, heads, width // heads).transpose(1, 2)

    scores = split(query) @ split(key).transpose(-1, -2) / math.sqrt(key.shape[-1] // heads)
    if mask is not None:
        scores = scores + _added(mask, scores.dtype)
    found = (scores.softmax(-1) @ split(value)).transpose(1, 2)
    return found.reshape(found.shape[0], 1, -1)


def _added(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    mask = mask[:, None, None, :].bool() if mask.dim() == 2 else mask[:, :, :1, :]
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
    return mask


class _Bert(nn.Module):
    """The last layer of a BERT or RoBERTa."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: Any, **__: Any
    ) -> tuple[torch.Tensor]:
        own, first = self.layer.attention.self, hidden_states[:, :1]
        found = _attended(
            own.query(first),
            own.key(hidden_states),
            own.value(hidden_states),
            attention_mask,
            own.num_attention_heads,
        )
        found = self.layer.attention.output(found, first)
        return (self.layer.output(self.layer.intermediate(found), found),)


class _DistilBert(nn.Module):
    """The last layer of a DistilBERT."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, *_: Any, **__: Any
    ) -> tuple[torch.Tensor]:
        own, first = self.layer.attention, x[:, :1]
        found = _attended(own.q_lin(first), own.k_lin(x), own.v_lin(x), attn_mask, own.n_heads)
        found = self.layer.sa_layer_norm(own.out_lin(found) + first)
        return (self.layer.output_layer_norm(self.layer.ffn(found) + found),)
