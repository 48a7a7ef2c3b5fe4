"""Classifiers and embedders, the same on every runtime, beside transformers itself."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from gamma_orch.runtimes import Encoder, WrongTask, load, load_encoder, load_generator
from tests.kinds.models.built import Workshop
from tests.kinds.models.tiny import ENCODERS, Kind, texts

RUNTIMES: dict[str, tuple[str, ...]] = {
    "torch": (),
    "onnxruntime": ("export",),
    "openvino": ("export", "to_openvino"),
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("kind", ENCODERS)
def test_logits_are_those_of_transformers(workshop: Workshop, kind: Kind, runtime: str):
    wanted = texts(7)
    folder = workshop.torch(kind)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    module = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    encoded = tokenizer(wanted, padding=True, return_tensors="pt")
    with torch.inference_mode():
        right = module(
            input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]
        ).logits.numpy()
    ours = load_encoder(workshop.model(kind, *RUNTIMES[runtime])).logits(wanted, batch=3)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, right, atol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_embeddings_are_pooled_as_the_card_says(workshop: Workshop, runtime: str, pooling: Any):
    from dataclasses import replace

    wanted = texts(5)
    folder = workshop.torch("bert", "embeddings")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    module = transformers.AutoModel.from_pretrained(folder).eval()
    right = []
    for text in wanted:  # one by one: no padding can have a say
        encoded = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            states = module(
                input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]
            ).last_hidden_state[0]
        vector = states.mean(0) if pooling == "mean" else states[0]
        right.append((vector / vector.norm()).numpy())
    model = load_encoder(workshop.model("bert", *RUNTIMES[runtime], task="embeddings"))
    model.card = replace(model.card, pooling=pooling)
    ours = model.embed(wanted)
    np.testing.assert_allclose(ours, np.stack(right), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)


def test_token_logits_come_with_their_place_in_the_text(workshop: Workshop, runtime: str):
    wanted = ["a good film", "the story was very very dull, and the music too"]
    model = load_encoder(workshop.model("bert", *RUNTIMES[runtime], task="token-classification"))
    found = model.tokens(wanted)
    alone = [model.tokens([text])[0] for text in wanted]
    for text, one, other in zip(wanted, found, alone, strict=True):
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)
        assert one.logits.shape == (len(one.spans), 2)
        assert one.spans[0] == one.spans[-1] == (0, 0)
        inner = one.spans[1:-1]
        assert text[inner[0][0] : inner[0][1]] == text[: inner[0][1]]
        assert inner[-1][1] == len(text)


def test_no_text_at_all(workshop: Workshop, runtime: str):
    assert load_encoder(workshop.model("bert", *RUNTIMES[runtime])).logits([]).shape == (0, 2)


def test_an_empty_text_and_one_that_is_too_long(workshop: Workshop, runtime: str):
    model = load_encoder(workshop.model("roberta", *RUNTIMES[runtime]))
    answer = model.logits(["", "good film " * 500])
    assert np.isfinite(answer).all()
    assert model.text.ids(["good film " * 500])[0][-1] == model.text.ids([""])[0][-1]  # it ends in </s>


def test_what_it_is_not_for(workshop: Workshop):
    model = load(workshop.model("bert", "export"))
    assert isinstance(model, Encoder)
    with pytest.raises(WrongTask, match="is for text-classification, and was asked for embeddings"):
        model.embed(["a"])
    with pytest.raises(WrongTask, match="writes no text"):
        load_generator(workshop.model("bert", "export"))


def test_several_threads_may_ask_at_once(workshop: Workshop, runtime: str):
    from concurrent.futures import ThreadPoolExecutor

    model = load_encoder(workshop.model("bert", *RUNTIMES[runtime]))
    wanted = texts(24)
    alone = [model.logits([text])[0] for text in wanted]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: model.logits([text])[0], wanted))
    np.testing.assert_allclose(np.stack(together), np.stack(alone), atol=1e-5)
