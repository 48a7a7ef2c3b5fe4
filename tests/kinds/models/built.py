"""Carries out passes on tiny models, each once: `Workshop.model("bert", "export", "quantize_dynamic")`."""

import importlib
import itertools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gamma_orch.kinds.models.job import Job
from tests.kinds.models.tiny import Kind, dataset, tiny

Step = str | tuple[str, Mapping[str, Any]]


def carry_out(op: str, out: Path, params: Mapping[str, Any] | None = None, **inputs: Path) -> dict[str, Any]:
    """Run one pass into the new folder `out`; its facts."""
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as work:
        job = Job(dict(params or {}), inputs, out, Path(work), 1, lambda text, fraction: None)
        facts: dict[str, Any] = importlib.import_module(f"gamma_orch.kinds.models.passes.{op}").run(job)
        return facts


class Workshop:
    """What was built once is there for every test of a module."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._number = itertools.count()
        self._made: dict[str, tuple[Path, dict[str, Any]]] = {}
        self.data = dataset(root / "data")

    def torch(self, kind: Kind, task: Any = None) -> Path:
        key = f"{kind}-{task}"
        if key not in self._made:
            self._made[key] = (tiny(kind, self._root / key, task=task), {})
        return self._made[key][0]

    def model(self, kind: Kind, *steps: Step, task: Any = None) -> Path:
        return self.built(kind, *steps, task=task)[0]

    def facts(self, kind: Kind, *steps: Step, task: Any = None) -> dict[str, Any]:
        return self.built(kind, *steps, task=task)[1]

    def built(self, kind: Kind, *steps: Step, task: Any = None) -> tuple[Path, dict[str, Any]]:
        """The folder after the last step, and its facts."""
        folder, facts = self.torch(kind, task), dict[str, Any]()
        key = folder.name
        for step in steps:
            op, params = (step, {}) if isinstance(step, str) else step
            key += f"+{op}" + "".join(f",{name}={value}" for name, value in sorted(params.items()))
            if key not in self._made:
                out = self._root / f"m{next(self._number)}"
                self._made[key] = (out, carry_out(op, out, params, model=folder, data=self.data))
            folder, facts = self._made[key]
        return folder, facts
