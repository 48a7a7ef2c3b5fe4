"""Adapters of one base: each answers as the model that it would be merged into, and the base as if alone."""

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gamma_orch.runtimes import Encoder, Generator, ModelBroken, load
from gamma_orch.runtimes.adapters import adapted
from gamma_orch.runtimes.folder import Card
from gamma_orch.runtimes.pytorch import TorchEncoder
from tests.kinds.models.built import Workshop
from tests.kinds.models.passes.small import LABELS
from tests.kinds.models.tiny import Kind, texts
from tests.runtimes.tuned import Tuned

THREE = (*LABELS, "mixed")
WEIGHTS = "adapter_model.safetensors"
KINDS: tuple[Kind, ...] = ("bert", "roberta", "gpt2", "llama", "t5")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], Tuned]:
    kept: dict[Kind, Tuned] = {}

    def of(kind: Kind) -> Tuned:
        if kind not in kept:
            kept[kind] = Tuned(tmp_path_factory.mktemp(kind), kind)
        return kept[kind]

    return of


def said(model: Encoder | Generator, count: int = 6) -> np.ndarray:
    """Logits: what a text is made of says less."""
    if isinstance(model, Encoder):
        return model.logits(texts(count))
    ids: np.ndarray = np.array([[5, 6, 7, 8, 9]] * count, dtype=np.int64)
    logits, state = model.begin(ids, np.ones_like(ids))
    found: np.ndarray = np.stack([logits[:, -1], model.advance(state, ids[:, 1])])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_each_answers_as_the_merged_model_and_the_base_as_before(made: Any, kind: Kind):
    tuned: Tuned = made(kind)
    one = tuned.adapter("one", 1)
    # Other layers, another rank; of a classifier another number of labels.
    two = tuned.adapter("two", 2, THREE, rank=2, **({"targets": ["query"]} if kind == "bert" else {}))
    base = load(tuned.base)
    before = said(base)
    models = [adapted(base, tuned.digest, folder) for folder in (one, two)]
    answers = [said(model) for model in models]
    for answer, folder in zip(answers, (one, two), strict=True):
        np.testing.assert_allclose(answer, said(load(tuned.merged(folder))), rtol=1e-3, atol=1e-4)
    assert np.abs(answers[0] - before).max() > 0.05
    assert np.array_equal(said(base), before)  # bit by bit: it is the same modules
    assert np.array_equal(said(models[0]), answers[0])
    if isinstance(base, Encoder):
        assert [model.card.labels for model in (base, *models)] == [LABELS, LABELS, THREE]
        assert answers[1].shape[-1] == 3
    else:
        assert np.abs(answers[0] - answers[1]).max() > 0.05


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_the_weights_are_there_once(made: Any, kind: Kind):
    tuned: Tuned = made(kind)
    base: Any = load(tuned.base)
    model: Any = adapted(base, tuned.digest, tuned.adapter("one", 1))
    mine = {t.data_ptr() for t in base.module.parameters()}
    more = sum(t.numel() for t in model.module.parameters() if t.data_ptr() not in mine)
    learned = sum(t.numel() for t in load_file(tuned.adapter("one", 1) / WEIGHTS).values())
    assert more == learned


def test_an_adapter_that_nobody_holds_is_gone_and_the_others_answer_on(made: Any):
    tuned: Tuned = made("bert")
    base: Any = load(tuned.base)
    one, two = (adapted(base, tuned.digest, tuned.adapter(name, n)) for n, name in ((1, "one"), (3, "three")))
    right, alone = said(two), said(base)
    assert isinstance(one, TorchEncoder)
    gone = weakref.ref(one.module)
    del one
    gc.collect()
    assert gone() is None
    assert np.array_equal(said(two), right)
    assert np.array_equal(said(base), alone)


def test_they_run_at_the_same_time_in_any_thread(made: Any):
    tuned: Tuned = made("gpt2")
    base = load(tuned.base)
    models = [base, *(adapted(base, tuned.digest, tuned.adapter(f"a{n}", n)) for n in (1, 2, 3))]
    right = [said(model, 1) for model in models]

    def ask(number: int) -> bool:
        found = [said(models[number], 1) for _ in range(60)]
        return all(np.allclose(one, right[number], atol=1e-5) for one in found)

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, number % 4) for number in range(8)]
        adapted(base, tuned.digest, tuned.adapter("a4", 4))  # one more, in the middle of it
        assert all(one.result() for one in asked)


