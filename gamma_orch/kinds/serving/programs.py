"""Which programs a service is made of, by its fields. Pure.

On Ray Serve none (`cluster`). Without a proxy one: its workers, on the service's port. With one each replica
is a program of workers on a socket of its own, and the program on the port is nginx. It keeps its name, so
that supervisord keeps the port open while the one takes the other's place.
"""

import re
import sys
from pathlib import Path

from gamma_orch.core.kind import Fields
from gamma_orch.targets.program import Program

# Seconds after which supervisord kills a worker that it stops. A worker ends its drain by itself; another
# number here would make supervisord close the listening socket, so it is the same for all.
STOP = 330
# Between the numbers of the first workers of two replicas: worker 203 is the third of the second replica.
# Without a proxy they begin at 1. By its number a worker has its control socket and its counters, and while
# the one takes the other's place both are there.
STRIDE = 100


def door(name: str) -> str:
    """The program that has the service's port."""
    return f"service-{name}"


def replica(name: str, number: int) -> str:
    return f"replica-{number}-{name}"


def is_of(name: str, program: str) -> bool:
    return program == door(name) or bool(re.fullmatch(rf"replica-[0-9]+-{re.escape(name)}", program))


def is_on_ray(fields: Fields) -> bool:
    """Whether Ray Serve runs the workers, so that none of the programs here does."""
    return fields.get("engine") == "ray"


def url(fields: Fields) -> str:
    """Where the service answers."""
    listen, prefix = fields["listen"], fields["ray"]["route"].rstrip("/") if is_on_ray(fields) else ""
    return f"http://{listen['host']}:{listen['port']}{prefix}"


def replicas(fields: Fields) -> int:
    """0 without a proxy."""
    return int(fields.get("replicas", 1)) if fields.get("proxy") else 0


def sockets(fields: Fields, home: Path) -> tuple[str, ...]:
    """Of the replicas."""
    return tuple(str(home / "replicas" / f"{n}.sock") for n in range(1, replicas(fields) + 1))


def numbers(fields: Fields) -> list[int]:
    """Of all workers, as they are asked by (`app.control`)."""
    each = range(1, int(fields["workers"]) + 1)
    return [STRIDE * n + worker for n in range(1, replicas(fields) + 1) for worker in each] or list(each)


def workers(name: str, fields: Fields, home: Path, code: str) -> tuple[Program, ...]:
    """Raises Permanent for what supervisord cannot run."""
    if is_on_ray(fields):
        return ()
    command = (sys.executable, "-P", "-m", "gamma_orch.app.worker", str(home))
    count, environment, listen = fields["workers"], {"GAMMA_CODE": code}, fields["listen"]
    if not replicas(fields):
        return (
            Program(
                name=door(name),
                command=command,
                workers=count,
                host=listen["host"],
                port=listen["port"],
                environment=environment,
                stop_seconds=STOP,
            ),
        )
    return tuple(
        Program(
            name=replica(name, n),
            command=command,
            workers=count,
            environment=environment,
            stop_seconds=STOP,
            unix=place,
            first=STRIDE * n,
        )
        for n, place in enumerate(sockets(fields, home), 1)
    )


def proxy(name: str, fields: Fields, command: tuple[str, ...], form: str) -> Program:
    """The program of nginx. Another `form` is another process."""
    listen = fields["listen"]
    return Program(
        name=door(name),
        command=command,
        workers=1,
        host=listen["host"],
        port=listen["port"],
        environment={"GAMMA_PROXY": form},
        stop_seconds=STOP,
    )


def is_proxy(program: Program) -> bool:
    return "GAMMA_PROXY" in program.environment
