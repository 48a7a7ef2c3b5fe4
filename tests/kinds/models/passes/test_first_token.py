"""The last layer at the first token only: the same answers, and less of a graph."""

from pathlib import Path

import pytest
import torch
import transformers

from gamma_orch.kinds.models.passes.first_token import narrowed
from gamma_orch.runtimes.folder import Card
from tests.kinds.models.tiny import Kind, texts, tiny

LABELS = ("negative", "positive", "neither")


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_answers_are_the_same(kind: Kind, attention: str, tmp_path: Path) -> None:
    folder = tiny(kind, tmp_path, task="text-classification", labels=LABELS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, attn_implementation=attention
    ).eval()
    batch = tokenizer(texts(5), padding=True, return_tensors="pt", return_token_type_ids=False)
    assert not batch["attention_mask"].bool().all(), "a batch without padding proves nothing of the mask"
    with torch.inference_mode():
        before = model(**batch).logits
        assert narrowed(model, Card.read(folder))
        after = model(**batch).logits
        alone = model(tokenizer(texts(5)[:1], return_tensors="pt")["input_ids"]).logits
    assert (after - before).abs().max() < 1e-5
    assert (alone - before[:1]).abs().max() < 1e-5
    assert before.std() > 0.01, "answers that are all alike prove nothing"


@pytest.mark.parametrize(
    ("kind", "task"), [("bert", "token-classification"), ("bert", "embeddings"), ("gpt2", "text-generation")]
)
def test_a_head_that_reads_more_is_left_alone(kind: Kind, task: str, tmp_path: Path) -> None:
    folder = tiny(kind, tmp_path, task=task, labels=LABELS if "classification" in task else ())  # type: ignore[arg-type]
    assert not narrowed(None, Card.read(folder))
