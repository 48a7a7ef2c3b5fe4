import json
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.passes import trim_vocabulary
from gamma_orch.runtimes.folder import Card
from tests.kinds.models.passes.killed import digest
from tests.kinds.models.passes.small import KINDS, TASK, data, job, small

CLASSES = {
    "text-classification": transformers.AutoModelForSequenceClassification,
    "text-generation": transformers.AutoModelForCausalLM,
    "summarization": transformers.AutoModelForSeq2SeqLM,
}
GONE = ("camera", "dialogue", "great")
SEEN = [
    "the film was lovely",
    "a dull story, and the actor was boring too",
    "what a cold ending! every minute",
]
STRANGE = "great dialogue, 42 cameras; ünïcödé 漢字!"


@pytest.fixture
def trimmed(request, tmp_path):
    """(before, after, facts) of a model whose data has no cameras."""
    task = TASK.get(request.param, "text-classification")
    model = small(request.param, tmp_path / "m", task)
    made = job(tmp_path / "job", {}, model=model, data=data(tmp_path / "d", task, train=200, without=GONE))
    return model, made.out, trim_vocabulary.run(made)


def loaded(folder):
    model = CLASSES[Card.read(folder).task].from_pretrained(folder).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def logits(model, ids):
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, **more).logits


@pytest.mark.parametrize("trimmed", KINDS, indirect=True)
class TestEveryKind:
    def test_texts_whose_tokens_stay_get_the_same_answers(self, trimmed):
        before, after, facts = trimmed
        (old, old_tokenizer), (new, new_tokenizer) = loaded(before), loaded(after)
        assert facts["vocabulary"] == [old.config.vocab_size, new.config.vocab_size]
        assert new.config.vocab_size == len(new_tokenizer) < len(old_tokenizer)
        for text in SEEN:
            was, now = old_tokenizer(text).input_ids, new_tokenizer(text).input_ids
            assert new_tokenizer.convert_ids_to_tokens(now) == old_tokenizer.convert_ids_to_tokens(was)
            assert was != now  # they were numbered anew
            wanted, found = logits(old, torch.tensor([was])), logits(new, torch.tensor([now]))
            if Card.read(before).task != "text-classification":  # one number a token: those that stay
                tokens = new_tokenizer.convert_ids_to_tokens(range(len(new_tokenizer)))
                wanted = wanted[..., [old_tokenizer.convert_tokens_to_ids(token) for token in tokens]]
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)

    def test_any_text_can_be_encoded_still(self, trimmed):
        before, after, _ = trimmed
        (_, old), (_, new) = loaded(before), loaded(after)
        assert len(new(STRANGE).input_ids) > len(old(STRANGE).input_ids)
        unknown = [
            old(STRANGE).input_ids.count(old.unk_token_id),
            new(STRANGE).input_ids.count(new.unk_token_id),
        ]
        assert unknown[1] == unknown[0]
        if new.unk_token_id is None or not unknown[1]:
            assert new.decode(new(STRANGE).input_ids, skip_special_tokens=True) == old.decode(
                old(STRANGE).input_ids, skip_special_tokens=True
            )

    def test_special_tokens_keep_their_meaning(self, trimmed):
        before, after, _ = trimmed
        (old, old_tokenizer), (new, new_tokenizer) = loaded(before), loaded(after)
        assert new_tokenizer.special_tokens_map == old_tokenizer.special_tokens_map
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
            was, now = getattr(old.config, name, None), getattr(new.config, name, None)
            assert (
                old_tokenizer.convert_ids_to_tokens(was) == new_tokenizer.convert_ids_to_tokens(now)
                if was
                else was == now
            )

    def test_the_folder_stands_alone(self, trimmed):
        _, after, facts = trimmed
        assert not {"vocab.txt", "vocab.json", "merges.txt", "spiece.model", "added_tokens.json"} & {
            path.name for path in after.iterdir()
        }
        alone = Tokenizer.from_file(str(after / "tokenizer.json"))
        assert sorted(alone.get_vocab().values()) == list(range(facts["vocabulary"][1]))
        assert facts["bytesSaved"] > 0


