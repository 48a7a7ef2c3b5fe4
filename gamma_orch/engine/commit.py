"""Which commit the specs are at. Read from the files of git: starting git would cost 5 ms a plan.

"" outside a repository. A commit with uncommitted changes is still that commit; the plan's digest of
everything wanted tells the difference.
"""

import re
from pathlib import Path

_DIGITS = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")  # SHA-1 or SHA-256
_DEPTH = 5  # references to references, as git itself bounds them


def commit_of(root: Path) -> str:
    """The hex digits of HEAD, or "", also where the repository is broken."""
    git = next((folder / ".git" for folder in (root, *root.parents) if (folder / ".git").exists()), None)
    if git is None:
        return ""
    try:
        if git.is_file():  # a worktree or a submodule: a pointer to the real folder
            git = (git.parent / git.read_text().removeprefix("gitdir:").strip()).resolve()
        common = git / (git / "commondir").read_text().strip() if (git / "commondir").exists() else git
        found = (git / "HEAD").read_text().strip()
        for _ in range(_DEPTH):
            if found.startswith("ref:"):
                found = _reference(git, common, found.removeprefix("ref:").strip())
        return found if _DIGITS.fullmatch(found) else ""
    except (OSError, ValueError):  # ValueError: not text, or not a path
        return ""


def _reference(git: Path, common: Path, name: str) -> str:
    for folder in (git, common):
        if (folder / name).is_file():
            return (folder / name).read_text().strip()
    packed = common / "packed-refs"
    if packed.is_file():
        for line in packed.read_text().splitlines():
            digits, _, found = line.partition(" ")
            if found == name:
                return digits
    return ""
