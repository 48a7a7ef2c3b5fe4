import peft
import pytest
import torch
import transformers

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.passes import finetune, merge
from gamma_orch.runtimes.folder import Card
from tests.kinds.models.passes.killed import digest
from tests.kinds.models.passes.small import LABELS, TASK, data, job, small

PARAMS = {"rank": 4, "alpha": 8, "epochs": 2, "batch": 16, "learningRate": 1e-2, "length": 32}
CLASSES = {
    "text-classification": transformers.AutoModelForSequenceClassification,
    "text-generation": transformers.AutoModelForCausalLM,
    "summarization": transformers.AutoModelForSeq2SeqLM,
}


@pytest.mark.parametrize("kind", ["bert", "gpt2", "t5"])
def test_the_merged_model_answers_as_base_and_adapter_do(kind, tmp_path):
    task = TASK.get(kind, "text-classification")
    base = small(kind, tmp_path / "m", task)
    tuned = job(tmp_path / "tuned", PARAMS, model=base, data=data(tmp_path / "d", task))
    finetune.run(tuned)
    made = job(tmp_path / "merged", {}, model=base, adapter=tuned.out)
    merge.run(made)

    plain = CLASSES[task].from_pretrained(base)
    with_adapter = peft.PeftModel.from_pretrained(CLASSES[task].from_pretrained(base), str(tuned.out)).eval()
    merged = CLASSES[task].from_pretrained(made.out)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    more = {"decoder_input_ids": ids} if kind == "t5" else {}
    with torch.no_grad():
        wanted, found, before = (
            model(input_ids=ids, **more).logits for model in (with_adapter, merged, plain)
        )
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    assert (wanted - before).abs().max() > 1e-3  # the adapter says something
    assert Card.read(made.out).graphs == {"model": "model.safetensors"}
    if task == "text-classification":
        assert tuple(merged.config.id2label.values()) == LABELS
    if kind == "gpt2":
        assert merged.lm_head.weight is merged.transformer.wte.weight


def test_a_head_that_the_base_has_not_is_the_adapters(tmp_path):
    base = small("distilbert", tmp_path / "m", "embeddings")
    Card("text-classification", "distilbert", "torch", max_length=128).write(base)
    tuned = job(tmp_path / "tuned", PARAMS, model=base, data=data(tmp_path / "d"))
    finetune.run(tuned)
    torch.manual_seed(1)
    one = job(tmp_path / "one", {}, model=base, adapter=tuned.out)
    merge.run(one)
    torch.manual_seed(2)
    other = job(tmp_path / "other", {}, model=base, adapter=tuned.out)
    merge.run(other)
    assert digest(one.out) == digest(other.out)


def test_an_adapter_of_another_architecture(tmp_path):
    base = small("bert", tmp_path / "m")
    tuned = job(tmp_path / "tuned", {**PARAMS, "maxSteps": 1}, model=base, data=data(tmp_path / "d"))
    finetune.run(tuned)
    with pytest.raises(Permanent, match="for text-classification on bert, and the model given is distilbert"):
        merge.run(job(tmp_path / "job", {}, model=small("distilbert", tmp_path / "x"), adapter=tuned.out))


def test_another_model_than_its_base(tmp_path):
    base = small("bert", tmp_path / "m")
    tuned = job(tmp_path / "tuned", {**PARAMS, "maxSteps": 1}, model=base, data=data(tmp_path / "d"))
    finetune.run(tuned)
    with pytest.raises(Permanent, match="not the base that the adapter was trained on"):
        merge.run(job(tmp_path / "job", {}, model=small("bert", tmp_path / "x", seed=1), adapter=tuned.out))
