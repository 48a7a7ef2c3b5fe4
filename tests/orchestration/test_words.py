"""Names and texts in the UI, the generated instance, and the followed branch."""

import subprocess
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.core.address import Address
from gamma_orch.orchestration import location
from gamma_orch.orchestration.git import GitFailed, follow
from gamma_orch.orchestration.keys import address_of, asset_key, op_name
from tests.orchestration.projects import commit, key, project, thing

NAMES = st.from_regex(r"[a-z][a-z0-9._-]{0,12}[a-z0-9]", fullmatch=True)


@given(NAMES, NAMES)
def test_names_of_ops_are_valid_and_never_shared(one: str, other: str) -> None:
    names = {op_name(Address("Thing", name)) for name in (one, other)}
    assert len(names) == len({one, other})
    assert all(name.isidentifier() for name in names)
    address = Address("Thing", one)
    assert address_of(asset_key("dev", address)) == address


def test_an_asset_tells_what_it_is(root: Path) -> None:
    metadata = (
        "metadata: {name: a, owner: data team, description: The first., "
        "labels: {tier: gold, 'odd key': x}, lifecycle: {protect: true, drift: report}}"
    )
    project(root, thing("a", value="one").replace("metadata: {name: a}", metadata), thing("b", after="a"))
    graph = location(root, "dev").asset_graph
    node = graph.get(key("a"))
    assert node.owners == ["team:data_team"]
    assert node.group_name == "testing"
    assert node.kinds == {"thing"}
    assert node.tags["tier"] == "gold"
    assert "odd key" not in node.tags, "Dagster takes no such tag"
    assert node.code_version
    described = node.description or ""
    assert described.split("\n\n")[:3] == [
        "The first.",
        "Declared in `specs/things.yaml:2`.",
        "Lifecycle: `protect`, `drift: report`.",
    ]
    assert "value: one" in described
    references = node.metadata["dagster/code_references"]
    assert isinstance(references, dg.CodeReferencesMetadataValue)
    place = references.code_references[0]
    assert isinstance(place, dg.LocalFileCodeReference)
    assert (place.file_path, place.line_number) == (str(root / "specs" / "things.yaml"), 2)
    assert graph.get(key("b")).parent_keys == {key("a")}
    assert {check.name for check in graph.get(key("a")).check_keys} == {"in_sync", "healthy"}


def test_a_secret_shows_as_its_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAMMA_SECRET_PW", "canary-3c1f")
    project(root, thing("a", secret='"${secret.pw}"'))
    described = location(root, "dev").asset_graph.get(key("a")).description or ""
    assert "secret: (secret pw)" in described
    assert "canary" not in described


def test_many_resources_share_a_definition_in_the_view_of_the_whole(root: Path) -> None:
    project(root, *(thing(f"t{n}", after=f"t{n - 1}" if n else None) for n in range(250)))
    where = location(root, "dev")
    assert len({id(where.assets_defs_by_key[key(f"t{n}")]) for n in range(250)}) == 1
    assert len(where.asset_graph.executable_asset_keys) == 250
    job = where.get_maybe_subset_job_def("reconcile", asset_selection={key("t4"), key("t5")})
    assert sorted(node.name for node in job.nodes) == ["Thing__t4", "Thing__t5"]


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), "-c", "user.name=Bo", "-c", "user.email=bo@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_remote_is_followed_forward(tmp_path: Path) -> None:
    origin = project(tmp_path / "origin", thing("a"))
    commit(origin, "first")
    here = tmp_path / "here"
    git(tmp_path, "clone", "-q", str(origin), str(here))
    first = follow(here, "main", "origin")
    (origin / "specs" / "more.yaml").write_text(thing("b"))
    commit(origin, "second: with\ttabs")
    second = follow(here, "main", "origin")
    assert (second.author, second.subject) == ("Ann", "second: with\ttabs")
    assert second.commit == git(origin, "rev-parse", "HEAD") != first.commit
    assert (here / "specs" / "more.yaml").is_file()


def test_what_cannot_be_followed_is_said(tmp_path: Path) -> None:
    here = project(tmp_path / "here", thing("a"))
    assert follow(here, None, None).commit == "", "no repository"
    commit(here, "first")
    git(here, "checkout", "-q", "-b", "feature")
    with pytest.raises(GitFailed, match=r"^main is followed, and feature is checked out in .*\.$"):
        follow(here, "main", None)
    with pytest.raises(GitFailed, match=r"^git fetch failed: "):
        follow(here, "feature", "origin")


def test_a_branch_that_was_rewritten_is_not_followed_blindly(tmp_path: Path) -> None:
    """Local commits that the remote does not have are not thrown away."""
    origin = project(tmp_path / "origin", thing("a"))
    commit(origin, "first")
    here = tmp_path / "here"
    git(tmp_path, "clone", "-q", str(origin), str(here))
    (here / "specs" / "mine.yaml").write_text(thing("mine"))
    commit(here, "mine")
    (origin / "specs" / "theirs.yaml").write_text(thing("theirs"))
    commit(origin, "theirs")
    with pytest.raises(GitFailed, match=r"^git merge failed: "):
        follow(here, "main", "origin")
    assert (here / "specs" / "mine.yaml").is_file()
