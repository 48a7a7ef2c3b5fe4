"""Keep only the tokens that the data has, and shrink the embeddings with the vocabulary.

Inputs `model`, and `data` unless `least` is 0.

Kept are the tokens seen at least `least` (1) times in the train split, those of the texts in `extra`, the
special and added ones, every single character and every byte: so any text can still be encoded, in more
tokens where something was dropped. A text all of whose tokens stay is encoded as before, and gets the same
logits. Dropped in any case is what no text can come to (`reachable`); with `least` 0 that alone, so every
text is encoded as before, and a model that has no such token stays as it is, byte by byte. The kept tokens
are numbered anew in their old order. tokenizer.json then stands alone; vocab.txt and the like are left out.
"""

import copy
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import batches, torch_folder, training
from gamma_orch.kinds.models.passes.reachable import unreachable

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_KINDS = ("WordPiece", "BPE", "Unigram")
_CHUNK = 1000  # texts encoded between two reports


def run(job: Job) -> Json:
    """Raises Permanent for a tokenizer whose vocabulary cannot be cut."""
    folder, least = job.inputs["model"], job.params.get("least", 1)
    card = torch_folder.card(folder)
    path = folder / "tokenizer.json"
    if not path.is_file():
        if not least:
            return _untouched(job)
        raise Permanent("The vocabulary can only be trimmed in tokenizer.json, and the model has none.")
    body = json.loads(path.read_text(encoding="utf-8"))
    kind = body["model"].get("type") or "BPE"
    if kind not in _KINDS and least:
        raise Permanent(
            f"The model's tokenizer is a {kind} one, whose vocabulary cannot be trimmed; "
            f"{', '.join(_KINDS)} can be."
        )
    tokenizer = _tokenizer(path)
    never = unreachable(tokenizer, body)
    if not least and not never:
        return _untouched(job)
    with training.settled(job.threads, 0):
        model = torch_folder.load(folder, card)
        size = model.get_input_embeddings().weight.shape[0]
        if least:
            counts = _counts(job, tokenizer, batches.rows(job.inputs["data"], "train", card.task))
            seen = {i for i, count in counts.items() if count >= least}
            ids = _kept(body, tokenizer, seen, never, job.params, model)
        else:
            never -= _special(model)
            ids = sorted(i for i in tokenizer.get_vocab().values() if i not in never)
        if ids[-1] >= size:
            raise Permanent(
                f"The tokenizer has tokens up to {ids[-1]}, and the model has embeddings for {size} only: "
                "they do not belong together."
            )
        number = {old: new for new, old in enumerate(ids)}
        if (
            card.architecture == "roberta"
            and number.get(model.config.pad_token_id) != model.config.pad_token_id
        ):
            raise Permanent(
                "This model counts its positions from the number of its padding token, which would change. "
                "Its vocabulary cannot be trimmed."
            )
        small = _cut(model, size, ids, number)
        torch_folder.write(small, card, folder, job.out)
    for name in (*torch_folder.TOKENIZER, "added_tokens.json"):
        if name not in ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
            (job.out / name).unlink(missing_ok=True)
    _write_tokenizer(body, number, job.out)
    facts: Json = {"vocabulary": [size, len(ids)], "bytesSaved": _bytes(folder) - _bytes(job.out)}
    if least:
        held_out = batches.rows(job.inputs["data"], "validation", card.task)
        facts["validation"] = _held_out(job, tokenizer, number, held_out)
    return facts


def _untouched(job: Job) -> Json:
    for path in job.inputs["model"].iterdir():
        shutil.copyfile(path, job.out / path.name)
    return {"bytesSaved": 0}


def _tokenizer(path: Path) -> Any:
    found = Tokenizer.from_file(str(path))
    found.no_truncation()
    found.no_padding()
    return found


def _texts(rows: list[Json]) -> Iterator[Any]:
    """All that is text in the rows; a list of words is one that is cut into words already."""
    for row in rows:
        for column in ("text", "summary", "tokens"):
            if row.get(column):
                yield row[column]


def _encoded(tokenizer: Any, texts: list[Any]) -> Iterator[Any]:
    for words in (False, True):
        some = [text for text in texts if isinstance(text, list) is words]
        for start in range(0, len(some), _CHUNK):
            yield from tokenizer.encode_batch(
                some[start : start + _CHUNK], is_pretokenized=words, add_special_tokens=False
            )


def _counts(job: Job, tokenizer: Any, rows: list[Json]) -> Counter[int]:
    counts: Counter[int] = Counter()
    texts = list(_texts(rows))
    hear = training.every(job.tell, lambda n: f"counting tokens: {n} of {len(texts)} texts")
    for done, one in enumerate(_encoded(tokenizer, texts)):
        counts.update(one.ids)
        hear(done)
    return counts


def _kept(body: Json, tokenizer: Any, seen: set[int], never: set[int], params: Json, model: Any) -> list[int]:
    """The ids that stay, ascending."""
    vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    prefix = body["model"].get("continuing_subword_prefix") or ""
    keep = seen | {
        i
        for token, i in vocabulary.items()
        if len(token) == 1 or len(token.removeprefix(prefix)) == 1 or _BYTE.fullmatch(token)
    }
    keep -= never
    keep |= {token["id"] for token in body.get("added_tokens") or []}
    keep |= {i for i in _special(model) if tokenizer.id_to_token(i) is not None}
    for text in params.get("extra") or []:
        keep |= {vocabulary[text]} if text in vocabulary else set()
        keep |= set(tokenizer.encode(text, add_special_tokens=False).ids)
    if unknown := body["model"].get("unk_token"):
        keep.add(vocabulary[unknown])
    match body["model"].get("type") or "BPE":
        case "BPE":
            keep = _with_parts(body, vocabulary, keep)
        case "Unigram":
            # What an unknown character costs follows from the least likely piece.
            scores = [score for _, score in body["model"]["vocab"]]
            keep |= {int(np.argmin(scores))}
            if body["model"].get("unk_id") is not None:
                keep.add(body["model"]["unk_id"])
    return sorted(keep)


