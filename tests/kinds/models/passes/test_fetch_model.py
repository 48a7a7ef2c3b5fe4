"""Models of every kind of source: what of them is kept, what is made new, and what is refused."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import TensorProto, helper

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import accepted, fetch_model
from gamma_orch.runtimes.folder import Card
from tests.kinds.models.tiny import tiny

TWO = ["negative", "positive"]
TEXT = ["the film was good", "a dull story"]


class Bench:
    """A project with models in it, fetched as often as a test likes."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        self.root.mkdir()
        self.folder = folder
        self.count = 0
        self.facts: Any = None

    def fetch(self, path: str, task: str, **params: Any) -> Path:
        self.count += 1
        out, work = self.folder / f"out{self.count}", self.folder / f"work{self.count}"
        out.mkdir()
        work.mkdir()
        source = {"path": path, **params.pop("source", {})}
        full = {"source": source, "root": str(self.root), "task": task, **params}
        self.facts = fetch_model.run(Job(full, {}, out, work, 1, lambda _text, _part: None))
        return out

    def wrong(self, path: str, task: str, **params: Any) -> str:
        with pytest.raises(Permanent) as caught:
            self.fetch(path, task, **params)
        return str(caught.value)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def digest(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names(folder)}


def answer(folder: Path, kind: Any) -> torch.Tensor:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = kind.from_pretrained(folder).eval()
    with torch.no_grad():
        out = model(**tokenizer(TEXT, padding=True, return_token_type_ids=False, return_tensors="pt"))
    return torch.as_tensor(out.logits if "logits" in out else out.last_hidden_state)


# --- safetensors --------------------------------------------------------------------------------------

