"""Dagster's own `dagster dev`, with this project's instance, on a free port, stopped as a whole."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from gamma_orch.orchestration.instance import storage_url, write_instance
from gamma_orch.orchestration.pulse import WEBSERVER

START_SECONDS = 300
STOP_SECONDS = 60


def serve(root: Path, host: str, port: int, say: Callable[[str], None]) -> int:
    """Run until Ctrl-C or SIGTERM; the exit code. `say` gets the address once the pages answer."""
    os.environ.update(storage_url())
    home = write_instance(root)
    port = port or free_port(host)
    url = f"http://{host}:{port}"
    log = home / "dagster.log"
    variables = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        # `dg dev`, which is to supersede it, wants a project in a layout of its own.
        "PYTHONWARNINGS": "ignore:Function `dev_command` is superseded",
        WEBSERVER: url,
    }
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(home / "workspace.yaml")]
    command += ["--host", host, "--port", str(port), "--log-format", "colored"]
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    # Before the child starts: it would inherit a SIGINT that is ignored, as it is in a shell's background.
    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    with log.open("w") as out:
        process = subprocess.Popen(
            command,
            cwd=root,
            env=variables,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is ours to pass on, once
        )
    try:
        announced, started = False, time.monotonic()
        while not stopping and process.poll() is None:
            if not announced and answers(url):
                say(f"Dagster runs at {url}")
                say(f"Its log is {log}; stop it with Ctrl-C.")
                announced = True
            elif not announced and time.monotonic() - started > START_SECONDS:
                say(f"Dagster does not answer after {START_SECONDS} s; see {log}")
                break
            time.sleep(0.2)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if not stopping:
        say(f"Dagster ended by itself; the end of {log} says why:")
        say("\n".join(log.read_text(errors="replace").splitlines()[-15:]))
    _end(process)
    return 0 if stopping else 1


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let it stop its own processes; then whatever is left of its session."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=2) as answer:  # noqa: S310 - our own
            return bool(answer.status == 200)
    except OSError:
        return False


def free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
