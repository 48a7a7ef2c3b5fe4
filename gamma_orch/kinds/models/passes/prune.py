"""Structured pruning: whole layers, feed-forward columns, attention heads.

Inputs `model`, and `data` to see what is important.

The output is an ordinary transformers folder with another configuration. A configuration has one
feed-forward width and one number of heads, so each layer keeps as many as the next; which ones is each
layer's own choice. Layers go first, then the importance of what is left is measured.

Parameters: `layers`: the indices to keep, or how many (a number, a share), or {"keep": number or share,
"choose": "spread" | "first" | "last"}; of an encoder-decoder {"encoder": ..., "decoder": ...} or one for
both. `ffn`: the width to keep, `heads`: how many to keep, each a number or a share. `importance`: "taylor",
the change of the loss if a unit's output were zero, to first order (Molchanov et al., 2019), on `rows` (256)
rows of the train split, "activation", the size of its output there times the weights that read it, or
"weights", the norm of those weights alone: without data, that. `length` (128), `seed`.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import anatomy, batches, objective, torch_folder, training
from gamma_orch.kinds.models.passes.anatomy import Anatomy, Attention, Heads, Stack
from gamma_orch.runtimes.folder import Card
from gamma_orch.spec.quantities import share_of

_BATCH = 16
Scores = dict[str, torch.Tensor]  # importance of each column of a matrix's input, by the matrix's name


def run(job: Job) -> Json:
    """Raises Permanent for what the architecture does not have, and for parameters that prune nothing."""
    folder, params = job.inputs["model"], job.params
    card = torch_folder.card(folder)
    if all(params.get(what) is None for what in ("layers", "ffn", "heads")):
        raise Permanent("Pruning is asked for without saying of what: give `layers`, `ffn` or `heads`.")
    with training.settled(job.threads, params.get("seed") or 0):
        model = torch_folder.load(folder, card)
        before, parts = _parameters(model), anatomy.of(model)
        facts: Json = {}
        if params.get("layers") is not None:
            job.tell("taking out layers", 0.1)
            model, facts["layers"] = _without_layers(model, parts, params["layers"])
        cut = _Widths(model, parts, params.get("ffn"), params.get("heads"))
        if cut.asked:
            scores = _importance(job, model, card, cut)
            job.tell("taking out columns and heads", 0.9)
            model = cut.applied(scores)
            facts |= cut.facts
        torch_folder.write(model, card, folder, job.out)
    return {**facts, "parameters": [before, _parameters(model)]}


def _parameters(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


def _path(model: Any, stack: Stack) -> str:
    """The name of the list of layers; the body of the model has a name of its own, or is the model."""
    body = model.base_model
    prefix = next((name for name, module in model.named_modules() if module is body), "")
    return f"{prefix}.{stack.layers}" if prefix else stack.layers


# --- layers ---------------------------------------------------------------------------------------


def _without_layers(model: Any, parts: Anatomy, said: Json) -> tuple[Any, Json]:
    config, weights, facts = copy.deepcopy(model.config), dict(model.state_dict()), {}
    for stack in parts.stacks:
        part = said
        if isinstance(said, dict) and "keep" not in said:
            if strange := set(said) - {one.role for one in parts.stacks}:
                raise Permanent(
                    f"`layers` names {', '.join(sorted(strange))}, and a {config.model_type} model has "
                    f"{' and '.join(one.role for one in parts.stacks) or 'one stack of layers only'}."
                )
            part = said.get(stack.role)
        count = getattr(config, stack.count)
        kept = _kept(part, count, stack.role)
        facts[stack.role or "layers"] = {"kept": kept, "of": count}
        path = _path(model, stack)
        old = {name: w for name, w in weights.items() if name.startswith(f"{path}.")}
        for name in old:
            del weights[name]
        for new, index in enumerate(kept):
            start = f"{path}.{index}."
            weights |= {
                f"{path}.{new}.{name.removeprefix(start)}": w
                for name, w in old.items()
                if name.startswith(start)
            }
        # T5's first layer holds the positions for all of them.
        weights |= {name: w for name, w in old.items() if "relative_attention_bias" in name}
        setattr(config, stack.count, len(kept))
        if config.model_type == "bart" and stack.role == "encoder":
            config.num_hidden_layers = len(kept)
        config.pruned_heads = {
            new: config.pruned_heads[index] for new, index in enumerate(kept) if index in config.pruned_heads
        }
    return torch_folder.rebuilt(model, config, weights), facts


def _kept(said: Json, count: int, role: str) -> list[int]:
    """The indices of the layers to keep, of `count`."""
    of = f"the {role} has" if role else "the model has"
    if said is None:
        return list(range(count))
    if isinstance(said, list):
        if strange := [index for index in said if not 0 <= index < count]:
            raise Permanent(f"`layers` keeps layer {strange[0]}, and {of} {count}: 0 to {count - 1}.")
        if not said or len(set(said)) != len(said):
            raise Permanent("`layers` must name at least one layer, and none of them twice.")
        return sorted(said)
    many, choose = (
        (said["keep"], said.get("choose", "spread")) if isinstance(said, dict) else (said, "spread")
    )
    keep = _number(many, count, "layers", of)
    match choose:
        case "first":
            return list(range(keep))
        case "last":
            return list(range(count - keep, count))
        case "spread" if keep == 1:
            return [0]
        case "spread":
            return [round(i * (count - 1) / (keep - 1)) for i in range(keep)]
    raise Permanent(f"Layers cannot be chosen by {choose!r}: spread, first or last.")


def _number(said: Json, count: int, what: str, of: str, multiple: int = 1) -> int:
    """How many of `count` are kept, where `said` is a number, or a share as 0.5 or 50%."""
    if isinstance(said, str) or (isinstance(said, float) and said <= 1):
        share = share_of(said)
        number = max(multiple, round(share * count / multiple) * multiple)
    else:
        number = int(said)
    if not 1 <= number <= count:
        raise Permanent(
            f"`{what}` keeps {said}, and {of} {count}. Give a number from 1 to {count}, or a share."
        )
    return number


# --- widths ---------------------------------------------------------------------------------------


@dataclass
class _Widths:
    """What of feed-forward parts and attention is kept, and the cutting of it."""

    model: Any
    parts: Anatomy
    ffn: Json
    heads: Json
    facts: Json = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)  # by the stack's role
    group: int = 1  # query heads that share a key and a value

    def __post_init__(self) -> None:
        config, kind = self.model.config, self.model.config.model_type
        if self.ffn is not None:
            for stack in self.parts.stacks:
                was = getattr(config, stack.ffn_width) or 4 * config.hidden_size
                step = 8 if was % 8 == 0 else 1
                self.widths[stack.role] = _number(self.ffn, was, "ffn", "the feed-forward part has", step)
                self.facts["ffn"] = [was, self.widths[stack.role]]
        if self.heads is None:
            return
        if self.parts.heads is Heads.TIED:
            raise Permanent(
                f"Heads cannot be taken out of a {kind} model: its configuration ties the width of a head "
                "to the hidden size and the number of heads. Prune `layers` or `ffn` instead."
            )
        if self.parts.heads is Heads.LISTED and self.model.can_generate():
            raise Permanent(
                f"Heads cannot be taken out of a {kind} model that generates: its configuration has no "
                "place for the width of the smaller cache, and no graph could be exported. Prune `layers` "
                "or `ffn` instead."
            )
        was = getattr(config, self.parts.head_count)
        self.group = was // (getattr(config, "num_key_value_heads", None) or was)
        self.count = _number(self.heads, was, "heads", "the attention has", self.group)
        if self.count % self.group:
            raise Permanent(
                f"`heads` keeps {self.count}, and in this model every {self.group} heads share their keys "
                f"and values: give a multiple of {self.group}."
            )
        self.facts["heads"] = [was, self.count]

    @property
    def asked(self) -> bool:
        return self.ffn is not None or self.heads is not None

    def layers(self) -> list[tuple[Stack, int, str]]:
        """Each layer with its stack, index and name."""
        return [
            (stack, i, f"{_path(self.model, stack)}.{i}")
            for stack in self.parts.stacks
            for i in range(getattr(self.model.config, stack.count))
        ]

    def readers(self) -> dict[str, int]:
        """The matrices whose input is measured, with how many of its columns are one unit."""
        found: dict[str, int] = {}
        for stack, _, layer in self.layers():
            if self.ffn is not None:
                found[f"{layer}.{stack.ffn_outer}"] = 1
            if self.heads is not None:
                found |= {f"{layer}.{one.outer}": self._head_width() * self.group for one in stack.attentions}
        return found

    def _head_width(self) -> int:
        config = self.model.config
        for name in ("d_kv", "head_dim"):
            if getattr(config, name, None):
                return int(getattr(config, name))
        return int(config.hidden_size // getattr(config, self.parts.head_count))

    def applied(self, scores: Scores) -> Any:
        config, weights = copy.deepcopy(self.model.config), dict(self.model.state_dict())
        if self.ffn is not None:
            for stack, _, layer in self.layers():
                keep = _best(scores[f"{layer}.{stack.ffn_outer}"], self.widths[stack.role])
                self._cut(weights, layer, stack.ffn_inner, stack.ffn_outer, {}, keep)
                setattr(config, stack.ffn_width, self.widths[stack.role])
        if self.heads is not None:
            self._cut_heads(config, weights, scores)
        return torch_folder.rebuilt(self.model, config, weights)

    def _cut_heads(self, config: Any, weights: dict[str, torch.Tensor], scores: Scores) -> None:
        width, groups = self._head_width(), self.count // self.group
        gone = {layer: list(heads) for layer, heads in config.pruned_heads.items()}
        for stack, i, layer in self.layers():
            there = [head for head in range(self.facts["heads"][0]) if head not in gone.get(i, ())]
            for one in stack.attentions:
                score = scores[f"{layer}.{one.outer}"]
                if self._positions(stack, one):
                    # All layers read one table of positions, by head: they keep the same heads.
                    score = sum(
                        scores[f"{name}.{one.outer}"] for other, _, name in self.layers() if other is stack
                    )
                keep = _best(score, min(groups, len(score)))
                wide, narrow = _columns(keep, width * self.group), _columns(keep, width)
                self._cut(weights, layer, one.inner, one.outer, dict.fromkeys(one.shared, narrow), wide)
                if i == 0 and (table := self._positions(stack, one)):
                    weights[table] = weights[table].index_select(1, keep)
                if self.parts.heads is Heads.LISTED:
                    kept = {there[k] for k in keep.tolist()}
                    all_gone = [head for head in range(self.facts["heads"][0]) if head not in kept]
                    config.pruned_heads[i] = all_gone
        if self.parts.heads is Heads.COUNTED:
            setattr(config, self.parts.head_count, self.count)
            if getattr(config, "num_key_value_heads", None):
                config.num_key_value_heads = groups

    def _positions(self, stack: Stack, one: Attention) -> str:
        """The name of T5's table of relative positions, if this attention reads it."""
        name = f"{_path(self.model, stack)}.0.{one.outer.rpartition('.')[0]}.relative_attention_bias.weight"
        return name if name in self.model.state_dict() else ""

    def _cut(
        self,
        weights: dict[str, torch.Tensor],
        layer: str,
        inner: Sequence[str],
        outer: str,
        others: Mapping[str, torch.Tensor],
        keep: torch.Tensor,
    ) -> None:
        rows, columns = (1, 0) if self.parts.fused else (0, 1)  # Conv1D keeps its weights input first
        reader = f"{layer}.{outer}.weight"
        was = weights[reader].shape[columns]
        for name in inner:
            index = others.get(name, keep)
            matrix, bias = f"{layer}.{name}.weight", f"{layer}.{name}.bias"
            if self.parts.fused and weights[matrix].shape[rows] == 3 * was:
                index = torch.cat([index + third * was for third in range(3)])
            weights[matrix] = weights[matrix].index_select(rows, index).contiguous()
            if bias in weights:
                weights[bias] = weights[bias].index_select(0, index)
        weights[reader] = weights[reader].index_select(columns, keep).contiguous()


