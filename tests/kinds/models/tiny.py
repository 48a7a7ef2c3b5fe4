"""Tiny models of every architecture, whole folders with a tokenizer, nothing downloaded.

Two layers, width 32, random weights of a size that lets every layer matter: with the usual 0.02 a wrong graph
and a right one answer nearly the same, and a parity test proves nothing. The same arguments, the same bytes.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import tokenizers
import torch  # noqa: TID253
import transformers  # noqa: TID253
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from gamma_orch.runtimes.folder import Card, Task

Kind = Literal["bert", "distilbert", "roberta", "gpt2", "distilgpt2", "llama", "t5", "bart"]
ENCODERS: tuple[Kind, ...] = ("bert", "distilbert", "roberta")
DECODERS: tuple[Kind, ...] = ("gpt2", "distilgpt2", "llama")
ENCODER_DECODERS: tuple[Kind, ...] = ("t5", "bart")
KINDS: tuple[Kind, ...] = (*ENCODERS, *DECODERS, *ENCODER_DECODERS)

POSITIONS = 128
_GOOD = ("good", "great", "fine", "bright", "warm", "clever", "moving", "lovely")
_BAD = ("bad", "dull", "poor", "cold", "weak", "tired", "boring", "awful")
_NOUNS = ("film", "story", "actor", "scene", "music", "ending", "plot", "camera", "dialogue", "director")
_TEMPLATES = (
    "the {noun} was {word}",
    "a {word} {noun}, and the {other} was {word} too",
    "I found the {noun} {word} but the {other} saves it",
    "{word} {noun}",
    "what a {word} {noun}! the {other} and the {noun} make one forget the time, every minute of it",
)


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Made-up reviews of different lengths with their label, balanced; the words tell the label."""
    draw = torch.Generator().manual_seed(seed)

    def one_of(words: Sequence[str]) -> str:
        return words[int(torch.randint(len(words), (1,), generator=draw))]

    rows = []
    for number in range(count):
        label, words = (("negative", _BAD), ("positive", _GOOD))[number % 2]
        form = one_of(_TEMPLATES)
        rows.append((form.format(noun=one_of(_NOUNS), word=one_of(words), other=one_of(_NOUNS)), label))
    return rows


def texts(count: int, seed: int = 0) -> list[str]:
    return [text for text, _ in sentences(count, seed)]


