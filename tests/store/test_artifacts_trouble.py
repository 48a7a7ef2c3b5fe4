"""What cannot be kept, and what goes wrong around the store: told in a sentence, and nothing is half."""

import os
import pickle
import resource
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.store.artifacts import Artifacts, Corrupt
from gamma_orch.store.errors import StoreError
from tests.store.artifacts import FILES, MONTH, NOW, build, fill, key, local, recipe, spoil

ROOT = os.geteuid() == 0


def refused(tmp_path: Path, put: Callable[[Path], Any]) -> str:
    store = local(tmp_path)
    with store.building(key("export")) as building:
        (building.work / "checkpoint").touch()
        fill(building.out)
        put(building.out)
        with pytest.raises(StoreError) as told:
            building.commit(recipe("export"), {}, "dev", 1, NOW)
    nothing_half(store, tmp_path)
    return str(told.value)


def nothing_half(store: Artifacts, folder: Path) -> None:
    assert store.find(key("export")) is None
    assert store.all() == []
    assert not list((folder / "store" / "keys").glob("*"))
    assert not list((folder / "store" / "incoming").glob("*"))
    with store.building(key("export")) as building:
        assert (building.work / "checkpoint").exists()
        assert not any(building.out.iterdir())


# --- what may not be in it -----------------------------------------------------------------------


class Runs:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("value", [{"weights": [1.0, 2.0]}, Runs(), "x" * 10_000, [b"\0" * 10_000, 1, 2]])
def test_a_pickle_whatever_its_name(tmp_path: Path, protocol: int, value: object) -> None:
    data = pickle.dumps(value, protocol=protocol)
    said = refused(tmp_path, lambda out: (out / "model.safetensors").write_bytes(data))
    assert "model.safetensors is a pickle" in said
    assert "Write safetensors" in said


def test_what_torch_saves(tmp_path: Path) -> None:
    """A zip with a pickle in it, and the older form: pickles, then raw storages."""

    def archive(out: Path) -> None:
        with zipfile.ZipFile(out / "weights.bin", "w") as file:
            file.writestr("archive/data.pkl", pickle.dumps({}))
            file.writestr("archive/data/0", b"\0" * 100)

    assert "weights.bin is an archive with the pickle archive/data.pkl" in refused(tmp_path, archive)
    legacy = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001, protocol=2) + b"\0" * 64
    assert "is a pickle" in refused(tmp_path, lambda out: (out / "old.bin").write_bytes(legacy))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"\x80\x02",
        b"\x80\x04" + bytes(range(256)) * 10,
        b"\x80\x02" + b"\x7f\x80" * 500,
        b"PK\x03\x04",
    ],
)
def test_weights_that_begin_as_a_pickle_does_are_kept(tmp_path: Path, data: bytes) -> None:
    """An OpenVINO .bin is raw numbers, and any two bytes may come first."""
    store = local(tmp_path)
    made = build(store, files={"model.bin": data})
    assert (store.folder(made) / "model.bin").read_bytes() == data


def test_a_zip_without_pickles_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", b"1")
    build(local(tmp_path), files={"a.npz": file.read_bytes()})


def test_links_and_other_things_are_no_files(tmp_path: Path) -> None:
    def link(out: Path) -> None:
        (out / "passwd").symlink_to("/etc/passwd")

    assert "passwd is not a regular file" in refused(tmp_path, link)
    assert "etc is not a regular file" in refused(tmp_path, lambda out: (out / "etc").symlink_to("/etc"))
    assert "pipe is not a regular file" in refused(tmp_path, lambda out: os.mkfifo(out / "pipe"))


@pytest.mark.parametrize("name", ["a\\b", "a\nb", os.fsdecode(b"\xff")])
def test_names_that_are_none_elsewhere(tmp_path: Path, name: str) -> None:
    assert "cannot be kept" in refused(tmp_path, lambda out: (out / name).touch())


def test_folders_without_files_are_no_part_of_it(tmp_path: Path) -> None:
    store = local(tmp_path)
    with store.building(key("export")) as building:
        fill(building.out)
        (building.out / "empty" / "deep").mkdir(parents=True)
        (building.out / "tokenizer").chmod(0o555)
        made = building.commit(recipe("export"), {}, "dev", 1, NOW)
    folder = store.folder(made)
    assert not (folder / "empty").exists()
    assert build(store, "same").digest == made.digest
    assert (folder / "tokenizer").stat().st_mode & 0o200  # or nobody but root could remove it


@pytest.mark.parametrize("facts", [{"loss": float("nan")}, {"x": {1, 2}}, {"x": {"y": object()}}])
def test_facts_that_are_no_json(tmp_path: Path, facts: Any) -> None:
    store = local(tmp_path)
    with store.building(key("export")) as building:
        (building.work / "checkpoint").touch()
        with pytest.raises(StoreError, match="What was measured cannot be kept"):
            building.commit(recipe("export"), facts, "dev", 1, NOW)
    nothing_half(store, tmp_path)


# --- the disk ------------------------------------------------------------------------------------


