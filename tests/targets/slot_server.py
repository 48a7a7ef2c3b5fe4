"""A worker for tests: HTTP on the socket that it is given as descriptor 0, drained at SIGTERM.

`/` answers `slot pid`; `/slow` the same after half a second; `/program` what GAMMA_PROGRAM and COLOUR say.
"""

import asyncio
import os
import signal
import socket

open_now: set[asyncio.Task[None]] = set()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
        if path == b"/slow":
            await asyncio.sleep(0.5)
        said = f"{os.environ['GAMMA_SLOT']} {os.getpid()}"
        if path == b"/program":
            said = f"{os.environ['GAMMA_PROGRAM']} {os.environ.get('COLOUR')}"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(said)}\r\nConnection: close\r\n\r\n"
        writer.write((head + said).encode())
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    task = asyncio.create_task(answer(reader, writer))
    open_now.add(task)
    task.add_done_callback(open_now.discard)


async def main() -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    listening = socket.socket(fileno=0)
    # To asyncio this is also how many it takes at once, before any other worker gets one.
    server = await asyncio.start_server(accept, sock=listening, backlog=16)
    listening.listen(4096)  # and its listen() changed the backlog of the socket for all
    await stopping.wait()
    # What asyncio accepted becomes a connection some turns later; a server that closes in between loses it.
    asyncio.get_running_loop().remove_reader(listening)
    for _ in range(20):
        await asyncio.sleep(0)
    server.close()
    while open_now:
        await asyncio.wait(open_now)


if __name__ == "__main__":
    asyncio.run(main())
