"""Who is let in, and how a stream goes: what is chosen, what is sent, and when it ends."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from gamma_orch.core.provider import Permanent
from gamma_orch.dashboards.asking import Asked, Board
from gamma_orch.dashboards.server import Listing, app

TOKEN = "t0ken"
PLACE = "http://127.0.0.1:8000"
LIVE = "ws://127.0.0.1:8000/live"


class Fake:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.slow = 0.0

    async def query(self, expr: str, at: float) -> list[Any]:
        self.asked.append(expr)
        await asyncio.sleep(self.slow)
        return [{"metric": {}, "value": [at, "1"]}]

    async def query_range(self, expr: str, start: float, end: float, step: float) -> list[Any]:
        return await self.query(expr, end)


def board(name: str, expr: str, refresh: float = 0.05, prometheus: str = "main") -> Board:
    panel = {"type": "table", "queries": [{"expr": expr}]}
    return Board(
        name, prometheus, {"title": name, "variables": [], "refresh": refresh, "rows": [{"panels": [panel]}]}
    )


class World:
    def __init__(self) -> None:
        self.fake = Fake()
        self.boards = [board("a", "one"), board("b", "two"), board("lost", "x", prometheus="gone")]

        async def listing() -> Listing:
            return Listing(tuple(self.boards), "")

        def prometheus(name: str) -> Asked:
            if name != "main":
                raise Permanent(f"There is no Prometheus {name!r}.")
            return self.fake

        self.client = TestClient(app(listing, prometheus, TOKEN), base_url=PLACE, follow_redirects=False)


@pytest.fixture
def world() -> Iterator[World]:
    found = World()
    with found.client:
        yield found


def enter(world: World) -> None:
    answer = world.client.get("/", params={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def choice(name: str, **said: Any) -> dict[str, Any]:
    return {"board": name, "span": 3600, **said}


@pytest.mark.parametrize("path", ["/", "/boards", "/plotly.js", "/page.js", "/nothing"])
def test_nobody_is_answered_without_the_token(world: World, path: str) -> None:
    for given in ({}, {"token": "other"}, {"token": ""}):
        answer = world.client.get(path, params=given)
        assert answer.status_code == 403
        assert "gamma dashboards" in answer.text
        assert "set-cookie" not in answer.headers
    assert world.client.get(path, headers={"cookie": "gamma-dashboards=other"}).status_code == 403
    with pytest.raises(WebSocketDisconnect), world.client.websocket_connect(LIVE) as socket:
        socket.receive_text()


def test_with_it_the_page_and_its_parts_are_there(world: World) -> None:
    enter(world)
    for path in ("/", "/page.js", "/draw.js", "/page.css", "/plotly.js", "/boards"):
        answer = world.client.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert world.client.get("/nothing").status_code == 404
    found = world.client.get("/boards").json()
    assert [one["name"] for one in found["boards"]] == ["a", "b", "lost"]


def test_other_names_of_this_machine_and_other_sites_are_refused(world: World) -> None:
    """A page elsewhere can have a browser send a request here, with the cookie where its site is the same;
    one whose name is made to point here is another host."""
    enter(world)
    assert world.client.get("/", headers={"host": "evil.example:8000"}).status_code == 400
    for origin in ("http://evil.example", "http://127.0.0.1:9999", "null"):
        assert world.client.get("/boards", headers={"origin": origin}).status_code == 403
        with (
            pytest.raises(WebSocketDisconnect),
            world.client.websocket_connect(LIVE, headers={"origin": origin}) as socket,
        ):
            socket.receive_text()
    with world.client.websocket_connect(LIVE, headers={"origin": PLACE}) as socket:
        socket.send_json(choice("a"))
        assert socket.receive_json()["panel"] == 0


def test_what_is_chosen_is_sent_again_and_again(world: World) -> None:
    enter(world)
    with world.client.websocket_connect(LIVE) as socket:
        socket.send_json(choice("a"))
        said = [socket.receive_json() for _ in range(6)]
        assert [one["board"] for one in said] == ["a"] * 6
        assert ["panel" in one for one in said] == [True, False] * 3
        socket.send_json(choice("b"))
        while socket.receive_json()["board"] == "a":
            pass
    assert "two" in world.fake.asked
    asked = len(world.fake.asked)
    time.sleep(0.3)
    assert len(world.fake.asked) <= asked + 1, "nobody listens, and it is asked on"


def test_who_chooses_anew_does_not_wait_for_the_refresh(world: World) -> None:
    enter(world)
    world.boards = [board("a", "one", refresh=600), board("b", "two", refresh=600)]
    with world.client.websocket_connect(LIVE) as socket:
        for name in ("a", "b", "a"):
            socket.send_json(choice(name))
            assert [socket.receive_json()["board"] for _ in range(2)] == [name, name]


def test_what_cannot_be_asked_is_told(world: World) -> None:
    enter(world)
    with world.client.websocket_connect(LIVE) as socket:
        socket.send_json(choice("lost"))
        assert socket.receive_json() == {"error": "There is no Prometheus 'gone'."}
        socket.send_json(choice("never"))
        found = socket.receive_json()
        while "gone" in found["error"]:
            found = socket.receive_json()
        assert found == {"error": "There is no dashboard 'never' any more."}
        socket.send_json(choice("a"))
        assert socket.receive_json()["panel"] == 0


@pytest.mark.parametrize(
    "said", ["{", "[]", '{"board": "a", "span": 1}', '{"board": "a", "span": 99, "x": 1}']
)
def test_nonsense_ends_the_stream(world: World, said: str) -> None:
    enter(world)
    with world.client.websocket_connect(LIVE) as socket:
        socket.send_text(said)
        with pytest.raises(WebSocketDisconnect) as ended:
            socket.receive_text()
        assert ended.value.code == 1008