def test_a_file_larger_than_allowed(tmp_path: Path) -> None:
    """The limit of the process stands for a quota: a write fails in the middle of the manifest."""
    store = local(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with store.building(key("export")) as building:
        (building.work / "checkpoint").touch()
        fill(building.out)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        try:
            with pytest.raises(StoreError) as told:
                building.commit(recipe("export"), {}, "dev", 1, NOW)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = str(told.value)
    assert f"The artifact store {tmp_path}/store cannot be written: File too large" in said
    assert "Make room" in said
    nothing_half(store, tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """One that holds 300 kB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    if not ROOT or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs to mount a disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    store = Artifacts(str(small_disk / "store"), tmp_path / "scratch")
    first = build(store, "small", {"a": b"1"})
    with pytest.raises(StoreError) as told:
        build(store, "large", {"a": b"1" * 200_000, "b": b"2" * 200_000})
    said = str(told.value)
    assert f"The artifact store {small_disk}/store cannot be written: No space left on device" in said
    assert "gamma models gc" in said
    assert store.all() == [first]
    assert list((small_disk / "store" / "incoming").iterdir()) == []
    fitting = build(store, "fits", {"a": b"1" * 200_000})
    assert store.folder(fitting).is_dir()


def test_a_full_disk_for_pointers(small_disk: Path, tmp_path: Path) -> None:
    store = Artifacts(str(small_disk / "store"), tmp_path / "scratch")
    store.point("dev", "Model/a", {"key": "1"})
    (small_disk / "ballast").write_bytes(b"0" * (shutil.disk_usage(small_disk).free - 4096))
    with pytest.raises(StoreError, match="No space left"):
        store.point("dev", "Model/a", {"key": "2" * 50_000})
    assert store.pointer("dev", "Model/a") == {"key": "1"}


def test_a_place_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    store = local(tmp_path)
    for read in (lambda: store.find(key("export")), store.all, store.pointers):
        with pytest.raises(StoreError, match=r"store cannot be read: (Not a directory|it is a file)"):
            read()
    with pytest.raises(StoreError), store.building(key("export")):
        pass
    with pytest.raises(StoreError):
        store.point("dev", "Model/a", {})


def test_no_address(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has no address"):
        Artifacts("", tmp_path)


@pytest.mark.parametrize("url", ["nonsense://bucket/x", "sftp://user:hidden@127.0.0.1:1/x"])
def test_a_store_that_cannot_be_opened(tmp_path: Path, url: str) -> None:
    """At first use, and without its password."""
    store = Artifacts(url, tmp_path)
    for read in (lambda: store.find(key("export")), store.all, store.pointers):
        with pytest.raises(StoreError, match="cannot be opened") as told:
            read()
        assert "hidden" not in str(told.value)
    assert "hidden" not in store.url


def test_a_remote_store_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("403 for hid@den")

    store = Artifacts(f"memory://user:hid@den@{tmp_path.name}", tmp_path / "scratch")
    assert store.url == f"memory://{tmp_path.name}"
    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "cat_file", fail)
        with pytest.raises(StoreError, match=r"cannot be read: 403 for \*\*\*") as told:
            store.find(key("export"))
        assert told.value.__cause__ is None
    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "pipe_file", fail)
        with pytest.raises(StoreError, match="cannot be written"):
            build(store)
    assert store.all() == []
    assert build(store) == store.find(key("export"))


# --- users ---------------------------------------------------------------------------------------


def as_nobody(work: Callable[[], None]) -> None:
    """In a process of an ordinary user, whose failed assertions fail here."""
    if not ROOT:
        work()
        return
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            work()
        except BaseException:  # noqa: BLE001 - it must not go on as a second pytest
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Where an ordinary user can go: pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="gamma-store-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_all_of_it_as_an_ordinary_user(open_folder: Path) -> None:
    def work() -> None:
        store = local(open_folder)
        made = build(store)
        assert {p: (store.folder(made) / p).read_bytes() for p in FILES} == FILES
        spoil(store, made)
        with pytest.raises(Corrupt):
            store.folder(made)
        build(store)
        store.point("dev", "Model/a", {"key": "1"})
        store.point("dev", "Model/a", {"key": "2"})
        store.unpoint("dev", "Model/a")
        assert len(store.collect((), NOW + 1000 * MONTH, MONTH)) == 1
        assert list((open_folder / "store" / "objects").iterdir()) == []

    as_nobody(work)


def test_a_store_that_may_be_read_only(open_folder: Path) -> None:
    """Another user's: it serves, and says who may not write. What is damaged is damaged all the same."""
    if not ROOT:
        pytest.skip("needs two users")
    made = build(Artifacts(str(open_folder / "store"), open_folder / "mine"))
    spoilt = build(Artifacts(str(open_folder / "store"), open_folder / "mine"), "bad", {"model.onnx": b"abc"})
    spoil(Artifacts(str(open_folder / "store"), open_folder / "mine"), spoilt)

    def work() -> None:
        store = Artifacts(str(open_folder / "store"), open_folder / "scratch")
        assert store.find(made.key) == made
        assert store.fault(made) == ""
        assert (store.folder(made) / "config.json").read_bytes() == b"{}"
        with pytest.raises(StoreError, match="Check that this user may write"):
            build(store, "new")
        with pytest.raises(StoreError, match="Check that this user may write"):
            store.point("dev", "Model/a", {})
        with pytest.raises(Corrupt):
            store.folder(spoilt)

    as_nobody(work)


def test_what_may_not_be_read(open_folder: Path) -> None:
    """Unreadable is not absent."""
    if not ROOT:
        pytest.skip("needs two users")
    made = build(local(open_folder))
    (open_folder / "store" / "keys").chmod(0o700)

    def work() -> None:
        store = Artifacts(str(open_folder / "store"), open_folder / "other")
        for read in (lambda: store.find(made.key), store.all):
            with pytest.raises(StoreError, match=r"cannot be read: Permission denied.*Check that user"):
                read()

    as_nobody(work)
