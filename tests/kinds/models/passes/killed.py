"""A pass in a process of its own, which dies at a moment told beforehand: for the tests of going on after it.

A moment is (what, count): the process kills itself at the count-th telling, before the count-th rename of a
checkpoint, or when half of the count-th checkpoint is written.
"""

import hashlib
import importlib
import multiprocessing
import os
import signal
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from gamma_orch.kinds.models.job import Job

PASSES = "gamma_orch.kinds.models.passes"
Moment = tuple[str, int]
_HASH_SEED = "12345"  # so that nothing may hang on the order of a set
_forked = multiprocessing.get_context("forkserver")
_forked.set_forkserver_preload([f"{PASSES}.finetune", f"{PASSES}.distil", "sklearn.metrics"])


def attempt(op: str, params: Any, inputs: dict[str, Path], folder: Path, moment: Moment | None) -> int:
    """Run the pass in `folder`, and answer how its process ended: 0, or minus the signal."""
    _start()
    process = _forked.Process(target=_child, args=(op, params, inputs, folder, moment))
    process.start()
    process.join(100)
    code = process.exitcode
    assert code is not None, "the pass hangs"
    process.close()
    return code


def _start() -> None:
    """The process that the others are forked from: it has imported all that takes long."""
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = _HASH_SEED
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONHASHSEED")
        if before is not None:
            os.environ["PYTHONHASHSEED"] = before


def digest(folder: Path) -> str:
    """Of the names and the bytes of all files."""
    made = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            made.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return made.hexdigest()


def _child(op: str, params: Any, inputs: dict[str, Path], folder: Path, moment: Moment | None) -> None:
    import shutil

    from gamma_orch.kinds.models.passes import checkpoints, training

    training.CHECKPOINT_SECONDS = 0
    training._TELL_SECONDS = 0
    counts = {"tell": 0, "half": 0, "rename": 0}

    def reach(what: str) -> bool:
        counts[what] += 1
        return moment == (what, counts[what])

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def tell(text: str, fraction: float | None) -> None:
        if reach("tell"):
            die()

    save = checkpoints.save_file  # type: ignore[attr-defined]

    def saved(tensors: Any, path: Path, metadata: Any) -> None:
        save(tensors, path, metadata)
        if reach("half"):
            os.truncate(path, path.stat().st_size // 2)
            die()
        if reach("rename"):
            die()

    checkpoints.save_file = saved  # type: ignore[attr-defined]
    out, work = folder / "out", folder / "work"
    shutil.rmtree(out, ignore_errors=True)  # as the builder does
    out.mkdir(parents=True)
    work.mkdir(exist_ok=True)
    importlib.import_module(f"{PASSES}.{op}").run(Job(params, inputs, out, work, 1, tell))
