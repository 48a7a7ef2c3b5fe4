"""The OpenAPI document says what the API does. Schemathesis makes requests of it, right ones and wrong ones,
and holds the answers of a real worker against it; and what no document describes (heads and bodies of every
kind, byte by byte) is answered in its statuses, too.

`make nightly` does so for ten minutes."""

import http.client
import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import jsonschema_rs
import pytest
from hypothesis import Phase, given, note, settings

from gamma_orch.app import passwords
from gamma_orch.app.bundle import User
from gamma_orch.app.edge import NEVER_LIMITED
from gamma_orch.app.routes import OPEN, ROUTES
from gamma_orch.app.wire import HEAD
from tests.app.hostile import CANARY, Asked, requests
from tests.app.running import KEYS, Running, auth, bundle, model
from tests.app.tinies import TEMPLATE, writer
from tests.kinds.models.tiny import tiny

LEFT_OUT = {
    "/",
    "/page.js",
    "/page.css",
    "/openapi.json",
    "/v1/live",
    "/v1/security",
}  # pages, itself, WebSockets
# What a request that fits the document may be told all the same: that the model cannot answer it, that it is
# too much, that the adapter or the user is none. And msgspec takes 5.0 for no whole number.
SETTINGS = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 404, 413, 422, 429{more}]

