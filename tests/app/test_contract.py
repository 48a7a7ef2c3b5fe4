"""The OpenAPI document says what the API does: schemathesis makes requests of it, right ones and wrong ones,
and holds the answers of a real worker against it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import jsonschema_rs
import pytest

from gamma_orch.app import passwords
from gamma_orch.app.bundle import User
from gamma_orch.app.edge import NEVER_LIMITED
from gamma_orch.app.routes import OPEN, ROUTES
from tests.app.running import KEYS, Running, auth, bundle, model
from tests.app.tinies import TEMPLATE, writer
from tests.kinds.models.tiny import tiny

LEFT_OUT = {"/", "/page.js", "/page.css", "/openapi.json", "/v1/live"}  # pages, itself, and a WebSocket
# What a request that fits the document may be told all the same: that the model cannot answer it, that it is
# too much, that the adapter or the user is none. And msgspec takes 5.0 for no whole number.
SETTINGS = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 404, 413, 422, 429]

[[operations]]
include-operation-id = ["predict", "stream"]
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 404, 413, 422]
"""
PASSWORD = "correct horse battery staple"


@dataclass
class Served:
    worker: Running
    document: Any
    folder: Path

    def run(self, *arguments: str, timeout: float) -> None:
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
        (self.folder / "schemathesis.toml").write_text(SETTINGS)
        ran = subprocess.run(
            [
                *(str(Path(sys.executable).with_name("st")), "--config-file", "schemathesis.toml", "run"),
                *("openapi.json", "--url", self.worker.url),
                *("--header", f"Authorization: Bearer {KEYS['all']}"),
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
    assert {path for path, _ in declared - told} | {"/v1/live"} == LEFT_OUT


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


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_the_api_keeps_to_it_for_ten_minutes(served: Served) -> None:
    served.run("--max-time", "600", timeout=1100)


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
