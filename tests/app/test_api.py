"""What each route answers, on a real worker: the models, streams, the clients of OpenAI's API byte by byte,
logging in, metrics, and where it says a request is wrong."""

import asyncio
import base64
import dataclasses
import hashlib
import json
import struct
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from gamma_orch.app import passwords
from gamma_orch.app.api import application
from gamma_orch.app.bundle import ApiKey, Bundle, Limit, User
from gamma_orch.app.edge import Receive, Request, Scope, Send
from tests.app.running import Running, auth, bundle, model
from tests.app.tinies import changed, common, problem, three

SECRET = "a secret that is long enough for HS256"
TALKER = "gk_talker_0123456789abcdef"
PASSWORD = "correct horse battery staple"


@dataclasses.dataclass
class Api:
    worker: Running
    bundle: Bundle
    client: httpx.Client

    def ask(self, path: str, body: object, status: int = 200) -> Any:
        said = self.client.post(path, json=body)
        if status == 200:
            assert said.status_code == 200, said.text
            common(said)
            return said.json()
        return problem(said, status)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("api")
    models = three(folder)
    models["mute"] = model(folder / "mute", "distilgpt2")  # no template
    models["short"] = model(folder / "short", "t5", new_tokens=16)
    models["vectors"] = models["vectors"].model_copy(update={"texts": 8})
    user = User(
        name="ann", hash=passwords.hashed(PASSWORD, "ann"), scopes=("models", "predict"), tenant="acme"
    )
    talker = ApiKey(name="talker", sha256=hashlib.sha256(TALKER.encode()).hexdigest(), scopes=("predict",))
    found = bundle(
        models,
        auth=auth(users=(user,)).model_copy(update={"keys": (*auth().keys, talker)}),
        secrets={"tokens": "d" * 64},
        limits=(Limit(name="words", by="principal", rate=300, per=3600, counts="tokens", routes=("chat",)),),
    )
    with Running(folder / "home", found, {"tokens": SECRET}) as running, running.client() as client:
        yield Api(running, found, client)


