"""An answer on the wire: its head and its body in one write."""

import asyncio

from gamma_orch.app.wire import Joined


class Transport:
    def __init__(self) -> None:
        self.said: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        assert not self.is_closing()
        self.said.append(data)

    def close(self) -> None:
        self.said.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.said


def played(*deeds: bytes | str) -> list[bytes | str]:
    """What reaches the transport; "tick" lets the loop go on."""

    async def play() -> list[bytes | str]:
        transport = Transport()
        joined = Joined(asyncio.get_running_loop(), transport)  # type: ignore[arg-type]
        for deed in deeds:
            if isinstance(deed, bytes):
                joined.write(deed)
            elif deed == "close":
                joined.close()
            else:
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return transport.said

    return asyncio.run(play())


def test_head_and_body_are_one_write_and_what_follows_is_not_held() -> None:
    assert played(b"head", b"body", b"more", b"still") == [b"headbody", b"more", b"still"]


def test_a_head_alone_is_out_with_the_next_tick() -> None:
    assert played(b"head") == [b"head"]
    assert played(b"head", "tick", b"first", b"second") == [b"head", b"first", b"second"]


def test_what_is_closed_has_said_all_before() -> None:
    assert played(b"head", "close") == [b"head", "closed"]
    assert played(b"head", b"body", "close") == [b"headbody", "closed"]
    assert played("close") == ["closed"]
