"""Adapters of tiny models, learned by the real pass, and what they are merged into: the answers to expect."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file, save_file

from gamma_orch.kinds.models.passes import torch_folder
from gamma_orch.runtimes.folder import Card
from tests.kinds.models.built import carry_out
from tests.kinds.models.passes.small import LABELS, data
from tests.kinds.models.tiny import Kind, tiny

WEIGHTS = "model.safetensors"
# So much in so few steps that no two of them answer alike.
FAST = {"rank": 4, "alpha": 32, "batch": 8, "maxSteps": 3, "learningRate": 0.05, "warmup": 0.0, "length": 32}


class Tuned:
    """A base, and adapters of it by name; each is made once."""

    def __init__(self, root: Path, kind: Kind = "bert", seed: int = 0) -> None:
        self.root, self._kind, self._seed = root, kind, seed
        self.base = tiny(kind, root / "base", seed=seed)
        self.task = Card.read(self.base).task
        self.digest = torch_folder.digest(self.base)
        self._data = data(root / "data", self.task)
        self._learned_on: dict[Path, Path] = {}

    def adapter(self, name: str, seed: int, labels: Sequence[str] = LABELS, **more: object) -> Path:
        out = self.root / name
        if out not in self._learned_on:
            base = self._learned_on[out] = self._of(labels)
            carry_out("finetune", out, {**FAST, "seed": seed, **more}, model=base, data=self._data)
            replace(Card.read(out), base=self.digest).write(out)
        return out

    def merged(self, adapter: Path) -> Path:
        out = adapter.with_name(f"{adapter.name}-merged")
        if not out.exists():
            base = self._learned_on[adapter]
            mine = adapter.with_name(f"{adapter.name}-mine")
            mine.mkdir()
            for path in adapter.iterdir():
                (mine / path.name).write_bytes(path.read_bytes())
            replace(Card.read(mine), base=torch_folder.digest(base)).write(mine)
            carry_out("merge", out, model=base, adapter=mine)
        return out

    def _of(self, labels: Sequence[str]) -> Path:
        """The same weights, but for a head of so many outputs."""
        if tuple(labels) == LABELS or "classification" not in self.task:
            return self.base
        other = tiny(self._kind, self.root / "-".join(labels), labels=labels, seed=self._seed)
        mine, weights = load_file(self.base / WEIGHTS), load_file(other / WEIGHTS)
        same = {name: mine[name] for name in mine if mine[name].shape == weights[name].shape}
        save_file({**weights, **same}, other / WEIGHTS, {"format": "pt"})
        return other