def _best(score: torch.Tensor, count: int) -> torch.Tensor:
    """The indices of the greatest scores, in ascending order; of equals the first."""
    return torch.sort(torch.sort(score, descending=True, stable=True).indices[:count]).values


def _columns(units: torch.Tensor, width: int) -> torch.Tensor:
    return (units[:, None] * width + torch.arange(width)[None]).flatten()


# --- importance -----------------------------------------------------------------------------------


def _importance(job: Job, model: Any, card: Card, cut: _Widths) -> Scores:
    readers = cut.readers()
    method = job.params.get("importance") or ("taylor" if "data" in job.inputs else "weights")
    if method == "weights":
        dimension = 1 if cut.parts.fused else 0  # over what reads a column
        with torch.no_grad():
            return {
                name: model.get_submodule(name).weight.norm(dim=dimension).reshape(-1, unit).sum(1)
                for name, unit in readers.items()
            }
    if method not in ("taylor", "activation"):
        raise Permanent(f"There is no importance by {method!r}: taylor, activation or weights.")
    if "data" not in job.inputs:
        raise Permanent(
            f"Importance by {method} needs data. Give the model data to optimize with, or use weights."
        )
    rows = batches.rows(job.inputs["data"], "train", card.task)[: job.params.get("rows") or 256]
    params = {"length": job.params.get("length")}
    how = batches.encoding(job.inputs["model"], card, model, params)
    examples = batches.encode(rows, how)
    scores: Scores = {}
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            _watch(scores, name, unit) if method == "taylor" else _weigh(scores, name, unit, cut.parts.fused)
        )
        for name, unit in readers.items()
    ]
    hear, done = training.every(job.tell, lambda n: f"importance: {n} of {len(examples)} rows", 0.2), 0
    for index in batches.sorted_batches([len(example.tokens) for example in examples], _BATCH):
        batch = batches.collate([examples[i] for i in index], how)
        with torch.set_grad_enabled(method == "taylor"):
            outputs = objective.forward(model, batch, how)
        done += len(index)
        hear(done)
        if method != "taylor":
            continue
        if card.task == "embeddings":  # how much of the vectors a unit makes
            mask = batch["attention_mask"].unsqueeze(-1)
            loss = (outputs.last_hidden_state * mask).square().sum() / 2
        else:
            logits, labels = objective.aligned(outputs.logits, batch["labels"], how)
            loss = objective.cross_entropy(logits, labels) * len(index)
        loss.backward()
        model.zero_grad(set_to_none=True)
    for hook in hooks:
        hook.remove()
    return scores


def _watch(scores: Scores, name: str, unit: int) -> Any:
    """Add up |activation x gradient| of each unit, where a unit is so many neighbouring columns."""

    def see(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        seen = inputs[0]
        if not seen.requires_grad:
            return
        # The hook is kept by `seen`: what it keeps must not lead back there, or no batch is ever let go.
        values = seen.detach()

        def add(gradient: torch.Tensor) -> None:
            effect = (values * gradient).unflatten(-1, (-1, unit)).sum(-1)
            effect = effect.abs().reshape(-1, effect.shape[-1]).sum(0)
            scores[name] = scores[name] + effect if name in scores else effect

        seen.register_hook(add)

    return see


def _weigh(scores: Scores, name: str, unit: int, fused: bool) -> Any:
    """Add up |activation| x |weights that read it| of each unit."""

    def see(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        size = inputs[0].detach().abs().reshape(-1, inputs[0].shape[-1]).sum(0)
        effect = (size * module.weight.detach().norm(dim=1 if fused else 0)).reshape(-1, unit).sum(1)
        scores[name] = scores[name] + effect if name in scores else effect

    return see