def _special(model: Any) -> set[int]:
    found: set[int] = set()
    for config in (model.config, getattr(model, "generation_config", None)):
        for name, value in vars(config).items() if config is not None else ():
            if name.endswith("_token_id") and value is not None:
                found |= set(value) if isinstance(value, list) else {value}
    return found


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _joined(body: Json, merge: Any) -> str:
    left, right = _pair(merge)
    return left + right.removeprefix(body["model"].get("continuing_subword_prefix") or "")


def _with_parts(body: Json, vocabulary: dict[str, int], keep: set[int]) -> set[int]:
    """With every token from which a kept one is merged: merges lead from characters to it."""
    made: dict[str, list[tuple[str, str]]] = {}
    for merge in body["model"]["merges"]:
        made.setdefault(_joined(body, merge), []).append(_pair(merge))
    name = {i: token for token, i in vocabulary.items()}
    open_ = [name[i] for i in keep if i in name]
    while open_:
        for part in (part for pair in made.get(open_.pop(), ()) for part in pair):
            if vocabulary[part] not in keep:
                keep.add(vocabulary[part])
                open_.append(part)
    return keep


def _cut(model: Any, size: int, ids: list[int], number: dict[int, int]) -> Any:
    config = _renumbered(copy.deepcopy(model.config), number)
    config.vocab_size = len(ids)
    if getattr(model, "generation_config", None) is not None:
        _renumbered(model.generation_config, number)
    index, weights = torch.tensor(ids), dict(model.state_dict())
    rows = {
        id(module.weight)
        for module in (model.get_input_embeddings(), model.get_output_embeddings())
        if module is not None
    }
    tied = {name: id(p) in rows for name, p in model.named_parameters(remove_duplicate=False)}
    for name, tensor in weights.items():
        if tied.get(name) or name == "lm_head.bias":
            weights[name] = tensor.index_select(0, index)
        elif name == "final_logits_bias":  # BART's
            weights[name] = tensor.index_select(1, index)
    return torch_folder.rebuilt(model, config, weights)


def _renumbered(config: Any, number: dict[int, int]) -> Any:
    for name, value in list(vars(config).items()):
        if name.endswith("_token_id") and value is not None:
            new = [number[i] for i in value] if isinstance(value, list) else number.get(value)
            setattr(config, name, new)
    return config


def _write_tokenizer(body: Json, number: dict[int, int], out: Path) -> None:
    new, model = copy.deepcopy(body), body["model"]
    if (model.get("type") or "BPE") == "Unigram":
        new["model"]["vocab"] = [piece for i, piece in enumerate(model["vocab"]) if i in number]
        if model.get("unk_id") is not None:
            new["model"]["unk_id"] = number[model["unk_id"]]
    else:
        vocabulary = {token: number[i] for token, i in model["vocab"].items() if i in number}
        new["model"]["vocab"] = vocabulary
        if "merges" in model:
            new["model"]["merges"] = [
                merge
                for merge in model["merges"]
                if {*_pair(merge), _joined(body, merge)} <= vocabulary.keys()
            ]
    for token in new.get("added_tokens") or []:
        token["id"] = number[token["id"]]
    if new.get("padding"):
        new["padding"]["pad_id"] = number[new["padding"]["pad_id"]]
    if new.get("post_processor"):
        _renumber_processor(new["post_processor"], number)
    (out / "tokenizer.json").write_text(json.dumps(new, ensure_ascii=False, indent=1), encoding="utf-8")
    path = out / "tokenizer_config.json"
    if path.is_file():
        said = json.loads(path.read_text(encoding="utf-8"))
        if "added_tokens_decoder" in said:
            said["added_tokens_decoder"] = {
                str(number[int(i)]): token
                for i, token in said["added_tokens_decoder"].items()
                if int(i) in number
            }
        path.write_text(
            json.dumps(said, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )


def _renumber_processor(said: Json, number: dict[int, int]) -> None:
    for part in said.get("processors") or []:
        _renumber_processor(part, number)
    for token in (said.get("special_tokens") or {}).values():
        token["ids"] = [number[i] for i in token["ids"]]
    for name in ("sep", "cls"):
        if name in said:
            said[name] = [said[name][0], number[said[name][1]]]


def _held_out(job: Job, tokenizer: Any, number: dict[int, int], rows: list[Json]) -> Json:
    """On texts that were not counted: the share of tokens gone, of new ones that say nothing, of more."""
    small, texts = _tokenizer(job.out / "tokenizer.json"), list(_texts(rows))
    before = [i for one in _encoded(tokenizer, texts) for i in one.ids]
    after = [token for one in _encoded(small, texts) for token in one.tokens]
    model = json.loads(small.to_str())["model"]
    unknown = model.get("unk_token")
    if model.get("unk_id") is not None:
        unknown = model["vocab"][model["unk_id"]][0]
    return {
        "dropped": sum(i not in number for i in before) / max(1, len(before)),
        "unknown": sum(token == unknown for token in after) / max(1, len(after)),
        "longer": len(after) / max(1, len(before)) - 1,
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