[[operations]]
include-operation-id = ["predict", "stream"]
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 404, 413, 422{more}]
"""
PASSWORD = "correct horse battery staple"


@dataclass
class Served:
    worker: Running
    document: Any
    folder: Path

    def run(self, *arguments: str, timeout: float, key: str | None = KEYS["all"]) -> None:
        """As `st run` does. The names of models are put in, so that not all is 404."""
        models = {"predict": ["sentiment", "vectors"], "stream": ["writer"]}
        document = json.loads(json.dumps(self.document))
        for operations in document["paths"].values():
            for operation in operations.values():
                for parameter in operation.get("parameters", ()):
                    parameter["schema"]["enum"] = models.get(operation["operationId"], ["writer", "vectors"])
        schemas = document["components"]["schemas"]
        for name, served in (
            ("ChatBody", "writer"),
            ("CompletionBody", "writer"),
            ("EmbeddingsBody", "vectors"),
        ):
            schemas[name]["properties"]["model"]["enum"] = [served]
        body = document["paths"]["/v1/models/{model}/predict"]["post"]["requestBody"]["content"]
        body["application/json"]["schema"] = {"$ref": "#/components/schemas/ReadRequest"}
        (self.folder / "openapi.json").write_text(json.dumps(document))
        # Whoever may less is told so. Who has the scopes never is.
        more = ", 403" if key == KEYS["narrow"] else ""
        (self.folder / "schemathesis.toml").write_text(SETTINGS.replace("{more}", more))
        credentials = () if key is None else ("--header", f"Authorization: Bearer {key}")
        ran = subprocess.run(
            [
                *(str(Path(sys.executable).with_name("st")), "--config-file", "schemathesis.toml", "run"),
                *("openapi.json", "--url", self.worker.url),
                *credentials,
                *("--checks", "all", "--continue-on-failure", *arguments),
            ],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert self.worker.state()["faults"] == 0

    def mistreat(self, times: int) -> None:
        # Not shrunk: where the fault is that nothing is answered, that would take an hour.
        @settings(max_examples=times, phases=(Phase.reuse, Phase.generate))
        @given(asked=requests())
        def asks(asked: Asked) -> None:
            note(repr(asked))
            self.holds(asked)

        asks()
        assert self.worker.state()["faults"] == 0

    def holds(self, asked: Asked) -> None:
        """Whatever is asked is answered, as the document says or as every path is that it does not have."""
        port = int(self.worker.url.rpartition(":")[2])
        with (
            socket.create_connection(("127.0.0.1", port), timeout=30) as wire,
            closing(http.client.HTTPResponse(wire, method=asked.method)) as said,
        ):
            try:
                wire.sendall(asked.sent)
                said.begin()
                body = said.read()
            except ConnectionError:  # what is too large is cut off while it still comes
                assert len(asked.sent) > HEAD
                return
        assert said.status != 500
        assert CANARY.encode() not in body + str(said.headers).encode()
        if asked.upgrades:
            return  # a WebSocket: refused by the library, in its own words
        for name in ("x-request-id", "cache-control", "x-content-type-options", "content-type"):
            assert len(said.headers.get_all(name, [])) == 1, said.headers
        uuid.UUID(said.headers["x-request-id"])
        assert said.headers["cache-control"] == "no-store"
        assert "server" not in said.headers
        responses = self._documented(asked)
        assert str(said.status) in responses
        media = said.headers["content-type"].partition(";")[0]
        if said.status >= 400:
            assert media == "application/problem+json"
        elif responses[str(said.status)]:
            assert media in responses[str(said.status)]["content"]
        if asked.method == "HEAD":
            assert body == b""
        elif said.status >= 400:
            jsonschema.validate(json.loads(body), self.document["components"]["schemas"]["Problem"])
            assert json.loads(body)["status"] == said.status
        elif media == "application/json":
            json.loads(body)

    def _documented(self, asked: Asked) -> dict[str, Any]:
        """By status. Where the path or the method is another one, it is what every path may answer."""
        found: dict[str, Any] = dict.fromkeys(("400", "404", "405", "431"))
        method = "GET" if asked.method == "HEAD" else asked.method
        if asked.route.path not in self.document["paths"] and method == "GET":  # pages, and the document
            return found | dict.fromkeys(("200",) if not asked.route.socket else ())
        operation = self.document["paths"].get(asked.route.path, {}).get(method.lower(), {"responses": {}})
        return found | dict(operation["responses"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("contract")
    tiny("bert", folder / "vectors", task="embeddings")
    (writer(folder / "writer") / "chat_template.jinja").write_text(TEMPLATE)
    models = {
        "sentiment": model(folder / "sentiment"),
        "vectors": model(folder / "vectors"),
        "writer": model(folder / "writer", new_tokens=16),
    }
    users = (User(name="ann", hash=passwords.hashed(PASSWORD, "ann"), scopes=("models",)),)
    found = bundle(models, auth=auth(users=users), secrets={"tokens": "d" * 64})
    secrets = {"tokens": "a secret that is long enough for HS256"}
    with Running(folder / "home", found, secrets) as running, running.client(None) as client:
        yield Served(running, client.get("/openapi.json").json(), folder)


def test_the_document_is_valid(served: Served) -> None:
    assert served.document["openapi"] == "3.1.0"
    for schema in served.document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema_rs.meta.validate(schema)
    texts = json.dumps(served.document)
    for reference in set(_references(served.document)):
        assert reference.startswith("#/components/schemas/")
        assert reference.rpartition("/")[2] in served.document["components"]["schemas"]
    for name in served.document["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in texts, f"nothing is a {name}"
    ids = [one["operationId"] for _, _, one in _operations(served.document)]
    assert len(ids) == len(set(ids))


def test_every_route_is_in_it_or_left_out_on_purpose(served: Served) -> None:
    declared = {(route.path, method) for route in ROUTES for method in route.methods}
    told = {(path, method.upper()) for path, method, _ in _operations(served.document)}
    assert told <= declared
    assert {path for path, _ in declared - told} | {"/v1/live", "/v1/security"} == LEFT_OUT


def test_it_says_who_may_ask_and_how_often(served: Served) -> None:
    by_path = {route.path: route for route in ROUTES}
    for path, _, operation in _operations(served.document):
        route = by_path[path]
        responses = operation["responses"]
        if route.scope == OPEN:
            assert "security" not in operation
        else:
            assert operation["security"] == [{"bearer": []}, {"key": []}]
            assert operation["x-scope"] == route.scope
            assert {"401", "403"} <= responses.keys()
        assert ("429" in responses) is (route.name not in NEVER_LIMITED)
        assert ({"413", "415"} <= responses.keys()) is ("POST" in route.methods)
        for status, response in responses.items():
            assert response["description"]
            if status != "200":
                assert list(response["content"]) == ["application/problem+json"]
        assert "422" not in responses or route.scope == "predict"


@pytest.mark.timeout(300)
def test_the_api_keeps_to_it(served: Served) -> None:
    served.run("--max-examples", "20", "--seed", "1", timeout=240)


def test_whatever_comes_is_answered_as_the_document_says(served: Served) -> None:
    served.mistreat(200)


@pytest.mark.nightly
@pytest.mark.timeout(1500)
def test_the_api_keeps_to_it_for_ten_minutes(served: Served) -> None:
    """Whatever comes; and then with the right key, with one that may little, with a wrong one, with none."""
    end = time.monotonic() + 180
    while time.monotonic() < end:
        served.mistreat(500)
    wrong = "gk_wrong_0123456789abcdef"
    for key, seconds in ((KEYS["all"], 300), (KEYS["narrow"], 40), (wrong, 40), (None, 40)):
        served.run("--max-time", str(seconds), timeout=seconds + 240, key=key)


def _operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield path, method, operation


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(found := part.get("$ref"), str):
            yield found
        for one in part.values():
            yield from _references(one)
    elif isinstance(part, list):
        for one in part:
            yield from _references(one)
