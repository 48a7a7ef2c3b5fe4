import gc
import re
import weakref

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.passes import anatomy, prune
from gamma_orch.runtimes.folder import Card, Task
from tests.kinds.models.passes.killed import digest
from tests.kinds.models.passes.small import KINDS, TASK, data, job, small
from tests.kinds.models.tiny import Kind

CLASSES = {
    "text-classification": transformers.AutoModelForSequenceClassification,
    "text-generation": transformers.AutoModelForCausalLM,
    "summarization": transformers.AutoModelForSeq2SeqLM,
    "embeddings": transformers.AutoModel,
}
HEADED = [kind for kind in KINDS if kind != "bart"]
IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11], [11, 9, 7, 5, 6, 8, 10]])


def task_of(kind: Kind) -> Task:
    return TASK.get(kind, "text-classification")


@pytest.fixture
def model(request, tmp_path):
    return small(request.param, tmp_path / "m", task_of(request.param))


@pytest.fixture
def reviews(model, tmp_path):
    return data(tmp_path / "d", Card.read(model).task, train=48)


def load(folder):
    return CLASSES[Card.read(folder).task].from_pretrained(folder).eval()


def answer(model):
    more = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=IDS, **more).logits


def layers(model):
    """Every layer with what the table says of it."""
    for stack in anatomy.of(model).stacks:
        for layer in model.base_model.get_submodule(stack.layers):
            yield stack, layer


def silence(model, outer, columns):
    """Make these columns of the input of a matrix say nothing."""
    weight = outer.weight.data
    if anatomy.of(model).fused:
        weight[columns] = 0
    else:
        weight[:, columns] = 0


def pruned(tmp_path, params, model, data):
    made = job(tmp_path / "job", params, model=model, data=data)
    return made.out, prune.run(made)


def refused(tmp_path, params, model, data) -> str:
    with pytest.raises(Permanent) as caught:
        prune.run(job(tmp_path / "job", params, model=model, data=data))
    return str(caught.value)


@pytest.mark.parametrize("model", KINDS, indirect=True)
@pytest.mark.parametrize("importance", ["taylor", "activation", "weights"])
def test_columns_that_say_nothing_go_first(importance, model, reviews, tmp_path):
    whole = load(model)
    for i, (stack, layer) in enumerate(layers(whole)):
        width = layer.get_submodule(stack.ffn_outer).weight.shape[0 if anatomy.of(whole).fused else 1]
        chosen = torch.randperm(width, generator=torch.Generator().manual_seed(i))[: width // 2]
        silence(whole, layer.get_submodule(stack.ffn_outer), chosen)
    whole.save_pretrained(model)
    out, facts = pruned(tmp_path, {"ffn": 0.5, "importance": importance}, model, reviews)
    torch.testing.assert_close(answer(load(out)), answer(whole), rtol=1e-4, atol=1e-5)
    assert facts["ffn"][1] * 2 == facts["ffn"][0]
    assert facts["parameters"][1] == sum(p.numel() for p in load(out).parameters()) < facts["parameters"][0]


@pytest.mark.parametrize("kind", HEADED)
def test_heads_that_say_nothing_go_first(kind, tmp_path):
    task: Task = "text-classification" if kind == "gpt2" else task_of(kind)
    model, reviews = small(kind, tmp_path / "m", task), data(tmp_path / "d", task, train=48)
    whole = load(model)
    if kind == "gpt2":
        whole.config.pad_token_id = 0  # to classify, it needs one
    for i, (stack, layer) in enumerate(layers(whole)):
        for one in stack.attentions:
            # Of a llama, two heads share a key; of a T5, all layers share the positions.
            first = {"llama": 2 * (i % 2), "t5": 1}.get(kind, i % 3)
            silence(whole, layer.get_submodule(one.outer), slice(8 * first, 8 * first + 16))
    whole.save_pretrained(model)
    out, facts = pruned(tmp_path, {"heads": 2}, model, reviews)
    small_one = load(out)
    torch.testing.assert_close(answer(small_one), answer(whole), rtol=1e-4, atol=1e-5)
    assert facts["heads"] == [4, 2]
    assert facts["parameters"][1] < facts["parameters"][0]
    if kind == "llama":
        settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 1, "eos_token_id": None}
        mask = torch.ones_like(IDS)
        kept, anew = (
            small_one.generate(IDS, attention_mask=mask, use_cache=cache, **settings)
            for cache in (True, False)
        )
        assert torch.equal(kept, anew)


@pytest.mark.parametrize("model", KINDS, indirect=True)
def test_layers_go_and_the_others_stay_as_they_were(model, reviews, tmp_path):
    whole = load(model)
    body = whole.base_model
    for stack in anatomy.of(whole).stacks:
        kept = body.get_submodule(stack.layers)
        if whole.config.model_type == "t5":  # the first layer has the positions of all
            kept[1].layer[0].SelfAttention.relative_attention_bias = (
                kept[0].layer[0].SelfAttention.relative_attention_bias
            )
            kept[1].layer[0].SelfAttention.has_relative_attention_bias = True
        del kept[0]
    wanted = answer_without_cache(whole)
    out, facts = pruned(tmp_path, {"layers": [2, 1]}, model, reviews)
    torch.testing.assert_close(answer(load(out)), wanted, rtol=1e-4, atol=1e-5)
    assert all(said == {"kept": [1, 2], "of": 3} for said in facts["layers"].values())
    assert "heads" not in facts


def answer_without_cache(model):
    model.config.use_cache = False  # the layers left still count themselves as before
    return answer(model)


