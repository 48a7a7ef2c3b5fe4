"""OpenAI's own client, unchanged, on a real worker."""

import asyncio
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from gamma_orch.app.bundle import Limit
from tests.app.running import KEYS, Running, bundle
from tests.app.tinies import three

MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "developer", "content": "be brief"},
    {"role": "user", "content": [{"type": "text", "text": "the film"}]},
]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("openai")
    models = three(folder)
    models["late"] = models["writer"].model_copy(update={"deadline": 0.2})
    limit = Limit(name="few", by="principal", rate=1, per=60, routes=("models",))
    with Running(folder / "home", bundle(models, limits=(limit,))) as running:
        yield running


def client_of(worker: Running, key: str = KEYS["all"]) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{worker.url}/v1", api_key=key, max_retries=0)


@pytest.fixture
def client(worker: Running) -> Iterator[openai.OpenAI]:
    with client_of(worker) as client:
        yield client


def test_models(worker: Running, client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list()] == ["late", "sentiment", "vectors", "writer"]
    assert client.models.retrieve("writer").owned_by == "gamma"


def test_embeddings(client: openai.OpenAI) -> None:
    """By itself the client asks for base64 and unpacks it."""
    texts = ["a warm film", "a dull film"]
    packed = client.embeddings.create(model="vectors", input=texts)
    plain = client.embeddings.create(model="vectors", input=texts, encoding_format="float")
    assert [one.index for one in packed.data] == [0, 1]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert len(one.embedding) == 32
        assert one.embedding == pytest.approx(other.embedding, abs=1e-5)
        assert sum(x * x for x in one.embedding) == pytest.approx(1, abs=1e-3)
    assert packed.usage.total_tokens == plain.usage.prompt_tokens > 6
    (single,) = client.embeddings.create(model="vectors", input=texts[0]).data
    assert single.embedding == pytest.approx(packed.data[0].embedding, abs=1e-5)


def test_completions(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="writer", prompt="the film", max_tokens=6)
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 6
    stream = client.completions.create(model="writer", prompt="the film", max_tokens=6, stream=True)
    chunks = list(stream)
    assert "".join(one.choices[0].text for one in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == "length"


def test_a_chat(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model="writer",
        messages=MESSAGES,
        max_completion_tokens=6,
        temperature=0,
        frequency_penalty=0,
        user="u",
    )
    message = whole.choices[0].message
    assert (message.role, message.refusal, message.tool_calls) == ("assistant", None, None)
    assert whole.usage is not None
    stream = client.chat.completions.create(
        model="writer",
        messages=MESSAGES,
        max_tokens=6,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = stream
    assert "".join(one.choices[0].delta.content or "" for one in chunks) == message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "length"
    assert last.choices == []
    assert last.usage == whole.usage


def test_the_clients_own_reading_of_a_stream(client: openai.OpenAI) -> None:
    """It follows the events, puts them together, and says that the text is cut."""
    with client.chat.completions.stream(model="writer", messages=MESSAGES, max_tokens=6) as stream:
        kinds = {event.type for event in stream}
        with pytest.raises(openai.LengthFinishReasonError) as cut:
            stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert cut.value.completion.choices[0].finish_reason == "length"
    assert cut.value.completion.choices[0].message.content


def test_many_at_once(worker: Running) -> None:
    async def run() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{worker.url}/v1", api_key=KEYS["all"]) as client:
            asked = [
                client.chat.completions.create(model="writer", messages=MESSAGES, max_tokens=6)
                for _ in range(8)
            ]
            return [one.choices[0].message.content for one in await asyncio.gather(*asked)]

    assert len(set(asyncio.run(run()))) == 1


def test_errors_are_those_of_the_client(worker: Running, client: openai.OpenAI) -> None:
    with client_of(worker, "gk_wrong") as stranger, pytest.raises(openai.AuthenticationError) as refused:
        stranger.models.list()
    assert "not taken here" in str(refused.value)
    assert "gk_wrong" not in str(refused.value)
    with client_of(worker, KEYS["narrow"]) as narrow, pytest.raises(openai.PermissionDeniedError):
        narrow.embeddings.create(model="vectors", input="x")
    with pytest.raises(openai.NotFoundError) as missing:
        client.embeddings.create(model="nothing", input="x")
    assert missing.value.request_id
    assert missing.value.response.json()["instance"] == f"urn:uuid:{missing.value.request_id}"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="writer", messages=MESSAGES, n=2)
    assert str(wrong.value) == (
        "Error code: 400 - The body is not what this route takes. /n: Input should be 1."
    )
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="writer", messages=MESSAGES, logprobs=True)
    with pytest.raises(openai.UnprocessableEntityError):
        client.completions.create(model="vectors", prompt="x")
    with client_of(worker, KEYS["caller"]) as caller:
        caller.models.list()
        with pytest.raises(openai.RateLimitError) as limited:
            caller.models.list()
    assert int(limited.value.response.headers["retry-after"]) > 1


def test_a_stream_that_breaks_off_is_an_error(client: openai.OpenAI) -> None:
    """The status is sent by then, and the client raises all the same."""
    stream = client.completions.create(model="late", prompt="the film", max_tokens=2000, stream=True)
    with pytest.raises(openai.APIError, match="deadline"):
        for _ in stream:
            pass
