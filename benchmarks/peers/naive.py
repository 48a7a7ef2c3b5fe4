"""What is often written: FastAPI with five middlewares, each a BaseHTTPMiddleware, and Redis on the way."""

import hashlib
import hmac
import json
import logging
import os
import sys
import time
import uuid
from collections.abc import Awaitable, Callable

import redis.asyncio as redis
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from prometheus_client import Counter, Histogram
from pydantic import BaseModel
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.peers.model import answer, load

Next = Callable[[Request], Awaitable[Response]]
KEY = os.environ["KEY"]
store = redis.Redis.from_url(os.environ["VALKEY"])
requests = Counter("requests", "Requests.", ["path", "status"])
seconds = Histogram("seconds", "Seconds.", ["path"])
logging.basicConfig(stream=sys.stdout, level=logging.INFO)
log = logging.getLogger("naive")
app = FastAPI()
model = load()


class Body(BaseModel):
    inputs: str


class Identified(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Next) -> Response:
        request.state.id = str(uuid.uuid4())
        response = await call_next(request)
        response.headers["x-request-id"] = request.state.id
        return response


class Logged(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Next) -> Response:
        started = time.perf_counter()
        response = await call_next(request)
        took = time.perf_counter() - started
        log.info(json.dumps({"path": request.url.path, "status": response.status_code, "ms": 1000 * took}))
        return response


class Measured(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Next) -> Response:
        started = time.perf_counter()
        response = await call_next(request)
        requests.labels(request.url.path, response.status_code).inc()
        seconds.labels(request.url.path).observe(time.perf_counter() - started)
        return response


class Authenticated(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Next) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given, KEY):
            return JSONResponse({"detail": "Not authenticated"}, 401)
        return await call_next(request)


class Limited(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Next) -> Response:
        window = f"limit:{int(time.time())}"
        if await store.incr(window) > 1_000_000:
            return JSONResponse({"detail": "Too many requests"}, 429)
        await store.expire(window, 2)
        return await call_next(request)


for middleware in (Limited, Authenticated, Measured, Logged, Identified):
    app.add_middleware(middleware)


@app.post("/predict")
async def predict(body: Body) -> Response:
    key = "answer:" + hashlib.sha256(body.inputs.encode()).hexdigest()
    if (kept := await store.get(key)) is not None:
        return Response(kept, media_type="application/json")
    made = json.dumps(answer(model, [body.inputs])[0])
    await store.set(key, made, ex=300)
    return Response(made, media_type="application/json")