BASIC = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "gamma-model.json"}


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_a_classifier_is_kept_as_it_is(bench: Bench, kind: Any) -> None:
    source = tiny(kind, bench.root / "m", seed=3)
    (source / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (source / "picture.png").write_bytes(b"png")
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    out = bench.fetch("m", "text-classification")
    assert names(out) == BASIC | {"special_tokens_map.json"}
    auto = transformers.AutoModelForSequenceClassification
    assert torch.equal(answer(out, auto), answer(source, auto))
    card = Card.read(out)
    assert (card.labels, card.runtime, card.precision, card.architecture) == (
        ("negative", "positive"),
        "torch",
        "float32",
        kind,
    )
    assert card.max_length == 128
    weights = sum(p.numel() for p in auto.from_pretrained(source).parameters())
    told = {key: bench.facts[key] for key in ("parameters", "head", "layers", "hidden", "licence", "where")}
    assert told == {
        "parameters": weights,
        "head": "kept",
        "layers": 2,
        "hidden": 32,
        "licence": "apache-2.0",
        "where": "README.md beside the files",
    }
    assert bench.facts["bytes"] == sum(path.stat().st_size for path in out.iterdir())


def test_the_same_source_is_the_same_bytes(bench: Bench) -> None:
    tiny("bert", bench.root / "m", "embeddings")
    first = bench.fetch("m", "text-classification", labels=["a", "b", "c"], seed=5)
    facts = bench.facts
    shutil.copytree(bench.root / "m", bench.root / "elsewhere")
    second = bench.fetch("elsewhere", "text-classification", labels=["a", "b", "c"], seed=5)
    assert digest(first) == digest(second)
    assert facts["digest"] == bench.facts["digest"]
    assert facts["head"] == "new"
    assert Card.read(first).labels == ("a", "b", "c")
    other = bench.fetch("m", "text-classification", labels=["a", "b", "c"], seed=6)
    assert digest(other)["model.safetensors"] != digest(first)["model.safetensors"]
    # Where it lay is in no file.
    for path in first.iterdir():
        assert str(bench.folder).encode() not in path.read_bytes()


def test_labels_of_a_head(bench: Bench) -> None:
    tiny("bert", bench.root / "m", labels=["NEGATIVE", "POSITIVE"])
    out = bench.fetch("m", "text-classification", labels=TWO)
    assert Card.read(out).labels == ("negative", "positive")
    assert bench.facts["head"] == "kept"
    said = bench.wrong("m", "text-classification", labels=TWO[::-1])
    assert "NEGATIVE, POSITIVE, in this order" in said
    bench.fetch("m", "text-classification", labels=["a", "b", "c"])
    assert bench.facts["head"] == "new"
    tiny("bert", bench.root / "bare", "embeddings")
    assert "write `labels`" in bench.wrong("bare", "text-classification")


def test_an_embedder_of_sentence_transformers(bench: Bench) -> None:
    source = tiny("bert", bench.root / "m", "embeddings")
    (source / "1_Pooling").mkdir()
    modes = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (source / "1_Pooling/config.json").write_text(json.dumps(modes))
    (source / "modules.json").write_text('[{"type": "sentence_transformers.models.Normalize"}]')
    (source / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    # As MiniLM's: a tokenizer that cuts and pads by itself.
    body = json.loads((source / "tokenizer.json").read_text())
    body["truncation"] = {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    (source / "tokenizer.json").write_text(json.dumps(body))
    out = bench.fetch("m", "embeddings")
    card = Card.read(out)
    assert (card.pooling, card.normalize, card.max_length) == ("cls", True, 64)
    made = transformers.AutoTokenizer.from_pretrained(out)
    assert len(made("good " * 20)["input_ids"]) > 20
    assert made.model_max_length == 64
    card = Card.read(bench.fetch("m", "embeddings", pooling="mean", normalize=False, maxLength=16))
    assert (card.pooling, card.normalize, card.max_length) == ("mean", False, 16)
    modes["pooling_mode_max_tokens"] = True
    (source / "1_Pooling/config.json").write_text(json.dumps(modes))
    assert "only mean and cls" in bench.wrong("m", "embeddings")


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5", "bart"])
def test_generators(bench: Bench, kind: Any) -> None:
    task = "text-generation" if kind in ("gpt2", "llama") else "summarization"
    source = tiny(kind, bench.root / "m")
    out = bench.fetch("m", task)
    auto = accepted.CLASSES[task]
    old, new = auto.from_pretrained(source).state_dict(), auto.from_pretrained(out).state_dict()
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer.pad_token is not None
    assert transformers.AutoConfig.from_pretrained(out).pad_token_id == tokenizer.pad_token_id


def test_a_generator_without_a_pad_token_gets_the_end(bench: Bench) -> None:
    source = tiny("gpt2", bench.root / "m")
    for name in ("tokenizer_config.json", "special_tokens_map.json", "config.json"):
        body = json.loads((source / name).read_text())
        body.pop("pad_token", None)
        body.pop("pad_token_id", None)
        (source / name).write_text(json.dumps(body))
    tokenizer = transformers.AutoTokenizer.from_pretrained(bench.fetch("m", "text-generation"))
    assert tokenizer.pad_token == tokenizer.eos_token is not None


def test_shards(bench: Bench) -> None:
    source = tiny("bert", bench.root / "m")
    auto = transformers.AutoModelForSequenceClassification
    model, before = auto.from_pretrained(source), answer(source, auto)
    (source / "model.safetensors").unlink()
    model.save_pretrained(source, max_shard_size="20KB")
    shards = sorted(path.name for path in source.glob("model-*.safetensors"))
    assert len(shards) > 1
    out = bench.fetch("m", "text-classification")
    assert names(out) == BASIC | {"special_tokens_map.json"}
    assert torch.equal(answer(out, auto), before)
    (source / shards[1]).unlink()
    assert f"lacks {shards[1]}, of {len(shards)} files" in bench.wrong("m", "text-classification")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_type_of_the_weights(bench: Bench, dtype: str) -> None:
    tiny("gpt2", bench.root / "m")
    out = bench.fetch("m", "text-generation", dtype=dtype)
    assert Card.read(out).precision == bench.facts["dtype"] == dtype
    model = transformers.AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    assert model.dtype == getattr(torch, dtype)


# --- what is refused ----------------------------------------------------------------------------------


def config(source: Path, **fields: Any) -> None:
    body = json.loads((source / "config.json").read_text())
    body = {key: value for key, value in {**body, **fields}.items() if value is not None}
    (source / "config.json").write_text(json.dumps(body))


def cut(source: Path) -> None:
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def poison(source: Path) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(source)
    with torch.no_grad():
        model.classifier.weight[0, 0] = float("nan")
    model.save_pretrained(source)


def pickled(source: Path) -> None:
    (source / "model.safetensors").rename(source / "pytorch_model.bin")


def no_tokenizer(source: Path) -> None:
    for path in [*source.glob("tokenizer*"), *source.glob("vocab*"), *source.glob("special*")]:
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cut, "model.safetensors is cut off: its header says"),
        (
            lambda s: (s / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/"),
            "git lfs pull",
        ),
        (lambda s: (s / "model.safetensors").write_bytes(b"x" * 100), "is no whole safetensors file"),
        (lambda s: (s / "model.safetensors").write_bytes(b""), "is no whole safetensors file"),
        (lambda s: (s / "model.safetensors").unlink(), "has no weights"),
        (pickled, "pytorch_model.bin: a pickle, which can run code when it is loaded"),
        (no_tokenizer, "has no tokenizer"),
        (lambda s: (s / "tokenizer.json").write_text("{"), "its tokenizer cannot be loaded"),
        (lambda s: (s / "config.json").unlink(), "has no config.json"),
        (lambda s: (s / "config.json").write_text("{"), "config.json is no JSON"),
        (lambda s: config(s, model_type=None), "config.json has no model_type"),
        (lambda s: config(s, model_type="brt"), "'brt' is not known to transformers"),
        (lambda s: config(s, num_hidden_layers=3), "lacks weights of the bert: bert.encoder.layer.2"),
        (lambda s: config(s, vocab_size=20), "lacks weights of the bert: bert.embeddings.word_embeddings"),
        (poison, "the weight classifier.weight has values that are no numbers"),
    ],
)
def test_sources_that_are_not_right(bench: Bench, spoil: Callable[[Path], Any], said: str) -> None:
    spoil(tiny("bert", bench.root / "m"))
    told = bench.wrong("m", "text-classification", labels=TWO)
    assert said in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("kind", "task", "said"),
    [
        ("bert", "summarization", "'bert' cannot do summarization; it can do text-classification, token-"),
        ("bert", "text-generation", "cannot do text-generation"),
        ("bart", "text-generation", "cannot do text-generation"),
        ("gpt2", "summarization", "cannot do summarization"),
        ("bert", "text-clasification", "did you mean 'text-classification'?"),
    ],
)
def test_tasks_that_cannot_be(bench: Bench, kind: Any, task: str, said: str) -> None:
    tiny(kind, bench.root / "m")
    assert said in bench.wrong("m", task)


