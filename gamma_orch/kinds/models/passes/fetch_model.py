"""Brings a model and makes one kind of folder of it, whatever it came as: checked, and only what is needed.

    params  {"source": ..., "root": "/the/project", "task": "text-classification", "labels": [...] | None,
             "maxLength": int | None, "pooling": "mean" | "cls" | None, "normalize": bool | None,
             "dtype": "float32", "seed": 0}
    out     config.json, model.safetensors, tokenizer.json and its companions, gamma-model.json;
            of an ONNX source, its graph instead of the safetensors
    facts   parameters, bytes, dtype, architecture, layers, hidden, head, licence, the source and its digest

safetensors (also in shards), GGUF and ONNX are read, pickle never. A classifier's head that the source
lacks is made from the seed. The tokenizer neither cuts nor pads by itself afterwards: the card's
`max_length` says how much is cut. The same source and parameters give the same bytes.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
import transformers

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.models.job import Job
from gamma_orch.kinds.models.passes import (
    accepted,
    gguf_source,
    licences,
    onnx_source,
    sources,
    stated,
    weight_files,
)
from gamma_orch.kinds.models.passes.brought import Brought
from gamma_orch.kinds.models.passes.pickles import PICKLES, refusal
from gamma_orch.kinds.models.passes.torch_folder import TOKENIZER
from gamma_orch.runtimes.folder import Card

# What of the tokenizer is kept: tokenizer.json has the vocabulary already.
_KEPT = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
# What tokenizer_config.json would still say of cutting and padding, and where the source lay.
_CUTTING = ("name_or_path", "max_length", "stride", "truncation_strategy", "pad_to_multiple_of")
_BESIDE = ("config.json", "generation_config.json")


def run(job: Job) -> Json:
    params = job.params
    transformers.utils.logging.disable_progress_bar()
    accepted.check_task(str(params.get("task")))
    brought = sources.bring(job, "model")
    job.tell("looking at the files", None)
    ggufs = [name for name in brought.files if name.lower().endswith(".gguf")]
    named = str((params.get("source") or {}).get("file") or "")
    names = [] if ggufs and len(brought.files) == 1 else weight_files.chosen(brought.files, brought.where)
    if named.endswith(".onnx") or (not names and any(name.endswith(".onnx") for name in brought.files)):
        return _onnx(job, brought)
    if not names and ggufs:
        return _gguf(job, brought, ggufs)
    if not names:
        _refuse(brought)
    return _safetensors(job, brought, names)


def _refuse(brought: Brought) -> None:
    found = [name for name in brought.files if any(fnmatch(name.lower(), pattern) for pattern in PICKLES)]
    if found:
        raise Permanent(refusal(brought.where, found))
    listed = ", ".join(sorted(brought.files)[:12])
    raise Permanent(
        f"{brought.where} has no weights: neither model.safetensors nor a .gguf or .onnx file. There "
        f"are: {listed}"
    )


def _safetensors(job: Job, brought: Brought, names: list[str]) -> Json:
    config = accepted.config(brought.files, brought.where)
    accepted.check(config["model_type"], job.params["task"])
    names = [*names, *(name for name in (*_BESIDE, *TOKENIZER) if name in brought.files)]
    folder = _staged(job, brought, names)
    job.tell("loading the weights", None)
    tokenizer = _tokenizer(folder, brought)
    model, head = _loaded(job, folder, brought, {"use_safetensors": True})
    return _written(job, brought, names, model, tokenizer, head, {})


def _gguf(job: Job, brought: Brought, found: list[str]) -> Json:
    if len(found) > 1:
        raise Permanent(
            f"{brought.where} has several GGUF files: {', '.join(sorted(found))}. Name one in `file`."
        )
    said = gguf_source.read(brought.files[found[0]])
    accepted.check(str(said.fields.get("general.architecture")), job.params["task"])
    folder = _staged(job, brought, found)
    file = Path(found[0]).name
    job.tell("loading the weights", None)
    with _as_permanent(brought, "its tokenizer cannot be made"), _quiet():
        tokenizer = gguf_source.tokenizer(said, folder, file)
    model, head = _loaded(job, folder, brought, {"gguf_file": file})
    own = {"quantization": said.quantization, "weightTypes": dict(said.shares)}
    facts = _written(job, brought, found, model, tokenizer, head, own)
    return {**facts, **licences.facts(brought, said.licence)}


def _onnx(job: Job, brought: Brought) -> Json:
    params = job.params
    config = accepted.config(brought.files, brought.where)
    accepted.check(config["model_type"], params["task"])
    graphs, names, graph = onnx_source.copy(
        brought.files, onnx_source.graphs(brought.files, brought.where), job.out
    )
    names += [name for name in (*_BESIDE, *TOKENIZER) if name in brought.files]
    folder = _staged(job, brought, [name for name in names if "." in name and not name.endswith(".onnx")])
    with _as_permanent(brought, "config.json cannot be used"):
        loaded = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    tokenizer = _tokenizer(folder, brought)
    labels = stated.labels(loaded) if params["task"] in accepted.CLASSIFIES else ()
    asked = tuple(params.get("labels") or ())
    if asked and labels and len(asked) != len(labels):
        raise Permanent(
            f"{brought.where} tells {len(labels)} labels apart ({', '.join(labels)}), and the spec "
            f"names {len(asked)}. "
            "A graph cannot get a new head: name its labels, in their order."
        )
    precision = onnx_source.precision(graph)
    length = stated.length(params, brought, loaded, tokenizer)
    _write_tokenizer(tokenizer, length, job.out)
    loaded.save_pretrained(job.out)
    pooling = stated.pooling(params, brought)
    Card(
        task=params["task"],
        architecture=config["model_type"],
        runtime="onnxruntime",
        precision=precision,
        graphs=graphs,
        labels=asked or labels,
        pooling=pooling,  # type: ignore[arg-type]
        normalize=stated.normalize(params, brought),
        max_length=length,
    ).write(job.out)
    return _facts(job, brought, names, loaded, precision, onnx_source.parameters(graph), "kept", {})


def _staged(job: Job, brought: Brought, names: list[str]) -> Path:
    """A folder with only what is needed, under the names that transformers looks for: links, no copies."""
    folder = job.work / "staged"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in names:
        target = "model.safetensors" if _only(name, names) else Path(name).name
        (folder / target).symlink_to(brought.files[name].resolve())
    return folder


def _only(name: str, names: list[str]) -> bool:
    return name.endswith(".safetensors") and weight_files.INDEX not in names


def _tokenizer(folder: Path, brought: Brought) -> Any:
    if not any((folder / name).is_file() for name in TOKENIZER if name != "tokenizer_config.json"):
        raise Permanent(
            f"{brought.where} has no tokenizer, and a model is of no use without its own. Put "
            "tokenizer.json of the "
            "same model beside its weights."
        )
    with _as_permanent(brought, "its tokenizer cannot be loaded"), _quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
    if not tokenizer.is_fast:
        raise Permanent(
            f"{brought.where} has no fast tokenizer (tokenizer.json). Make one where its own library "
            "is installed: "
            "transformers.AutoTokenizer.from_pretrained(...).save_pretrained(...)."
        )
    return tokenizer


def _loaded(job: Job, folder: Path, brought: Brought, how: Mapping[str, Any]) -> tuple[Any, str]:
    """The model, and whether its head was kept or is new. Raises Permanent."""
    params = job.params
    task = params["task"]
    dtype = getattr(torch, str(params.get("dtype") or "float32"))
    more: dict[str, Any] = dict(how)
    asked = [str(label) for label in params.get("labels") or ()]
    if task in accepted.CLASSIFIES and "gguf_file" not in how:
        more |= _heads(folder, brought, asked)
    with torch.random.fork_rng(devices=[]), _quiet(), _as_permanent(brought, "its weights cannot be loaded"):
        torch.manual_seed(int(params.get("seed") or 0))
        model, told = accepted.CLASSES[task].from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True, **more
        )
    made = [*told["missing_keys"], *told["mismatched_keys"]]
    body = f"{model.base_model_prefix}."
    whole = model if task == "embeddings" else getattr(model, model.base_model_prefix, None)
    heads = [name for name in made if "pooler" in name or (whole is not model and not name.startswith(body))]
    if lost := sorted(set(made) - set(heads)):
        more_of = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise Permanent(
            f"{brought.where} lacks weights of the {model.config.model_type}: "
            f"{', '.join(lost[:3])}{more_of}. Does config.json belong to these weights?"
        )
    head = (
        "none" if task == "embeddings" else "new" if any("pooler" not in name for name in heads) else "kept"
    )
    if head == "new" and task not in accepted.CLASSIFIES:
        raise Permanent(
            f"{brought.where} has no head for {task} ({', '.join(sorted(heads)[:3])}), and one cannot "
            "be learnt here. Take a source that was trained for it."
        )
    if head == "new" and not asked:
        raise Permanent(
            f"{brought.where} has no head for {task}, so the labels are not known: write `labels`."
        )
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise Permanent(
                f"{brought.where}: the weight {name} has values that are no numbers (NaN or infinite)."
            )
    return model.eval(), head


def _heads(folder: Path, brought: Brought, asked: list[str]) -> dict[str, Any]:
    """How many outputs the classifier gets, and what they are called."""
    if not asked:
        return {}
    with _as_permanent(brought, "config.json cannot be used"), _quiet():
        there = stated.labels(transformers.AutoConfig.from_pretrained(folder, local_files_only=True))
    generic = all(label.startswith("LABEL_") for label in there)
    folded = [label.casefold() for label in asked]
    own = [label.casefold() for label in there]
    if len(own) > 1 and not generic and folded != own and sorted(folded) == sorted(own):
        raise Permanent(
            f"{brought.where} has the labels {', '.join(there)}, in this order, and the spec names "
            "them in another: "
            f"{', '.join(asked)}. Write them in the source's order."
        )
    return {
        "num_labels": len(asked),
        "id2label": dict(enumerate(asked)),
        "label2id": {label: number for number, label in enumerate(asked)},
        "ignore_mismatched_sizes": True,
    }


def _written(
    job: Job,
    brought: Brought,
    names: list[str],
    model: Any,
    tokenizer: Any,
    head: str,
    own: Mapping[str, Any],
) -> Json:
    params = job.params
    config = model.config
    if len(tokenizer) > (vocabulary := model.get_input_embeddings().num_embeddings):
        raise Permanent(
            f"{brought.where}: the tokenizer has {len(tokenizer)} tokens, and the model only "
            f"{vocabulary}: they do "
            "not belong together."
        )
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    if config.pad_token_id is None and tokenizer.pad_token is not None:
        config.pad_token_id = tokenizer.pad_token_id
    generation = getattr(model, "generation_config", None)
    if generation is not None and generation.pad_token_id is None:
        generation.pad_token_id = config.pad_token_id
    length = stated.length(params, brought, config, tokenizer)
    config._name_or_path = ""  # else the work folder's path goes into config.json
    job.tell("writing", None)
    with _quiet():
        model.save_pretrained(job.out, safe_serialization=True, max_shard_size="100000GB")
    (job.out / weight_files.SINGLE).chmod(0o644)  # safetensors writes it for its owner only
    _write_tokenizer(tokenizer, length, job.out)
    dtype = str(params.get("dtype") or "float32")
    Card(
        task=params["task"],
        architecture=config.model_type,
        runtime="torch",
        precision=dtype,
        graphs={"model": weight_files.SINGLE},
        labels=stated.labels(config) if params["task"] in accepted.CLASSIFIES else (),
        pooling=stated.pooling(params, brought),  # type: ignore[arg-type]
        normalize=stated.normalize(params, brought),
        max_length=length,
    ).write(job.out)
    count = sum(parameter.numel() for parameter in model.parameters())
    return _facts(job, brought, names, config, dtype, count, head, own)


def _write_tokenizer(tokenizer: Any, length: int, out: Path) -> None:
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.model_max_length = length
    for name in _CUTTING:
        tokenizer.init_kwargs.pop(name, None)
    before = {path.name for path in out.iterdir()}
    with _quiet():
        tokenizer.save_pretrained(out)
    for path in out.iterdir():
        # Also the copy of the GGUF that transformers writes beside.
        if path.name not in before and path.name not in _KEPT:
            path.unlink() if path.is_file() else shutil.rmtree(path)


def _facts(
    job: Job,
    brought: Brought,
    names: list[str],
    config: Any,
    dtype: str,
    parameters: int,
    head: str,
    own: Mapping[str, Any],
) -> Json:
    return {
        "architecture": config.model_type,
        "layers": getattr(config, "num_hidden_layers", None),
        "hidden": getattr(config, "hidden_size", None),
        "parameters": parameters,
        "dtype": dtype,
        "bytes": sum(path.stat().st_size for path in job.out.rglob("*") if path.is_file()),
        "head": head,
        "source": brought.where,
        "digest": brought.digest(names),
        **own,
        **licences.facts(brought),
    }


@contextmanager
def _as_permanent(brought: Brought, what: str) -> Iterator[None]:
    """transformers and its kin raise whatever their depths raise; each means that the source is not right."""
    try:
        yield
    except (Permanent, MemoryError, KeyboardInterrupt):
        raise
    except OSError as error:
        if error.errno is not None:
            raise  # the disk, not the source
        raise Permanent(f"{brought.where}: {what}: {_first(error)}") from error
    except Exception as error:
        raise Permanent(f"{brought.where}: {what}: {_first(error)}") from error


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers warns of what is done on purpose: a new head, an unused one."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)
