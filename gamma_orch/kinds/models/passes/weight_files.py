"""Looks at safetensors files before anything loads them: whole, or said what is missing.

Called by `fetch_model`. The format: https://huggingface.co/docs/safetensors, "Format": eight bytes with the
length of the header, the header in JSON, then the tensors, each at its offsets.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

from gamma_orch.core.provider import Permanent

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_LARGEST_HEADER = 100_000_000  # bytes; the library's own limit
_AGAIN = "Fetch it again."


def chosen(files: Mapping[str, Path], where: str) -> list[str]:
    """The names of the weight files of a folder: one file, or the shards and their index; [] for none.

    Raises Permanent where a shard is missing or a file is not whole.
    """
    if SINGLE in files:
        names = [SINGLE]
        shards = names
    elif INDEX in files:
        try:
            shards = sorted(set(json.loads(files[INDEX].read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError):
            raise Permanent(f"{where}: {INDEX} does not say which file has which weight. {_AGAIN}") from None
        if lost := [name for name in shards if name not in files]:
            raise Permanent(f"{where} lacks {', '.join(lost)}, of {len(shards)} files with weights. {_AGAIN}")
        names = [INDEX, *shards]
    else:
        shards = names = [name for name in files if name.endswith(".safetensors") and "/" not in name]
        if len(names) > 1:
            raise Permanent(
                f"{where} has several files with weights, and no {INDEX}: {', '.join(sorted(names))}. "
                "Keep the one that is meant."
            )
    for name in shards:
        check(files[name], name)
    return names


def check(path: Path, name: str) -> None:
    """Raises Permanent unless the file is as long as its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start == b"version ":  # of a Git LFS pointer
            raise Permanent(f"{name} is only a pointer of Git LFS, not the weights. Run: git lfs pull")
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(size - 8, _LARGEST_HEADER):
            raise Permanent(
                f"{name} is no whole safetensors file: its header has {length} bytes, the file {size}. "
                f"{_AGAIN}"
            )
        try:
            header = json.loads(file.read(length))
            ends = [item["data_offsets"][1] for key, item in header.items() if key != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Permanent(f"{name} is no safetensors file: its header cannot be read. {_AGAIN}") from None
    wanted = 8 + length + max(ends, default=0)
    if size != wanted:
        raise Permanent(
            f"{name} is {'cut off' if size < wanted else 'too long'}: its header says {wanted} bytes, "
            f"the file has {size}. {_AGAIN}"
        )
