"""Which route a path is, and that nothing is open by being forgotten."""

from collections.abc import Callable

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts

from gamma_orch.app.api import _check, application
from gamma_orch.app.routes import OPEN, ROUTES, SCOPES, Table


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.mark.parametrize(
    ("path", "name", "model"),
    [
        ("/", "page", None),
        ("/healthz", "health", None),
        ("/v1/models", "models", None),
        ("/v1/models/m", "model", "m"),
        ("/v1/models/team.m-1/predict", "predict", "team.m-1"),
        ("/v1/models/m/stream", "stream", "m"),
        ("/v1/models/predict/predict", "predict", "predict"),
        ("/v1/models/a b\n/predict", "predict", "a b\n"),
    ],
)
def test_a_path_has_a_route(table: Table, path: str, name: str, model: str | None) -> None:
    found = table.find(path)
    assert found is not None
    assert found.route.name == name
    assert found.values.get("model") == model


@pytest.mark.parametrize(
    "path",
    [
        "",
        "//",
        "/v1/models/",
        "/v1/models//predict",
        "/v1/models/a/b/predict",
        "/v1/models/m/predict/",
        "/v1/models/m/predict/x",
        "/V1/models",
        "/v1/models\n",
        "/v1/models/m/predict\n",
        "/x/v1/models",
        "/v1/live",
        "/docs",
        "/page.html",
        "/page/../v1/models",
    ],
)
def test_every_other_path_has_none(table: Table, path: str) -> None:
    assert table.find(path) is None


def test_a_socket_is_found_by_sockets_alone(table: Table) -> None:
    found = table.find("/v1/live", socket=True)
    assert found is not None
    assert found.route.scope == "live"
    for route in ROUTES:
        if not route.socket:
            assert table.find(route.path.replace("{model}", "m"), socket=True) is None


def test_what_is_open_is_a_short_list() -> None:
    """Whoever makes it longer changes this, too."""
    assert {route.name for route in ROUTES if route.scope == OPEN} == {
        "token",
        "health",
        "ready",
        "page",
        "openapi",
    }
    assert SCOPES == ("live", "metrics", "models", "predict", "security")
    assert all(route.methods for route in ROUTES if not route.socket)


def test_a_head_is_allowed_where_a_get_is() -> None:
    for route in ROUTES:
        assert ("HEAD" in route.allowed) is ("GET" in route.methods)
        assert set(route.methods) <= set(route.allowed)


def test_the_application_has_every_route_but_those_that_the_edge_answers() -> None:
    """And the other way round: it does not start with one that the table does not name."""
    app = application(worker=None)  # type: ignore[arg-type]
    routes = iter_route_contexts(app.routes)
    answered = {(route.path, method) for route in routes for method in route.methods or ()}
    declared = {(route.path, method) for route in ROUTES for method in route.methods}
    assert declared - answered == {("/v1/models/{model}/predict", "POST")}
    assert answered <= declared


def bare() -> FastAPI:
    return FastAPI(openapi_url=None, docs_url=None, redoc_url=None)


def of_its_own() -> FastAPI:
    app = bare()
    app.add_api_route("/v1/forgotten", lambda: None)
    return app


def another_method() -> FastAPI:
    app = bare()
    app.add_api_route("/v1/models", lambda: None, methods=["GET", "DELETE"])
    return app


def in_a_router() -> FastAPI:
    app, outer, inner = bare(), APIRouter(), APIRouter()
    inner.add_api_route("/v1/forgotten", lambda: None)
    outer.include_router(inner)
    app.include_router(outer)
    return app


def in_a_mounted_app() -> FastAPI:
    app = bare()
    app.mount("/v1/models", of_its_own())
    return app


def a_socket() -> FastAPI:
    app = bare()
    app.add_api_websocket_route("/v1/models", lambda socket: None)
    return app


@pytest.mark.parametrize("made", [of_its_own, another_method, in_a_router, in_a_mounted_app, a_socket])
def test_a_route_that_nobody_gave_a_scope_stops_the_worker(made: Callable[[], FastAPI]) -> None:
    with pytest.raises(RuntimeError, match="has no scope"):
        _check(made())
