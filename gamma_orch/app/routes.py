"""Every route of the API with the scope that it asks for: the table that `edge` decides by.

Nothing is open by being forgotten: a path that is not here is 404 before anything else sees it, and `api`
refuses to start with a route that this table does not name. `open` is the scope of what anyone may ask.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

OPEN = "open"  # no key needed


@dataclass(frozen=True, slots=True)
class Route:
    name: str  # in metrics, logs and limits
    path: str  # a template: /v1/models/{model}/predict
    methods: tuple[str, ...]
    scope: str
    socket: bool = False  # a WebSocket
    body_names_model: bool = False  # who may ask one model may come in; the route looks which it is

    @property
    def allowed(self) -> tuple[str, ...]:
        """The methods that are answered: where a GET is, a HEAD is too."""
        return (*self.methods, "HEAD") if "GET" in self.methods else self.methods


ROUTES = (
    Route("predict", "/v1/models/{model}/predict", ("POST",), "predict"),
    Route("stream", "/v1/models/{model}/stream", ("POST",), "predict"),
    Route("models", "/v1/models", ("GET",), "models"),
    Route("model", "/v1/models/{model}", ("GET",), "models"),
    Route("chat", "/v1/chat/completions", ("POST",), "predict", body_names_model=True),
    Route("completions", "/v1/completions", ("POST",), "predict", body_names_model=True),
    Route("embeddings", "/v1/embeddings", ("POST",), "predict", body_names_model=True),
    Route("token", "/v1/token", ("POST",), OPEN),
    Route("whoami", "/v1/whoami", ("GET",), "models"),
    Route("live", "/v1/live", (), "live", socket=True),
    Route("security", "/v1/security", (), "security", socket=True),
    Route("metrics", "/metrics", ("GET",), "metrics"),
    Route("health", "/healthz", ("GET",), OPEN),
    Route("ready", "/readyz", ("GET",), OPEN),
    Route("page", "/", ("GET",), OPEN),
    Route("page", "/page.js", ("GET",), OPEN),
    Route("page", "/page.css", ("GET",), OPEN),
    Route("openapi", "/openapi.json", ("GET",), OPEN),
)
SCOPES = tuple(sorted({route.scope for route in ROUTES} - {OPEN}))


@dataclass(frozen=True, slots=True)
class Match:
    route: Route
    values: Mapping[str, str]  # of the template


class Table:
    """Routes by path. Fixed paths are looked up, templates are tried in their order."""

    def __init__(self, routes: tuple[Route, ...] = ROUTES) -> None:
        self._fixed = {(route.path, route.socket): route for route in routes if "{" not in route.path}
        self._patterns = [
            (
                re.compile(
                    re.sub(
                        r"\{(\w+)\}",
                        r"(?P<\1>[^/]+)",
                        re.escape(route.path).replace(r"\{", "{").replace(r"\}", "}"),
                    )
                ),
                route,
            )
            for route in routes
            if "{" in route.path
        ]
        self.find = lru_cache(maxsize=1024)(self._find)

    def _find(self, path: str, socket: bool = False) -> Match | None:
        if (route := self._fixed.get((path, socket))) is not None:
            return Match(route, {})
        for pattern, route in self._patterns:
            if route.socket is socket and (found := pattern.fullmatch(path)):
                return Match(route, found.groupdict())
        return None
