"""Reads what a GGUF file says of itself, and makes its tokenizer.

Called by `fetch_model`; the weights are read by transformers. The tokenizer is made from the file's own
vocabulary, merges and special tokens where the kind of splitting is known. transformers' conversion is
used for the others, with its special tokens and its beginning-of-sequence token set right: it takes the
former from elsewhere, and adds the latter whether the file says so or not.
The keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers, processors

from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.passes.brought import Licence

_CONTROL = 3  # llama.cpp's token type of special tokens
_DIGITS = {"smollm"}  # each digit is a word of its own
_BYTE_LEVEL = {"gpt-2", *_DIGITS}  # as GPT-2 splits
_BEGINS = {"llama", "llama-bpe"}  # what adds a BOS where the file does not say


@dataclass(frozen=True, slots=True)
class Said:
    fields: Mapping[str, Any]
    shares: Mapping[str, float]  # of the weights by their type, the largest first

    @property
    def quantization(self) -> str:
        """Q4_1, F16, ...: of most of the weights."""
        return next(iter(self.shares))

    @property
    def licence(self) -> Licence | None:
        name = self.fields.get("general.license")
        return Licence(str(name), "metadata of the GGUF file") if name else None


def read(path: Path) -> Said:
    """Raises Permanent where the file is not whole."""
    try:
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        counts: Counter[str] = Counter()
        for tensor in reader.tensors:
            counts[tensor.tensor_type.name] += int(tensor.n_elements)
    except (ValueError, IndexError, KeyError, OSError, TypeError) as error:
        raise Permanent(
            f"{path.name} is no whole GGUF file: {str(error) or type(error).__name__}. Fetch it again."
        ) from error
    if not counts:
        raise Permanent(f"{path.name} has no weights: is it a vocabulary only?")
    total = counts.total()
    return Said(fields, {name: round(count / total, 4) for name, count in counts.most_common()})


def tokenizer(said: Said, folder: Path, file: str) -> Any:
    """A fast tokenizer that splits and frames as the file says. Raises Permanent where there is none."""
    fields = said.fields
    if "tokenizer.ggml.tokens" not in fields:
        raise Permanent(f"{file} has no tokenizer (tokenizer.ggml.tokens): take a GGUF that has one.")
    tokens = fields["tokenizer.ggml.tokens"]
    if fields.get("tokenizer.ggml.model") == "gpt2" and fields.get("tokenizer.ggml.pre") in _BYTE_LEVEL:
        backend = _byte_level(fields)
    else:
        converted = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file, local_files_only=True)
        backend = converted.backend_tokenizer
    special = {
        name: tokens[fields[f"tokenizer.ggml.{key}_token_id"]]
        for name, key in (
            ("bos_token", "bos"),
            ("eos_token", "eos"),
            ("unk_token", "unknown"),
            ("pad_token", "padding"),
        )
        if f"tokenizer.ggml.{key}_token_id" in fields
    }
    backend.post_processor = _framing(fields, special)
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=["input_ids", "attention_mask"],  # generators refuse token types
        **special,
    )
    made.chat_template = fields.get("tokenizer.chat_template")
    made.clean_up_tokenization_spaces = False
    return made


def _byte_level(fields: Mapping[str, Any]) -> Any:
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields.get("tokenizer.ggml.merges") or ()]
    made = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = [pre_tokenizers.Digits(individual_digits=True)]
    splits = digits if fields["tokenizer.ggml.pre"] in _DIGITS else []
    made.pre_tokenizer = pre_tokenizers.Sequence([*splits, level])
    made.decoder = decoders.ByteLevel()
    types = fields.get("tokenizer.ggml.token_type") or ()
    control = [token for token, kind in zip(tokens, types, strict=False) if kind == _CONTROL]
    made.add_special_tokens(
        [tokenizers.AddedToken(token, special=True, normalized=False) for token in control]
    )
    return made


def _framing(fields: Mapping[str, Any], special: Mapping[str, str]) -> Any:
    """What is put around a text: nothing, unless the file says so."""
    model, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    begins = fields.get("tokenizer.ggml.add_bos_token", model in _BEGINS or pre in _BEGINS)
    before = special.get("bos_token") if begins else None
    after = special.get("eos_token") if fields.get("tokenizer.ggml.add_eos_token") else None
    if before is None and after is None:
        return processors.ByteLevel(trim_offsets=False)
    single = [*([before] if before else []), "$A", *([after] if after else [])]
    pair = [*single, *(f"{piece}:1" for piece in ([before] if before else [])), "$B:1"]
    pair += [f"{after}:1"] if after else []
    ids = {token: fields["tokenizer.ggml.tokens"].index(token) for token in {before, after} if token}
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=list(ids.items()))