def test_a_generator_needs_its_head(bench: Bench) -> None:
    tiny("gpt2", bench.root / "m", tie_word_embeddings=False)
    tiny("gpt2", bench.root / "bare", "embeddings", tie_word_embeddings=False)
    bench.fetch("m", "text-generation")
    assert "has no head for text-generation" in bench.wrong("bare", "text-generation")


def test_a_length_that_the_model_has_not(bench: Bench) -> None:
    tiny("roberta", bench.root / "m")
    assert Card.read(bench.fetch("m", "text-classification", maxLength=128)).max_length == 128
    assert "positions for 128 tokens: 128 at most" in bench.wrong("m", "text-classification", maxLength=129)


# --- GGUF ---------------------------------------------------------------------------------------------

TOKENS = ["<|end|>", "<|start|>", "<|stop|>", *"abcdefgh0123456789", "\u0120", "ab", "\u0120ab", "12"]


def write_gguf(
    path: Path, begins: bool | None = False, pre: str = "smollm", pad: bool = False
) -> dict[str, Any]:
    """A Llama of one layer, its feed-forward in Q8_0. Returns its weights by their names in the file."""
    writer = gguf.GGUFWriter(path, "llama")
    fields: tuple[tuple[Callable[[Any], None], Any], ...] = (
        (writer.add_context_length, 64),
        (writer.add_embedding_length, 32),
        (writer.add_block_count, 1),
        (writer.add_feed_forward_length, 64),
        (writer.add_head_count, 4),
        (writer.add_head_count_kv, 2),
        (writer.add_layer_norm_rms_eps, 1e-5),
        (writer.add_rope_freq_base, 10000.0),
        (writer.add_rope_dimension_count, 8),
        (writer.add_vocab_size, len(TOKENS)),
        (writer.add_file_type, 7),
        (writer.add_license, "mit"),
        (writer.add_tokenizer_model, "gpt2"),
        (writer.add_tokenizer_pre, pre),
        (writer.add_token_list, TOKENS),
        (writer.add_token_types, [3, 3, 3] + [1] * (len(TOKENS) - 3)),
        (writer.add_token_merges, ["a b", "\u0120 ab", "1 2"]),
        (writer.add_bos_token_id, 1),
        (writer.add_eos_token_id, 2),
        (writer.add_unk_token_id, 0),
    )
    for add, value in fields:
        add(value)
    if begins is not None:
        writer.add_add_bos_token(begins)
    if pad:
        writer.add_pad_token_id(0)
    random = np.random.default_rng(0)
    shapes = {
        "token_embd": (len(TOKENS), 32),
        "blk.0.attn_q": (32, 32),
        "blk.0.attn_k": (16, 32),
        "blk.0.attn_v": (16, 32),
        "blk.0.attn_output": (32, 32),
        "blk.0.ffn_gate": (64, 32),
        "blk.0.ffn_up": (64, 32),
        "blk.0.ffn_down": (32, 64),
        "blk.0.attn_norm": (32,),
        "blk.0.ffn_norm": (32,),
        "output_norm": (32,),
    }
    weights = {
        f"{name}.weight": random.normal(size=shape).astype("float32") for name, shape in shapes.items()
    }
    for name, weight in weights.items():
        if "ffn_" in name and weight.ndim > 1:
            packed = gguf.quants.quantize(weight, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def test_gguf(bench: Bench) -> None:
    weights = write_gguf(bench.root / "tiny.gguf")
    out = bench.fetch("tiny.gguf", "text-generation")
    assert names(out) - {"special_tokens_map.json"} == BASIC | {"generation_config.json"}
    assert bench.facts["quantization"] == "Q8_0"
    assert 0.5 < bench.facts["weightTypes"]["Q8_0"] < 1
    assert (bench.facts["licence"], bench.facts["where"]) == ("mit", "metadata of the GGUF file")
    assert bench.facts["dtype"] == Card.read(out).precision == "float32"
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    embedding = model.get_input_embeddings().weight.detach().numpy()
    assert np.array_equal(embedding, weights["token_embd.weight"])
    down = model.model.layers[0].mlp.down_proj.weight.detach().numpy()
    assert np.abs(down - weights["blk.0.ffn_down.weight"]).max() < 0.02
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    told = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.pad_token)
    assert told == ("<|start|>", "<|stop|>", "<|end|>", "<|stop|>")
    # Each digit for itself, although there is a merge of two; nothing put before.
    encoded = tokenizer("ab ab12<|stop|>")
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"]) == ["ab", "\u0120ab", "1", "2", "<|stop|>"]
    assert set(encoded) == {"input_ids", "attention_mask"}
    assert tokenizer.decode(encoded["input_ids"]) == "ab ab12<|stop|>"
    bench.fetch("tiny.gguf", "text-generation", dtype="bfloat16")
    assert bench.facts["dtype"] == "bfloat16"
    assert digest(bench.fetch("tiny.gguf", "text-generation")) == digest(out)


