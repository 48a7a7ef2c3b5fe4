"""The provider laws. Dataset with its real worker process; Model with a stand-in for the worker, since what
is lawful about it is pointing, and its passes have tests of their own."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.kinds.models import building
from gamma_orch.kinds.models.dataset import KIND as DATASET
from gamma_orch.kinds.models.model import KIND as MODEL
from gamma_orch.spec.kind import Kind
from gamma_orch.targets import Targets
from gamma_orch.testing.laws import LAWS, Law, Sample, Subject, check
from tests.kinds.models.made import Hands
from tests.kinds.models.specs import dataset, model

NAMES = [law.__name__ for law in LAWS]


def targets(root: Path) -> Targets:
    return Targets("dev", root / ".gamma", {}, lambda tree: tree)


def subject(root: Path, kind: Kind, samples: tuple[Sample, ...]) -> Subject:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        yield kind.provider(targets(root))

    @contextmanager
    def unreadable(address: Address) -> Iterator[frozenset[Address]]:
        """A folder where the pointer should be."""
        file = root / ".gamma" / "artifacts" / "pointers" / "dev" / f"{address.kind}__{address.name}.json"
        aside = file.with_suffix(".aside")
        file.parent.mkdir(parents=True, exist_ok=True)
        if there := file.is_file():
            file.rename(aside)
        file.mkdir()
        yield frozenset({address})
        file.rmdir()
        if there:
            aside.rename(file)

    return Subject(kind.traits, opened, samples, unreadable, spec_shaped=False)


def rows(root: Path) -> tuple[Sample, ...]:
    (root / "data").mkdir(parents=True, exist_ok=True)
    body = "".join(f"a film that is number {n},{n % 2}\n" for n in range(60))
    (root / "data" / "a.csv").write_text("text,label\n" + body)
    (root / "data" / "b.csv").write_text("text,label\n" + body.replace("film", "book"))

    def spec(name: str, **changed: Any) -> Json:
        return dataset(source={"path": f"data/{name}.csv"}, **changed)

    return (
        Sample(Address("Dataset", "a"), spec("a"), changed=spec("a", splits={"test": 0.3})),
        Sample(Address("Dataset", "b"), spec("b"), changed=spec("b", limit=50)),
    )


@pytest.mark.parametrize("law", LAWS, ids=NAMES)
def test_dataset(law: Law, tmp_path: Path) -> None:
    check(law, subject(tmp_path, DATASET, rows(tmp_path)))


class Stand:
    """In the place of the worker process."""

    def __init__(self, *_: object) -> None:
        self.hands = Hands()
        self.run = self.hands.run
        self.is_stopped = self.hands.is_stopped

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def models(root: Path) -> tuple[Sample, ...]:
    spec: Callable[..., Json] = partial(model, finetune=None, source={"package": "mini==1.0"})
    return (
        Sample(
            Address("Model", "a"),
            spec(optimize={"level": "basic"}),
            changed=spec(optimize={"level": "none"}),
        ),
        Sample(
            Address("Model", "b"),
            spec(optimize={"level": "none"}),
            changed=spec(optimize={"level": "none"}, gates=[{"metric": "size", "max": 1}]),
        ),
    )


@pytest.mark.parametrize("law", LAWS, ids=NAMES)
def test_model(law: Law, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "Worker", Stand)
    check(law, subject(tmp_path, MODEL, models(tmp_path)))
