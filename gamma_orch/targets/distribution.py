"""Programs of other projects that Gamma runs: those on this machine, or Debian's, unpacked by the project.

Whoever needs one asks `find`; `gamma up` may `bring` it. What is brought needs no root, runs nothing of the
package (no script of its maintainer), and lies in a folder of its own:

    FOLDER/<package>/usr/bin/<program>

A program may have the place of its own files built in. The copy that is unpacked here is told another one of
the same length, relative to the folder that it runs in, where `link` puts it.

What always holds: the package is Debian's or Ubuntu's own, as apt-get verifies it by the distribution's
signature; a folder is there whole or not at all; two processes that bring one package bring it once.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gamma_orch.core.provider import Permanent, Temporary
from gamma_orch.targets.home import tail

PATIENCE = 300.0  # seconds for a download


class Missing(Permanent):
    """A program is not on this machine."""


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    package: str  # of Debian
    share: str = ""  # a folder of the package that is built into the program


@dataclass(frozen=True, slots=True)
class Distribution:
    folder: Path

    def find(self, program: Program) -> Path | None:
        """On PATH, or where it was brought."""
        there = shutil.which(program.name)
        if there is not None:
            return Path(there)
        brought = self.folder / program.package / "usr" / "bin" / program.name
        return brought if os.access(brought, os.X_OK) else None

    def need(self, program: Program) -> Path:
        """Raises Missing, with the command that installs it."""
        found = self.find(program)
        if found is None:
            raise Missing(
                f"{program.name} is not on this machine. `gamma up` brings it on Debian and Ubuntu. To "
                f"install it: apt-get install --no-install-recommends {program.package}"
            )
        return found

    def bring(self, program: Program, tell: Callable[[str], object] = lambda text: None) -> Path:
        """Find it, or unpack its package. Raises Missing where this machine has no such packages, and
        Temporary where it cannot be downloaded."""
        from filelock import FileLock

        if (found := self.find(program)) is not None:
            return found
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise Missing(
                f"{program.name} is not on this machine, which is neither Debian nor Ubuntu. Install it, so "
                f"that it is on PATH: https://prometheus.io/download has it for each system."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f"{program.package}.lock"):
            if (found := self.find(program)) is None:
                tell(f"downloading {program.package}")
                self._unpack(program)
        return self.need(program)

    def link(self, program: Program, home: Path) -> None:
        """Have what the program looks for in the folder that it will run in."""
        there = self.folder / program.package / program.share.lstrip("/")
        link = home / Path(program.share).name
        if program.share and there.is_dir() and not link.is_symlink():
            link.symlink_to(there.resolve())

    def _unpack(self, program: Program) -> None:
        package = program.package
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=f".{package}-") as name:
            work = Path(name)
            self._run(["apt-get", "download", "-q", package], work, package)
            [archive] = work.glob("*.deb")
            self._run(["dpkg-deb", "--extract", str(archive), "whole"], work, package)
            if program.share:
                file = work / "whole" / "usr" / "bin" / program.name
                here = _relative(program.share).encode()
                file.write_bytes(file.read_bytes().replace(program.share.encode(), here))
            target = self.folder / package
            if target.exists():  # without the program that was looked for: a release of another time
                shutil.rmtree(target)
            (work / "whole").rename(target)

    def _run(self, command: list[str], work: Path, package: str) -> None:
        try:
            done = subprocess.run(
                command,
                cwd=work,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Temporary(f"{command[0]} did not end within {PATIENCE:.0f} s. Try again.") from None
        if done.returncode:
            raise Temporary(
                f"The package {package} cannot be brought. {command[0]} says:\n{tail(done.stdout, 5)}\n"
                f"`apt-get update` (as root) may help; or install it: apt-get install {package}"
            )


def _relative(share: str) -> str:
    """The last part of a path, with as much before it that says nothing as makes it as long."""
    name = Path(share).name
    left = len(share) - len(name)
    return "./" * (left // 2) + "/" * (left % 2) + name
