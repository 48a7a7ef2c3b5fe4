"""The outermost layer: a plain ASGI callable that every request goes through, ahead of FastAPI.

For each request: an id, who asks, whether the route's scope is theirs, whether a limit is left; then a
prediction is answered here, and everything else by the application behind. Here, too, are the bounds that
hold for all: the size of a body, the headers of every answer, the metrics, the access log.

Always:
- One request is answered by one policy, however many are put in its place meanwhile.
- Who may not is told before anything of what they asked is looked at: a 403 does not say what exists.
- An answer carries no input, and an error no secret. A fault of ours is 500 with the request's id: the log
  has under it where it was, without the words of the exception, which may hold what was sent.
- Who says nothing has no name: each is limited by their address.
- On the hot path nothing is awaited but the body, Valkey (once), and the model.
"""

import asyncio
import contextlib
import json
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gamma_orch.app import ids, limits, metrics
from gamma_orch.app.auth import Principal
from gamma_orch.app.errors import (
    MEDIA,
    Forbidden,
    Internal,
    Malformed,
    NotFound,
    Problem,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
    WrongMedia,
    WrongMethod,
)
from gamma_orch.app.routes import OPEN, Match, Route, Table
from gamma_orch.app.security import Sign
from gamma_orch.app.traces import Trace

if TYPE_CHECKING:
    from gamma_orch.app.policy import Policy
    from gamma_orch.app.worker import Worker

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]
Credentials = tuple[bytes | None, bytes | None]  # the headers Authorization and X-Api-Key

JSON: Header = (b"content-type", b"application/json")
# Answers are somebody's: no cache on the way may keep them, and no browser may take them for a page.
ALWAYS: tuple[Header, ...] = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
CLOSE: Header = (b"connection", b"close")
# What tells whether a worker lives must not depend on how often it is asked, nor on Valkey.
NEVER_LIMITED = ("health", "ready")
# Routes that clients of OpenAI's API ask: these show an error by its `error.message`, or not at all.
AS_OPENAI = ("chat", "completions", "embeddings", "models", "model")
LIVE = "gamma.live"  # the subprotocol that is answered: never the one that carries a key
# Of a scope's `extensions`, where the server is our own (`wire`): it takes an answer as one message of this
# type, and the body of this request is here already.
WHOLE, HERE = "gamma.whole", "gamma.here"
BODY = 30.0  # seconds that a body may take to come: who is slower holds a place for nothing
SCOPE, MALFORMED = Sign("forbidden", "scope"), Sign("credentials", "malformed")
NOBODY = Principal("", "", frozenset(), "anonymous", None)


@dataclass(slots=True)
class Request:
    """What is known of one request while it is answered."""

    id: str
    policy: "Policy"
    address: str
    route: str = "none"
    model: str = ""
    principal: Principal = NOBODY
    cache: str = ""
    digest: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    said: tuple[bytes, bytes] | None = None  # what a model was asked, and its answer
    problem: Problem | None = None  # that the application behind has answered with
    headers: list[Header] = field(default_factory=list)  # of the answer, whatever it will be
    started: float = field(default_factory=time.perf_counter)
    trace: Trace | None = None

    def step(self, name: str) -> None:
        """What the request has waited for until now, where somebody traces it."""
        if self.trace is not None:
            self.trace.step(name)