def dataset(folder: Path, rows: int = 40) -> Path:
    """A dataset folder with `train.jsonl`, `validation.jsonl` and `test.jsonl` of made-up reviews."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, split in enumerate(("train", "validation", "test")):
        lines = (
            json.dumps({"text": text, "label": label}) + "\n" for text, label in sentences(rows, seed=number)
        )
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def tiny(
    kind: Kind,
    folder: Path,
    task: Task | None = None,
    labels: Sequence[str] = ("negative", "positive"),
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a tiny model of `kind` to `folder`, with tokenizer and card, and return the folder.

    Without `task`: text-classification for encoders, text-generation for decoders, summarization for
    encoder-decoders. `config` overrides fields of the transformers configuration, by their own names.
    """
    task = task or _task(kind)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(kind)
    tokenizer.save_pretrained(folder)
    if task in ("text-classification", "token-classification"):
        config["id2label"] = dict(enumerate(labels))
        config["label2id"] = {label: number for number, label in enumerate(labels)}
    settings = _config(kind, tokenizer, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _CLASSES[task].from_config(settings)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:  # a bias that is zero everywhere hides where it is added
                    parameter.add_(torch.randn_like(parameter) * 0.1)
                elif kind == "t5" and parameter is not model.get_input_embeddings().weight:
                    parameter.mul_(3)  # else it repeats its first token for ever
    model.eval().save_pretrained(folder, safe_serialization=True)
    Card(
        task=task,
        architecture=settings.model_type,
        runtime="torch",
        graphs={"model": "model.safetensors"},
        labels=tuple(labels) if "classification" in task else (),
        pooling="mean" if task == "embeddings" else "",
        normalize=task == "embeddings",
        max_length=POSITIONS,
    ).write(folder)
    return folder


_CLASSES: dict[Task, Any] = {
    "text-classification": transformers.AutoModelForSequenceClassification,
    "token-classification": transformers.AutoModelForTokenClassification,
    "embeddings": transformers.AutoModel,
    "text-generation": transformers.AutoModelForCausalLM,
    "summarization": transformers.AutoModelForSeq2SeqLM,
}


def _task(kind: Kind) -> Task:
    if kind in ENCODERS:
        return "text-classification"
    return "text-generation" if kind in DECODERS else "summarization"


def _config(kind: Kind, tokenizer: Any, given: dict[str, Any]) -> Any:
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    wide = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    size = {"vocab_size": len(tokenizer)}
    known: dict[str, Any]
    match kind:
        case "bert":
            known = {**wide, "max_position_embeddings": POSITIONS, "initializer_range": 0.2}
            return transformers.BertConfig(
                **{**known, **size, "pad_token_id": tokenizer.pad_token_id, **given}
            )
        case "distilbert":
            known = {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "initializer_range": 0.2}
            known |= {"max_position_embeddings": POSITIONS, "pad_token_id": tokenizer.pad_token_id}
            return transformers.DistilBertConfig(**{**known, **size, **given})
        case "roberta":
            positions = POSITIONS + tokenizer.pad_token_id + 1  # its positions begin after the padding index
            known = {
                **wide,
                "max_position_embeddings": positions,
                "initializer_range": 0.2,
                "type_vocab_size": 1,
            }
            return transformers.RobertaConfig(**{**known, **size, **ids, **given})
        case "gpt2" | "distilgpt2":
            known = {"n_embd": 32, "n_layer": 2 if kind == "gpt2" else 1, "n_head": 4}
            known |= {"n_positions": POSITIONS, "initializer_range": 0.2}
            return transformers.GPT2Config(**{**known, **size, **ids, **given})
        case "llama":
            known = {**wide, "num_key_value_heads": 2, "max_position_embeddings": POSITIONS}
            known |= {"initializer_range": 0.2, "tie_word_embeddings": True}
            return transformers.LlamaConfig(**{**known, **size, **ids, **given})
        case "t5":
            known = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
            known |= {"decoder_start_token_id": tokenizer.pad_token_id, "initializer_factor": 1.0}
            return transformers.T5Config(**{**known, **size, **ids, **given})
        case "bart":
            known = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "init_std": 0.2}
            known |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
            known |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": POSITIONS}
            known |= {"decoder_start_token_id": tokenizer.eos_token_id, "forced_eos_token_id": None}
            return transformers.BartConfig(**{**known, **size, **ids, **given})


@cache
def _tokenizer(kind: Kind) -> Any:
    if kind in ("bert", "distilbert"):
        return _word_pieces()
    return _pieces() if kind == "t5" else _byte_pairs(kind)


def _corpus() -> Iterator[str]:
    yield from texts(200, seed=99)


def _trained(model: Any, trainer: Any, corpus: Iterable[str], **parts: Any) -> Any:
    raw = tokenizers.Tokenizer(model)
    for name, part in parts.items():
        setattr(raw, name, part)
    raw.train_from_iterator(corpus, trainer)
    return raw


def _word_pieces() -> Any:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    raw = _trained(
        models.WordPiece(unk_token="[UNK]"),
        trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False),
        _corpus(),
        normalizer=normalizers.BertNormalizer(lowercase=True),
        pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
        decoder=decoders.WordPiece(),
    )
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, raw.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=POSITIONS,
    )


def _byte_pairs(kind: Kind) -> Any:
    framed = kind in ("roberta", "bart")
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if framed else ["<|endoftext|>"]
    raw = _trained(
        models.BPE(),
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=special,
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
        _corpus(),
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoder=decoders.ByteLevel(),
    )
    if not framed:
        end = "<|endoftext|>"  # no padding token, like GPT-2
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=raw, bos_token=end, eos_token=end, model_max_length=POSITIONS
        )
    raw.post_processor = processors.RobertaProcessing(
        sep=("</s>", raw.token_to_id("</s>")), cls=("<s>", raw.token_to_id("<s>")), add_prefix_space=False
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=POSITIONS,
    )


def _pieces() -> Any:
    special = ["<pad>", "</s>", "<unk>"]
    raw = _trained(
        models.Unigram(),
        trainers.UnigramTrainer(
            vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False
        ),
        _corpus(),
        pre_tokenizer=pre_tokenizers.Metaspace(),
        decoder=decoders.Metaspace(),
    )
    raw.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", raw.token_to_id("</s>"))]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=POSITIONS,
    )
