"""Nginx in front of other processes: the folder that it works in, and what it is asked and told.

It runs under supervisord (`command`, kept by `nginx_keeper`) and is told a new configuration by `install` and
a HUP of its process there. What always holds:

- A configuration is in `nginx.conf` only after `nginx -t` has taken it. What nginx refuses changes nothing.
- Which one is in force is asked of nginx itself, over a socket in the folder; the file says only what the
  next start reads.
- All that nginx writes is in the folder (mode 0700), and its messages go to whoever keeps it.

    FOLDER/nginx.conf, nginx.sock, nginx.pid, closing, temporary/

All methods block, for a moment; call them in a thread.
"""

import hashlib
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from gamma_orch.core.provider import Permanent
from gamma_orch.targets.home import Home, tail

KEEPER = Path(__file__).with_name("nginx_keeper.py")
PATIENCE = 20.0  # seconds for `nginx -t`, which asks for the addresses of names
# Debian has it where the PATH of ordinary users does not lead.
PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
INSTALL = "apt-get install --no-install-recommends nginx-light"
TEMPORARY = "temporary"
SOCKET = "nginx.sock"


class Missing(Permanent):
    """Nginx is not on this machine."""


@dataclass(frozen=True, slots=True)
class Nginx:
    folder: Path  # absolute

    def command(self) -> tuple[str, ...]:
        """What supervisord runs, with the listening socket as descriptor 0. Raises Missing."""
        return (sys.executable, "-I", "-S", str(KEEPER), str(self.folder), program())

    def form(self) -> str:
        """Another one where it must be started anew, though its command is the same."""
        return hashlib.sha256(KEEPER.read_bytes()).hexdigest()[:16]

    def text(self) -> str:
        """What the next start reads; "" where there is nothing."""
        try:
            return (self.folder / "nginx.conf").read_text(encoding="utf-8")
        except OSError:
            return ""

    def check(self, text: str) -> None:
        """Raises Permanent with nginx's words where it does not take this configuration, and Missing."""
        self._write("next.conf", text)
        try:
            said = subprocess.run(
                [program(), "-t", "-q", "-e", "stderr", "-p", ".", "-c", "next.conf"],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=PATIENCE,
                check=False,
            )
        except OSError as error:
            raise Permanent(f"{program()} cannot be run: {error.strerror}.") from None
        except subprocess.TimeoutExpired:
            raise Permanent(
                f"nginx -t has not ended within {PATIENCE:.0f} s. Do the names of other hosts have addresses?"
            ) from None
        if said.returncode:
            raise Permanent(
                f"nginx refuses the configuration, and the one before stays in force. It says:\n"
                f"{tail(said.stdout)}\nThe lines are those of {self.folder / 'next.conf'}."
            )
        (self.folder / "next.conf").unlink(missing_ok=True)

    def install(self, text: str) -> None:
        """What the next start, or HUP, reads. It has been checked."""
        self._write("nginx.conf", text)

    def says(self) -> str:
        """What nginx answers on its own socket: which configuration is in force. "" where it does not."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(3.0)
            try:
                connection.connect(str(self.folder / SOCKET))
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                said = b""
                while piece := connection.recv(4096):
                    said += piece
            except OSError:
                return ""
        return said.rpartition(b"\r\n\r\n")[2].decode("ascii", "replace").strip()

    def workers(self, keeper: int) -> dict[int, bool]:
        """Those of nginx, by process, and whether each only waits for its connections to end."""
        import psutil

        found = {}
        try:
            for one in psutil.Process(keeper).children(recursive=True):
                title = " ".join(one.cmdline())
                if title.startswith("nginx: worker"):
                    found[one.pid] = "shutting down" in title
        except (psutil.Error, OSError):
            return {}
        return found

    def _write(self, name: str, text: str) -> None:
        home = Home(self.folder, "nginx", "nginx")
        home.prepare()
        (self.folder / TEMPORARY).mkdir(mode=0o700, exist_ok=True)
        home.write(name, text)


def program() -> str:
    """Where it is. Raises Missing."""
    found = shutil.which("nginx") or next(
        (at for place in PLACES if (at := shutil.which("nginx", path=place))), None
    )
    if found is None:
        raise Missing(f"nginx is not on this machine. Install it: {INSTALL}")
    return found
