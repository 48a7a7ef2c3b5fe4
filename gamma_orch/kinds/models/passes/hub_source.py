"""Brings files of a Hugging Face hub repository at one revision, through `huggingface_hub`.

Called by `sources`. Pickle is never asked for, whatever the spec lists. The library's own cache, kept in
the work folder, resumes what was cut off. The token, if any, is the library's own (HF_TOKEN).
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from gamma_orch.core.provider import Permanent, Tell, Temporary
from gamma_orch.kinds.models.passes.pickles import PICKLES, refusal

# What a model needs; what a data set has.
MODEL = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja", "README.md"]
DATA = ["*.csv", "*.tsv", "*.jsonl", "*.json", "*.parquet", "README.md"]
_COMMIT = re.compile(r"[0-9a-f]{40}")


def snapshot(
    repository: str,
    revision: str,
    files: Sequence[str] | None,
    kind: Literal["model", "dataset"],
    work: Path,
    tell: Tell,
) -> tuple[dict[str, Path], str]:
    """The files by name, and the commit that they are of. Raises Permanent or Temporary."""
    for name in files or ():
        if any(fnmatch(name, pattern) or fnmatch(name.lower(), pattern) for pattern in PICKLES):
            raise Permanent(refusal(f"the hub's {repository}", [name]))
    allowed = [*files, "README.md"] if files else (MODEL if kind == "model" else DATA)
    if constants.HF_HUB_OFFLINE:
        raise Permanent(
            f"The hub's {repository} cannot be fetched: this process is offline (HF_HUB_OFFLINE)."
        )
    tell(f"fetching {repository} at {revision[:12]} from the hub", None)
    try:
        found = huggingface_hub.snapshot_download(
            repository,
            repo_type=kind,
            revision=revision,
            cache_dir=work / "hub",
            allow_patterns=allowed,
            ignore_patterns=PICKLES,
        )
    except GatedRepoError as error:
        raise Permanent(
            f"The hub's {repository} is gated: accept its terms there, and give this machine "
            "a token (HF_TOKEN)."
        ) from error
    except RepositoryNotFoundError as error:
        raise Permanent(
            f"The hub has no {kind} {repository}, or hides it from this machine. Check its name; "
            "a private one needs a token (HF_TOKEN)."
        ) from error
    except RevisionNotFoundError as error:
        raise Permanent(f"The hub's {repository} has no revision {revision}.") from error
    except OSError as error:  # what requests and the library raise for a network are such
        line = str(error).strip().partition("\n")[0] or type(error).__name__
        raise Temporary(f"The hub's {repository} could not be fetched: {line}") from error
    folder = Path(found)
    commit = folder.name if _COMMIT.fullmatch(folder.name) else revision
    names = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    if not names.keys() - {"README.md"}:
        raise Permanent(
            f"The hub's {repository} at {revision} has none of these files: {', '.join(allowed)}. "
            "Name those that are wanted in `files`."
        )
    return names, commit
