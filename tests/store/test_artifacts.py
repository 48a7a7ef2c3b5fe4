"""Built once, found by key, read whole: on a disk and in an object store."""

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import fsspec
import pytest

from gamma_orch.core.canonical import digest
from gamma_orch.store.artifact_files import Hashed, _mark, digest_of, take
from gamma_orch.store.artifacts import Artifact, Artifacts, Corrupt
from gamma_orch.store.errors import StoreError
from tests.store.artifacts import FILES, NOW, build, fill, key, local, recipe, spoil


@pytest.fixture(params=["local", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Artifacts]:
    scratch = tmp_path / "scratch"
    match request.param:
        case "local":
            yield Artifacts(str(tmp_path / "store"), scratch)
        case "file":
            yield Artifacts(f"file://{tmp_path}/store", scratch)
        case _:
            name = f"memory://{tmp_path.name}-{os.getpid()}"
            yield Artifacts(name, scratch)
            memory = fsspec.filesystem("memory")
            if memory.exists(name):
                memory.rm(name, recursive=True)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_was_built_is_found_and_read(store: Artifacts) -> None:
    assert store.find(key("export")) is None
    assert store.all() == []
    made = build(store)
    assert store.find(key("export")) == made
    assert store.all() == [made]
    assert made.recipe == recipe("export")
    assert (made.facts, made.built_for, made.seconds) == ({"rows": 3}, "dev", 1.5)
    assert made.built_at == "2026-01-01T12:00:00.000Z"
    assert [file.path for file in made.files] == sorted(FILES)
    assert made.size == sum(map(len, FILES.values()))
    assert made.digest == digest([[f.path, f.size, f.sha256] for f in made.files])
    folder = store.folder(made)
    assert content(folder) == FILES
    assert store.folder(made) == folder
    assert store.fault(made) == ""
    for path in folder.rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_an_artifact_may_be_facts_alone(store: Artifacts) -> None:
    made = build(store, files={})
    assert made.files == ()
    assert content(store.folder(made)) == {}
    assert store.fault(made) == ""
    assert store.find(made.key) == made


def test_all_is_in_the_order_of_building(store: Artifacts) -> None:
    late = build(store, "a", {"f": b"1"}, NOW.replace(hour=13))
    early = build(store, "b", {"f": b"2"}, NOW)
    assert store.all() == [early, late]


def test_nothing_is_left_of_a_build(store: Artifacts, tmp_path: Path) -> None:
    with store.building(key("export")) as building:
        (building.work / "checkpoint").touch()
        fill(building.out)
        building.commit(recipe("export"), {}, "dev", 1, NOW)
        assert building.found is not None
    assert not any((tmp_path / "scratch" / "out").iterdir())
    assert not any((tmp_path / "scratch" / "work").iterdir())
    assert list((tmp_path / "store" / "incoming").glob("*")) == []


def test_a_failed_build_leaves_its_work_for_the_next(store: Artifacts) -> None:
    with suppress(ZeroDivisionError), store.building(key("export")) as building:
        (building.out / "half").write_bytes(b"x")
        (building.work / "checkpoint").write_text("epoch 2")
        raise ZeroDivisionError
    assert store.find(key("export")) is None
    with store.building(key("export")) as building:
        assert list(building.out.iterdir()) == []
        assert (building.work / "checkpoint").read_text() == "epoch 2"


def test_a_worker_that_outlives_its_builder_writes_into_no_other_build(tmp_path: Path) -> None:
    """The builder was killed; what it had started goes on until it notices."""
    store = local(tmp_path)
    with store.building(key("export")) as building:
        first = building.out
    first.mkdir()
    with store.building(key("export")) as building:
        assert building.out != first
        assert not first.exists()
        fill(first, {"model.onnx": b"half"})
        fill(building.out)
        made = building.commit(recipe("export"), {}, "dev", 1, NOW)
    assert content(store.folder(made)) == FILES


def test_the_first_commit_of_a_key_stays(store: Artifacts, tmp_path: Path) -> None:
    """Another machine, which shares the store and no locks, was faster."""
    with store.building(key("export")) as building:
        out = tmp_path / "elsewhere"
        fill(out)
        files, marks = take(out)
        said: tuple[Any, ...] = (recipe("export"), {}, "2026-01-01T00:00:00Z", "prod", 1.0)
        first = store.commit(Artifact(key("export"), digest_of(files), files, *said), out, marks)
        fill(building.out, {"model.onnx": b"another"})
        assert building.commit(recipe("export"), {}, "dev", 9, NOW) == first
    assert store.find(key("export")) == first
    assert content(store.folder(first)) == FILES


@pytest.mark.parametrize("damage", ["", "{", '{"form":1}', "[]", "null", "\xff", "cut"])
def test_a_malformed_manifest_is_not_there_and_is_written_over(tmp_path: Path, damage: str) -> None:
    store = local(tmp_path)
    made = build(store)
    manifest = tmp_path / "store" / "keys" / f"{made.key}.json"
    text = manifest.read_text()
    manifest.chmod(0o644)
    manifest.write_text(text[:-20] if damage == "cut" else damage, encoding="latin-1")
    assert store.find(made.key) is None
    assert store.all() == []
    assert build(store) == made
    assert store.find(made.key) == made


@pytest.mark.parametrize(
    "change",
    [
        lambda body: {**body, "form": 2},
        lambda body: {**body, "key": "0" * 64},
        lambda body: {**body, "digest": "0" * 64},
        lambda body: {**body, "files": body["files"][1:]},
        lambda body: {**body, "files": [["../../../etc/passwd", 1, "0" * 64]]},
        lambda body: {**body, "files": [["/etc/passwd", 1, "0" * 64]]},
        lambda body: {**body, "seconds": None},
    ],
)
def test_a_manifest_is_not_believed(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    """One that was tampered with could lead out of the folder, or name other files."""
    store = local(tmp_path)
    made = build(store)
    manifest = tmp_path / "store" / "keys" / f"{made.key}.json"
    body = change(json.loads(manifest.read_text()))
    if body["files"] and len(body["files"]) == 1:
        body["digest"] = digest(body["files"])
    manifest.unlink()
    manifest.write_text(json.dumps(body))
    (tmp_path / "store" / "objects" / body["digest"]).mkdir(exist_ok=True)
    assert store.find(made.key) is None
    assert store.all() == []


@pytest.mark.parametrize("files", [FILES, {}])
def test_a_manifest_whose_files_are_gone_names_nothing(tmp_path: Path, files: dict[str, bytes]) -> None:
    store = local(tmp_path)
    made = build(store, files=files)
    shutil.rmtree(tmp_path / "store" / "objects" / made.digest)
    assert store.find(made.key) is None
    assert store.all() == []
    with pytest.raises(Corrupt, match="its files are gone"):
        store.folder(made)
    assert build(store, files=files) == made
    assert content(store.folder(made)) == files


@pytest.mark.parametrize("name", ["", "x", "../x", "A" * 64, "digest:" + "0" * 64])
def test_what_is_no_key(store: Artifacts, name: str) -> None:
    assert store.find(name) is None
    with pytest.raises(StoreError, match="64 hexadecimal digits"), store.building(name):
        pass


# --- one content ---------------------------------------------------------------------------------


def test_one_content_under_two_keys_lies_there_once(store: Artifacts, tmp_path: Path) -> None:
    one, two = build(store, "a"), build(store, "b")
    assert one.digest == two.digest
    assert store.folder(one) == store.folder(two)
    if "://" not in store.url:
        assert len(list((tmp_path / "store" / "objects").iterdir())) == 1


def test_a_build_on_the_same_disk_is_moved_and_not_copied(tmp_path: Path) -> None:
    store = local(tmp_path)
    with store.building(key("export")) as building:
        fill(building.out)
        inode = (building.out / "model.onnx").stat().st_ino
        made = building.commit(recipe("export"), {}, "dev", 1, NOW)
    assert (store.folder(made) / "model.onnx").stat().st_ino == inode


def test_a_build_on_another_disk_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = local(tmp_path)
    rename = Path.rename

    def across(self: Path, target: Path) -> Path:
        if self.is_relative_to(tmp_path / "scratch"):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", across)
    made = build(store)
    folder = store.folder(made)
    assert content(folder) == FILES
    assert stat.S_IMODE((folder / "model.onnx").stat().st_mode) == 0o444
    assert not any((tmp_path / "scratch" / "out").iterdir())


def test_a_disk_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    store = local(tmp_path)
    assert store.find(key("export")) is None
    made = build(store)
    assert store.find(made.key) == made


# --- damage --------------------------------------------------------------------------------------


def test_a_flipped_bit_is_found_by_folder_though_size_and_times_are_as_before(tmp_path: Path) -> None:
    store = local(tmp_path)
    made, twin = build(store), build(store, "twin")
    place = spoil(store, made).parent
    # Not even the time of the change tells, as where the disk itself turned a bit.
    now = {f.path: _mark(place / f.path) for f in made.files}
    Hashed(tmp_path / "scratch" / "hashed").remember(made.digest, now)
    assert store.fault(made) == ""
    with pytest.raises(Corrupt, match=r"model\.onnx has other content.*Apply again") as told:
        store.folder(made)
    assert (told.value.key, told.value.file) == (made.key, "model.onnx")
    assert store.find(made.key) is None
    assert store.find(twin.key) is None  # it has the same bytes
    assert store.all() == []
    with pytest.raises(Corrupt):
        store.folder(twin)
    assert build(store) == made
    assert content(store.folder(made)) == FILES


def test_a_changed_file_is_found_by_fault_and_nothing_is_removed(tmp_path: Path) -> None:
    store = local(tmp_path)
    made = build(store)
    assert store.fault(made) == ""
    place = spoil(store, made)
    os.utime(place)
    assert "model.onnx has other content" in store.fault(made)
    assert store.find(made.key) == made
    assert "model.onnx has other content" in store.fault(made)


def test_fault_hashes_only_what_looks_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    original = hashlib.file_digest

    def counting(file: Any, *rest: Any) -> Any:
        hashed.append(Path(file.name).name)
        return original(file, *rest)

    store = local(tmp_path)
    made = build(store)
    monkeypatch.setattr(hashlib, "file_digest", counting)
    assert store.fault(made) == ""
    assert hashed == []  # it was hashed when it was built
    os.utime(Path(store.url) / "objects" / made.digest / "config.json")
    assert store.fault(made) == ""
    assert hashed == ["config.json"]
    assert store.fault(made) == ""
    assert hashed == ["config.json"]
    (tmp_path / "scratch" / "hashed" / f"{made.digest}.json").write_text("[")
    assert store.fault(made) == ""
    assert len(hashed) == 1 + len(FILES)


def test_a_missing_and_a_shortened_file(tmp_path: Path) -> None:
    store = local(tmp_path)
    made = build(store)
    place = Path(store.url) / "objects" / made.digest / "model.onnx"
    place.chmod(0o644)
    place.write_bytes(b"short")
    assert store.fault(made) == "model.onnx has 5 bytes instead of 7000"
    place.unlink()
    assert store.fault(made) == "model.onnx is missing"
    place.symlink_to("/etc/passwd")
    assert store.fault(made) == "model.onnx is not a regular file any more"
    with pytest.raises(Corrupt, match=r"model\.onnx is not a regular file"):
        store.folder(made)
    assert "its files are gone" in store.fault(made)


def test_a_foreign_file_is_told_and_never_served(tmp_path: Path) -> None:
    """A library would load it with the others."""
    store = local(tmp_path)
    made = build(store)
    place = Path(store.url) / "objects" / made.digest
    (place / "adapter_config.json").write_text("{}")
    assert "adapter_config.json lies among its files" in store.fault(made)
    assert content(store.folder(made)) == FILES
    assert store.fault(made) == ""


def test_a_damaged_content_is_replaced_by_the_same_built_for_another_key(tmp_path: Path) -> None:
    store = local(tmp_path)
    one = build(store, "a")
    spoil(store, one)
    build(store, "b")
    assert content(store.folder(one)) == FILES


def test_a_damaged_remote_content(tmp_path: Path) -> None:
    store = Artifacts(f"memory://{tmp_path.name}", tmp_path / "scratch")
    made, twin = build(store), build(store, "twin")
    memory = fsspec.filesystem("memory")
    at = f"/{tmp_path.name}/objects/{made.digest}/model.onnx"
    memory.pipe_file(at, b"W" + FILES["model.onnx"][1:])
    with pytest.raises(Corrupt, match=r"model\.onnx has other content"):
        store.folder(made)
    assert store.find(made.key) is None
    assert store.find(twin.key) is None
    assert build(store) == made
    folder = store.folder(made)
    memory.rm_file(at)
    assert "model.onnx is missing" in store.fault(made)
    assert content(store.folder(made)) == FILES  # it was downloaded before
    (folder / "model.onnx").chmod(0o644)
    (folder / "model.onnx").write_bytes(b"spoiled")
    memory.pipe_file(at, FILES["model.onnx"])
    assert content(store.folder(made)) == FILES  # the copy went bad, not the store
    memory.pipe_file(at, b"short")
    assert "has 5 bytes" in store.fault(made)


def test_a_download_that_is_cut_off_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    store = Artifacts(f"memory://{tmp_path.name}", tmp_path / "scratch")
    made = build(store)
    original = MemoryFileSystem.get_file
    cut: list[str] = []

    def flaky(self: Any, remote: str, target: str, **rest: Any) -> None:
        original(self, remote, target, **rest)
        if not cut:
            cut.append(target)
            Path(target).write_bytes(b"")

    monkeypatch.setattr(MemoryFileSystem, "get_file", flaky)
    assert content(store.folder(made)) == FILES
    assert cut


# --- pointers ------------------------------------------------------------------------------------


def test_pointers(store: Artifacts) -> None:
    assert store.pointer("dev", "Model/sentiment") is None
    assert store.pointers() == {}
    store.unpoint("dev", "Model/sentiment")
    store.point("dev", "Model/sentiment", {"key": "1"})
    store.point("dev", "Model/sentiment", {"key": "2"})
    store.point("prod", "Dataset/a__b.json", {"key": "3"})
    assert store.pointer("dev", "Model/sentiment") == {"key": "2"}
    expected = {("dev", "Model/sentiment"): {"key": "2"}, ("prod", "Dataset/a__b.json"): {"key": "3"}}
    assert store.pointers() == expected
    store.unpoint("dev", "Model/sentiment")
    store.unpoint("dev", "Model/sentiment")
    assert list(store.pointers()) == [("prod", "Dataset/a__b.json")]


@pytest.mark.parametrize(
    ("environment", "address"), [("../x", "Model/a"), ("dev", "Model/../a"), ("", "M/a")]
)
def test_a_pointer_stays_in_its_folder(store: Artifacts, environment: str, address: str) -> None:
    with pytest.raises(StoreError, match="write Kind/name"):
        store.point(environment, address, {})


def test_a_malformed_pointer_is_not_there_and_hides_no_other(tmp_path: Path) -> None:
    store = local(tmp_path)
    store.point("dev", "Model/a", {"key": "1"})
    store.point("dev", "Model/b", {"key": "2"})
    file = tmp_path / "store" / "pointers" / "dev" / "Model__a.json"
    file.unlink()
    file.write_text('{"key": ')
    assert store.pointer("dev", "Model/a") is None
    assert store.pointers() == {("dev", "Model/b"): {"key": "2"}}


# --- several at once -----------------------------------------------------------------------------


def _build_slowly(
    folder: Path, waiting: "Event", answers: "multiprocessing.SimpleQueue[tuple[str, str, list[str]]]"
) -> None:
    store = local(folder)
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        waiting.set()

    with store.building(key("export"), tell) as building:
        if building.found:
            answers.put(("found", building.found.digest, said))
            return
        waiting.wait(60)
        fill(building.out)
        made = building.commit(recipe("export"), {}, "dev", 1, NOW)
    answers.put(("built", made.digest, said))


def test_of_several_processes_one_builds_and_the_others_get_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    waiting = context.Event()
    children = [context.Process(target=_build_slowly, args=(tmp_path, waiting, answers)) for _ in range(3)]
    for child in children:
        child.start()
    got = sorted(answers.get() for _ in children)
    for child in children:
        child.join()
    assert [how for how, _, _ in got] == ["built", "found", "found"]
    assert len({made for _, made, _ in got}) == 1
    assert any(said == ["another process builds this; waiting"] for _, _, said in got)
    assert all(len(said) <= 1 for _, _, said in got)


def test_two_projects_with_one_store_build_a_key_once(tmp_path: Path) -> None:
    one, two = (Artifacts(str(tmp_path / "store"), tmp_path / name) for name in ("one", "two"))
    waited = threading.Event()
    got = []

    def second() -> None:
        with two.building(key("export"), lambda _: waited.set()) as building:
            got.append(building.found)

    with one.building(key("export")) as building:
        thread = threading.Thread(target=second)
        thread.start()
        assert waited.wait(10)
        fill(building.out)
        made = building.commit(recipe("export"), {}, "dev", 1, NOW)
    thread.join()
    assert got == [made]


def test_waiting_can_be_stopped(tmp_path: Path) -> None:
    store = local(tmp_path)
    said: list[str] = []

    def second() -> None:
        try:
            with local(tmp_path).building(key("export"), stopped=lambda: True):
                said.append("entered")
        except StoreError as error:
            said.append(str(error))

    with store.building(key("export")):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(10)
    assert said == ["Stopped while another process was building the same artifact."]


def test_importing_the_store_is_cheap() -> None:
    code = "import sys, gamma_orch.store.artifacts; print({'fsspec', 'filelock'} & {*sys.modules})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"
