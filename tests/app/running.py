"""A real worker process with a bundle, on a free port: what tests of the API talk to."""

import asyncio
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import httpx

from gamma_orch.app import control
from gamma_orch.app.bundle import ApiKey, Auth, Bundle, Model, Process, Secrets, Version
from gamma_orch.runtimes.folder import Card
from tests.kinds.models.tiny import Kind, tiny

KEYS = {
    "all": "gk_all_0123456789abcdef",
    "caller": "gk_caller_0123456789abcdef",
    "narrow": "gk_narrow_0123456789abcdef",
}
SCOPES = {
    "all": ("models", "predict", "metrics", "live", "security"),
    "caller": ("models", "predict"),
    "narrow": ("models", "predict:other"),
}


def auth(**more: Any) -> Auth:
    keys = tuple(
        ApiKey(name=name, sha256=hashlib.sha256(key.encode()).hexdigest(), scopes=SCOPES[name])
        for name, key in KEYS.items()
    )
    return Auth(keys=keys, **more)


def version(folder: Path, **more: Any) -> Version:
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
    whole = hashlib.sha256("".join(files.values()).encode()).hexdigest()
    return Version(digest=whole, folder=str(folder), files=files, **more)


def model(folder: Path, kind: Kind = "bert", seed: int = 0, **more: Any) -> Model:
    """A tiny one, in PyTorch."""
    if not folder.exists():
        tiny(kind, folder, seed=seed)
    return Model(task=Card.read(folder).task, versions=(version(folder),), **more)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """Use as `with`. The listening socket is this process's, as supervisord's would be."""

    def __init__(self, home: Path, bundle: Bundle, secrets: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.listening = socket.socket()
        self.listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listening.bind(("127.0.0.1", bundle.process.port))
        self.listening.listen(4096)
        self.url = f"http://127.0.0.1:{bundle.process.port}"
        self.write(bundle, secrets or {})
        (home / "current").write_text(bundle.digest)

    def write(self, bundle: Bundle, secrets: Mapping[str, str]) -> None:
        for folder in ("bundles", "metrics", "slots"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        (self.home / "bundles" / f"{bundle.digest}.json").write_text(bundle.encoded())
        kept = Secrets(values=secrets).model_dump_json()
        (self.home / "bundles" / f"{bundle.digest}.secrets.json").write_text(kept)

    def __enter__(self) -> Self:
        try:
            self.start(1)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.listening.close()

    def launch(self, slot: int) -> None:
        with (self.home / f"{slot}.log").open("ab") as log:
            self.processes[slot] = subprocess.Popen(
                [sys.executable, "-m", "gamma_orch.app.worker", str(self.home)],
                stdin=self.listening.fileno(),
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "GAMMA_SLOT": str(slot)},
            )

    def start(self, slot: int) -> None:
        """And wait until it is ready."""
        self.launch(slot)
        end = time.monotonic() + 60
        while not self.state(slot).get("ready"):
            assert self.processes[slot].poll() is None, self.log(slot)
            assert not self.state(slot).get("fault"), self.state(slot)["fault"]
            assert time.monotonic() < end, self.log(slot)
            time.sleep(0.05)

    def log(self, slot: int = 1) -> str:
        return (self.home / f"{slot}.log").read_text(errors="replace")

    def state(self, slot: int = 1) -> Any:
        try:
            return self.ask("state", slot)
        except control.Silent:
            return {}

    def swap(self, bundle: Bundle, secrets: Mapping[str, str] | None = None, slot: int = 1) -> Any:
        self.write(bundle, secrets or {})
        return self.ask("swap", slot, digest=bundle.digest)

    def ask(self, do: str, slot: int = 1, **more: str) -> Any:
        """In a thread of its own: playwright has an event loop in the one of the test. Raises Silent."""
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: asyncio.run(control.ask(self.home, slot, do, 60, **more))).result()

    def signal(self, which: signal.Signals, slot: int = 1) -> None:
        self.processes[slot].send_signal(which)

    def client(self, who: str | None = "all", **more: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {KEYS[who]}"} if who else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, **more)


def bundle(models: Mapping[str, Model], **more: Any) -> Bundle:
    process = Process(port=free_port(), drain=3.0)
    return Bundle(service="test", **{"process": process, "auth": auth(), "models": models, **more})
