"""The door to a project's files, on real folders."""

import os
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.spec import files
from gamma_orch.spec.codes import Code
from gamma_orch.spec.load import MAX_BYTES


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def test_what_is_read(tmp_path: Path) -> None:
    put(
        tmp_path,
        "specs/b.yaml",
        "specs/a/x.yml",
        "specs/a/notes.md",
        "specs/.hidden.yaml",
        "specs/.git/x.yaml",
        "environments/dev/environment.yaml",
        "environments/dev/release.yaml",
        "environments/dev/patches/p.yaml",
        "environments/dev/patches/release.yaml",
        "environments/dev/extra/e.yaml",
        "environments/prod/environment.yaml",
        "environments/README.yaml",
        "other/x.yaml",
    )
    tree = files.read(tmp_path, "dev")
    assert list(tree.texts) == [
        "specs/b.yaml",
        "specs/a/x.yml",
        "environments/dev/environment.yaml",
        "environments/dev/extra/e.yaml",
        "environments/dev/patches/p.yaml",
        "environments/dev/patches/release.yaml",
    ]
    assert all(text == name.encode() for name, text in tree.texts.items())
    assert tree.environments == ("dev", "prod")
    assert tree.diagnostics == ()
    assert list(files.read(str(tmp_path), None).texts) == ["specs/b.yaml", "specs/a/x.yml"]


def test_an_empty_project(tmp_path: Path) -> None:
    assert files.read(tmp_path, "dev") == files.Tree({}, (), ())


@pytest.mark.parametrize("name", ["../dev", "/etc", ".", "..", "Dev", "a/b", ""])
def test_an_environment_is_a_name_and_no_path(tmp_path: Path, name: str) -> None:
    put(tmp_path, "dev/x.yaml", "environments/x.yaml", "environments/Dev/x.yaml", "environments/a/b/x.yaml")
    assert files.read(tmp_path, name).texts == {}


def test_a_link_out_of_the_project(tmp_path: Path) -> None:
    root = tmp_path / "project"
    put(root, "specs/a.yaml", "shared/b.yaml", "shared/more/c.yaml")
    put(tmp_path, "secret.yaml", "folder/d.yaml", "project-beside/e.yaml")
    (root / "specs/out.yaml").symlink_to(tmp_path / "secret.yaml")
    (root / "specs/out").symlink_to(tmp_path / "folder")
    (root / "specs/beside.yaml").symlink_to(tmp_path / "project-beside/e.yaml")
    (root / "specs/out.txt").symlink_to(tmp_path / "secret.yaml")
    (root / "specs/in.yaml").symlink_to("../shared/b.yaml")
    (root / "specs/inside").symlink_to("../shared/more")
    tree = files.read(root, "dev")
    assert list(tree.texts) == ["specs/a.yaml", "specs/in.yaml", "specs/inside/c.yaml"]
    assert [(d.code, str(d.span)) for d in tree.diagnostics] == [
        (Code.OUTSIDE, "specs/beside.yaml"),
        (Code.OUTSIDE, "specs/out"),
        (Code.OUTSIDE, "specs/out.yaml"),
    ]


def test_a_folder_that_is_a_link_out_of_the_project(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/a.yaml")
    (tmp_path / "project" / "environments").mkdir(parents=True)
    (tmp_path / "project" / "specs").symlink_to("../elsewhere")
    (tmp_path / "project" / "environments" / "dev").symlink_to("../../elsewhere")
    tree = files.read(tmp_path / "project", "dev")
    assert tree.texts == {}
    assert [(d.code, str(d.span)) for d in tree.diagnostics] == [
        (Code.OUTSIDE, "specs"),
        (Code.OUTSIDE, "environments/dev"),
    ]


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    put(tmp_path / "real", "specs/a.yaml")
    (tmp_path / "link").symlink_to("real")
    assert list(files.read(tmp_path / "link", None).texts) == ["specs/a.yaml"]


def test_folders_that_lead_in_circles(tmp_path: Path) -> None:
    put(tmp_path, "specs/a/x.yaml")
    (tmp_path / "specs/a/again").symlink_to("..")
    (tmp_path / "specs/itself").symlink_to("itself")
    tree = files.read(tmp_path, None)
    assert list(tree.texts) == ["specs/a/x.yaml"]


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    put(tmp_path, "specs/a.yaml")
    os.mkfifo(tmp_path / "specs/pipe.yaml")
    (tmp_path / "specs/gone.yaml").symlink_to("nowhere.yaml")
    (tmp_path / "specs" / "bad\nname.yaml").write_text("")
    tree = files.read(tmp_path, None)
    assert list(tree.texts) == ["specs/a.yaml"]
    assert [(d.code, str(d.span)) for d in tree.diagnostics] == [
        (Code.UNREADABLE, "specs/bad\N{REPLACEMENT CHARACTER}name.yaml"),
        (Code.UNREADABLE, "specs/gone.yaml"),
        (Code.UNREADABLE, "specs/pipe.yaml"),
    ]


def test_what_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "specs/a.yaml", "specs/closed/b.yaml", "specs/c.yaml")
    really: dict[str, Any] = {"scandir": os.scandir, "open": os.open}

    def refuse(kind: str, ending: str):
        def call(path, *arguments):
            if str(path).endswith(ending):
                raise PermissionError(13, "Permission denied")
            return really[kind](path, *arguments)

        return call

    # The superuser may read everything, so the refusal is made up.
    monkeypatch.setattr(os, "scandir", refuse("scandir", "closed"))
    monkeypatch.setattr(os, "open", refuse("open", "c.yaml"))
    tree = files.read(tmp_path, None)
    assert list(tree.texts) == ["specs/a.yaml"]
    assert {(str(d.span), d.message) for d in tree.diagnostics} == {
        ("specs/c.yaml", "It cannot be read: Permission denied."),
        ("specs/closed", "It cannot be read: Permission denied."),
    }


def test_a_file_is_read_no_further_than_load_accepts(tmp_path: Path) -> None:
    put(tmp_path, "specs/a.yaml")
    (tmp_path / "specs/a.yaml").write_bytes(b"x" * (MAX_BYTES * 2))
    assert len(files.read(tmp_path, None).texts["specs/a.yaml"]) == MAX_BYTES + 1


def test_a_tree_larger_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "specs/a.yaml", "specs/b.yaml", "specs/c.yaml")
    monkeypatch.setattr(files, "MAX_TREE", 2 * len("specs/a.yaml"))
    tree = files.read(tmp_path, None)
    assert list(tree.texts) == ["specs/a.yaml", "specs/b.yaml"]
    assert [d.code for d in tree.diagnostics] == [Code.TREE_TOO_LARGE]
