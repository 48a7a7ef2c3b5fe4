"""The OpenAPI document: what FastAPI knows of its routes, and what it does not: the hot route, the answers,
who may ask what, and the problems that every route can answer with.

Not in it: the page, the document itself, and the WebSocket, which OpenAPI has no words for."""

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gamma_orch.app import tasks
from gamma_orch.app.edge import NEVER_LIMITED
from gamma_orch.app.routes import OPEN, ROUTES, Route

Json = Any
PLACE = "#/components/schemas/{name}"
EXAMPLE: Json = {
    "inputs": ["A warm, clever film.", "Two hours that I will not get back."],
    "parameters": {},
}
_EVERYWHERE = {
    "400": "The request is malformed.",
    "405": "The path does not take this method.",
    "431": "The head of the request is too large.",
    "500": "A fault of the server.",
    "503": "Too much waits already, or the worker is not ready. Retry-After says when to come again.",
}
_BODY = {
    "413": "The request is too large.",
    "415": "The body is no JSON.",
}
_GUARDED = {
    "401": "No key or token, or one that is not taken.",
    "403": "The scope is missing.",
}
_LIMITED = {"429": "A limit is used up. Retry-After says when to come again."}
_MODEL = {"404": "There is no such model, or it has no such adapter."}
_ANSWERED = {
    "422": "The model cannot answer this.",
    "504": "Not answered before the deadline.",
}
_TOKEN = {
    "401": "The name or the password is wrong.",
    "404": "This service has no users.",
    "429": "The account waits, or a limit is used up. Retry-After says when to come again.",
}


def document(app: FastAPI, answers: Mapping[str, type[msgspec.Struct]]) -> Json:
    """`answers`: what a route answers with, by its name."""
    found = get_openapi(
        title="Gamma",
        version="1",
        summary="Predictions by the models that this service serves.",
        routes=app.routes,
        separate_input_output_schemas=False,
    )
    paths = found["paths"]
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    references, made = msgspec.json.schema_components(answers.values(), ref_template=PLACE)
    for more in (tasks.components(PLACE), made, {"Problem": PROBLEM}):
        assert not schemas.keys() & more.keys(), "two schemas have one name"
        schemas.update(more)
    for name in ("ReadRequest", "WriteRequest"):
        schemas[name]["properties"]["inputs"] = _texts()
    found["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a JWT."},
        "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
    }
    paths["/v1/models/{model}/predict"] = {"post": _predict()}
    _stream(paths["/v1/models/{model}/stream"]["post"])
    schema_of = dict(zip(answers, references, strict=True))
    for route in ROUTES:
        for method in route.methods:
            operation = paths.get(route.path, {}).get(method.lower())
            if operation is not None:
                _complete(route, operation, schema_of)
    return found


def _predict() -> Json:
    return {
        "summary": "Ask a model",
        "operationId": "predict",
        "parameters": [_named("model")],
        "requestBody": _content({"anyOf": [_ref("ReadRequest"), _ref("WriteRequest")]}, EXAMPLE),
        "responses": {
            "200": {
                "description": "An output for each input.",
                "headers": {"X-Cache": {"schema": {"type": "string"}, "description": "Where it came from."}},
                "content": {"application/json": {"schema": {"anyOf": [
                    _ref(kind.__name__) for kind in dict.fromkeys(tasks.ANSWERS.values())
                ]}}},
            }
        },
    }  # fmt: skip


def _stream(operation: Json) -> None:
    schema = {"allOf": [_ref("WriteRequest"), {"properties": {"inputs": _texts(most=1)}}]}
    example = {"inputs": EXAMPLE["inputs"][0], "parameters": {}}
    operation["summary"] = "Ask a model that writes, and read along"
    operation["requestBody"] = _content(schema, example)
    operation["responses"]["200"] = {
        "description": "Server-sent events: piece, end, error.",
        "content": {"text/event-stream": {}},
    }


def _texts(most: int | None = None) -> Json:
    many: Json = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    if most is not None:
        many["maxItems"] = most
    return {"anyOf": [{"type": "string"}, many]}


def _content(schema: Json, example: Json) -> Json:
    return {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}


def _complete(route: Route, operation: Json, schema_of: Mapping[str, Json]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)  # what FastAPI takes for granted
    if route.name in schema_of:
        responses["200"]["content"] = {"application/json": {"schema": schema_of[route.name]}}
    if route.name in ("chat", "completions"):
        responses["200"]["description"] = "The answer; with `stream`, server-sent events as OpenAI has them."
        responses["200"]["content"]["text/event-stream"] = {}
    if route.name == "metrics":
        responses["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    if route.scope != OPEN:
        operation["security"] = [{"bearer": []}, {"key": []}]
        operation["x-scope"] = route.scope
    for status, says in _problems(route).items():
        responses[status] = {
            "description": says,
            "content": {"application/problem+json": {"schema": _ref("Problem")}},
        }
        if status in ("429", "503"):
            responses[status]["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}


def _problems(route: Route) -> dict[str, str]:
    found = dict(_EVERYWHERE)
    if "POST" in route.methods:
        found |= _BODY
    if route.scope != OPEN:
        found |= _GUARDED
    if route.name not in NEVER_LIMITED:
        found |= _LIMITED
    if route.scope == "predict":
        found |= _MODEL | _ANSWERED
    if route.name == "model":
        found |= _MODEL
    if route.name == "token":
        found |= _TOKEN
    return found


def _named(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _ref(name: str) -> Json:
    return {"$ref": PLACE.format(name=name)}


PROBLEM: Json = {
    "type": "object",
    "description": "RFC 9457. `instance` is the id under which the log has the request.",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["at", "says"],
                "properties": {
                    "at": {"type": "string", "description": "JSON pointer"},
                    "says": {"type": "string"},
                },
            },
        },
        "error": {
            "type": "object",
            "description": "The same for clients of OpenAI's API, on the routes that they ask.",
            "required": ["message", "type", "code"],
            "properties": {name: {"type": "string"} for name in ("message", "type", "code")},
        },
    },
}
