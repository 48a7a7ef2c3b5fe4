"""The page and what it asks: dashboards, and a stream of answers to each who looks at one.

What always holds: nobody is answered without the token that is in the address which the command prints (in a
cookie after that), nor for another host's name, nor from another site's page; a stream asks on only while
somebody listens; the page loads nothing from elsewhere.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import anyio
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import ProviderError
from gamma_orch.dashboards.asking import Asked, Board, Choice, answers

PAGE = Path(__file__).parent / "page"
HOSTS = ["127.0.0.1", "localhost"]
COOKIE = "gamma-dashboards"
LONGEST_SPAN = 90 * 86400  # seconds
HEADERS = {
    "Content-Security-Policy": (
        # Plotly writes its own styles into the page, and pictures of charts for who saves one.
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
        "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True, slots=True)
class Listing:
    boards: tuple[Board, ...]
    problem: str = ""  # why they are those of before, where the specs cannot be read


class Said(BaseModel):
    """What the page says over its stream."""

    model_config = ConfigDict(extra="forbid")
    board: str
    span: float = Field(ge=60, le=LONGEST_SPAN)
    variables: dict[str, list[Annotated[str, Field(max_length=1000)]]] = Field(default_factory=dict)


class _Door:
    """Lets through who has the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        asked = HTTPConnection(scope)
        given = asked.query_params.get("token")
        if given is not None and scope["type"] == "http" and self._fits(given):
            answer: Response = RedirectResponse(scope["path"], 303, HEADERS)  # out of the address
            answer.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
        elif self._fits(asked.cookies.get(COOKIE, "")) and _same_site(asked):
            await self._app(scope, receive, send)
            return
        elif scope["type"] == "websocket":
            await WebSocket(scope, receive, send).close(1008)
            return
        else:
            says = "Open the address that `gamma dashboards` has printed: it has a token in it.\n"
            answer = PlainTextResponse(says, 403, HEADERS)
        await answer(scope, receive, send)

    def _fits(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._token.encode())


def _same_site(asked: HTTPConnection) -> bool:
    """A browser says whose page asks; other programs say nothing."""
    origin = asked.headers.get("origin")
    return origin is None or origin == f"http://{asked.headers.get('host')}"


def app(
    listing: Callable[[], Awaitable[Listing]], prometheus: Callable[[str], Asked], token: str
) -> Starlette:
    """`listing`: the dashboards as they are by now. `prometheus`: by its name; raises Permanent or Temporary
    where there is none."""

    async def boards(request: Request) -> Response:
        found = await listing()
        said = [{"name": one.name, "fields": one.fields} for one in found.boards]
        return JSONResponse({"boards": said, "problem": found.problem}, headers=HEADERS)

    async def live(socket: WebSocket) -> None:
        await socket.accept()
        await _Stream(socket, listing, prometheus).run()

    def file(name: str, path: Path) -> Route:
        async def answer(request: Request) -> Response:
            return FileResponse(path, headers={**HEADERS, "Cache-Control": "no-cache"})

        return Route(name, answer)

    plotly = Path(str(files("plotly"))) / "package_data" / "plotly.min.js"
    routes = [
        file("/", PAGE / "index.html"),
        *(file(f"/{name}", PAGE / name) for name in ("page.js", "draw.js", "page.css")),
        file("/plotly.js", plotly),
        Route("/boards", boards),
        WebSocketRoute("/live", live),
    ]
    middleware = [
        Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS),
        Middleware(_Door, token=token),
        Middleware(GZipMiddleware),
    ]
    return Starlette(routes=routes, middleware=middleware)


class _Stream:
    """Answers to what was chosen last, again and again."""

    def __init__(
        self,
        socket: WebSocket,
        listing: Callable[[], Awaitable[Listing]],
        prometheus: Callable[[str], Asked],
    ) -> None:
        self._socket, self._listing, self._prometheus = socket, listing, prometheus
        self._choice: Choice | None = None
        self._chosen = asyncio.Event()

    async def run(self) -> None:
        """Until nobody listens, or says what cannot be read."""
        try:
            async with anyio.create_task_group() as both:
                both.start_soon(self._answer)
                await self._hear()
                both.cancel_scope.cancel()
            await self._socket.close(1008)
        except* WebSocketDisconnect:
            pass

    async def _hear(self) -> None:
        while True:
            try:
                said = Said.model_validate_json(await self._socket.receive_text())
            except (ValidationError, KeyError):  # KeyError: bytes
                return
            self._choice = Choice(said.board, said.span, said.variables)
            self._chosen.set()

    async def _answer(self) -> None:
        await self._chosen.wait()
        boards: dict[str, Board] = {}
        while True:
            self._chosen.clear()
            choice = self._choice
            assert choice is not None
            if choice.board not in boards:  # a page that was loaded again has others
                boards = {one.name: one for one in (await self._listing()).boards}
            board = boards.get(choice.board)
            if board is None:
                await self._socket.send_json({"error": f"There is no dashboard {choice.board!r} any more."})
                await self._chosen.wait()
                continue
            await self._once(board, choice)
            with suppress(TimeoutError):
                async with asyncio.timeout(board.fields["refresh"]):
                    await self._chosen.wait()

    async def _once(self, board: Board, choice: Choice) -> None:
        now = time.time()
        try:
            asked = self._prometheus(board.prometheus)
        except ProviderError as error:
            await self._socket.send_json({"error": str(error)})
            return
        async for answer in answers(board, choice, now, asked):
            if self._chosen.is_set():  # of what nobody looks at any more
                return
            await self._send({**answer, "board": board.name})
        await self._send({"board": board.name, "done": now})

    async def _send(self, said: Json) -> None:
        await self._socket.send_json(said)
