import json
import signal
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors.torch import load_file

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.passes import distil, prune
from gamma_orch.runtimes.folder import Card
from tests.kinds.models.passes import killed
from tests.kinds.models.passes.small import TASK, data, job, small

PARAMS = {"epochs": 8, "batch": 16, "learningRate": 3e-3, "length": 32, "hard": 0.0, "evaluateEvery": 999}
CLASSES = {
    "text-classification": transformers.AutoModelForSequenceClassification,
    "token-classification": transformers.AutoModelForTokenClassification,
    "text-generation": transformers.AutoModelForCausalLM,
    "summarization": transformers.AutoModelForSeq2SeqLM,
}
IDS = torch.tensor([[2, 9, 12, 30, 44, 21, 3], [2, 40, 31, 8, 15, 16, 3]])


class Pair:
    """A teacher, and what two layers of three make of it."""

    def __init__(self, tmp_path, kind="bert", task=None, **params):
        task = task or TASK.get(kind, "text-classification")
        self.teacher = small(kind, tmp_path / "teacher", task)
        self.data = data(tmp_path / "data", task)
        cut = job(tmp_path / "cut", {"layers": 2, **params}, model=self.teacher, data=self.data)
        prune.run(cut)
        self.student = cut.out

    @property
    def inputs(self):
        return {"model": self.student, "teacher": self.teacher, "data": self.data}

    def taught(self, folder, **params):
        made = job(folder, {**PARAMS, **params}, **self.inputs)
        return made.out, distil.run(made)

    def refused(self, folder, **params) -> str:
        with pytest.raises(Permanent) as caught:
            self.taught(folder, **params)
        return str(caught.value)

    def apart(self, student) -> float:
        """How far a student's answers are from the teacher's."""
        task = Card.read(self.teacher).task
        said = []
        for folder in (self.teacher, student):
            model = CLASSES[task].from_pretrained(folder).eval()
            more = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
            with torch.no_grad():
                said.append(model(input_ids=IDS, **more).logits.log_softmax(-1))
        return float(torch.nn.functional.kl_div(said[1], said[0], log_target=True, reduction="batchmean"))


@pytest.fixture
def pair(tmp_path):
    return Pair(tmp_path, ffn=32)


class TestWhatComesOut:
    @pytest.mark.parametrize("kind", ["bert", "distilbert", "gpt2", "llama", "t5", "bart"])
    def test_the_student_comes_nearer_to_its_teacher(self, kind, tmp_path):
        pair = Pair(tmp_path, kind)
        out, facts = pair.taught(tmp_path / "job")
        assert pair.apart(out) < 0.9 * pair.apart(pair.student)
        assert facts["trainable"] == facts["of"]
        assert Card.read(out) == Card.read(pair.student)

    def test_tags(self, tmp_path):
        pair = Pair(tmp_path, "bert", "token-classification")
        for name in ("teacher", "cut/out"):
            folder = tmp_path / name
            replace(Card.read(folder), labels=("B", "O")).write(folder)
        out, facts = pair.taught(tmp_path / "job")
        assert pair.apart(out) < pair.apart(pair.student)
        assert facts["teacher"].keys() == {"accuracy", "f1", "loss"}

    def test_vectors(self, tmp_path):
        pair = Pair(tmp_path, "bert", "embeddings")
        _, facts = pair.taught(tmp_path / "job", hidden=0, evaluateEvery=6)
        assert facts["metric"] == "cosine"
        assert facts["validation"][-1][1] > max(0.9, facts["validation"][0][1])

    @pytest.mark.parametrize("layers", ["last", "all", [[0, 0], [2, 3]]])
    @pytest.mark.parametrize("tokens", ["all", "first", "summary"])
    def test_hidden_states_come_nearer(self, layers, tokens, pair, tmp_path):
        weights = {"hiddenLayers": layers, "hiddenTokens": tokens, "soft": 0, "hidden": 1, "epochs": 4}
        _, facts = pair.taught(tmp_path / "job", **weights)
        assert facts["loss"][-1][1] < 0.8 * facts["loss"][0][1]

    def test_hidden_states_may_count_for_less_and_less(self, pair, tmp_path):
        weights = {"soft": 0, "hidden": 1, "hiddenUntil": 0.5, "epochs": 2, "learningRate": 1e-5}
        _, facts = pair.taught(tmp_path / "job", **weights)
        losses = [loss for _, loss in facts["loss"]]
        assert losses[3] == pytest.approx(losses[0] / 2, rel=0.1)  # 3 of 12 steps: half the way to the half
        assert losses[6:] == [0] * 6

    def test_a_kept_state_is_what_the_teacher_says(self, pair, tmp_path):
        """Asked at every step or once: the same states, but for half precision."""
        weights = {"soft": 0, "hidden": 1, "hiddenLayers": "all", "epochs": 1, "learningRate": 1e-9}
        losses = []
        for name in ("kept", "asked"):
            made = job(tmp_path / name, {**PARAMS, **weights, "hiddenTokens": "summary"}, **pair.inputs)
            with pytest.MonkeyPatch.context() as patch:
                if name == "asked":
                    patch.setattr(distil, "_ONE_ANSWER", ())
                losses.append([loss for _, loss in distil.run(made)["loss"]])
        assert losses[0] == pytest.approx(losses[1], rel=1e-2)

    def test_the_labels_alone(self, pair, tmp_path):
        _, facts = pair.taught(tmp_path / "job", hard=1, hidden=0)
        assert facts["loss"][-1][1] < facts["loss"][0][1]

    def test_by_lora_only_the_small_matrices_learn(self, pair, tmp_path):
        lora = {"rank": 8, "targets": ["query", "value"]}
        out, facts = pair.taught(tmp_path / "job", lora=lora, learningRate=1e-2)
        assert facts["trainable"] < facts["of"] / 3
        before, after = (load_file(folder / "model.safetensors") for folder in (pair.student, out))
        assert before.keys() == after.keys()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert all("query" in name or "value" in name or "classifier" in name for name in changed)
        assert len(changed) > 3

    def test_what_is_frozen_stays(self, pair, tmp_path):
        out, _ = pair.taught(tmp_path / "job", frozen=["word_embeddings.weight"], epochs=1)
        before, after = (load_file(folder / "model.safetensors") for folder in (pair.student, out))
        name = "bert.embeddings.word_embeddings.weight"
        assert torch.equal(before[name], after[name])
        assert not torch.equal(before["classifier.weight"], after["classifier.weight"])

    def test_long_texts_have_windows_and_only_the_first_has_the_label(self, pair, tmp_path):
        rows = [
            {"text": "the film was lovely and " * 20, "label": "positive"},
            {"text": "dull", "label": "negative"},
        ]
        (pair.data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 4))
        _, facts = pair.taught(tmp_path / "job", windows=2, length=16, hard=1, hidden=0, epochs=1)
        assert facts["rows"] == {"train": 8, "examples": 16, "validation": 32}
        answers = load_file(tmp_path / "job/work/teacher/train-000000000.safetensors")["answers"]
        assert answers.shape == (16, 2)

    def test_so_many_steps_and_epochs_as_said(self, pair, tmp_path):
        _, facts = pair.taught(tmp_path / "a", steps=20, epochs=None, evaluateEvery=9)
        assert facts["steps"] == 20
        assert [step for step, _ in facts["validation"]] == [9, 18, 20]
        _, facts = pair.taught(tmp_path / "b", epochs=1.5, schedule="cosine", warmup=0.5)
        assert facts["steps"] == 9


