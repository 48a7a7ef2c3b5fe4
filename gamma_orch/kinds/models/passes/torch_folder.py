"""PyTorch model folders, read and written by the passes that train or cut: config, safetensors, tokenizer.

What is written depends on the model alone: no path, no time, no order of a set goes into a file, so that
the same weights are the same bytes. The tokenizer's files are copied as they are.
"""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from gamma_orch.core.provider import Permanent, Temporary
from gamma_orch.kinds.models.passes.accepted import CLASSES, CLASSIFIES
from gamma_orch.runtimes.folder import Card
from gamma_orch.store.artifact_files import File, digest_of, paths, sha256_of

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "chat_template.jinja",
)


def card(folder: Path) -> Card:
    """Raises Permanent where the folder is not a PyTorch model's."""
    try:
        read = Card.read(folder)
    except (FileNotFoundError, ValueError) as error:
        raise Permanent(f"The input is not a model folder: {error}.") from None
    if read.runtime != "torch":
        raise Permanent(
            f"This pass works on PyTorch weights, and the model given is already {read.runtime}. Put the "
            "pass before the export."
        )
    return read


def load(folder: Path, said: Card) -> Any:
    """The model in float32, ready for evaluation. The card's labels give a classifier as many outputs, anew
    where the folder has another number or none; seed before. Raises Permanent where it cannot be read.
    """
    return _load(folder, said, {})[0]


def load_to_train(folder: Path, said: Card, precision: str) -> tuple[Any, set[str]]:
    """As `load`, with the names of the weights that the folder does not have, which begin at random."""
    # The fused attention is slow backwards in bfloat16 on processors: MiniLM took 1.3 s a step, 0.9 s
    # without.
    more: dict[str, Any] = {"attn_implementation": "eager"} if precision == "bfloat16" else {}
    return _load(folder, said, more)


def _load(folder: Path, said: Card, more: dict[str, Any]) -> tuple[Any, set[str]]:
    if said.labels and said.task in CLASSIFIES:
        labels = said.labels
        more |= {
            "num_labels": len(labels),
            "id2label": dict(enumerate(labels)),
            "label2id": {label: i for i, label in enumerate(labels)},
            "ignore_mismatched_sizes": True,
        }
    try:
        with quiet():
            model, info = CLASSES[said.task].from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **more,
            )
    except KeyError:
        raise Permanent(f"There is no task {said.task!r}; there are: {', '.join(CLASSES)}.") from None
    except Exception as error:
        raise Permanent(
            f"The weights in {folder.name} cannot be loaded for {said.task} as {said.architecture}: "
            f"{_first(error)}. Is model.safetensors whole, and does config.json belong to it?"
        ) from error
    # transformers 4.57 gives names here, others names with both shapes.
    mismatched = {one if isinstance(one, str) else one[0] for one in info["mismatched_keys"]}
    news = set(info["missing_keys"]) | mismatched
    head = heads(model) if said.task in CLASSIFIES else []
    if lost := sorted(n for n in news if n.partition(".")[0] not in head and "pooler" not in n):
        raise Permanent(
            f"The weights in {folder.name} are not those of its config.json: {len(lost)} that a "
            f"{said.architecture} model for {said.task} has are not there, or have another shape, such as "
            f"{lost[0]}."
        )
    return model.eval(), news


def heads(model: Any) -> list[str]:
    """What stands on the body of a classifier and has weights."""
    return [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and next(child.parameters(), None) is not None
    ]


def tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a folder. Raises Permanent where there is none."""
    try:
        with quiet():
            found = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise Permanent(
            f"The model's tokenizer cannot be loaded: {_first(error)}. A model folder needs tokenizer.json."
        ) from error
    if not found.is_fast:
        raise Permanent(
            "The model has no fast tokenizer (tokenizer.json), and training needs one. Convert it once "
            "with transformers.AutoTokenizer.from_pretrained(...).save_pretrained(...)."
        )
    return found


def write(model: Any, said: Card, source: Path, out: Path) -> None:
    """`model` with its configuration, `said` as its card and the tokenizer of `source`, into `out`."""
    with quiet(), to_disk(out):
        model.save_pretrained(out, safe_serialization=True, max_shard_size="1000GB")
    copy_tokenizer(source, out)
    said.write(out)


@contextlib.contextmanager
def to_disk(place: Path) -> Iterator[None]:
    """safetensors tells of a full disk by an error of its own, which says nothing of when to try again."""
    try:
        yield
    except SafetensorError as error:
        raise Temporary(
            f"Weights cannot be written to {place}: {_first(error)}. Make room there, or make it writable."
        ) from error


def digest(folder: Path) -> str:
    """The digest of a folder's content, as the artifact store gives it."""
    return digest_of(
        [File(path, (folder / path).stat().st_size, sha256_of(folder / path)) for path in paths(folder)]
    )


def copy_tokenizer(source: Path, out: Path) -> None:
    for name in TOKENIZER:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def limit(said: Card, config: Any) -> int | None:
    """How many tokens the model can take; None where nothing limits it (T5)."""
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if said.architecture == "t5" or positions is None:
        return None
    if said.architecture == "roberta":  # its positions begin after the padding index
        positions -= config.pad_token_id + 1
    return min(int(positions), said.max_length) if said.max_length else int(positions)


def rebuilt(model: Any, config: Any, weights: Mapping[str, torch.Tensor]) -> Any:
    """A model of the class of `model`, of another configuration, with these weights, by their names in its
    state; others may be among them. Tied weights stay tied. Raises KeyError for one that is not there.
    """
    with torch.random.fork_rng(devices=[]), quiet():
        new = type(model)(config)
    new.load_state_dict({name: weights[name] for name in new.state_dict()}, strict=True)
    new.tie_weights()
    if getattr(model, "generation_config", None) is not None:
        new.generation_config = model.generation_config
    return new.eval()


def set_dropout(model: Any, probability: float) -> None:
    """Train with this dropout instead of the configured one, and leave the configuration as it is."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = probability
        for name in ("dropout", "dropout_prob", "attention_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, probability)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers warns of what we do on purpose: a new head, a folder without a name."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:300]
