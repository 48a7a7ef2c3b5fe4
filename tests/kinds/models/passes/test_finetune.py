import json
import re
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from gamma_orch.core.provider import Permanent, Temporary
from gamma_orch.kinds.models.passes import batches, checkpoints, finetune, torch_folder, training
from gamma_orch.runtimes.folder import Card
from tests.kinds.models.passes import killed
from tests.kinds.models.passes.small import LABELS, TASK, data, job, small

PARAMS = {"rank": 4, "alpha": 8, "epochs": 2, "batch": 16, "learningRate": 5e-3, "length": 32}
WELL = {"rank": 8, "alpha": 32, "learningRate": 1e-2, "modelDropout": 0, "epochs": 12}


@pytest.fixture
def reviews(tmp_path):
    return data(tmp_path / "data")


@pytest.fixture
def bert(tmp_path):
    return small("bert", tmp_path / "bert")


def config(folder):
    return json.loads((folder / "adapter_config.json").read_text())


def refused(folder, params, **inputs) -> str:
    with pytest.raises(Permanent) as caught:
        finetune.run(job(folder, {**PARAMS, **params}, **inputs))
    return str(caught.value)


class TestWhatComesOut:
    def test_an_adapter_with_the_head_and_a_card(self, tmp_path, bert, reviews):
        made = job(tmp_path / "job", PARAMS, model=bert, data=reviews)
        facts = finetune.run(made)
        assert {path.name for path in made.out.iterdir()} >= {
            "adapter_config.json",
            "adapter_model.safetensors",
            "gamma-model.json",
            "tokenizer.json",
        }
        card = Card.read(made.out)
        assert (card.labels, card.task, card.graphs) == (
            LABELS,
            "text-classification",
            {"adapter": "adapter_model.safetensors"},
        )
        names = load_file(made.out / "adapter_model.safetensors").keys()
        assert any("classifier" in name for name in names)
        assert card.base == torch_folder.digest(bert)
        assert any("query.lora_A" in name for name in names)
        said = config(made.out)
        assert said["target_modules"] == sorted(said["target_modules"])
        assert str(tmp_path) not in json.dumps(said)
        assert facts["steps"] == 12
        assert [step for step, _ in facts["validation"]] == [6, 12]
        assert facts["trainable"] < facts["of"]

    def test_it_learns(self, tmp_path, bert, reviews):
        made = job(tmp_path / "job", {**PARAMS, **WELL}, model=bert, data=reviews)
        facts = finetune.run(made)
        assert facts["validation"][-1][1] > 0.78
        assert facts["loss"][-1][1] < facts["loss"][0][1] / 2

    @pytest.mark.parametrize("kind", ["distilbert", "roberta", "gpt2", "llama", "t5", "bart"])
    def test_every_architecture(self, kind, tmp_path):
        task = TASK.get(kind, "text-classification")
        model = small(kind, tmp_path / "m", task)
        params = {
            **PARAMS,
            "modelDropout": 0,
            "learningRate": 1e-2,
            "precision": "bfloat16",
            "gradientCheckpointing": kind == "llama",
        }
        made = job(tmp_path / "job", params, model=model, data=data(tmp_path / "d", task))
        facts = finetune.run(made)
        losses = [loss for _, loss in facts["loss"]]
        assert sum(losses[-3:]) < sum(losses[:3])

    def test_tags(self, tmp_path):
        model = small("bert", tmp_path / "m", "token-classification", ("B", "O"))
        reviews = data(tmp_path / "d", "token-classification")
        facts = finetune.run(job(tmp_path / "job", {**PARAMS, **WELL}, model=model, data=reviews))
        assert facts["labels"] == ["B", "O"]
        assert facts["validation"][-1][1] > 0.92

    def test_a_model_without_a_head_gets_one(self, tmp_path, reviews):
        bare = small("distilbert", tmp_path / "bare", "embeddings")
        replace(Card.read(bare), task="text-classification").write(bare)
        made = job(tmp_path / "job", PARAMS, model=bare, data=reviews)
        finetune.run(made)
        names = load_file(made.out / "adapter_model.safetensors").keys()
        # DistilBERT's head has two layers; both begin at random and have to be kept.
        assert {name.split(".")[-2] for name in names if "lora" not in name} == {
            "classifier",
            "pre_classifier",
        }

    def test_another_number_of_labels_is_another_head(self, tmp_path, bert, reviews):
        labels = ["positive", "negative", "neutral", "none"]
        assert len(Card.read(bert).labels) != len(labels)
        made = job(tmp_path / "job", {**PARAMS, "labels": labels}, model=bert, data=reviews)
        assert finetune.run(made)["labels"] == labels
        [head] = [
            tensor
            for name, tensor in load_file(made.out / "adapter_model.safetensors").items()
            if name.endswith("classifier.weight")
        ]
        assert len(head) == len(labels)

    def test_the_labels_said_are_the_order_of_outputs(self, tmp_path, bert, reviews):
        made = job(tmp_path / "job", {**PARAMS, "labels": ["positive", "negative"]}, model=bert, data=reviews)
        assert finetune.run(made)["labels"] == ["positive", "negative"]
        assert Card.read(made.out).labels == ("positive", "negative")

    def test_only_the_layers_named(self, tmp_path, bert, reviews):
        made = job(
            tmp_path / "job",
            {**PARAMS, "targets": ["query", "layer.0.intermediate.dense"]},
            model=bert,
            data=reviews,
        )
        finetune.run(made)
        names = {name for name in load_file(made.out / "adapter_model.safetensors") if "lora_A" in name}
        assert len(names) == 4
        assert sum("query" in name for name in names) == 3

    def test_early_stop_keeps_the_best(self, tmp_path, bert, reviews):
        params = {
            **PARAMS,
            "epochs": 40,
            "learningRate": 3e-2,
            "schedule": "constant",
            "evaluateEvery": 2,
            "earlyStop": {"patience": 2, "metric": "loss"},
        }
        made = job(tmp_path / "job", params, model=bert, data=reviews)
        facts = finetune.run(made)
        assert facts["stoppedEarly"]
        assert facts["steps"] < 240
        assert facts["best"]["value"] == min(value for _, value in facts["validation"])
        assert facts["best"]["step"] == facts["steps"] - 4
        # What was written is what was measured at the best step, not what the last step left.
        best = next((made.work / "checkpoints").glob(f"best-*{facts['best']['step']}.safetensors"))
        head = "base_model.model.classifier.modules_to_save.default.weight"
        kept = load_file(made.out / "adapter_model.safetensors")["base_model.model.classifier.weight"]
        assert torch.equal(load_file(best)[head], kept)


