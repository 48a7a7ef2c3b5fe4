"""Everything behind the edge: models, streams, tokens, metrics, health, the page, and the OpenAPI document.

A FastAPI application, made once a process; what it answers by is the policy that the edge has put into the
request (`scope["gamma"]`). Who may ask was decided there. A route that the edge's table does not name is a
mistake that stops the worker at its start.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from fastapi.routing import iter_route_contexts
from msgspec import UNSET, Struct, UnsetType
from pydantic import Field
from starlette.exceptions import HTTPException

from gamma_orch.app import metrics, openai, tasks
from gamma_orch.app.auth import ANONYMOUS
from gamma_orch.app.chat import Templates
from gamma_orch.app.edge import Request as Asked
from gamma_orch.app.edge import fault, told
from gamma_orch.app.errors import MEDIA, Malformed, NotFound, Problem, Unavailable, Unprocessable
from gamma_orch.app.openapi import document
from gamma_orch.app.routes import ROUTES
from gamma_orch.app.serving import Served
from gamma_orch.app.writing import Piece

if TYPE_CHECKING:
    from gamma_orch.app.worker import Worker

PAGE = Path(__file__).parent / "page"
POLICY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}
FAULTS = 16  # that one answer lists, at most
router = APIRouter(route_class=openai.Read)


class Credentials(openai.Strict):
    name: str = Field(max_length=128)
    password: str = Field(max_length=4096, repr=False)


class Version(Struct):
    digest: str
    share: float
    """Of the traffic."""
    shadow: bool
    """It is asked beside the others, and its answers are compared and thrown away."""


class Model(Struct):
    id: str
    task: str
    versions: list[Version]
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "gamma"
    parent: str | UnsetType = UNSET
    """Of an adapter: the model that it lies on."""


class Models(Struct):
    data: list[Model]
    object: Literal["list"] = "list"


class Token(Struct):
    access_token: str
    expires_in: int
    """Seconds."""
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - a kind, and no token


class Whoami(Struct):
    name: str
    kind: Literal["key", "token", "user", "anonymous"]
    tenant: str
    scopes: list[str]
    expires: float | None
    """Seconds since 1970."""


class Status(Struct):
    status: Literal["ok", "ready"]


# By the name of the route: for the document, which FastAPI cannot make from these.
ANSWERS: Mapping[str, type[Struct]] = {
    "models": Models,
    "model": Model,
    "token": Token,
    "whoami": Whoami,
    "health": Status,
    "ready": Status,
    **openai.ANSWERS,
}


def application(worker: "Worker") -> FastAPI:
    app = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        strict_content_type=False,  # as `edge` has it: what says nothing is JSON
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.worker = worker
    app.state.templates = Templates()
    app.include_router(openai.router)
    app.include_router(router)
    for path, name, media in (
        ("/", "index.html", "text/html"),
        ("/page.js", "page.js", "text/javascript"),
        ("/page.css", "page.css", "text/css"),
    ):
        app.add_api_route(path, _page(PAGE / name, media), methods=["GET"], include_in_schema=False)
    # Once: it takes a tenth of a second, and anyone may ask for it.
    app.state.document = tasks.encoded(document(app, ANSWERS))

    app.add_exception_handler(Exception, _fault)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    _check(app)
    return app


@router.get("/v1/models")
async def models(request: Request) -> Response:
    asked = _asked(request)
    mine = [m for name, m in asked.policy.models.items() if asked.principal.may("predict", name)]
    named = ((one, adapter) for one in mine for adapter in ("", *sorted(one.model.adapters)))
    return _json(Models([_described(one, adapter) for one, adapter in named]))


@router.get("/v1/models/{model}")
async def model(request: Request, model: str) -> Response:
    name, adapter = openai.named(model)
    return _json(_described(_asked(request).policy.permitted(_asked(request), name), adapter))


@router.post("/v1/models/{model}/stream")
async def stream(request: Request, model: str) -> Response:
    asked = _asked(request)
    served = asked.policy.permitted(asked, model)
    wanted = tasks.decoded(await request.body(), served.model)
    if not isinstance(wanted, tasks.WriteRequest):
        raise Unprocessable("This model writes no text, so there is nothing to stream. Use /predict.")
    digest = served.choose(asked.principal.name, wanted.parameters.adapter)
    asked.digest = digest
    pieces = served.stream(wanted, digest)
    first = await anext(pieces)
    return StreamingResponse(_events(asked, first, pieces), media_type=openai.EVENTS)


@router.post("/v1/token")
async def token(request: Request, body: Credentials) -> Response:
    login = _asked(request).policy.login
    if login is None:
        raise NotFound("This service has no users who could log in.")
    made = await login.login(body.name, body.password)
    return _json(Token(made.value, made.seconds))


@router.get("/v1/whoami")
async def whoami(request: Request) -> Response:
    who = _asked(request).principal
    return _json(Whoami(who.name or ANONYMOUS, who.kind, who.tenant, sorted(who.scopes), who.expires))


@router.get("/metrics")
async def exposition(request: Request) -> Response:
    body = await asyncio.to_thread(_worker(request).metrics.exposition)
    return Response(body, media_type=metrics.MEDIA)


@router.get("/healthz")
async def health() -> Response:
    return _json(Status("ok"))


@router.get("/readyz")
async def ready(request: Request) -> Response:
    if not _worker(request).ready:
        raise Unavailable("This worker drains: it takes no more requests.", 1)
    return _json(Status("ready"))


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    return Response(request.app.state.document, media_type="application/json")


def _worker(request: Request) -> "Worker":
    found: Worker = request.app.state.worker
    return found


def _asked(request: Request) -> Asked:
    found: Asked = request.scope["gamma"]
    return found


def _described(served: Served, adapter: str = "") -> Model:
    """Raises NotFound for an adapter that is not there."""
    name, task = served.name, served.model.task
    if adapter:
        alone = Version(served.choose("", adapter, at=""), 1.0, shadow=False)
        return Model(f"{name}:{adapter}", task, [alone], parent=name)
    whole = sum(version.weight for version in served.model.versions if not version.shadow)
    versions = [
        Version(one.digest, 0.0 if one.shadow else one.weight / whole, one.shadow)
        for one in served.model.versions
    ]
    return Model(name, task, versions)


async def _events(asked: Asked, first: Piece, rest: AsyncIterator[Piece]) -> AsyncIterator[bytes]:
    """Server-sent events: `piece` with text, at the end `end` with the counts, or `error`."""
    try:
        async with aclosing(openai.counted(asked, first, rest)) as pieces:
            async for piece in pieces:
                if piece.text:
                    yield _event("piece", {"text": piece.text})
                if piece.end is not None:
                    usage = tasks.Usage(asked.tokens_in, asked.tokens_out)
                    end = {"finish_reason": piece.end.finish, "digest": asked.digest, "usage": usage}
                    yield _event("end", end)
    except Problem as problem:
        yield b"event: error\ndata: " + problem.body(asked.id) + b"\n\n"


def _event(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: ".encode() + tasks.encoded(data) + b"\n\n"


def _page(path: Path, media: str) -> Any:
    content = path.read_bytes()

    async def page() -> Response:
        return Response(content, media_type=media, headers=POLICY)

    return page


def _json(body: object) -> Response:
    return Response(tasks.encoded(body), media_type="application/json")


# --- errors ---------------------------------------------------------------------------------------


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    asked = _asked(request)
    asked.problem = error
    return _told(asked, error)


async def _fault(request: Request, error: Exception) -> Response:
    """What nobody expected; the edge sees it too, and logs it."""
    asked = _asked(request)
    return _told(asked, fault(asked))


def _told(asked: Asked, problem: Problem) -> Response:
    return Response(told(asked, problem), problem.status.value, problem.headers, media_type=MEDIA.decode())


async def _invalid(request: Request, error: Exception) -> Response:
    """What pydantic says, without what was sent."""
    assert isinstance(error, RequestValidationError)
    faults = []
    for one in error.errors()[:FAULTS]:
        unknown = one["type"] == "extra_forbidden"
        says = "It has a field that is not known here" if unknown else one["msg"]
        # The name of an unknown field is a part of what was sent.
        where = one["loc"][1:-1] if unknown else one["loc"][1:]
        faults.append({"at": _pointer(error.body, where, one["type"] == "missing"), "says": f"{says}."})
    return await _problem(request, Malformed("The body is not what this route takes.", faults=faults))


def _pointer(body: object, where: Sequence[str | int], missing: bool) -> str:
    """A JSON pointer: pydantic also names the members of unions, which are nowhere in the JSON."""
    found = ""
    for place, part in enumerate(where, 1):
        match body, part:
            case dict(), str() if part in body:
                body = body[part]
            case list(), int() if part < len(body):
                body = body[part]
            case _ if not (missing and place == len(where)):
                continue
        found += f"/{part}"
    return found


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:
        return await _problem(request, Malformed("The body is not JSON in UTF-8."))
    return await _problem(request, NotFound("There is no such path."))


def _check(app: FastAPI) -> None:
    """Raises RuntimeError for a route that the table does not name: nobody would have said who may ask it."""
    known = {(route.path, method) for route in ROUTES for method in route.methods}
    for route in iter_route_contexts(app.routes):  # also of the routers that are included
        for method in route.methods or {"ANY"}:  # a mount, or a WebSocket
            if (route.path, method) not in known:
                raise RuntimeError(f"{method} {route.path} is not in app/routes.py, so it has no scope.")