class TestTheSameBytes:
    @pytest.mark.parametrize("way", ["all", "lora"])
    def test_after_kills_at_many_moments(self, way, pair, tmp_path):
        params = {**PARAMS, "epochs": 2, "modelDropout": 0.1, "precision": "bfloat16", "hard": 0.3}
        params |= {"lora": {"rank": 4, "dropout": 0.1}} if way == "lora" else {"hidden": 0}
        whole, parts = job(tmp_path / "whole", params, **pair.inputs), tmp_path / "parts"
        distil.run(whole)
        # The first whole file is the teacher's answers, then comes a checkpoint a step.
        for moment in [("half", 1), ("rename", 2), ("half", 4)]:
            code = killed.attempt("distil", params, pair.inputs, parts, moment)
            assert code == -signal.SIGKILL, moment
        assert killed.attempt("distil", params, pair.inputs, parts, None) == 0
        assert killed.digest(whole.out) == killed.digest(parts / "out")

    def test_the_teacher_is_asked_once(self, pair, tmp_path):
        params = {**PARAMS, "hidden": 0, "epochs": 1}
        assert killed.attempt("distil", params, pair.inputs, tmp_path / "job", ("rename", 3)) < 0
        answers = tmp_path / "job/work/teacher/train-000000000.safetensors"
        stamp = answers.stat().st_mtime_ns
        assert killed.attempt("distil", params, pair.inputs, tmp_path / "job", None) == 0
        assert answers.stat().st_mtime_ns == stamp


def test_the_divergence_is_hintons():
    ours, theirs = torch.tensor([[1.0, 2.0, -1.0]]), torch.tensor([[0.5, 0.0, 2.0]])
    p, q = (theirs / 3).softmax(-1), (ours / 3).softmax(-1)
    wanted = 9 * (p * (p / q).log()).sum()
    assert float(distil._divergence(ours, theirs, 3.0)) == pytest.approx(float(wanted), rel=1e-5)


class TestWhatIsRefused:
    def test_other_labels(self, pair, tmp_path):
        replace(Card.read(pair.student), labels=("positive", "negative")).write(pair.student)
        assert "same task and labels" in pair.refused(tmp_path / "job")

    def test_another_vocabulary(self, pair, tmp_path):
        pair.teacher = small("roberta", tmp_path / "other")
        assert "different vocabularies" in pair.refused(tmp_path / "job")

    def test_another_width(self, pair, tmp_path):
        pair.teacher = small("bert", tmp_path / "other", hidden_size=64)
        assert "have 32 numbers, the teacher's 64" in pair.refused(tmp_path / "job")
        pair.taught(tmp_path / "fine", hidden=0, epochs=0.1)

    def test_layers_there_are_not(self, pair, tmp_path):
        assert "a student's layer (0 to 2)" in pair.refused(tmp_path / "job", hiddenLayers=[[3, 3]])

    def test_frozen_weights_there_are_not(self, pair, tmp_path):
        assert "'wte.weight'" in pair.refused(tmp_path / "job", frozen=["wte.weight"])

    def test_more_tokens_than_the_teacher_sees(self, pair, tmp_path):
        replace(Card.read(pair.teacher), max_length=16).write(pair.teacher)
        assert "sees 16 tokens" in pair.refused(tmp_path / "job")
