"""The process that passes run in: `python -m gamma_orch.kinds.models.worker`. Started by `workers`.

Jobs come as JSON lines on standard input, answers go as JSON lines to the descriptor that was standard
output; what libraries print goes to standard error. One process carries out the passes of one build, one
after another, so that torch is imported once. It ends when its input ends, and at once: whoever started it is
gone, and what it was doing is taken up by the next build from the checkpoints in the job's work folder.
"""

import ctypes
import importlib
import json
import os
import queue
import signal
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import IO, Any

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import Permanent, Temporary
from gamma_orch.kinds.models.job import Job

PR_SET_PDEATHSIG = 1
NO_SPACE = (28, 122)  # ENOSPC, EDQUOT


def main() -> None:
    _die_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    jobs: queue.Queue[Json] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    while True:
        _say(answers, _answer(jobs.get(), answers))


def _die_with_parent() -> None:
    """On Linux the kernel ends this process with its parent, even if that was killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:
            os._exit(1)


def _listen(jobs: "queue.Queue[Json]") -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    os._exit(0)


def _say(answers: IO[str], message: Json) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _answer(order: Json, answers: IO[str]) -> Json:
    def tell(text: str, fraction: float | None) -> None:
        _say(answers, {"say": text, "fraction": fraction})

    job = Job(
        params=order["params"],
        inputs={name: Path(path) for name, path in order["inputs"].items()},
        out=Path(order["out"]),
        work=Path(order["work"]),
        threads=order["threads"],
        tell=tell,
    )
    try:
        facts = _carried_out(order["op"], job)
    except Temporary as error:
        return {"temporary": str(error)}
    except Permanent as error:
        return {"permanent": str(error)}
    except MemoryError:
        return {"permanent": "There is not enough memory for this. Use a smaller batch or model."}
    except OSError as error:
        if error.errno in NO_SPACE:
            return {"temporary": f"The disk is full ({error.filename or order['out']}). Make room there."}
        return {"defect": _last(error), "trace": traceback.format_exc()}
    except Exception as error:  # noqa: BLE001 - a defect of one pass; the build says which, and goes on
        return {"defect": _last(error), "trace": traceback.format_exc()}
    return {"facts": facts}


def _carried_out(op: str, job: Job) -> Any:
    module = importlib.import_module(f"gamma_orch.kinds.models.passes.{op}")
    return module.run(job) or {}


def _last(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"[:500]


if __name__ == "__main__":
    main()
