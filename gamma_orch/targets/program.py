"""A program with several workers on one listening socket, and the files by which supervisord runs it.

Written by `supervised`; read by supervisord, by /bin/sh, and by `supervised` again. Pure.

What always holds: the part that supervisord reads names the address, the limit of slots and the time to
stop, and nothing else. Command, environment and folder stand in the script that each slot runs, and how
many workers there are only in which slots were started. So a change of them closes no socket, and workers
take it over as each is restarted. Slot 0 runs no worker. It only holds the socket open, because
supervisord closes it when the last process of a program ends, also for the moment in which it starts it
again.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Self

from gamma_orch.core.provider import Permanent

HOLDER = 0  # the slot without a worker; those of workers are 1, 2, ...
SLOTS = 64  # more of them are made only where a program has more workers
# Connections that may wait. The kernel takes net.core.somaxconn at most; a worker that calls listen() on
# its socket again sets another one for all, so it must say the same.
BACKLOG = 4096

SECTION = """\
[fcgi-program:{name}]
{socket}
socket_backlog={backlog}
process_name=%(process_num)d
numprocs={processes}
command=/bin/sh programs/{name}.sh
environment=GAMMA_SLOT=%(process_num)d
autostart=false
autorestart=true
startsecs=1
startretries=3
stopsignal=TERM
stopwaitsecs={stop_seconds}
killasgroup=true
redirect_stderr=true
stdout_logfile=logs/{name}-%(process_num)d.log
stdout_logfile_maxbytes=5MB
stdout_logfile_backups=2
"""

# What has a port stops before what has none (999 is the default), so that no one passes on to nobody.
BEHIND = """\
socket=unix://{unix}
socket_mode=0600
priority=500"""

# Signs that would mean something to supervisord in the path of a socket.
UNWRITABLE = set("%;#*?[]")

# By GAMMA_WORKER a worker is told from its own children, who inherit the rest.
SCRIPT = """\
# Made by Gamma. supervisord runs this for each slot, with the listening socket as descriptor 0.
if [ "$GAMMA_SLOT" = {holder} ]; then exec sleep 2147483647; fi
cd -- {directory} || exit 127
export GAMMA_SLOT="$(({first} + SUPERVISOR_PROCESS_NAME))" GAMMA_WORKER="$$" GAMMA_PROGRAM={digest}
{environment}exec {command}
"""


@dataclass(frozen=True, slots=True)
class Program:
    """`environment` may hold secrets: it is in no representation, and in files of mode 0600 only."""

    name: str
    command: tuple[str, ...]
    workers: int
    host: str = ""
    port: int = 0
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    directory: str = "/"
    stop_seconds: int = 10
    unix: str = ""  # the path of the socket, in the place of host and port
    first: int = 0  # what a worker is told as its number is this and its slot's

    def __post_init__(self) -> None:
        words = (*self.command, self.directory, *self.environment.values())
        faults = {
            "its name is not made of small letters, digits, dots and dashes": not re.fullmatch(
                r"[a-z0-9]([a-z0-9.-]{0,126}[a-z0-9])?", self.name
            ),
            "its command is empty": not self.command,
            "it has less than one worker": self.workers < 1,
            "its host is neither a name nor an IPv4 address": not self.unix
            and not re.fullmatch(r"[A-Za-z0-9.-]+", self.host),
            "its port is not between 1 and 65535": not self.unix and not 1 <= self.port <= 65_535,
            "the path of its socket is not absolute": bool(self.unix) and not self.unix.startswith("/"),
            f"the path of its socket has one of {' '.join(sorted(UNWRITABLE))} or the end of a line in it": (
                bool(set(self.unix) & (UNWRITABLE | set("\0\n\r")))
            ),
            "a variable of its environment has a name that a shell does not take": not all(
                re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key) for key in self.environment
            ),
            "its command, folder or environment has a NUL or the end of a line in it": any(
                set(word) & set("\0\n\r") for word in words
            ),
            "its time to stop is negative": self.stop_seconds < 0,
        }
        if found := [fault for fault, is_there in faults.items() if is_there]:
            raise Permanent(f"The program {self.name!r} cannot be run: {'; '.join(found)}.")

    @property
    def place(self) -> str:
        """Where it listens. What says another place is another socket."""
        return self.unix or f"{self.host}:{self.port}"

    @property
    def slots(self) -> int:
        """How many workers it may have without being made anew."""
        return max(SLOTS, 1 << (self.workers - 1).bit_length())

    @property
    def digest(self) -> str:
        """Of what a worker was started with: a worker with another one is out of date."""
        told = [self.command, sorted(self.environment.items()), self.directory]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

    def section(self) -> str:
        return SECTION.format(
            name=self.name,
            socket=BEHIND.format(unix=self.unix) if self.unix else f"socket=tcp://{self.place}",
            backlog=BACKLOG,
            processes=self.slots + 1,
            stop_seconds=self.stop_seconds,
        )

    def script(self) -> str:
        return SCRIPT.format(
            holder=HOLDER,
            first=self.first,
            directory=shlex.quote(self.directory),
            digest=self.digest,
            environment="".join(
                f"export {key}={shlex.quote(value)}\n" for key, value in self.environment.items()
            ),
            command=shlex.join(self.command),
        )

    def encoded(self) -> str:
        body = {each.name: getattr(self, each.name) for each in fields(self)}
        return json.dumps({**body, "environment": dict(self.environment)}, sort_keys=True)

    @classmethod
    def decoded(cls, text: str) -> Self:
        """Raises ValueError or TypeError where the text is not one."""
        body = json.loads(text)
        return cls(**{**body, "command": tuple(body["command"])})