def test_texts_are_written_in_turns_each_under_its_own(made: Any):
    tuned: Tuned = made("gpt2")
    base = load(tuned.base)
    models = [base, *(adapted(base, tuned.digest, tuned.adapter(f"a{n}", n)) for n in (1, 2, 3))]
    assert all(isinstance(model, Generator) for model in models)
    alone = [model.generate(["the film"], 12)[0] for model in models if isinstance(model, Generator)]
    assert len(set(alone)) == 4
    writings = [model.writing("the film", 12) for model in models if isinstance(model, Generator)]
    for _ in range(13):
        for writing in writings:
            next(writing, None)
    assert [writing.text for writing in writings] == alone


# --- refusals -------------------------------------------------------------------------------------


def config(**changed: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))

    return change


def card(**changed: Any) -> Callable[[Path], None]:
    return lambda folder: replace(Card.read(folder), **changed).write(folder)


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS, {"format": "pt"})

    return changed


def one_of(found: dict[str, torch.Tensor], part: str) -> str:
    return next(name for name in sorted(found) if part in name)


REFUSED = {
    "another base": (card(base="0" * 64), "fits only the weights that it was learned on"),
    "another task": (card(task="token-classification"), "an adapter for token-classification on the bert"),
    "a whole model": (card(graphs={"model": WEIGHTS}), "is a whole model and no adapter"),
    "no configuration": (lambda f: (f / "adapter_config.json").unlink(), "has no adapter_config.json"),
    "configuration cut off": (lambda f: (f / "adapter_config.json").write_text("{"), "is not JSON"),
    "another method": (config(peft_type="IA3"), "not that of an adapter as it is built here (peft_type)"),
    "what changes the base": (config(bias="all"), "(bias)"),
    "what nobody here knows": (config(use_dora=True, of_tomorrow=1), "(of_tomorrow, use_dora)"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "has no adapter_model.safetensors"),
    "weights cut off": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:200]),
        "is cut off or no safetensors file",
    ),
    "a pickle": (lambda f: (f / "adapter_model.bin").write_bytes(b"x"), "is a pickle by its name (.bin)"),
    "a matrix less": (weights(lambda w: w.pop(one_of(w, "lora_A"))), "one of the two has no"),
    "a matrix more": (weights(lambda w: w.update(more=torch.ones(2))), "one of the two has no more"),
    "a matrix of another size": (
        weights(lambda w: w.update({one_of(w, "lora_A"): torch.ones(4, 7)})),
        "does not go with its base",
    ),
    "a layer that the base has not": (config(target_modules=["w_qkv"]), "does not go with its base"),
    "no head": (weights(lambda w: w.pop(one_of(w, "classifier.weight"))), "is to replace classifier"),
    "a head of another base": (
        weights(lambda w: w.update({one_of(w, "classifier.weight"): torch.ones(2, 7)})),
        "does not go with its base",
    ),
    "another number of labels": (card(labels=THREE), "has 3 labels and a head for 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_whole_safe_adapter_of_this_base(made: Any, tmp_path: Path, case: str):
    tuned: Tuned = made("bert")
    change, says = REFUSED[case]
    folder = Path(shutil.copytree(tuned.adapter("one", 1), tmp_path / "adapter"))
    change(folder)
    base = load(tuned.base)
    before = said(base)
    with pytest.raises(ModelBroken) as refused:
        adapted(base, tuned.digest, folder)
    assert says in str(refused.value)
    assert str(folder) in str(refused.value)
    assert np.array_equal(said(base), before)  # half of an adapter is nowhere


def test_a_base_that_is_optimized(made: Any, tmp_path: Path):
    tuned: Tuned = made("bert")
    graph = load(Workshop(tmp_path).model("bert", "export"))
    with pytest.raises(ModelBroken, match="its base is made for onnxruntime"):
        adapted(graph, tuned.digest, tuned.adapter("one", 1))
