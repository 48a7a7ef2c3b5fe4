"""What is written, token by token, the same on every runtime as transformers writes it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from gamma_orch.runtimes import Generator, Sampling, WrongTask, load_encoder, load_generator
from tests.kinds.models.built import Workshop
from tests.kinds.models.tiny import DECODERS, ENCODER_DECODERS, Kind, texts

RUNTIMES: dict[str, tuple[str, ...]] = {
    "torch": (),
    "onnxruntime": ("export",),
    "openvino": ("export", "to_openvino"),
}
NEW = 12


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Any:
    return request.param


def opened(workshop: Workshop, kind: Kind, runtime: str) -> Generator:
    return load_generator(workshop.model(kind, *RUNTIMES[runtime]))


@pytest.mark.parametrize("kind", [*DECODERS, *ENCODER_DECODERS])
def test_greedy_tokens_are_those_of_transformers(workshop: Workshop, kind: Kind, runtime: str):
    """In one batch of rows of different lengths; transformers reads each alone."""
    folder = workshop.torch(kind)
    decodes = kind in DECODERS
    auto = transformers.AutoModelForCausalLM if decodes else transformers.AutoModelForSeq2SeqLM
    module = auto.from_pretrained(folder).eval()
    model = opened(workshop, kind, runtime)
    rows = model.text.ids(texts(6))
    right = []
    for row in rows:
        ids = torch.tensor([row])
        with torch.inference_mode():
            whole = module.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=NEW,
                do_sample=False,
                pad_token_id=model.marks.pad,
            )[0].tolist()
        new = whole[len(row) :] if decodes else whole[1:]
        right.append([token for token in new if token not in model.marks.ends])
    assert model.generate_ids(rows, NEW) == right
    assert len({tuple(row) for row in right}) > 1  # else it proves nothing


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5", "bart"])
def test_a_stream_is_what_is_written_at_once(workshop: Workshop, kind: Kind, runtime: str):
    model = opened(workshop, kind, runtime)
    prompt = "the film was good"
    pieces = list(model.stream(prompt, NEW))
    assert len(pieces) > 1
    assert "".join(pieces).strip("\ufffd ") == model.generate([prompt], NEW)[0].strip("\ufffd ")


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5", "bart"])
def test_what_is_written_says_why_it_ended(workshop: Workshop, kind: Kind, runtime: str):
    """At the limit; and at an end token, which is one that it would have written."""
    model = opened(workshop, kind, runtime)
    prompt = "the film was good"
    writing = model.writing(prompt, NEW)
    assert (writing.finish, writing.ids, writing.text) == ("", [], "")
    pieces = list(writing)
    assert (writing.finish, len(writing.ids), len(pieces)) == ("length", NEW, NEW)
    assert writing.read == len(model.text.ids([prompt])[0])
    assert writing.text == model.generate([prompt], NEW)[0]
    assert next(writing, None) is None  # it stays ended
    end = next(token for token in writing.ids if token != writing.ids[0])
    marks = model.marks
    model.marks = replace(marks, ends=marks.ends | {end})
    stopped = model.writing(prompt, NEW)
    list(stopped)
    assert (stopped.finish, stopped.ids) == ("stop", writing.ids[: writing.ids.index(end)])


def test_a_draw_is_its_seed_and_not_its_company(workshop: Workshop, runtime: str):
    model = opened(workshop, "gpt2", runtime)
    rows = model.text.ids(texts(3))
    warm = Sampling(temperature=1.0, top_p=0.9, seed=7)
    together = model.generate_ids(rows, NEW, warm)
    assert together == [model.generate_ids([row], NEW, warm)[0] for row in rows]
    assert together == model.generate_ids(rows, NEW, warm)
    assert together != model.generate_ids(rows, NEW, Sampling(temperature=1.0, top_p=0.9, seed=8))
    assert together != model.generate_ids(rows, NEW)


def test_a_small_nucleus_is_the_likeliest_token(workshop: Workshop, runtime: str):
    model = opened(workshop, "llama", runtime)
    rows = model.text.ids(texts(3))
    assert model.generate_ids(rows, NEW, Sampling(temperature=1.0, top_p=1e-6)) == model.generate_ids(
        rows, NEW
    )


@pytest.mark.parametrize("kind", DECODERS)
def test_perplexity_is_that_of_transformers(workshop: Workshop, kind: Kind, runtime: str):
    module = transformers.AutoModelForCausalLM.from_pretrained(workshop.torch(kind)).eval()
    model = opened(workshop, kind, runtime)
    wanted = texts(5)
    total, count = 0.0, 0
    for row in model.text.ids(wanted):
        ids = torch.tensor([row])
        with torch.inference_mode():
            total += float(module(input_ids=ids, labels=ids).loss) * (len(row) - 1)
        count += len(row) - 1
    assert model.perplexity(wanted, batch=2) == pytest.approx(np.exp(total / count), rel=1e-4)


@pytest.mark.parametrize("kind", ENCODER_DECODERS)
def test_perplexity_of_what_a_text_becomes(workshop: Workshop, kind: Kind, runtime: str):
    module = transformers.AutoModelForSeq2SeqLM.from_pretrained(workshop.torch(kind)).eval()
    model = opened(workshop, kind, runtime)
    sources, targets = texts(4), texts(4, seed=3)
    total, count = 0.0, 0
    for source, target in zip(model.text.ids(sources), model.text.ids(targets), strict=True):
        labels = torch.tensor([target])
        with torch.inference_mode():
            loss = module(input_ids=torch.tensor([source]), labels=labels).loss
        total, count = total + float(loss) * len(target), count + len(target)
    assert model.perplexity(sources, targets, batch=3) == pytest.approx(np.exp(total / count), rel=1e-4)
    with pytest.raises(ValueError, match="one target for each text"):
        model.perplexity(sources)


def test_perplexity_of_nothing_is_no_number(workshop: Workshop):
    model = opened(workshop, "gpt2", "onnxruntime")
    assert np.isnan(model.perplexity([]))
    assert np.isnan(model.perplexity([""]))


def test_an_end_token_ends_its_row_alone(workshop: Workshop, runtime: str):
    """Any token can be made the end: the row that writes it stops there, the others go on."""
    from dataclasses import replace

    model = opened(workshop, "gpt2", runtime)
    rows = model.text.ids(texts(4))
    whole = model.generate_ids(rows, NEW)
    end = whole[0][3]
    model.marks = replace(model.marks, ends=frozenset({end}))
    assert model.generate_ids(rows, NEW) == [row[: row.index(end)] if end in row else row for row in whole]


def test_a_prompt_that_is_too_long_keeps_its_end(workshop: Workshop):
    model = opened(workshop, "gpt2", "onnxruntime")
    long = "the film was good " * 200
    ids = model.text.prompt(long, NEW)
    assert len(ids) == model.card.max_length - NEW
    assert ids == model.text.raw.encode(long).ids[-len(ids) :]
    assert len(model.generate([long], NEW)) == 1


def test_nothing_to_write(workshop: Workshop):
    model = opened(workshop, "gpt2", "onnxruntime")
    assert model.generate([], NEW) == []
    assert model.generate(["good"], 0) == [""]
    assert list(model.stream("good", 0)) == []
    assert len(model.generate([""], 3)) == 1


def test_what_it_is_not_for(workshop: Workshop):
    with pytest.raises(WrongTask, match="gives no logits of a text"):
        load_encoder(workshop.model("gpt2", "export"))


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}])
def test_sampling_that_is_none(wrong: Any):
    with pytest.raises(ValueError, match="temperature is at least 0"):
        Sampling(**wrong)
