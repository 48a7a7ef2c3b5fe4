"""What stands between Serve and the worker. All of it together: tests/e2e/test_ray.py."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.app import on_ray
from gamma_orch.app.address import UNIX, Proxies
from gamma_orch.app.policy import Refused
from gamma_orch.kinds.serving import cluster, programs


def through(said: Any = None, **scope: Any) -> tuple[Any, list[Any]]:
    """What the app gets of a request, and what Serve gets of its answer."""
    inner: list[Any] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        inner.append(scope)
        for message in said or ():
            await send(message)

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        given = {"type": "http", "path": "/", "headers": [], "client": ("192.0.2.7", 4711), **scope}
        await on_ray.Relative(app)(given, None, send)  # type: ignore[arg-type]

    asyncio.run(run())
    return inner[0], sent


@pytest.mark.parametrize(
    ("root", "path", "inner"),
    [
        ("", "/v1/models", "/v1/models"),
        ("/api", "/api/v1/models", "/v1/models"),
        ("/api", "/api", "/"),
        ("/api", "/api/", "/"),
        ("/v1", "/v1/v1/models", "/v1/models"),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_the_prefix_is_taken_off(kind: str, root: str, path: str, inner: str):
    scope, _ = through(type=kind, root_path=root, path=path)
    assert (scope["path"], scope["root_path"]) == (inner, "")


@pytest.mark.parametrize(
    ("client", "forwarded", "trusted", "address"),
    [
        (("192.0.2.7", 4711), [], (), "192.0.2.7"),
        # Who is no trusted proxy says nothing about addresses.
        (("192.0.2.7", 4711), [b"203.0.113.9"], (), "192.0.2.7"),
        (("192.0.2.7", 4711), [b"203.0.113.9"], ("192.0.2.0/24",), "203.0.113.9"),
        (("192.0.2.7", 4711), [b"198.51.100.1, 203.0.113.9"], ("192.0.2.0/24",), "203.0.113.9"),
        # Serve's proxy has believed it, since it came from its own machine.
        (("203.0.113.9", 0), [b"203.0.113.9"], (), "127.0.0.1"),
        (("203.0.113.9", 55), [b"203.0.113.9:55"], (), "127.0.0.1"),
        (("203.0.113.9", 0), [b"198.51.100.1", b"203.0.113.9"], (), "127.0.0.1"),
        (("203.0.113.9", 0), [b"198.51.100.1, 203.0.113.9"], ("127.0.0.1/32",), "203.0.113.9"),
        (None, [b"203.0.113.9"], (), ""),
    ],
)
def test_who_asks(client: Any, forwarded: list[bytes], trusted: tuple[str, ...], address: str):
    scope, _ = through(client=client, headers=[(b"x-forwarded-for", one) for one in forwarded])
    assert scope["client"] is None
    said = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    assert Proxies((UNIX, *trusted)).client("", said) == address


def test_one_id_of_a_request_is_said():
    start = {"type": "http.response.start", "status": 200, "headers": [(b"x-request-id", b"a"), (b"x", b"b")]}
    _, sent = through([start, {"type": "http.response.body", "body": b"c"}])
    assert [message.get("headers") for message in sent] == [[(b"x", b"b")], None]


def test_a_number_is_one_replicas_until_it_ends(tmp_path: Path):
    (tmp_path / "slots").mkdir()
    one, held = on_ray.seat(tmp_path)
    two, other = on_ray.seat(tmp_path)
    assert (one, two) == (on_ray.FIRST + 1, on_ray.FIRST + 2)
    held.close()
    again, third = on_ray.seat(tmp_path)
    assert again == one
    other.close()
    third.close()


def test_no_number_is_a_supervised_workers():
    fields = {"workers": 64, "replicas": 32, "proxy": {}}
    assert max(programs.numbers({**fields, "proxy": {"engine": "nginx"}})) < on_ray.FIRST


def test_a_node_that_does_not_see_the_folder_says_so(tmp_path: Path):
    with pytest.raises(Refused, match=r"Every node needs the folder \.gamma of the project at this path"):
        on_ray._check(tmp_path / "elsewhere")


def test_both_sides_mean_the_same():
    assert f"{on_ray.__name__}:{on_ray.application.__name__}" == cluster.APP
    assert on_ray.DEPLOYMENT == cluster.DEPLOYMENT
