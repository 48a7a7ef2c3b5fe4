"""A process is killed before each of its calls on the file system, one run a call: whatever is visible
afterwards is whole, and the next process goes on."""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gamma_orch.store.artifacts import Artifacts
from tests.store.artifacts import FILES, MONTH, NOW, build, fill, key, local, recipe, remote

ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")  # nothing is lost with a process that a disk would keep, and a sync costs nothing


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Path]:
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="gamma-store-") as folder:
        yield Path(folder)


def killed(mode: str, folder: Path, at_least: int, elsewhere: Path | None = None) -> list[Path]:
    """The folder of each run: one killed at each point, and the last, which came through."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.store.artifacts", mode, str(folder), str(elsewhere or folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    points, code = map(int, done.stdout.split())
    assert code == 0, done.stderr
    assert points >= at_least
    return [folder / str(number) for number in range(1, points + 2)]


def whole(store: Artifacts) -> None:
    """Everything that is visible can be read, and is visible in both ways."""
    for artifact in store.all():
        assert store.find(artifact.key) == artifact
        assert store.fault(artifact) == ""
        store.folder(artifact)


def goes_on(store: Artifacts) -> None:
    """What is there is there whole; what is not is built from what was left."""
    before = store.find(key("export"))
    if before is not None:
        whole(store)
    with store.building(key("export")) as building:
        assert building.found == before
        assert list(building.out.iterdir()) == []
        if building.found is None:
            assert (building.work / "checkpoint").read_text() == "step 7"
            fill(building.out)
            building.commit(recipe("export"), {}, "dev", 1.0, NOW)
    made = store.find(key("export"))
    assert made is not None
    folder = store.folder(made)
    assert {p: (folder / p).read_bytes() for p in FILES} == FILES
    whole(store)


@pytest.mark.parametrize("mode", ["commit", "again", "over"])
def test_commit(mode: str, ground: Path) -> None:
    seen = set()
    for folder in killed(mode, ground, 20):
        store = local(folder)
        seen.add(store.find(key("export")) is not None)
        goes_on(store)
        assert not any((folder / "scratch" / "work").iterdir())
        assert not any((folder / "scratch" / "out").iterdir())
        left = [p.name for p in (folder / "store" / "incoming").iterdir()]
        assert not any(name.startswith(key("export")) for name in left)
        store.collect({key("export")}, NOW + 1000 * MONTH, MONTH)
        assert not any((folder / "store" / "incoming").iterdir())
    assert seen == {True, False}


def test_commit_across_disks(ground: Path, tmp_path: Path) -> None:
    if ground.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs two disks")
    for folder in killed("copy", ground, 20, tmp_path):
        goes_on(Artifacts(str(folder / "store"), tmp_path / folder.name))


def test_commit_to_a_remote_store(ground: Path) -> None:
    seen = set()
    for folder in killed("upload", ground, 20):
        store = remote(folder)
        seen.add(store.find(key("export")) is not None)
        goes_on(store)
    assert seen == {True, False}


def test_taking_a_damaged_one_out_of_use(ground: Path) -> None:
    """It is damaged or gone, and never whole."""
    for folder in killed("read", ground, 8):
        store = local(folder)
        made = store.find(key("fuse"))
        if made is not None:
            assert store.find(key("export")) is None or "other content" in store.fault(made)
        else:
            build(store, "fuse")
            whole(store)


def test_collecting(ground: Path) -> None:
    for folder in killed("collect", ground, 20):
        store = local(folder)
        whole(store)
        store.collect({key("twin")}, NOW + 1000 * MONTH, MONTH)
        assert [artifact.key for artifact in store.all()] == [key("twin")]
        whole(store)
        assert len(list((folder / "store" / "objects").iterdir())) == 1
        assert not any((folder / "store" / "incoming").iterdir())


def test_pointing(ground: Path) -> None:
    seen = set()
    for folder in killed("point", ground, 5):
        body = local(folder).pointer("dev", "Model/a")
        assert body in ({"key": "old" * 1000}, {"key": "new" * 1000})
        seen.add(body["key"][:3])
    assert seen == {"old", "new"}


_LARGE = """
import sys
from pathlib import Path
from tests.store.artifacts import NOW, key, local, recipe, remote
with local(Path(sys.argv[1])).building(key("export")) as building:
    (building.work / "checkpoint").write_text("step 7")
    (building.out / "big").write_bytes(b"0123456789abcdef" * 500_000)
    print("armed", flush=True)
    building.commit(recipe("export"), {}, "dev", 1.0, NOW)
print("done", flush=True)
"""


def test_at_any_time(ground: Path) -> None:
    """Between the calls too: inside a write, a hash, a sync."""
    for number in range(8):
        folder = ground / str(number)
        child = subprocess.Popen(
            [sys.executable, "-c", _LARGE, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "armed\n"
        time.sleep(number * 0.004)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        goes_on_large(local(folder))


def goes_on_large(store: Artifacts) -> None:
    whole(store)
    with store.building(key("export")) as building:
        assert building.found is not None or (building.work / "checkpoint").read_text() == "step 7"