@pytest.mark.parametrize(("pre", "known"), [("smollm", True), ("gpt-2", True), ("another", False)])
def test_the_beginning_is_put_before_a_text_as_the_file_says(bench: Bench, pre: str, known: bool) -> None:
    for begins in (True, False):
        write_gguf(bench.root / "tiny.gguf", begins=begins, pre=pre, pad=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(bench.fetch("tiny.gguf", "text-generation"))
        tokens = tokenizer.convert_ids_to_tokens(tokenizer("ab12")["input_ids"])
        assert tokens[:1] == (["<|start|>"] if begins else ["ab"])
        assert tokenizer.pad_token == "<|end|>"
        assert tokenizer.eos_token == "<|stop|>"
        assert ("12" in tokens) == (pre != "smollm")


def test_gguf_that_is_not_right(bench: Bench) -> None:
    write_gguf(bench.root / "whole.gguf")
    content = (bench.root / "whole.gguf").read_bytes()
    for kept in (10, 500, len(content) - 2000):
        (bench.root / "half.gguf").write_bytes(content[:kept])
        assert "half.gguf is no whole GGUF file" in bench.wrong("half.gguf", "text-generation")
    assert "cannot do summarization" in bench.wrong("whole.gguf", "summarization")
    assert "several GGUF files: half.gguf, whole.gguf" in bench.wrong(".", "text-generation")


# --- ONNX ---------------------------------------------------------------------------------------------


def write_onnx(folder: Path, kind: int = TensorProto.FLOAT, outside: str = "") -> None:
    weight = helper.make_tensor("w", kind, [2, 2], bytes(16 if kind == TensorProto.FLOAT else 4), raw=True)
    nodes = [helper.make_node("Identity", ["w"], ["y"])]
    out = helper.make_tensor_value_info("y", kind, [2, 2])
    graph = helper.make_graph(nodes, "g", [], [out], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    if outside:
        onnx.save(
            model, folder / "model.onnx", save_as_external_data=True, location=outside, size_threshold=0
        )
    else:
        onnx.save(model, folder / "model.onnx")


def test_onnx_is_taken_as_it_is(bench: Bench) -> None:
    source = tiny("distilbert", bench.root / "m", "token-classification", labels=["O", "NAME"])
    write_onnx(source, TensorProto.INT8)
    (source / "model.safetensors").unlink()
    out = bench.fetch("m", "token-classification")
    assert names(out) - {"special_tokens_map.json"} == BASIC - {"model.safetensors"} | {"model.onnx"}
    assert (out / "model.onnx").read_bytes() == (source / "model.onnx").read_bytes()
    card = Card.read(out)
    assert (card.runtime, card.precision, card.labels, dict(card.graphs)) == (
        "onnxruntime",
        "int8",
        ("O", "NAME"),
        {"model": "model.onnx"},
    )
    assert bench.facts["parameters"] == 4
    assert "cannot get a new head" in bench.wrong("m", "token-classification", labels=["a", "b", "c"])


def test_onnx_with_its_weights_beside(bench: Bench) -> None:
    source = tiny("distilbert", bench.root / "m")
    (source / "model.safetensors").unlink()
    write_onnx(source, outside="model.onnx_data")
    out = bench.fetch("m", "text-classification")
    assert (out / "model.onnx_data").read_bytes() == (source / "model.onnx_data").read_bytes()
    (source / "model.onnx_data").unlink()
    assert "keeps weights in 'model.onnx_data'" in bench.wrong("m", "text-classification")
    (source / "model.onnx").write_bytes(b"\x08\x09junk")
    assert "is no whole ONNX graph" in bench.wrong("m", "text-classification")