class Edge:
    def __init__(self, worker: "Worker", app: App) -> None:
        self._worker, self._app = worker, app
        self._table = Table()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await self._socket(scope, receive, send)
            case _:
                await self._app(scope, receive, send)

    # --- http -------------------------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        worker = self._worker
        policy = worker.policy
        if policy is None:
            await _unready(scope, send)
            return
        request = self._request(scope, policy)
        answer = _Answer(send, request, worker, WHOLE in scope.get("extensions", ()))
        worker.inflight += 1
        try:
            found = self._admit(scope, request)
            if found.route.name not in NEVER_LIMITED:
                verdict = await self._limited(request)
                if verdict is not None:
                    request.headers += limits.headers(verdict)
                    self._count(request, verdict)
            request.step("admit")
            body = None
            if "POST" in found.route.methods:
                body = await _body(scope, receive, policy.bundle.process.body)
                request.step("read body")
            if found.route.name == "predict" and body is not None:
                request.cache, content = await policy.predict(request, body)
                request.said = body, content
                await answer.whole(200, content)
            else:
                # A HEAD is answered as a GET is; the server leaves the body out. The server keeps its scope
                # until the next request, and what is put into this one goes with the answer.
                behind = {**scope, "gamma": request}
                if scope["method"] == "HEAD":
                    behind["method"] = "GET"
                await self._app(behind, receive if body is None else _once(body, receive), answer.send)
                if request.problem is not None:
                    self._count_problem(scope, request, request.problem)
        except Problem as problem:
            self._count_problem(scope, request, problem)
            await answer.problem(problem)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered and told
            self._fault(request, error)
            await answer.problem(fault(request))
        finally:
            worker.inflight -= 1
            if request.model and request.model not in policy.bundle.models:
                request.model = metrics.UNKNOWN  # the client's own words: no log and no metric has them
            worker.answered(request, answer.status, scope["method"])

    def _request(self, scope: Scope, policy: "Policy") -> Request:
        client = scope.get("client")
        peer = client[0] if client else ""
        if policy.proxies.trusts(peer):
            forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
            request = Request(_given_id(scope), policy, policy.proxies.client(peer, forwarded))
        else:
            request = Request(ids.made(), policy, peer)
        if policy.traces is not None:
            request.trace = Trace(scope["headers"])
        return request

    def _admit(self, scope: Scope, request: Request) -> Match:
        """The route, once it is sure that this principal may ask it. Raises Problem."""
        found = self._table.find(scope["path"])
        if found is None:
            raise NotFound("There is no such path. GET /openapi.json lists those that there are.")
        route = found.route
        request.route, request.model = route.name, found.values.get("model", "")
        method = scope["method"]
        if method not in route.methods and not (method == "HEAD" and "GET" in route.methods):
            allowed = ", ".join(route.allowed)
            raise WrongMethod(f"{route.path} takes {allowed}.", {"Allow": allowed})
        if route.scope != OPEN:
            request.principal = self._who(request.policy, *_credentials(scope))
            if not _may(request.principal, route, request.model):
                one = request.model or route.body_names_model
                named = f", or {route.scope}: with the name of the model" if one else ""
                raise Forbidden(f"This needs the scope {route.scope}{named}.").noted(SCOPE)
        return found

    def _who(self, policy: "Policy", authorization: bytes | None, key: bytes | None) -> Principal:
        """Who says nothing has no name: all of them together are not one caller. Raises Unauthenticated."""
        found = policy.gate.who(authorization, key)
        return replace(found, name="") if found.kind == "anonymous" else found

    def _count_problem(self, scope: Scope, request: Request, problem: Problem) -> None:
        if problem.sign is not None:
            self._worker.security.note(
                problem.sign,
                request=request.id,
                address=request.address,
                route=request.route,
                method=scope.get("method", "GET"),
                principal=request.principal.name,
                presented=_presented(scope),
            )
        match problem:
            case Unauthenticated():
                self._worker.metrics.refused("unauthenticated")
            case Forbidden():
                self._worker.metrics.refused("forbidden")
            case Internal():
                self._fault(request, problem)

    def _fault(self, request: Request, error: Exception) -> None:
        self._worker.log.error("fault", request=request.id, route=request.route, where=_where(error))

    def refused(self, problem: Problem, request: str, address: str) -> None:
        """`wire` refuses what never became a request."""
        if problem.sign is not None:
            self._worker.security.note(problem.sign, request=request, address=address)

    def _count(self, request: Request, verdict: limits.Verdict) -> None:
        """Raises TooMany."""
        if not verdict.allowed:
            self._worker.metrics.refused("limited", verdict.name)
            problem = TooMany(
                f"The limit {verdict.name} is used up: {verdict.limit} are allowed at once. "
                "Come again when Retry-After has passed."
            )
            raise problem.noted(Sign("limit", _whose(request, verdict), verdict.name))

    def _limited(self, request: Request) -> "Awaitable[limits.Verdict | None]":
        principal = request.principal
        who = limits.Who(principal.name, principal.tenant, request.address)
        return request.policy.limiter.check(request.route, request.model, who)

    # --- WebSocket --------------------------------------------------------------------------------

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refused before it is accepted: the client sees 403. A browser cannot set headers here, so its key
        comes as a subprotocol, `bearer.<key>`; and its page must be one of ours."""
        path = scope["path"]
        # The server logs both, and they are the client's words.
        scope["path"], scope["query_string"] = "/", b""
        policy = self._worker.policy
        if policy is None:
            await receive()
            await send({"type": "websocket.close", "code": 1013})
            return
        request = self._request(scope, policy)
        try:
            credentials, needs = self._admit_socket(scope, path, request)
        except Problem as problem:
            self._count_problem(scope, request, problem)
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            self._worker.answered(request, problem.status.value, "GET")
            return
        scope["headers"] = []  # or else they are kept for as long as somebody listens
        # It is answered now: how long somebody listens is no latency.
        self._worker.answered(request, 101, "GET")
        spoken = LIVE if LIVE in scope.get("subprotocols", ()) else None
        guarded = self._guarded(send, request, credentials, needs)
        await self._worker.live(scope, receive, guarded, spoken, request.route)

    def _admit_socket(self, scope: Scope, path: str, request: Request) -> tuple[Credentials, str]:
        """What says who asks, and the scope that is needed. Raises Problem."""
        found = self._table.find(path, socket=True)
        if found is None:
            raise NotFound("no such path")
        request.route = found.route.name
        if not self._own_origin(scope, request.policy):
            raise Forbidden("origin").noted(Sign("forbidden", "origin"))
        authorization, key = _credentials(scope)
        if authorization is None and (chosen := _subprotocol(scope)) is not None:
            authorization = b"Bearer " + chosen
        request.principal = self._who(request.policy, authorization, key)
        if not request.principal.may(found.route.scope):
            raise Forbidden("scope").noted(SCOPE)
        return (authorization, key), found.route.scope

    def _guarded(self, send: Send, request: Request, credentials: Credentials, needs: str) -> Send:
        """A connection may outlive a token and a bundle: nothing is sent to who may not listen any more."""
        over = False

        async def guarded(message: MutableMapping[str, Any]) -> None:
            nonlocal over
            if over:
                return
            if message["type"] == "websocket.send" and not self._still(request, credentials, needs):
                over = True
                says = "The key or token is not taken any more."
                message = {"type": "websocket.close", "code": 1008, "reason": says}
            await send(message)

        return guarded

    def _still(self, request: Request, credentials: Credentials, needs: str) -> bool:
        expires, policy = request.principal.expires, self._worker.policy
        if expires is not None and time.time() >= expires:
            return False
        if policy is None or policy is request.policy:
            return True
        try:
            request.principal, request.policy = self._who(policy, *credentials), policy
        except Unauthenticated:
            return False
        return request.principal.may(needs)

    def _own_origin(self, scope: Scope, policy: "Policy") -> bool:
        origin = _header(scope, b"origin")
        if origin is None:
            return True  # no browser
        host = _header(scope, b"host") or b""
        said = origin.decode("latin-1")
        return said.partition("://")[2].encode("latin-1") == host or said in policy.bundle.process.origins


class _Answer:
    """The answer of one request: puts the headers on that all have, and remembers the status."""

    def __init__(self, send: Send, request: Request, worker: "Worker", at_once: bool) -> None:
        self._send, self._request, self._worker = send, request, worker
        self._at_once = at_once
        self.status = 0

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._common()]
        await self._send(message)

    async def whole(self, status: int, content: bytes, more: Iterable[Header] = (JSON,)) -> None:
        self.status = status
        length = (b"content-length", str(len(content)).encode())
        headers = [*more, length, *self._common()]
        if self._at_once:
            await self._send({"type": WHOLE, "status": status, "headers": headers, "body": content})
            return
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": content})

    async def problem(self, problem: Problem) -> None:
        if self.status:
            return  # the answer has begun: the server cuts it off, which the client sees
        headers = [
            (name.lower().encode(), value.encode("latin-1")) for name, value in problem.headers.items()
        ]
        await self.whole(
            problem.status.value, told(self._request, problem), [(b"content-type", MEDIA), *headers]
        )

    def _common(self) -> list[Header]:
        request = self._request
        common = [(b"x-request-id", request.id.encode()), *ALWAYS, *request.headers]
        if request.cache:
            common.append((b"x-cache", request.cache.encode()))
        if self._worker.draining:
            common.append(CLOSE)
        return common


def _may(principal: Principal, route: Route, model: str) -> bool:
    if route.body_names_model and any(one.startswith(f"{route.scope}:") for one in principal.scopes):
        return True  # for one model, and `Policy.permitted` sees whether for this
    return principal.may(route.scope, model)


def told(request: Request, problem: Problem) -> bytes:
    """The body of the answer. Problem details let other members stand beside theirs (RFC 9457, 3.2)."""
    body = problem.body(request.id)
    if request.route not in AS_OPENAI:
        return body
    places = (f"{one['at'] or 'The body'}: {one['says']}" for one in problem.faults)
    error = {"message": " ".join((problem.detail, *places)), "type": problem.kind, "code": problem.kind}
    return body[:-1] + b',"error":' + json.dumps(error, ensure_ascii=False).encode() + b"}"


def fault(request: Request) -> Internal:
    """What is said of an exception that nobody expected."""
    return Internal(f"A fault of the server. Its log has it under {request.id}.")


async def _unready(scope: Scope, send: Send) -> None:
    """The worker has no bundle: it lives, and can answer nothing else."""
    made = ids.made()
    problem = Unavailable("This worker has no bundle yet. Try again in a moment.", 1)
    status, more, body = 503, [(b"content-type", MEDIA), (b"retry-after", b"1")], problem.body(made)
    if scope["path"] == "/healthz":
        status, more, body = 200, [JSON], b'{"status":"ok"}'
    length = (b"content-length", b"%d" % len(body))
    headers = [*more, length, (b"x-request-id", made.encode()), *ALWAYS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _where(error: BaseException | None) -> list[str]:
    """The kinds of an exception and of those that it came from, each with its places in the code."""
    found: list[str] = []
    while error is not None and len(found) < 5:
        frames = traceback.extract_tb(error.__traceback__)
        places = ", ".join(f"{one.filename}:{one.lineno} {one.name}" for one in frames)
        found.append(f"{type(error).__qualname__} at {places or 'no place'}")
        error = error.__cause__ or error.__context__
    return found


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    for name, value in scope["headers"]:
        if name == wanted:
            return value  # type: ignore[no-any-return]
    return None


def _credentials(scope: Scope) -> Credentials:
    """The two headers that say who asks. Raises Malformed where one is there twice: which one counts must not
    be a question."""
    authorization = key = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            if authorization is not None:
                twice = Malformed("The header Authorization is there twice. Send it once.")
                raise twice.noted(MALFORMED)
            authorization = value
        elif name == b"x-api-key":
            if key is not None:
                twice = Malformed("The header X-Api-Key is there twice. Send it once.")
                raise twice.noted(MALFORMED)
            key = value
    return authorization, key


def _subprotocol(scope: Scope) -> bytes | None:
    """The key that a browser gives a WebSocket."""
    chosen = next((one for one in scope.get("subprotocols", ()) if one.startswith("bearer.")), None)
    return None if chosen is None else chosen.removeprefix("bearer.").encode("latin-1", "replace")


def _presented(scope: Scope) -> bytes | None:
    """The key or token that came, for its fingerprint: the same, whichever way it came."""
    headers: Iterable[Header] = scope["headers"]
    for name, value in headers:
        if name == b"authorization":
            scheme, _, presented = value.partition(b" ")
            return presented if scheme.lower() == b"bearer" else value
        if name == b"x-api-key":
            return value
    return _subprotocol(scope)


def _whose(request: Request, verdict: limits.Verdict) -> str:
    """Of the reasons of a limit that is used up."""
    if isinstance(verdict, limits.Closed):
        return "closed"
    limit = next(one for one in request.policy.bundle.limits if one.name == verdict.name)
    return limit.by if limit.counts == "requests" else "tokens"


def _given_id(scope: Scope) -> str:
    """The id that a trusted proxy gave, where it is one."""
    with contextlib.suppress(ValueError):
        return str(uuid.UUID((_header(scope, b"x-request-id") or b"").decode("latin-1")))
    return ids.made()


async def _body(scope: Scope, receive: Receive, most: int) -> bytes:
    """Raises TooLarge before more than `most` bytes are kept, WrongMedia, and Malformed.

    After a refusal the server reads on and throws away: a client that is cut off while it sends may lose the
    answer."""
    for name, value in scope["headers"]:
        if name == b"content-type":
            if value.partition(b";")[0].strip().lower() != b"application/json":
                raise WrongMedia("The body must be application/json.")
        elif name == b"content-length" and int(value) > most:  # digits: the server has parsed it
            raise _too_large(most)
    if HERE in scope.get("extensions", ()):
        return await _whole(receive, most)  # nothing is waited for
    # By hand, because `asyncio.timeout` takes five microseconds.
    task, late = asyncio.current_task(), False

    def give_up() -> None:
        nonlocal late
        late = task is not None and task.cancel()

    timer = asyncio.get_running_loop().call_later(BODY, give_up)
    try:
        return await _whole(receive, most)
    except asyncio.CancelledError:
        if not late or task is None or task.uncancel():
            raise
        says = f"The body was not here within {BODY:g} seconds."
        raise Malformed(says, {"Connection": "close"}).noted(Sign("wire", "slow")) from None
    finally:
        timer.cancel()


async def _whole(receive: Receive, most: int) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more and size <= most:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Malformed("The body ended early.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
    if size > most:
        raise _too_large(most)
    return b"".join(parts)


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"The body is larger than the {most:,} bytes that are taken.")


def _once(body: bytes, receive: Receive) -> Receive:
    """What was read, for who reads it behind; and then what comes."""
    given = False

    async def read() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return read