def test_how_often_and_what_besides(tmp_path):
    model = small("bert", tmp_path / "m")
    reviews = data(tmp_path / "d", train=60)
    sizes = {}
    ways: dict[str, dict[str, Any]] = {
        "all": {},
        "often": {"least": 12},
        "more": {"least": 12, "extra": ["camera"]},
    }
    for name, params in ways.items():
        made = job(tmp_path / name, params, model=model, data=reviews)
        facts = trim_vocabulary.run(made)
        sizes[name] = facts["vocabulary"][1]
        if name == "often":
            assert 0 < facts["validation"]["dropped"] < 1
            assert facts["validation"]["longer"] > 0
            assert facts["validation"]["unknown"] == 0
        if name == "more":
            assert "camera" in Tokenizer.from_file(str(made.out / "tokenizer.json")).get_vocab()
    assert sizes["often"] < sizes["more"] < sizes["all"]


def test_what_no_text_can_come_to_goes_without_data_and_no_answer_changes(tmp_path):
    model = small("bert", tmp_path / "m", vocab_size=300)
    path = model / "tokenizer.json"
    body = json.loads(path.read_text())
    vocabulary = body["model"]["vocab"]
    for word in ("[unused1]", "##山"):
        vocabulary[word] = len(vocabulary)
    film = vocabulary["film"]  # numbers after the gap move up
    vocabulary["film"], vocabulary["[unused1]"] = vocabulary["[unused1]"], film
    path.write_text(json.dumps(body))
    made = job(tmp_path / "job", {"least": 0}, model=model)
    facts = trim_vocabulary.run(made)
    assert facts["vocabulary"] == [300, len(vocabulary) - 2]
    (old, old_tokenizer), (new, new_tokenizer) = loaded(model), loaded(made.out)
    for text in (*SEEN, STRANGE):
        was, now = old_tokenizer(text).input_ids, new_tokenizer(text).input_ids
        assert new_tokenizer.convert_ids_to_tokens(now) == old_tokenizer.convert_ids_to_tokens(was)
        wanted = logits(old, torch.tensor([was]))
        torch.testing.assert_close(logits(new, torch.tensor([now])), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("bert", "distilbert")])
def test_a_model_whose_tokens_can_all_be_reached_stays_as_it_is(tmp_path, kind):
    model = small(kind, tmp_path / "m", TASK.get(kind, "text-classification"))
    made = job(tmp_path / "job", {"least": 0}, model=model)
    assert trim_vocabulary.run(made) == {"bytesSaved": 0}
    assert digest(made.out) == digest(model)


def test_an_unknown_token_counts_as_such(tmp_path):
    model, reviews = small("bert", tmp_path / "m"), data(tmp_path / "d")
    (reviews / "validation.jsonl").write_text(json.dumps({"text": "film 漢字", "label": "positive"}) + "\n")
    facts = trim_vocabulary.run(job(tmp_path / "job", {}, model=model, data=reviews))
    assert facts["validation"]["unknown"] == pytest.approx(2 / 3)


def test_the_same_bytes_twice(tmp_path):
    model, reviews = small("gpt2", tmp_path / "m", "text-generation"), data(tmp_path / "d", "text-generation")
    one, other = (job(tmp_path / name, {}, model=model, data=reviews) for name in ("one", "other"))
    trim_vocabulary.run(one)
    trim_vocabulary.run(other)
    assert digest(one.out) == digest(other.out)


def test_a_tokenizer_that_cannot_be_trimmed(tmp_path):
    model, reviews = small("bert", tmp_path / "m"), data(tmp_path / "d")
    path = model / "tokenizer.json"
    body = json.loads(path.read_text())
    body["model"]["type"] = "WordLevel"
    path.write_text(json.dumps(body))
    with pytest.raises(Permanent, match="WordLevel one, whose vocabulary cannot be trimmed"):
        trim_vocabulary.run(job(tmp_path / "job", {}, model=model, data=reviews))


def test_no_tokenizer(tmp_path):
    model, reviews = small("bert", tmp_path / "m"), data(tmp_path / "d")
    (model / "tokenizer.json").unlink()
    with pytest.raises(Permanent, match="the model has none"):
        trim_vocabulary.run(job(tmp_path / "job", {}, model=model, data=reviews))
