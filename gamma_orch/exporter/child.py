"""The process in which a function runs: `python -m gamma_orch.exporter.child PARENT`, a socket as descriptor
0. Started and asked by `python`.

Each line on the socket is a question, `{"function", "arguments", "path"}`, and has one line as its answer:
`{"families"}`, or `{"error"}` with the type and place of an exception, and never its words, which may hold
what the function was given. Standard output is the function's. It ends with its parent, even if that was
killed.
"""

import ctypes
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

Json = Any
SERIES = 10_000  # of one answer, at most
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class Unfit(Exception):
    """What the function gives is no metric. In words of our own."""


def main(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)
    line = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(nothing.fileno(), 0)
    for question in line.makefile("rb"):
        line.sendall(json.dumps(answer(json.loads(question))).encode() + b"\n")


def answer(asked: Json) -> Json:
    module, _, name = asked["function"].partition(":")
    try:
        return {"families": families(found(module, name, asked["path"])(**asked["arguments"]))}
    except Unfit as error:
        return {"error": str(error)}
    except Exception as error:  # noqa: BLE001 - it is somebody else's
        return {"error": said(error, module)}


def found(module: str, name: str, path: list[str]) -> Callable[..., Iterable[Json]]:
    sys.path[:0] = [folder for folder in path if folder not in sys.path]
    try:
        function: Callable[..., Iterable[Json]] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise Unfit(f"there is no module {error.name}") from None
    except AttributeError as error:
        if error.name != name:
            raise
        raise Unfit(f"the module {module} has no {name}") from None
    return function


def families(given: Iterable[Json]) -> list[Json]:
    shown: dict[tuple[str, str], Json] = {}
    left = SERIES
    for one in given:
        if isinstance(one, tuple) and len(one) in (2, 3):
            name, kind, says = one[0], "gauge", ""
            samples = [(name, one[2] if len(one) == 3 else {}, one[1])]
        elif hasattr(one, "samples"):
            name, kind, says = one.name, one.type, one.documentation
            samples = [tuple(sample)[:3] for sample in one.samples]
        else:
            raise Unfit(
                f"a {type(one).__name__} is neither a family nor (name, value) nor (name, value, labels)"
            )
        left -= len(samples)
        if left < 0:
            raise Unfit(f"it gives more than {SERIES:,} series")
        family = shown.setdefault((name, kind), {"name": name, "type": kind, "help": says, "samples": []})
        family["samples"] += [(label, labels, number(name, value)) for label, labels, value in samples]
    return list(shown.values())


def number(name: str, value: Json) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise Unfit(f"the value of {name} is no number, but a {type(value).__name__}") from None


def said(error: Exception, module: str) -> str:
    """Its type, and where in the module it was, or where else it was."""
    frames = [
        (str(frame.f_globals.get("__name__")), line) for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    own = [place for place in frames if place[0] == module] or frames
    return f"{type(error).__name__} at {own[-1][0]}:{own[-1][1]}"


if __name__ == "__main__":
    main(int(sys.argv[1]))
