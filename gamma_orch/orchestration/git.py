"""The followed branch: which commit it is at, who made it, and bringing a remote's new ones here."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from gamma_orch.core.provider import GammaError

SECONDS = 60


class GitFailed(GammaError):
    """The branch cannot be followed at this moment."""


@dataclass(frozen=True, slots=True)
class Followed:
    commit: str = ""  # empty outside a repository
    author: str = ""
    subject: str = ""


def follow(root: Path, branch: str | None, remote: str | None) -> Followed:
    """The newest commit of what is followed. With a remote, the checkout is moved forward to it first.

    Raises GitFailed where another branch is checked out, or the remote's cannot be fast-forwarded to.
    """
    if not _is_repository(root):
        return Followed()
    if branch is not None:
        here = _git(root, "rev-parse", "--abbrev-ref", "HEAD")
        if here != branch:
            raise GitFailed(f"{branch} is followed, and {here} is checked out in {root}.")
        if remote is not None:
            _git(root, "fetch", "--quiet", remote, branch)
            _git(root, "merge", "--quiet", "--ff-only", "FETCH_HEAD")
    said = _git(root, "log", "-1", "--format=%H%x00%an%x00%s")
    commit, author, subject = said.split("\0")
    return Followed(commit, author, subject)


def _is_repository(root: Path) -> bool:
    return any((folder / ".git").exists() for folder in (root, *root.parents))


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GitFailed(f"git {arguments[0]} failed: {error}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise GitFailed(f"git {arguments[0]} failed: {said[-1] if said else done.returncode}")
    return done.stdout.strip()