def events(said: httpx.Response) -> list[tuple[str, Any]]:
    """Of a stream: the name of each and its data."""
    assert said.headers["content-type"] == "text/event-stream; charset=utf-8"
    found = []
    for part in said.text.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in part.split("\n"))
        data = fields["data"]
        found.append((fields.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return found


# --- models ---------------------------------------------------------------------------------------


def test_the_models(api: Api) -> None:
    said = api.client.get("/v1/models").json()
    assert said["object"] == "list"
    assert [one["id"] for one in said["data"]] == sorted(api.bundle.models)
    for one in said["data"]:
        assert one == api.client.get(f"/v1/models/{one['id']}").json()
    version = api.bundle.models["writer"].versions[0]
    assert said["data"][-1] == {
        "id": "writer",
        "object": "model",
        "created": 0,
        "owned_by": "gamma",
        "task": "text-generation",
        "versions": [{"digest": version.digest, "share": 1.0, "shadow": False}],
    }


def test_one_sees_the_models_that_one_may_ask(api: Api) -> None:
    with api.worker.client("narrow") as narrow:
        assert narrow.get("/v1/models").json() == {"object": "list", "data": []}
        problem(narrow.get("/v1/models/writer"), 403)
        problem(narrow.get("/v1/models/nothing"), 403)
        problem(narrow.get("/v1/models/other"), 404)


def test_versions_and_their_shares(api: Api, tmp_path: Path) -> None:
    one, other = api.bundle.models["sentiment"], model(tmp_path / "other", seed=5)
    shadow, half = other.versions[0], one.versions[0].model_copy(update={"weight": 3})
    versions = (half, shadow.model_copy(update={"weight": 0, "shadow": True}))
    both = one.model_copy(update={"versions": versions})
    told = api.worker.swap(
        changed(api.bundle, models={**api.bundle.models, "sentiment": both}), {"tokens": SECRET}
    )
    assert "error" not in told
    said = api.client.get("/v1/models/sentiment").json()["versions"]
    assert said == [
        {"digest": half.digest, "share": 1.0, "shadow": False},
        {"digest": shadow.digest, "share": 0.0, "shadow": True},
    ]
    assert "error" not in api.worker.swap(api.bundle, {"tokens": SECRET})


# --- predictions ----------------------------------------------------------------------------------


def test_a_prediction_of_each_task(api: Api) -> None:
    said = api.ask("/v1/models/sentiment/predict", {"inputs": ["a warm film", "dull"]})
    assert [one["label"] in ("positive", "negative") for one in said["outputs"]] == [True, True]
    assert said["digest"] == api.bundle.models["sentiment"].versions[0].digest
    assert said["usage"]["input_tokens"] > 4
    said = api.ask("/v1/models/vectors/predict", {"inputs": "a warm film"})
    assert len(said["outputs"][0]) == 32
    for name, parameters in (("writer", {"max_new_tokens": 5}), ("short", {"max_new_tokens": 5})):
        said = api.ask(f"/v1/models/{name}/predict", {"inputs": "the film", "parameters": parameters})
        assert said["outputs"][0]["tokens"] == said["usage"]["output_tokens"] <= 5


@pytest.mark.parametrize(
    ("name", "body", "status", "faults"),
    [
        ("sentiment", {}, 400, [("", "Object missing required field inputs.")]),
        ("sentiment", {"inputs": 1}, 400, [("/inputs", "Expected str | array, got int.")]),
        ("sentiment", {"inputs": ["a", None]}, 400, [("/inputs/1", "Expected str, got null.")]),
        ("sentiment", {"inputs": []}, 422, [("/inputs", "It is empty.")]),
        (
            "sentiment",
            {"inputs": "a", "parameters": {"adapter": "x"}},
            404,
            [("/parameters/adapter", "Leave it.")],
        ),
        (
            "sentiment",
            {"inputs": "a", "parameters": {"temperature": 1}},
            400,
            [("/parameters", "It has a field that is not known here.")],
        ),
        (
            "writer",
            {"inputs": "a", "parameters": {"temperature": 3}},
            400,
            [("/parameters/temperature", "Expected float <= 2.0.")],
        ),
        (
            "short",
            {"inputs": "a", "parameters": {"max_new_tokens": 17}},
            422,
            [("/parameters/max_new_tokens", "At most 16 tokens are written.")],
        ),
    ],
)
def test_what_a_model_cannot_answer(
    api: Api, name: str, body: object, status: int, faults: list[tuple[str, str]]
) -> None:
    said = api.ask(f"/v1/models/{name}/predict", body, status)
    assert [(one["at"], one["says"]) for one in said["errors"]] == faults


def test_a_stream(api: Api) -> None:
    body = {"inputs": "the film", "parameters": {"max_new_tokens": 7}}
    said = api.client.post("/v1/models/writer/stream", json=body)
    common(said)
    *some, (name, end) = events(said)
    assert {one for one, _ in some} == {"piece"}
    whole = api.ask("/v1/models/writer/predict", body)
    assert "".join(data["text"] for _, data in some) == whole["outputs"][0]["text"]
    assert name == "end"
    assert end == {"finish_reason": "length", "digest": whole["digest"], "usage": whole["usage"]}


def test_what_cannot_be_streamed(api: Api) -> None:
    assert "writes no text" in api.ask("/v1/models/sentiment/stream", {"inputs": "a"}, 422)["detail"]
    said = api.ask("/v1/models/writer/stream", {"inputs": ["a", "b"]}, 400)
    assert said["errors"] == [{"at": "/inputs", "says": "Give one."}]


# --- as OpenAI has it -----------------------------------------------------------------------------


def test_embeddings(api: Api) -> None:
    texts = ["a warm film", "a dull film"]
    said = api.ask("/v1/embeddings", {"model": "vectors", "input": texts, "user": "u"})
    right = api.ask("/v1/models/vectors/predict", {"inputs": texts})
    assert [one["index"] for one in said["data"]] == [0, 1]
    for one, vector in zip(said["data"], right["outputs"], strict=True):
        assert one["object"] == "embedding"
        assert one["embedding"] == pytest.approx(vector, abs=1e-5)
    tokens = right["usage"]["input_tokens"]
    assert said["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    packed = api.ask("/v1/embeddings", {"model": "vectors", "input": texts, "encoding_format": "base64"})
    for one, vector in zip(packed["data"], right["outputs"], strict=True):
        raw = base64.b64decode(one["embedding"])
        assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == pytest.approx(vector, abs=1e-5)


def test_a_completion(api: Api) -> None:
    body = {"model": "writer", "prompt": "the film", "max_tokens": 6}
    said = api.ask("/v1/completions", body)
    assert said["object"] == "text_completion"
    (choice,) = said["choices"]
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "length", None)
    assert said["usage"]["completion_tokens"] == 6
    assert said["usage"]["total_tokens"] == 6 + said["usage"]["prompt_tokens"]
    assert api.ask("/v1/completions", {**body, "prompt": ["the film"]})["choices"] == said["choices"]
    seeded = {**body, "temperature": 1.5, "seed": 3}
    assert api.ask("/v1/completions", seeded)["choices"] == api.ask("/v1/completions", seeded)["choices"]
    streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
    *parts, (_, done) = events(api.client.post("/v1/completions", json=streamed))
    assert done == "[DONE]"
    chunks = [data for _, data in parts]
    assert len({(one["id"], one["created"], one["model"]) for one in chunks}) == 1
    assert "".join(one["choices"][0]["text"] for one in chunks[:-1]) == choice["text"]
    assert [one["choices"][0]["finish_reason"] for one in chunks[:-1]][-1] == "length"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == said["usage"]
    assert all("usage" not in one for one in chunks[:-1])


def test_a_chat(api: Api) -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "the "}, {"type": "text", "text": "film"}]},
    ]
    body = {"model": "writer", "messages": messages, "max_completion_tokens": 4, "max_tokens": 9}
    said = api.ask("/v1/chat/completions", body)
    (choice,) = said["choices"]
    assert choice["message"]["role"] == "assistant"
    assert said["usage"]["completion_tokens"] == 4
    prompt = "system: be brief\nuser: the film\nassistant:"
    plain = api.ask("/v1/completions", {"model": "writer", "prompt": prompt, "max_tokens": 4})
    assert choice["message"]["content"] == plain["choices"][0]["text"]
    assert said["usage"] == plain["usage"]
    *parts, (_, done) = events(api.client.post("/v1/chat/completions", json={**body, "stream": True}))
    assert done == "[DONE]"
    deltas = [data["choices"][0]["delta"] for _, data in parts]
    assert [one.get("role") for one in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert "".join(one.get("content", "") for one in deltas) == choice["message"]["content"]


@pytest.mark.parametrize("stream", [False, True])
def test_who_has_used_up_their_tokens_waits(api: Api, stream: bool) -> None:
    """They are counted when they are there, and each chat costs more than 90: the limit is 300."""
    body = {"model": "writer", "messages": [{"role": "user", "content": "the film"}], "max_tokens": 90}
    headers = {"Authorization": f"Bearer {TALKER}"}
    asked = 0
    while True:
        said = api.client.post("/v1/chat/completions", json={**body, "stream": stream}, headers=headers)
        if said.status_code != 200:
            break
        asked += 1
    assert "The limit words is used up" in problem(said, 429)["detail"]
    assert int(said.headers["retry-after"]) >= 1
    assert asked <= 3
    assert stream or asked >= 2


@pytest.mark.parametrize(
    ("path", "body", "status", "where"),
    [
        ("/v1/chat/completions", {"model": "writer"}, 400, ["/messages"]),
        ("/v1/chat/completions", {"model": "writer", "messages": []}, 400, ["/messages"]),
        (
            "/v1/chat/completions",
            {"model": "writer", "messages": [{"content": "x"}]},
            400,
            ["/messages/0/role"],
        ),
        (
            "/v1/chat/completions",
            {"model": "writer", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            ["/messages/0/content", "/messages/0/content/0/type", "/messages/0/content/0/text"],
        ),
        (
            "/v1/chat/completions",
            {"model": "writer", "messages": [{"role": "tool", "content": "x"}], "tools": []},
            400,
            ["/messages/0/role", ""],
        ),
        ("/v1/completions", {"model": "writer", "prompt": 5}, 400, ["/prompt", "/prompt"]),
        ("/v1/completions", {"model": "writer", "prompt": ["a", "b"]}, 400, ["/prompt", "/prompt"]),
        ("/v1/completions", {"model": "writer", "prompt": "a", "n": 2}, 400, ["/n"]),
        ("/v1/completions", {"model": "writer", "prompt": "a", "max_tokens": "5"}, 400, ["/max_tokens"]),
        ("/v1/completions", {"model": "writer", "prompt": "a", "stream": 1}, 400, ["/stream"]),
        ("/v1/completions", {"model": "writer", "prompt": "a", "seed": 2**63}, 400, ["/seed"]),
        ("/v1/completions", {"model": "writer", "prompt": "a", "stop": "x"}, 400, ["/stop"]),
        (
            "/v1/completions",
            {"model": "writer", "prompt": "a", "max_tokens": 9999},
            422,
            ["/parameters/max_new_tokens"],
        ),
        ("/v1/embeddings", {"model": "vectors", "input": []}, 400, ["/input", "/input"]),
        ("/v1/embeddings", {"model": "vectors", "input": "a", "dimensions": 5}, 400, ["/dimensions"]),
        ("/v1/embeddings", {"model": "vectors", "input": ["a"] * 9}, 413, ["/inputs"]),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    api: Api, path: str, body: object, status: int, where: list[str]
) -> None:
    assert [one["at"] for one in api.ask(path, body, status)["errors"]] == where


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/embeddings", {"model": "writer", "input": "a"}, "for text-generation"),
        ("/v1/completions", {"model": "vectors", "prompt": "a"}, "for embeddings"),
        (
            "/v1/chat/completions",
            {"model": "short", "messages": [{"role": "user", "content": "a"}]},
            "summarization",
        ),
        (
            "/v1/chat/completions",
            {"model": "mute", "messages": [{"role": "user", "content": "a"}]},
            "no chat template",
        ),
        (
            "/v1/chat/completions",
            {"model": "writer", "messages": [{"role": "assistant", "content": "a"}]},
            "does not take these messages",
        ),
    ],
)
def test_a_model_that_is_not_for_this(api: Api, path: str, body: Mapping[str, object], says: str) -> None:
    with api.worker.client("caller") as client:
        assert says in problem(client.post(path, json=body), 422)["detail"]
        problem(client.post(path, json={**body, "model": "nothing"}), 404)


def test_values_that_change_nothing_are_taken(api: Api) -> None:
    """As many clients send them, with null for what is not there."""
    nothing = {
        "temperature": None,
        "top_p": 1,
        "n": 1,
        "stop": None,
        "seed": None,
        "stream": None,
        "user": "x",
    }
    more = {"frequency_penalty": 0.0, "presence_penalty": 0, "logprobs": None, "stream_options": None}
    body = {"model": "writer", "prompt": "the film", "max_tokens": 2}
    right = api.ask("/v1/completions", body)["choices"]
    assert api.ask("/v1/completions", {**body, **nothing, **more})["choices"] == right


def test_a_chat_has_an_end(api: Api) -> None:
    with api.worker.client("caller") as client:
        many = [{"role": "user", "content": "x"}] * 101
        said = client.post("/v1/chat/completions", json={"model": "writer", "messages": many})
        assert "100 messages" in problem(said, 413)["detail"]
        long = [{"role": "user", "content": "x" * 20_000}]
        said = client.post("/v1/chat/completions", json={"model": "writer", "messages": long})
        assert "20,000 characters" in problem(said, 413)["detail"]


# --- logging in -----------------------------------------------------------------------------------


def test_a_password_becomes_a_token(api: Api) -> None:
    said = api.ask("/v1/token", {"name": "ann", "password": PASSWORD})
    assert (said["token_type"], said["expires_in"]) == ("bearer", 900)
    headers = {"Authorization": f"Bearer {said['access_token']}"}
    who = httpx.get(api.worker.url + "/v1/whoami", headers=headers).json()
    assert (who["name"], who["kind"], who["tenant"]) == ("ann", "user", "acme")
    assert who["scopes"] == ["models", "predict"]
    problem(httpx.get(api.worker.url + "/metrics", headers=headers), 403)


def test_who_has_the_wrong_password_learns_nothing(api: Api) -> None:
    """The same words for a name that is none; and after some tries, when to come again."""
    texts = set()
    for name in ("nobody", "ann"):
        for number in range(5):
            said = api.client.post("/v1/token", json={"name": name, "password": f"wrong {number}"})
            texts.add(problem(said, 401)["detail"])
            assert said.headers["www-authenticate"].startswith("Bearer")
        said = api.client.post("/v1/token", json={"name": name, "password": "wrong"})
        assert "it waits" in problem(said, 429)["detail"]
        assert int(said.headers["retry-after"]) >= 1
    assert texts == {"The name or the password is wrong."}


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"name": "ann"}, ["/password"]),
        ({"name": "a" * 129, "password": "x"}, ["/name"]),
        ({"name": "ann", "password": "x" * 4097}, ["/password"]),
        ({"name": 1, "password": ["x"]}, ["/name", "/password"]),
        ({"name": "ann", "password": "x", "scope": "all"}, [""]),
    ],
)
def test_credentials_are_a_name_and_a_password(api: Api, body: object, where: list[str]) -> None:
    assert [one["at"] for one in api.ask("/v1/token", body, 400)["errors"]] == where


