"""Which commit the specs are at. Read from the files of git: starting git would cost 5 ms a plan.

"" outside a repository. A commit with uncommitted changes is still that commit; the plan's digest of
everything wanted tells the difference.
"""

from pathlib import Path


def commit_of(root: Path) -> str:
    """The 40 hex digits of HEAD, or ""."""
    git = next((folder / ".git" for folder in (root, *root.parents) if (folder / ".git").exists()), None)
    if git is None:
        return ""
    try:
        if git.is_file():  # a worktree or a submodule: a pointer to the real folder
            git = (git.parent / git.read_text().removeprefix("gitdir:").strip()).resolve()
        common = git / (git / "commondir").read_text().strip() if (git / "commondir").exists() else git
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref:"):
            return head
        return _reference(git, common, head.removeprefix("ref:").strip())
    except (OSError, UnicodeDecodeError):
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
