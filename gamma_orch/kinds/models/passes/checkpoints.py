"""Where a training stands, kept in a job's work folder so that a killed build goes on instead of anew.

A checkpoint is one safetensors file: tensors, and a JSON text in its header. It is written under another
name and renamed when it is whole and on the disk; a name that ends in .safetensors is thus a whole file,
whatever moment the process died at.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from gamma_orch.core.canonical import Json
from gamma_orch.kinds.models.passes.torch_folder import to_disk

KEPT = 2
Tensors = dict[str, torch.Tensor]


class Checkpoints:
    """Those of one training; `course` is what they belong to: others are not looked at."""

    def __init__(self, folder: Path, course: Json) -> None:
        self.folder, self.course = folder, course
        folder.mkdir(parents=True, exist_ok=True)
        for pattern in ("*.part", ".tmp*"):  # what a kill has left, of ours and of safetensors'
            for part in folder.glob(pattern):
                part.unlink()

    def save(self, step: int, state: Json, tensors: Mapping[str, torch.Tensor]) -> None:
        put(self.folder / f"step-{step:09}.safetensors", {"course": self.course, "state": state}, tensors)
        for old in sorted(self.folder.glob("step-*.safetensors"))[:-KEPT]:
            old.unlink()

    def newest(self) -> tuple[Json, Tensors] | None:
        """The state and tensors of the newest that is whole and of this course."""
        for path in sorted(self.folder.glob("step-*.safetensors"), reverse=True):
            found = get(path)
            if found is not None and found[0]["course"] == self.course:
                return found[0]["state"], found[1]
        return None


def put(path: Path, said: Json, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write `said` and `tensors` to `path`, wholly or not at all."""
    part = path.with_suffix(".part")
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with to_disk(path.parent):
        save_file(whole, part, metadata={"said": json.dumps(said, sort_keys=True)})
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def get(path: Path) -> tuple[Json, Tensors] | None:
    """What `put` wrote; None where there is none, or it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            said = json.loads((file.metadata() or {})["said"])
            return said, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (FileNotFoundError, SafetensorError, KeyError, ValueError):
        return None
