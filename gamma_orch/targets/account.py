"""Under which account of the operating system a server of Gamma's own runs, and what it can reach.

PostgreSQL refuses to run as root, on purpose. Where Gamma itself is root (a container, a CI job) the
server gets an account without rights; everywhere else it simply runs as whoever runs Gamma.
Called by the embedded servers only.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gamma_orch.core.provider import Permanent

# Tried in this order; the first is what distributions make for the server they package.
CANDIDATES = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """`uid` is None where no change of account is needed."""

    uid: int | None = None
    gid: int | None = None

    def run(
        self, command: Sequence[str | Path], cwd: Path, env: Mapping[str, str], timeout: float
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program to its end and give its output, both streams in `stdout`.

        In a session of its own, so that Ctrl-C on the terminal reaches neither it nor the server that
        it may leave behind. Raises OSError where the account may not execute it, and
        subprocess.TimeoutExpired after `timeout` seconds.
        """
        changed: dict[str, Any] = (
            {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}
        )
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=dict(env),
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            check=False,
            **changed,
        )
        return done

    def reaches(self, folder: Path) -> bool:
        """Whether the account can enter a folder, asked by entering it: modes do not tell all."""
        if self.uid is None:
            return os.access(folder, os.X_OK)
        try:
            return self.run(["ls", "-d", f"{folder}/."], Path("/"), dict(os.environ), 10).returncode == 0
        except OSError:
            return False

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def account() -> Account:
    """The account for a server that must not run as root. Raises Permanent where there is none."""
    if os.name != "posix" or os.geteuid() != 0:
        return Account()
    import pwd

    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise Permanent(
        "PostgreSQL cannot run as root, and this machine has none of the accounts "
        f"{' and '.join(CANDIDATES)}. "
        "Run Gamma as an ordinary user, or create one of them."
    )


def copy_once(sources: Sequence[Path], destination: Path, ignore: Sequence[str] = ()) -> None:
    """Copy folders, under their own names, into one that every account can read.

    It appears under its name only when it is whole; an existing one is left as it is.
    """
    if destination.exists():
        return
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f"{destination.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    for source in sources:
        shutil.copytree(source, partial / source.name, symlinks=True, ignore=shutil.ignore_patterns(*ignore))
        (partial / source.name).chmod(0o755)
    for folder in (destination.parent, partial):
        folder.chmod(0o755)
    try:
        partial.rename(destination)
    except OSError:  # another process was first
        shutil.rmtree(partial, ignore_errors=True)
