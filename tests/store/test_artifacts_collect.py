"""What nothing needs goes; what anything points at, builds or reads stays."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest

from gamma_orch.store.artifact_local import Local
from gamma_orch.store.artifacts import Artifact, Artifacts, Corrupt
from gamma_orch.store.errors import StoreError
from tests.store.artifacts import MONTH, NOW, build, fill, key, local, recipe

LATER = NOW + 2 * MONTH
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Artifacts]:
    if request.param == "local":
        yield local(tmp_path)
        return
    yield Artifacts(f"memory://{tmp_path.name}", tmp_path / "scratch")
    memory = fsspec.filesystem("memory")
    if memory.exists(tmp_path.name):
        memory.rm(tmp_path.name, recursive=True)


def make(store: Artifacts, op: str, **inputs: Artifact) -> Artifact:
    """One with a content of its own."""
    return build(store, op, {"data": op.encode()}, NOW, **{name: of.key for name, of in inputs.items()})


def keys(artifacts: list[Artifact]) -> set[str]:
    return {artifact.key for artifact in artifacts}


def test_what_is_not_reachable_goes_with_its_files(store: Artifacts) -> None:
    kept, gone = make(store, "kept"), make(store, "gone")
    store.folder(gone)
    assert store.collect({kept.key}, LATER, MONTH) == [gone]
    assert store.all() == [kept]
    assert store.find(gone.key) is None
    with pytest.raises(Corrupt):
        store.folder(gone)
    store.folder(kept)
    assert make(store, "gone") == gone


def test_dry_only_tells(store: Artifacts) -> None:
    made = make(store, "a")
    assert store.collect((), LATER, MONTH, dry=True) == [made]
    assert store.all() == [made]
    store.folder(made)


def test_what_is_young_stays(store: Artifacts) -> None:
    make(store, "a")
    assert store.collect((), NOW + MONTH, MONTH) == []
    assert len(store.collect((), NOW + MONTH + timedelta(seconds=1), MONTH)) == 1


def test_what_it_was_made_from_stays_unless_it_is_not_wanted(store: Artifacts) -> None:
    source = make(store, "fetch")
    data = make(store, "rows")
    by_key = make(store, "finetune", model=source)
    by_digest = build(store, "export", {"x": b"1"}, NOW, model=by_key.key, data=f"digest:{data.digest}")
    other = make(store, "other", model=source)
    assert keys(store.collect({by_digest.key}, LATER, MONTH)) == {other.key}
    assert keys(store.all()) == {source.key, data.key, by_key.key, by_digest.key}
    assert keys(store.collect({by_digest.key}, LATER, MONTH, keep_inputs=False)) == {
        source.key,
        data.key,
        by_key.key,
    }


@pytest.mark.parametrize(
    "name",
    [lambda a: {"key": a.key}, lambda a: {"told": {"reports": [a.key]}}, lambda a: {"digest": a.digest}],
)
def test_what_a_pointer_names_stays(store: Artifacts, name: object) -> None:
    assert callable(name)
    source = make(store, "fetch")
    made = make(store, "export", model=source)
    store.point("prod", "Model/a", name(made))
    assert store.collect((), LATER, MONTH) == []
    store.unpoint("prod", "Model/a")
    assert keys(store.collect((), LATER, MONTH)) == {made.key, source.key}


def test_a_malformed_pointer_stops_it(tmp_path: Path) -> None:
    store = local(tmp_path)
    make(store, "a")
    (tmp_path / "store" / "pointers" / "dev").mkdir(parents=True)
    (tmp_path / "store" / "pointers" / "dev" / "Model__a.json").write_text("{")
    with pytest.raises(StoreError, match=r"Model/a in dev is malformed.*Apply dev"):
        store.collect((), LATER, MONTH)
    assert len(store.all()) == 1


def test_a_content_stays_while_any_key_has_it(store: Artifacts) -> None:
    one, two = build(store, "one"), build(store, "two")
    assert store.collect({one.key}, LATER, MONTH) == [two]
    assert store.folder(one).is_dir()
    assert store.all() == [one]


def test_what_is_built_or_read_now_stays(store: Artifacts) -> None:
    read, data, free = make(store, "read"), make(store, "data"), make(store, "free")
    said: list[Artifact] = []
    with store.building(key("running"), reads=[read.key, f"digest:{data.digest}"]):
        thread = threading.Thread(target=lambda: said.extend(store.collect((), LATER, MONTH)))
        thread.start()
        thread.join()
    assert said == [free]
    assert keys(store.collect((), LATER, MONTH)) == {read.key, data.key}


def test_a_content_that_is_committed_again_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at what is used and the removal of what is not, nobody commits."""
    store = local(tmp_path)
    old = build(store, "old")
    twin = threading.Thread(target=lambda: build(local(tmp_path), "twin", now=LATER))
    original = Local.contents

    def contents(self: Local) -> Mapping[str, datetime]:
        twin.start()
        twin.join(0.5)
        return original(self)

    monkeypatch.setattr(Local, "contents", contents)
    assert store.collect((), LATER, MONTH) == [old]
    twin.join()
    made = store.find(key("twin"))
    assert made is not None
    assert store.folder(made).is_dir()


