"""nginx under supervisord: started on the socket that supervisord holds, and reloaded and ended without
cutting anybody off. `python -I -S nginx_keeper.py FOLDER NGINX`, with the listening socket as descriptor 0.

`nginx` says what is in the folder; this file imports nothing but the standard library, so that it is small.
Always:

- Nginx closes what idles at once when it is told to end or to read its configuration anew, and a client that
  asks on such a connection at that moment loses its request. So the file `closing` comes first, by which
  the configuration ends each connection with its next answer; a second later nobody idles but who is silent.
- Nginx never outlives this process, nor its workers their master.

At HUP nginx reads `nginx.conf` anew, at TERM it ends; both when its connections have drained, for which the
configuration sets a limit (`worker_shutdown_timeout`).
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

CLOSING = Path("closing")
QUIET = 1.0  # seconds without a request after which a connection is nobody's, as in app.worker
PATIENCE = 3.0  # seconds that connections are still closed for, where a worker of before takes longer to end
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
HEARD = {signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD}


def main(folder: str, program: str) -> int:
    os.chdir(folder)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # or else it would be ignored, and never waited for
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    # Of one that was killed; nginx does not listen where something is.
    for left in (CLOSING, Path("nginx.sock")):
        left.unlink(missing_ok=True)
    nginx = start(program)
    while True:
        heard = signal.sigwait(HEARD)
        if (ended := nginx.poll()) is not None:
            end_workers()
            return ended or 1
        if heard == signal.SIGHUP:
            renew(nginx)
        elif heard == signal.SIGTERM:
            announce()
            nginx.send_signal(signal.SIGQUIT)
            return nginx.wait()


def start(program: str) -> "subprocess.Popen[bytes]":
    # A worker of nginx that is too late for a connection must not wait in accept() for the next one. Nginx
    # sees to that for sockets that it makes itself only.
    os.set_blocking(0, False)
    os.dup2(0, 3)
    return subprocess.Popen(
        [program, "-e", "stderr", "-p", ".", "-c", "nginx.conf"],
        stdin=subprocess.DEVNULL,
        pass_fds=(3,),
        env={**os.environ, "NGINX": "3;"},  # how nginx hands sockets to the next nginx
        preexec_fn=_as_nginx,  # noqa: PLW1509 - there is one thread only
    )


def _as_nginx() -> None:
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGQUIT)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def announce() -> None:
    CLOSING.touch(mode=0o600)
    time.sleep(QUIET)


def renew(nginx: "subprocess.Popen[bytes]") -> None:
    before = children(nginx.pid)
    announce()
    nginx.send_signal(signal.SIGHUP)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and before & children(nginx.pid):
        time.sleep(0.02)
    CLOSING.unlink(missing_ok=True)


def children(pid: int) -> set[int]:
    with suppress(OSError):
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return set()


def end_workers() -> None:
    """Those whose master was killed. They are in the group of this process, and drain first."""
    if os.getpgrp() == os.getpid():
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        os.killpg(0, signal.SIGQUIT)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
