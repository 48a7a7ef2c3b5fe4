"""The process: `python -m gamma_orch.exporter FOLDER`, the listening socket as descriptor 0, as
supervisord gives it.

    FOLDER/token, collectors.d/<name>.json

On SIGTERM it finishes what it answers, and ends what it started.
"""

import asyncio
import logging
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvicorn

from gamma_orch.exporter.app import App
from gamma_orch.targets.program import BACKLOG

# asyncio looks up the names of hosts in threads. It has six of them on two processors, and as many collectors
# whose nameserver is silent would keep all others waiting.
LOOKUPS = 256


class Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: App) -> None:
        super().__init__(config)
        self._exporter = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        self._exporter.collectors.close()  # uvicorn ends the process by the signal itself


async def serve(folder: Path, listening: socket.socket) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(LOOKUPS, "lookup"))
    app = App(folder)
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        backlog=BACKLOG,  # what supervisord has given the socket: the last to say it decides for all
        timeout_graceful_shutdown=2,
    )
    await Server(config, app).serve(sockets=[listening])


def main() -> None:
    # Libraries say at INFO what they ask, with all that is in a URL.
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("gamma").setLevel(logging.INFO)
    # Not uvloop's loop: it looks up all names in four threads.
    asyncio.run(serve(Path(sys.argv[1]).absolute(), socket.socket(fileno=os.dup(0))))


if __name__ == "__main__":
    main()