_HOLD = """
import sys, time
from pathlib import Path
from tests.store.artifacts import key, local
with local(Path(sys.argv[1])).building(key("export"), reads=[key("read")]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_of_another_process_keeps_and_its_death_frees(tmp_path: Path) -> None:
    store = local(tmp_path)
    make(store, "read")
    make(store, "export")
    child = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    assert store.collect((), LATER, MONTH) == []
    child.kill()
    child.communicate()
    assert keys(store.collect((), LATER, MONTH)) == {key("read"), key("export")}
    assert not list(tmp_path.rglob("*.reads"))


def test_what_killed_builds_left_goes_when_it_is_old(tmp_path: Path) -> None:
    store = local(tmp_path)
    left = [
        tmp_path / "scratch" / "out" / key("a") / "half",
        tmp_path / "scratch" / "work" / key("a") / "checkpoint",
        tmp_path / "store" / "incoming" / f"{key('a')}.1" / "half",
        tmp_path / "store" / "broken" / "0.1" / "file",
        tmp_path / "store" / "objects" / ("0" * 64) / "file",
    ]
    for path in left:
        path.parent.mkdir(parents=True)
        path.touch()
    now = datetime.now(UTC)
    store.collect((), now, timedelta(hours=1))
    assert all(path.exists() for path in left)
    with store.building(key("a")) as building:
        (building.work / "checkpoint").touch()
        store.collect((), now + MONTH, timedelta(hours=1))
        assert (building.work / "checkpoint").exists()
    store.collect((), now + MONTH, timedelta(hours=1))
    assert not any(path.exists() for path in left)


def test_readers_get_it_whole_or_not_at_all(tmp_path: Path) -> None:
    """While others build and collect the same ones, over and over."""
    store = local(tmp_path)
    ended = threading.Event()
    wrong: list[str] = []
    read = 0

    def reading() -> None:
        nonlocal read
        mine = local(tmp_path)
        while not ended.is_set():
            for artifact in mine.all():
                try:
                    folder = mine.folder(artifact)
                    found = sorted(p.name for p in folder.iterdir())
                except Corrupt:
                    continue
                except FileNotFoundError:  # collected since `folder` answered
                    continue
                read += 1
                if found != ["a", "b", "c"]:
                    wrong.append(f"{artifact.key}: {found}")

    thread = threading.Thread(target=reading)
    thread.start()
    until = time.monotonic() + 2
    try:
        while time.monotonic() < until:
            for number in range(3):
                with store.building(key(f"op{number}")) as building:
                    if building.found is None:
                        fill(building.out, {name: bytes([number]) * 1000 for name in "abc"})
                        building.commit(recipe(f"op{number}"), {}, "dev", 1, NOW)
            store.collect((), LATER, MONTH)
    finally:
        ended.set()
        thread.join()
    assert not wrong
    assert read