class TestTheSameBytes:
    def test_after_kills_at_many_moments(self, tmp_path, bert, reviews):
        params = {
            **PARAMS,
            "dropout": 0.2,  # the state of the random generator matters
            "gradientAccumulation": 2,
            "evaluateEvery": 2,
            "earlyStop": {"patience": 9},
        }
        inputs = {"model": bert, "data": reviews}
        whole, parts = job(tmp_path / "whole", params, **inputs), tmp_path / "parts"
        finetune.run(whole)
        moments = [("tell", 2), ("half", 1), ("rename", 1), ("rename", 4), ("half", 3), ("tell", 5)]
        for moment in moments:
            assert killed.attempt("finetune", params, inputs, parts, moment) == -signal.SIGKILL, moment
        assert killed.attempt("finetune", params, inputs, parts, None) == 0
        # The processes that were killed had another hash seed too.
        assert killed.digest(whole.out) == killed.digest(parts / "out")
        assert {path.suffix for path in (parts / "work/checkpoints").iterdir()} == {".safetensors"}

    def test_it_goes_on_from_the_checkpoint(self, tmp_path, bert, reviews):
        inputs = {"model": bert, "data": reviews}
        assert killed.attempt("finetune", PARAMS, inputs, tmp_path / "job", ("rename", 7)) < 0
        heard: list[str] = []
        (tmp_path / "job" / "out").rename(tmp_path / "gone")
        again = replace(
            job(tmp_path / "job", PARAMS, **inputs), tell=lambda text, fraction: heard.append(text)
        )
        finetune.run(again)
        # The seventh was not renamed, so the sixth step is the last that is known.
        assert any("checkpoint of step 6 of 12" in text for text in heard)

    def test_a_damaged_checkpoint_is_not_used(self, tmp_path, bert, reviews):
        first = job(tmp_path / "job", PARAMS, model=bert, data=reviews)
        finetune.run(first)
        wanted = killed.digest(first.out)
        newest = max((first.work / "checkpoints").glob("step-*"))
        newest.write_bytes(newest.read_bytes()[:-100])
        first.out.rename(tmp_path / "gone")
        second = job(tmp_path / "job", PARAMS, model=bert, data=reviews)
        finetune.run(second)
        assert killed.digest(second.out) == wanted

    def test_batches_follow_from_seed_and_epoch(self):
        lengths = [5 * (i % 7) + 1 for i in range(500)]
        one, same = batches.order(lengths, 8, 3, 1), batches.order(lengths, 8, 3, 1)
        assert [part.tolist() for part in one] == [part.tolist() for part in same]
        assert sorted(i for part in one for i in part) == list(range(500))
        assert [part.tolist() for part in one] != [part.tolist() for part in batches.order(lengths, 8, 3, 2)]
        spread = [max(lengths[i] for i in part) - min(lengths[i] for i in part) for part in one]
        assert sum(spread) / len(spread) < 6  # of 30