def test_a_service_without_users(api: Api) -> None:
    assert "error" not in api.worker.swap(changed(api.bundle, auth=auth(), secrets={}))
    api.ask("/v1/token", {"name": "ann", "password": PASSWORD}, 404)
    assert "error" not in api.worker.swap(api.bundle, {"tokens": SECRET})


def test_who_am_i(api: Api) -> None:
    assert api.client.get("/v1/whoami").json() == {
        "name": "all",
        "kind": "key",
        "tenant": "",
        "scopes": ["live", "metrics", "models", "predict", "security"],
        "expires": None,
    }


# --- the rest -------------------------------------------------------------------------------------


def test_metrics_count_what_was_asked(api: Api) -> None:
    def read() -> dict[str, float]:
        lines = api.client.get("/metrics").text.splitlines()
        return {
            name: float(value) for name, _, value in (one.rpartition(" ") for one in lines if one[0] != "#")
        }

    before = read()
    api.ask("/v1/models/vectors/predict", {"inputs": "counted"})
    api.ask("/v1/models/vectors/predict", {"inputs": "counted"})
    api.ask("/v1/models/nothing/predict", {"inputs": "x"}, 404)
    api.ask("/v1/embeddings", {"model": "nothing", "input": "x"}, 404)
    with api.worker.client("narrow") as narrow:
        narrow.post("/v1/embeddings", json={"model": "vectors", "input": "x"})
        narrow.get("/metrics")
    with api.worker.client(None) as nobody:
        nobody.get("/v1/models")
    after = read()
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    assert grown['gamma_requests_total{model="vectors",route="predict",status="200"}'] == 2
    assert grown['gamma_answers_total{cache="made",model="vectors"}'] == 1
    assert grown['gamma_answers_total{cache="l1",model="vectors"}'] == 1
    assert grown['gamma_requests_total{model="unknown",route="predict",status="404"}'] == 1
    assert grown['gamma_requests_total{model="unknown",route="embeddings",status="404"}'] == 1
    assert grown['gamma_refused_total{limit="",reason="forbidden"}'] == 2
    assert grown['gamma_refused_total{limit="",reason="unauthenticated"}'] == 1
    assert grown['gamma_requests_total{model="",route="models",status="401"}'] == 1
    assert "nothing" not in " ".join(after)


def test_a_page_may_load_nothing_from_elsewhere(api: Api) -> None:
    for path in ("/", "/page.js", "/page.css"):
        policy = api.client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
    page = api.client.get("/").text
    assert "http" not in page.replace("<!doctype html>", "")
    assert "<script>" not in page
    assert " style=" not in page
    assert " on" + "click=" not in page


def test_an_exception_that_nobody_expected_is_a_problem_too() -> None:
    """And has not the words of the exception, nor those of a library."""
    app = application(worker=None)  # type: ignore[arg-type]
    asked = Request(str(uuid.uuid4()), policy=None, address="", principal=None)  # type: ignore[arg-type]

    async def within(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "gamma": asked}, receive, send)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(within, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get("/v1/whoami")

    said = asyncio.run(ask())
    assert said.status_code == 500
    assert said.headers["content-type"] == "application/problem+json"
    assert said.json()["detail"] == f"A fault of the server. Its log has it under {asked.id}."
    assert said.json()["instance"] == f"urn:uuid:{asked.id}"
