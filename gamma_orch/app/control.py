"""How a worker is asked and told: one JSON line each way over a Unix socket of its own.

The Service kind calls `ask`; a worker listens with `Control`. The socket lies in the service's own folder
(mode 0700), so that whoever may write bundles may give orders, and nobody else.

Orders: `state` (who it is, and the digest that it runs), `swap` (take the bundle of that digest, or say why
not), `drain` (take no more connections, and end when the last one has), `security` (the events since).
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

Json = Any
Order = Callable[[Mapping[str, Json]], Awaitable[Json]]
LINE = 1_000_000  # bytes of one order or answer


class Silent(Exception):
    """The worker does not answer: it is gone, starting, or stuck."""


def place(home: Path, slot: int) -> Path:
    """The socket of one worker."""
    return home / "slots" / f"{slot}.sock"


async def ask(home: Path, slot: int, do: str, seconds: float = 5.0, **more: Json) -> Json:
    """The answer, within so many seconds. Raises Silent."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(str(place(home, slot)), limit=LINE)
            try:
                writer.write(json.dumps({"do": do, **more}).encode() + b"\n")
                await writer.drain()
                line = await reader.readline()
            finally:
                writer.close()
    except TimeoutError:
        raise Silent(f"worker {slot} did not answer `{do}` in {seconds:g} s") from None
    except (OSError, ValueError) as error:
        raise Silent(f"worker {slot} cannot be asked: {error}") from None
    if not line.endswith(b"\n"):
        raise Silent(f"worker {slot} ended while it was asked to `{do}`")
    return json.loads(line)


class Control:
    """A worker's ear."""

    def __init__(self, home: Path, slot: int, orders: Mapping[str, Order]) -> None:
        self._path, self._orders = place(home, slot), orders
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)  # of the worker that had this slot before
        self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=LINE)
        self._path.chmod(0o600)

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            order = json.loads(await reader.readline())
            answer = await self._orders[order.pop("do")](order)
        except (ValueError, KeyError) as error:
            answer = {"error": f"not an order: {type(error).__name__}"}
        except Exception as error:  # noqa: BLE001 - an order that fails must not leave the asker waiting
            answer = {"error": str(error) or type(error).__name__}
        try:
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
