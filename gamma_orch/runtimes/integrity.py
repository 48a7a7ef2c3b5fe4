"""Is a folder a whole, safe model? Looked at before any runtime opens a file of it.

Pickle runs code when it is read, so a folder that holds any is refused as a whole, whether the model needs
the file or not: nobody would notice when a later version did read it. What only a runtime can tell (a graph
that is cut off) that runtime reports, as the same error.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gamma_orch.runtimes.errors import ModelBroken
from gamma_orch.runtimes.folder import NAME, Card

TOKENIZER = "tokenizer.json"
CONFIG = "config.json"
PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})


def checked(folder: Path, needs: Sequence[str] = (TOKENIZER, CONFIG)) -> Card:
    """The card of a folder that is whole as far as can be seen from outside. `needs`: files that must be
    there beside its weights. Raises ModelBroken."""
    try:
        card = Card.read(folder)
    except FileNotFoundError:
        raise ModelBroken(
            f"{folder} is not a model folder: it has no {NAME}. Was its build finished, is the path right?"
        ) from None
    except ValueError as error:
        raise ModelBroken(
            f"{folder} cannot be read as a model folder: {error}. Build or fetch the model anew."
        ) from error
    _refuse_pickle(folder)
    for name in needs:
        if not (folder / name).is_file():
            raise ModelBroken(
                f"{folder} has no {name}, so texts cannot be put to the model. "
                "Take a source that ships it (a fast tokenizer is one tokenizer.json), or fetch it anew."
            )
    if not card.graphs:
        raise ModelBroken(f"{folder / NAME} names no weights (`graphs` is empty). Build the model anew.")
    for role, name in card.graphs.items():
        path = folder / name
        if not path.is_file():
            raise ModelBroken(f"{folder} has no {name}, which is its {role}. Build or fetch the model anew.")
        if path.suffix == ".safetensors":
            _check_safetensors(path)
    return card


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model folder; {} where the file does not exist. Raises ModelBroken."""
    if not path.is_file():
        return {}
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelBroken(f"{path} is not JSON: {error}. Build or fetch the model anew.") from error
    if not isinstance(body, dict):
        raise ModelBroken(f"{path} is not a JSON object. Build or fetch the model anew.")
    return body


def _refuse_pickle(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        suffix = path.suffix.lower()
        if suffix not in PICKLES or not path.is_file():
            continue
        if suffix == ".bin" and path.with_suffix(".xml").is_file():
            continue  # the weights of an OpenVINO graph are raw numbers
        raise ModelBroken(
            f"{path} is a pickle by its name ({suffix}), and reading a pickle runs whatever code is in it. "
            "Take the model's safetensors or ONNX files instead, or convert it where you trust it."
        )


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as opened:
            names = list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise ModelBroken(
            f"{path} is cut off or no safetensors file ({error}). Build or fetch the model anew."
        ) from error
    if not names:
        raise ModelBroken(f"{path} holds no weights. Build or fetch the model anew.")
