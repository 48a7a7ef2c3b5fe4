"""Small artifacts for the tests of their store, and a program that is killed while it works on one.

    python -m tests.store.artifacts MODE FOLDER ELSEWHERE

runs MODE in FOLDER/1, FOLDER/2, ... each time in a process of its own, killed by SIGKILL right before its
first, second, ... call on the file system, until one comes through; then it prints how many there were.
Scratch folders are in ELSEWHERE where MODE is `copy`.
"""

import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gamma_orch.core.canonical import Json, digest
from gamma_orch.store.artifacts import Artifact, Artifacts, Corrupt

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MONTH = timedelta(days=30)
FILES = {"model.onnx": b"weights" * 1000, "tokenizer/vocab.txt": b"a\nb\n", "config.json": b"{}"}


def recipe(op: str, **inputs: str) -> Json:
    return {"op": op, "params": {}, "inputs": inputs, "tools": {}}


def key(op: str, **inputs: str) -> str:
    return digest(recipe(op, **inputs))


def build(
    store: Artifacts,
    op: str = "export",
    files: Mapping[str, bytes] = FILES,
    now: datetime = NOW,
    **inputs: str,
) -> Artifact:
    with store.building(key(op, **inputs)) as building:
        assert building.found is None
        fill(building.out, files)
        return building.commit(recipe(op, **inputs), {"rows": 3}, "dev", 1.5, now)


def fill(out: Path, files: Mapping[str, bytes] = FILES) -> None:
    for path, data in files.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(data)


def local(folder: Path) -> Artifacts:
    return Artifacts(str(folder / "store"), folder / "scratch")


def remote(folder: Path) -> Artifacts:
    """One that fsspec reaches and whose files outlive the process."""
    return Artifacts(f"dir::file://{folder}/store", folder / "scratch")


def spoil(store: Artifacts, artifact: Artifact, path: str = "model.onnx") -> Path:
    """Flip a bit of a file, and leave its size and times as they were."""
    place = Path(store.url) / "objects" / artifact.digest / path
    before = place.stat()
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    place.chmod(0o644)
    place.write_bytes(data)
    place.chmod(0o444)
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    return place


# --- the program that is killed ----------------------------------------------------------------------


def _commit(folder: Path, arm: Callable[[], None], store: Artifacts | None = None) -> None:
    store = store or local(folder)
    with store.building(key("export")) as building:
        fill(building.out)
        (building.work / "checkpoint").write_text("step 7")
        arm()
        building.commit(recipe("export"), {}, "dev", 1.0, NOW)


def _again(folder: Path, arm: Callable[[], None]) -> None:
    """The content is there already, by another key."""
    build(local(folder), "fuse")
    _commit(folder, arm)


def _over(folder: Path, arm: Callable[[], None]) -> None:
    """The content is there by another key, and damaged."""
    spoil(local(folder), build(local(folder), "fuse"))
    _commit(folder, arm)


def _copy(folder: Path, arm: Callable[[], None]) -> None:
    """What is built lies on another disk."""
    _commit(folder, arm, Artifacts(str(folder / "store"), Path(sys.argv[3]) / folder.name))


def _upload(folder: Path, arm: Callable[[], None]) -> None:
    _commit(folder, arm, remote(folder))


def _read(folder: Path, arm: Callable[[], None]) -> None:
    store = local(folder)
    damaged = build(store, "fuse")
    build(store, "export")
    spoil(store, damaged)
    arm()
    try:
        store.folder(damaged)
    except Corrupt:
        return
    raise AssertionError("not noticed")


def _collect(folder: Path, arm: Callable[[], None]) -> None:
    store = local(folder)
    for number in range(2):
        build(store, f"old{number}", {"data": str(number).encode()})
    build(store, "twin", {"data": b"1"})
    arm()
    assert len(store.collect({key("twin")}, NOW + 2 * MONTH, MONTH)) == 2


def _point(folder: Path, arm: Callable[[], None]) -> None:
    store = local(folder)
    store.point("dev", "Model/a", {"key": "old" * 1000})
    arm()
    store.point("dev", "Model/a", {"key": "new" * 1000})


MODES = {
    "commit": _commit,
    "again": _again,
    "over": _over,
    "copy": _copy,
    "upload": _upload,
    "read": _read,
    "collect": _collect,
    "point": _point,
}


def _killed_at(number: int) -> Callable[[], None]:
    count = 0
    armed = False

    def heard(event: str, _arguments: object) -> None:
        nonlocal count
        if armed and (event == "open" or event.startswith(("os.", "shutil."))):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    def arm() -> None:
        nonlocal armed
        armed = True

    sys.addaudithook(heard)
    return arm


def main(mode: str, folder: Path) -> None:
    for module in ("filelock", "fsspec.implementations.dirfs"):  # once, not in each process
        importlib.import_module(module)
    number = 0
    while True:
        number += 1
        own = folder / str(number)
        own.mkdir()
        child = os.fork()
        if child == 0:
            MODES[mode](own, _killed_at(number))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            break
    sys.stdout.write(f"{number - 1} {os.waitstatus_to_exitcode(status)}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
