"""The commit is read from git's files; git itself says what is right."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gamma_orch.engine.commit import commit_of

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder: Path, *words: str) -> str:
    quiet = {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@example.org",
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@example.org",
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run(["git", *words], cwd=folder, env=quiet, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, message: str) -> str:
    git(folder, "commit", "--allow-empty", "-q", "-m", message)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    git(folder, "-c", "init.defaultBranch=main", "init", "-q")
    return folder


def test_no_repository(tmp_path: Path):
    assert commit_of(tmp_path) == ""


def test_no_commit_yet(repo: Path):
    assert commit_of(repo) == ""


def test_a_branch_moves_on(repo: Path):
    first = commit(repo, "1")
    assert commit_of(repo) == first
    second = commit(repo, "2")
    assert commit_of(repo) == second != first


def test_from_a_folder_inside(repo: Path):
    head = commit(repo, "1")
    inside = repo / "deploy" / "gamma"
    inside.mkdir(parents=True)
    assert commit_of(inside) == head


def test_the_nearest_repository_counts(repo: Path):
    commit(repo, "1")
    inner = repo / "inner"
    inner.mkdir()
    git(inner, "init", "-q")
    assert commit_of(inner) == ""
    head = commit(inner, "another")
    assert commit_of(inner) == head


def test_a_detached_head(repo: Path):
    first = commit(repo, "1")
    commit(repo, "2")
    git(repo, "checkout", "-q", "--detach", first)
    assert commit_of(repo) == first


def test_a_branch_with_a_slash(repo: Path):
    commit(repo, "1")
    git(repo, "checkout", "-q", "-b", "feature/one")
    second = commit(repo, "2")
    assert commit_of(repo) == second


def test_packed_references(repo: Path):
    first = commit(repo, "1")
    git(repo, "tag", "-a", "-m", "a tag", "v1")  # packed with a line of what it points to
    git(repo, "branch", "mai")
    git(repo, "branch", "main2")
    git(repo, "pack-refs", "--all")
    assert not (repo / ".git/refs/heads/main").exists()
    assert commit_of(repo) == first
    second = commit(repo, "2")  # loose again: the packed one is old
    assert first in (repo / ".git/packed-refs").read_text()
    assert commit_of(repo) == second


def test_a_branch_that_begins_like_a_packed_one(repo: Path):
    commit(repo, "1")
    git(repo, "pack-refs", "--all")
    git(repo, "checkout", "-q", "--orphan", "mai")
    assert commit_of(repo) == ""


def test_a_worktree(repo: Path, tmp_path: Path):
    commit(repo, "1")
    tree = tmp_path / "tree"
    git(repo, "worktree", "add", "-q", "-b", "side", str(tree))
    other = commit(tree, "2")
    assert (tree / ".git").is_file()
    assert commit_of(tree) == other
    assert commit_of(repo) != other
    git(repo, "pack-refs", "--all")
    assert commit_of(tree) == other
    git(tree, "checkout", "-q", "--detach")
    assert commit_of(tree) == other


def test_a_submodule(repo: Path, tmp_path: Path):
    part = tmp_path / "part"
    part.mkdir()
    git(part, "-c", "init.defaultBranch=main", "init", "-q")
    inner = commit(part, "part")
    commit(repo, "1")
    git(repo, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(part), "part")
    assert (repo / "part/.git").read_text().startswith("gitdir: ../")
    assert commit_of(repo / "part") == inner


def test_a_branch_that_stands_for_another(repo: Path):
    head = commit(repo, "1")
    git(repo, "symbolic-ref", "refs/heads/alias", "refs/heads/main")
    (repo / ".git/HEAD").write_text("ref: refs/heads/alias\n")
    assert git(repo, "rev-parse", "HEAD") == head
    assert commit_of(repo) == head


def broken(repo: Path, case: str) -> None:
    inside = repo / ".git"
    if case == "references in a circle":
        (inside / "HEAD").write_text("ref: refs/heads/main\n")
        (inside / "refs/heads/main").write_text("ref: refs/heads/main\n")
    elif case == "no HEAD":
        (inside / "HEAD").unlink()
    elif case == "HEAD is not text":
        (inside / "HEAD").write_bytes(b"\xff\xfe\x00")
    elif case == "HEAD is nonsense":
        (inside / "HEAD").write_text("what is this\n")
    elif case == "HEAD is empty":
        (inside / "HEAD").write_text("")
    elif case == "the branch is empty":  # as a crash of the machine leaves it
        (inside / "refs/heads/main").write_text("")
    elif case == "HEAD leads out":
        (repo / "secret").write_text("hunter2")
        (inside / "HEAD").write_text("ref: ../secret\n")
    else:
        shutil.rmtree(inside)
        inside.write_bytes({"a pointer to nowhere": b"gitdir: ../nowhere\n", "a NUL": b"gitdir: \0\n"}[case])


@pytest.mark.parametrize(
    "case",
    [
        "references in a circle",
        "no HEAD",
        "HEAD is not text",
        "HEAD is nonsense",
        "HEAD is empty",
        "HEAD leads out",
        "the branch is empty",
        "a pointer to nowhere",
        "a NUL",
    ],
)
def test_a_broken_repository_is_none(repo: Path, case: str):
    commit(repo, "1")
    broken(repo, case)
    assert commit_of(repo) == ""