class TestWhatIsRefused:
    def test_a_loss_that_is_no_number(self, tmp_path, bert, reviews):
        weights = load_file(bert / "model.safetensors")
        weights["classifier.bias"][0] = float("nan")
        save_file(weights, bert / "model.safetensors", {"format": "pt"})
        said = refused(tmp_path / "job", {}, model=bert, data=reviews)
        assert re.search(r"loss became nan at step 1 of 12.*learning rate.*learningRate 5e-04", said)

    def test_a_layer_there_is_not(self, tmp_path, bert, reviews):
        said = refused(tmp_path / "job", {"targets": ["querry"]}, model=bert, data=reviews)
        assert "'querry'" in said
        assert "Do you mean query" in said
        assert "dense, key, query, value" in said

    def test_a_rank_above_the_layer(self, tmp_path, bert, reviews):
        said = refused(tmp_path / "job", {"rank": 33}, model=bert, data=reviews)
        assert "rank 33" in said
        assert "at most 32" in said

    def test_a_length_above_the_model(self, tmp_path, bert, reviews):
        assert "sees 128 tokens" in refused(tmp_path / "job", {"length": 129}, model=bert, data=reviews)

    def test_one_class(self, tmp_path, bert, reviews):
        path = reviews / "train.jsonl"
        path.write_text("".join(line for line in path.read_text().splitlines(True) if "positive" in line))
        assert "the label 'positive'" in refused(tmp_path / "job", {}, model=bert, data=reviews)

    def test_a_label_that_is_not_among_them(self, tmp_path, bert, reviews):
        said = refused(tmp_path / "job", {"labels": ["negative", "neutral"]}, model=bert, data=reviews)
        assert "'positive', which is not among the model's labels (negative, neutral)" in said

    @pytest.mark.parametrize("split", ["train", "validation"])
    def test_an_empty_split(self, split, tmp_path, bert, reviews):
        (reviews / f"{split}.jsonl").write_text("\n")
        assert f"The {split} split of the dataset is empty" in refused(
            tmp_path / "job", {}, model=bert, data=reviews
        )

    def test_a_column_that_is_not_there(self, tmp_path, bert, reviews):
        (reviews / "train.jsonl").write_text('{"text": "a"}\n')
        assert "train.jsonl, line 1" in refused(tmp_path / "job", {}, model=bert, data=reviews)

    def test_embeddings(self, tmp_path, reviews):
        model = small("bert", tmp_path / "m", "embeddings")
        assert "no fine-tuning of embeddings" in refused(tmp_path / "job", {}, model=model, data=reviews)

    def test_weights_cut_short(self, tmp_path, bert, reviews):
        path = bert / "model.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
        assert "model.safetensors whole" in refused(tmp_path / "job", {}, model=bert, data=reviews)

    def test_a_schedule_there_is_not(self, tmp_path, bert, reviews):
        said = refused(tmp_path / "job", {"schedule": "sine"}, model=bert, data=reviews)
        assert "linear, cosine, constant" in said

    def test_a_measure_there_is_not(self, tmp_path, bert, reviews):
        said = refused(tmp_path / "job", {"earlyStop": {"metric": "bleu"}}, model=bert, data=reviews)
        assert "accuracy, f1, loss" in said


def test_a_checkpoint_that_cannot_be_written_may_be_later(tmp_path):
    with pytest.raises(Temporary, match="Make room there"):
        checkpoints.put(tmp_path / "gone" / "step.safetensors", {}, {"a": torch.zeros(1)})


def test_chance_is_left_as_it_was():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with training.settled(1, 0):
        torch.rand(3)
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()
