"""Who may append to an environment's log: a lease with a fencing token.

Every acquisition raises the token, and every append is conditional on it, in one statement. So a
process that was paused, and wakes after another took over, can record nothing more (law 3).
Time-outs only decide how long a dead holder is waited for; no safety rests on a clock. A holder of
this very machine whose process is gone is not waited for at all.
"""

import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gamma_orch.store.database import Database, Writing
from gamma_orch.store.errors import LeaseHeld, LeaseLost

# Long enough for a renewal to fail twice, short enough that nobody reaches for surgery.
SECONDS = 30

_MAKE = """INSERT INTO environments (environment, seq, state, token, holder, expires)
VALUES (:environment, 0, 0, 0, '', '') ON CONFLICT (environment) DO NOTHING"""
_LOOK = "SELECT seq, token, holder, expires FROM environments WHERE environment = :environment"
_TAKE = """UPDATE environments SET token = token + 1, holder = :holder, expires = :expires
WHERE environment = :environment AND token = :token"""
_RENEW = "UPDATE environments SET expires = :expires WHERE environment = :environment AND token = :token"
_FREE = """UPDATE environments SET holder = '', expires = ''
WHERE environment = :environment AND token = :token"""


@dataclass(frozen=True, slots=True)
class Sharing:
    """The processes of one run hold the lease together: whoever names the run joins."""

    run: str
    process: int | None = None  # of this machine, alive as long as the run; None where there is none


@dataclass(frozen=True, slots=True)
class Lease:
    environment: str
    token: int
    seq: int  # where the log stood when it was taken
    run: str = ""  # shared by the processes of this run
    joined: bool = False  # another process of the run took it


def rfc3339(moment: datetime) -> str:
    """UTC with milliseconds; these texts order as the moments do."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def utc_now() -> datetime:
    return datetime.now(UTC)


def acquire(
    database: Database,
    environment: str,
    purpose: str,
    now: Callable[[], datetime] = utc_now,
    seconds: int = SECONDS,
    sharing: Sharing | None = None,
) -> Lease:
    """Take the lease, or join the run that has it.

    Raises LeaseHeld, naming who has it and until when, if it is not free.
    """
    run = sharing.run if sharing else ""
    with database.transaction() as writing:
        writing.change(_MAKE, environment=environment)
        seq, token, text, expires = writing.rows(_LOOK, environment=environment)[0]
        moment = now()
        until = rfc3339(moment + timedelta(seconds=seconds))
        holder = json.loads(text) if text else {}
        if run and holder.get("run") == run:
            writing.change(_RENEW, environment=environment, token=token, expires=until)
            return Lease(environment, token, seq, run, joined=True)
        if holder and expires > rfc3339(moment) and not _dead(holder):
            _refuse(environment, holder, expires)
        taken = writing.change(
            _TAKE,
            environment=environment,
            token=token,
            holder=json.dumps(_me(purpose, rfc3339(moment), sharing)),
            expires=until,
        )
        if not taken:
            raise LeaseHeld(
                f"Another process took the lease on {environment} at this very moment. Run it again."
            )
        return Lease(environment, token + 1, seq, run)


def renew(
    database: Database, lease: Lease, now: Callable[[], datetime] = utc_now, seconds: int = SECONDS
) -> None:
    """Put the expiry off. Raises LeaseLost if somebody else took the lease meanwhile."""
    expires = rfc3339(now() + timedelta(seconds=seconds))
    with database.transaction() as writing:
        if not writing.change(_RENEW, environment=lease.environment, token=lease.token, expires=expires):
            raise lost(writing, lease)


def release(database: Database, lease: Lease) -> None:
    """Give it back, for all processes of the run; nothing happens if it is somebody else's by now."""
    with database.transaction() as writing:
        writing.change(_FREE, environment=lease.environment, token=lease.token)


def lost(writing: Writing, lease: Lease) -> LeaseLost:
    rows = writing.rows(_LOOK, environment=lease.environment)
    holder = json.loads(rows[0][2]) if rows and rows[0][2] else {}
    who = f"{holder.get('user')} on {holder.get('host')}" if holder else "another process"
    return LeaseLost(
        f"The lease on {lease.environment} went to {who} while this process was away; "
        "nothing more is recorded. Steps that were running are settled by the next apply."
    )


def user() -> str:
    """Who runs this process; a number where the machine has no name for it, as in many containers."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _me(purpose: str, since: str, sharing: Sharing | None) -> dict[str, object]:
    pid = sharing.process if sharing else os.getpid()
    return {
        "host": socket.gethostname(),
        "boot": _boot(),
        "pid": pid,
        "started": _started(pid) if pid else None,
        "user": user(),
        "purpose": purpose,
        "since": since,
        "run": sharing.run if sharing else "",
    }


def _dead(holder: dict[str, object]) -> bool:
    """Whether the holder ran on this machine, in this boot, and its process is gone."""
    if (
        holder.get("pid") is None
        or holder.get("host") != socket.gethostname()
        or holder.get("boot") != _boot()
    ):
        return False
    return _started(int(str(holder["pid"]))) != holder.get("started")


def _boot() -> str:
    """Tells two boots, and two containers, of one host name apart."""
    import psutil

    return str(int(psutil.boot_time()))


def _started(pid: int) -> str | None:
    import psutil

    try:
        return str(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _refuse(environment: str, holder: dict[str, object], expires: str) -> None:
    raise LeaseHeld(
        f"{holder['user']} on {holder['host']} ({_what(holder)}) is at work on {environment} since "
        f"{holder['since']}: {holder['purpose']}. Wait for it; if it is dead, the lease ends at {expires}."
    )


def _what(holder: dict[str, object]) -> str:
    return f"process {holder['pid']}" if holder["pid"] else f"run {holder['run']}"
