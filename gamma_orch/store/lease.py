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
class Lease:
    environment: str
    token: int
    seq: int  # where the log stood when it was taken


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
) -> Lease:
    """Take the lease. Raises LeaseHeld, naming who has it and until when, if it is not free."""
    with database.transaction() as writing:
        writing.change(_MAKE, environment=environment)
        seq, token, holder, expires = writing.rows(_LOOK, environment=environment)[0]
        moment = now()
        if holder and expires > rfc3339(moment) and not _dead(json.loads(holder)):
            _refuse(environment, json.loads(holder), expires)
        taken = writing.change(
            _TAKE,
            environment=environment,
            token=token,
            holder=json.dumps(_me(purpose, rfc3339(moment))),
            expires=rfc3339(moment + timedelta(seconds=seconds)),
        )
        if not taken:
            raise LeaseHeld(
                f"Another process took the lease on {environment} at this very moment. Run it again."
            )
        return Lease(environment, token + 1, seq)


def renew(
    database: Database, lease: Lease, now: Callable[[], datetime] = utc_now, seconds: int = SECONDS
) -> None:
    """Put the expiry off. Raises LeaseLost if somebody else took the lease meanwhile."""
    expires = rfc3339(now() + timedelta(seconds=seconds))
    with database.transaction() as writing:
        if not writing.change(_RENEW, environment=lease.environment, token=lease.token, expires=expires):
            raise lost(writing, lease)


def release(database: Database, lease: Lease) -> None:
    """Give it back; nothing happens if it is somebody else's by now."""
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


def _me(purpose: str, since: str) -> dict[str, object]:
    return {
        "host": socket.gethostname(),
        "boot": _boot(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "user": user(),
        "purpose": purpose,
        "since": since,
    }


def _dead(holder: dict[str, object]) -> bool:
    """Whether the holder ran on this machine, in this boot, and its process is gone."""
    if holder.get("host") != socket.gethostname() or holder.get("boot") != _boot():
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
        f"{holder['user']} on {holder['host']} (process {holder['pid']}) is at work on {environment} since "
        f"{holder['since']}: {holder['purpose']}. Wait for it; if it is dead, the lease ends at {expires}."
    )