@pytest.mark.parametrize("model", ["bert", "t5"], indirect=True)
def test_everything_at_once_and_again(model, reviews, tmp_path):
    params = {"layers": {"keep": 2, "choose": "first"}, "ffn": "50%", "heads": 3}
    out, _ = pruned(tmp_path, params, model, reviews)
    again = job(tmp_path / "again", {"layers": [1], "heads": 1}, model=out, data=reviews)
    facts = prune.run(again)
    assert answer(load(again.out)).isfinite().all()
    first = load(again.out)
    stack, layer = next(layers(first))
    assert layer.get_submodule(stack.attentions[0].outer).weight.shape == (32, 8)
    assert facts["heads"] == [4 if first.config.model_type == "bert" else 3, 1]


@pytest.mark.parametrize("model", ["gpt2", "bart"], indirect=True)
def test_what_was_tied_is_tied(model, reviews, tmp_path):
    out, _ = pruned(tmp_path, {"layers": 1, "ffn": 24}, model, reviews)
    made = load(out)
    assert made.get_input_embeddings().weight is made.get_output_embeddings().weight
    assert "lm_head.weight" not in load_file(out / "model.safetensors")


@pytest.mark.parametrize("model", ["bert"], indirect=True)
def test_the_same_bytes_twice_and_the_tokenizer_comes_along(model, reviews, tmp_path):
    params = {"layers": 2, "ffn": 16, "heads": 2}
    one, other = (job(tmp_path / name, params, model=model, data=reviews) for name in ("one", "other"))
    prune.run(one)
    torch.rand(3)
    prune.run(other)
    assert digest(one.out) == digest(other.out)
    assert (one.out / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    assert Card.read(one.out) == Card.read(model)


def test_vectors_without_labels(tmp_path):
    model = small("bert", tmp_path / "m", "embeddings")
    out, _ = pruned(tmp_path, {"ffn": 24, "heads": 2}, model, data(tmp_path / "d", "embeddings"))
    assert load(out).config.intermediate_size == 24


def test_encoder_and_decoder_by_themselves(tmp_path):
    model = small("bart", tmp_path / "m", "summarization")
    out, facts = pruned(tmp_path, {"layers": {"decoder": [0]}}, model, data(tmp_path / "d", "summarization"))
    assert (load(out).config.encoder_layers, load(out).config.decoder_layers) == (3, 1)
    assert facts["layers"]["encoder"]["kept"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("said", "count", "kept"),
    [
        (3, 6, [0, 2, 5]),
        (0.5, 12, [0, 2, 4, 7, 9, 11]),
        ("50%", 4, [0, 3]),
        (1, 6, [0]),
        ({"keep": 2, "choose": "last"}, 5, [3, 4]),
        ([4, 0], 5, [0, 4]),
    ],
)
def test_which_layers(said, count, kept):
    assert prune._kept(said, count, "") == kept


@pytest.mark.parametrize("model", ["llama"], indirect=True)
@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "give `layers`, `ffn` or `heads`"),
        ({"layers": [0, 3]}, "keeps layer 3, and the model has 3: 0 to 2"),
        ({"layers": [1, 1]}, "none of them twice"),
        ({"layers": 4}, "`layers` keeps 4, and the model has 3"),
        ({"layers": {"encoder": [0]}}, "`layers` names encoder, and a llama model has one stack"),
        ({"layers": {"keep": 1, "choose": "best"}}, "spread, first or last"),
        ({"ffn": 49}, "the feed-forward part has 48"),
        ({"heads": 3}, "give a multiple of 2"),
        ({"heads": 5}, "the attention has 4"),
        ({"ffn": 8, "importance": "magic"}, "taylor, activation or weights"),
    ],
)
def test_what_is_refused(params, words, model, reviews, tmp_path):
    assert words in refused(tmp_path, params, model, reviews)


@pytest.mark.parametrize("model", ["bart", "gpt2"], indirect=True)
def test_heads_that_the_configuration_has_no_place_for(model, reviews, tmp_path):
    said = refused(tmp_path, {"heads": 2}, model, reviews)
    assert re.search(r"cannot be taken out of a (bart|gpt2) model.*Prune `layers` or `ffn`", said)


@pytest.mark.parametrize("model", ["bert"], indirect=True)
def test_a_graph_cannot_be_pruned(model, reviews, tmp_path):
    Card("text-classification", "bert", "onnxruntime").write(model)
    assert "Put the pass before the export" in refused(tmp_path, {"layers": 1}, model, reviews)


@pytest.mark.parametrize("model", ["bert"], indirect=True)
def test_weights_of_other_names(model, reviews, tmp_path):
    save_file({"x": torch.zeros(1)}, model / "model.safetensors")
    assert "are not those of its config.json" in refused(tmp_path, {"layers": 1}, model, reviews)


@pytest.mark.parametrize("model", ["bert", "gpt2"], indirect=True)
def test_what_a_batch_has_taken_is_let_go_with_it(model, reviews, tmp_path):
    """Without the collector: a tensor that holds itself waits for it while the memory fills."""
    seen = []

    def watch(module, inputs):
        if inputs and isinstance(inputs[0], torch.Tensor) and inputs[0].requires_grad:
            seen.append(weakref.ref(inputs[0]))

    handle = torch.nn.modules.module.register_module_forward_pre_hook(watch)
    gc.collect()
    gc.disable()
    try:
        made = job(tmp_path / "job", {"ffn": 0.5, "importance": "taylor"}, model=model, data=reviews)
        prune.run(made)
        alive = [one for one in seen if one() is not None]
    finally:
        gc.enable()
        handle.remove()
    assert len(seen) > 20
    assert alive == []
