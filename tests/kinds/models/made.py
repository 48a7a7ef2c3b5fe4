"""A builder whose passes only say what they would have made: for tests of choosing, building and pointing.

The store is real, and so are keys, artifacts and pointers; only the worker process is replaced. A pass leaves
one line, its name after those of what it was made from, and measured figures are looked up by that.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent, Tell
from gamma_orch.kinds.models.building import Builder
from gamma_orch.kinds.models.derivation import derive
from gamma_orch.kinds.models.recipe import Recipe, recipe
from gamma_orch.store.artifacts import Artifact, Artifacts
from tests.kinds.models.specs import fields, model

ROWS = 1000


@dataclass(frozen=True)
class Figure:
    """What is measured of a model: by how much it is faster, its size, and the share of quality it keeps."""

    speedup: float = 1.0
    share: float = 1.0
    spread: float = 0.001  # half of the interval on the test split
    memory: int = 100_000_000
    size: int = 1000
    validation: float | None = None  # the share on the validation split, where it is another


SOURCE = 0.9  # its accuracy
FIGURES: Mapping[str, Figure] = {
    "merge": Figure(),
    "to_openvino": Figure(1.4, size=990),
    "export": Figure(1.3, size=1000),
    "quantize_openvino": Figure(4.0, 0.999, size=260),
    "quantize_dynamic": Figure(3.8, 0.9985, size=250),
}


@dataclass
class Hands:
    """Stands for the worker process."""

    figures: dict[str, Figure] = field(default_factory=lambda: dict(FIGURES))
    broken: dict[str, str] = field(default_factory=dict)  # pass -> why it fails
    done: list[str] = field(default_factory=list)

    def is_stopped(self) -> bool:
        return False

    def run(
        self, op: str, params: Json, inputs: Mapping[str, Path], out: Path, work: Path, tell: Tell
    ) -> Json:
        self.done.append(op)
        if op in self.broken:
            raise Permanent(self.broken[op])
        line = "+".join([*(_made(inputs[name]) for name in ("model", "adapter") if name in inputs), op])
        figure = self.figure(line.removesuffix(f"+{op}") if op in ("evaluate", "benchmark") else line)
        body = line.encode()
        (out / "made").write_bytes(body + b" " * max(0, figure.size - len(body)))
        match op:
            case "evaluate":
                return self._quality(figure, params, reference="reference" not in inputs)
            case "benchmark":
                return self._speed(figure)
            case "report":
                (out / "card.md").write_text(f"# {params['name']}\n")
                (out / "choice.png").write_bytes(b"\x89PNG")
        return {"rows": {"train": ROWS}} if op == "prepare_data" else {}

    def figure(self, made: str) -> Figure:
        """By the last passes of a chain, the more exact first."""
        parts = made.split("+")
        for start in range(len(parts)):
            if (found := self.figures.get("+".join(parts[start:]))) is not None:
                return found
        return Figure()

    def _quality(self, figure: Figure, params: Json, reference: bool) -> Json:
        on_validation = params["split"] == "validation" and figure.validation is not None
        share = figure.validation if on_validation and figure.validation is not None else figure.share
        value = SOURCE * share
        relative = {"value": share, "low": share - figure.spread, "high": share + figure.spread}
        return {
            "metric": "accuracy",
            "rows": ROWS,
            "quality": {"value": value, "low": value - 0.01, "high": value + 0.01},
            "metrics": {"accuracy": value, "f1": value},
            "relative": None if reference else relative,
            "reference": None if reference else {"agreement": share},
            "split": params["split"],
        }

    def _speed(self, figure: Figure) -> Json:
        shapes = [
            {
                "batch": b,
                "length": n,
                "wallMs": {"p50": b * n / figure.speedup, "p95": b * n / figure.speedup},
            }
            for b in (1, 16)
            for n in (32, 128)
        ]
        model = {
            "shapes": shapes,
            "memory": {"peak": figure.memory},
            "load": {"seconds": 0.1},
            "runtime": "openvino",
            "precision": "int8",
        }
        shares = {"weights": figure.size / 1000, "memory": figure.memory / 1e8}
        return {"basis": "wall", "speedup": figure.speedup, "model": model, "shares": shares}


def _made(folder: Path) -> str:
    return (folder / "made").read_text().strip()


@dataclass
class Shop:
    """A store with the data in it, hands, and a builder."""

    folder: Path
    environment: str = "dev"
    hands: Hands = field(default_factory=Hands)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = Artifacts(str(self.folder / "store"), self.folder / "scratch")
        rows = derive(lambda _: "1", "prepare_data", {"limit": 10})
        with self.store.building(rows.key) as build:
            if build.found is None:
                (build.out / "train.jsonl").write_text("{}\n")
                facts = {"rows": {"train": ROWS, "test": 200}}
                build.commit(rows.recipe, facts, "dev", 1.0, datetime(2026, 1, 1, tzinfo=UTC))
        found = self.store.find(rows.key)
        assert found is not None
        self.data = found

    def builder(self) -> Builder:
        return Builder(
            store=self.store,
            environment=self.environment,
            root=self.folder,
            worker=self.hands,  # type: ignore[arg-type]
            tell=lambda text, fraction: self.said.append(text),
            given=self._given,
        )

    def recipe(self, versions: Callable[[str], str] = lambda name: "1.0", **changed: Json) -> Recipe:
        return recipe(fields(model(**changed), self.data.digest), versions, host="h")

    def _given(self, digest: str) -> Artifact:
        assert digest == self.data.digest
        return self.data
