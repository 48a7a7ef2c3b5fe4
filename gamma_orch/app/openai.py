"""The routes that clients of OpenAI's API know, for the tasks that fit: chat, completions and embeddings.

Requests are read as those clients send them; what they may hold and this API has no meaning for is taken and
ignored only where that changes no answer (`user`), and refused where it would (`n: 2`, `logprobs`, tools).
Errors are problem details as everywhere, with what those clients look for beside (`edge.told`).
"""

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.routing import APIRoute
from msgspec import UNSET, Struct, UnsetType
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gamma_orch.app import chat, tasks
from gamma_orch.app.edge import Request as Asked
from gamma_orch.app.errors import Problem, Unprocessable
from gamma_orch.app.serving import Served
from gamma_orch.app.writing import Piece
from gamma_orch.runtimes.generator import Writing

encoded = msgspec.json.encode
EVENTS = "text/event-stream"


class Read(APIRoute):
    """A body is read as `tasks` reads it: neither NaN nor half of a surrogate pair is JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def read(request: Request) -> Response:
            return await answer(_Strict(request.scope, request.receive))

        return read


class _Strict(Request):
    async def json(self) -> Any:
        return msgspec.json.decode(await self.body())


router = APIRouter(route_class=Read)

# --- requests -------------------------------------------------------------------------------------


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _no_other(value: Any, *types: type) -> Any:
    """To Python true is 1, and 0 is false; to JSON they are not."""
    if type(value) in types:
        raise ValueError(f"this is {value!r}, which is of another type")
    return value


# 5.0 is a whole number, as JSON Schema has it; beyond 2^53 many clients have none.
Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
One = Annotated[Literal[1] | None, BeforeValidator(lambda value: _no_other(value, bool))]
No = Annotated[Literal[False] | None, BeforeValidator(lambda value: _no_other(value, int, float))]
Seed = Annotated[int, Field(ge=0, le=2**53 - 1), BeforeValidator(_whole)]


class Strict(BaseModel):
    """Nothing is taken for what it is not: "1" is no number, and 1 is not true."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Body(Strict):
    model: Annotated[str, Field(description="The name of a model, or `model:adapter`.")]
    user: str | None = None
    """Taken, and not looked at: who asks is said by the key."""


class StreamOptions(Strict):
    include_usage: bool = False


class Sampling(Body):
    max_tokens: Count | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: Seed | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    # What follows has one value that changes nothing, which many clients send.
    n: One = 1
    stop: None = None
    frequency_penalty: float | None = Field(default=0, ge=0, le=0)
    presence_penalty: float | None = Field(default=0, ge=0, le=0)

    def parameters(self) -> tasks.WriteParameters:
        return tasks.WriteParameters(
            max_new_tokens=self.max_tokens,
            temperature=self.temperature or 0.0,
            top_p=self.top_p or 1.0,
            seed=self.seed or 0,
        )


class Part(Strict):
    type: Literal["text"]
    text: str


class Message(Strict):
    role: Literal["system", "user", "assistant", "developer"]
    content: str | Annotated[list[Part], Field(min_length=1)]
    name: str | None = None

    def plain(self) -> dict[str, str]:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatBody(Sampling):
    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Count | None = None
    logprobs: No = None

    def parameters(self) -> tasks.WriteParameters:
        asked = super().parameters()
        return msgspec.structs.replace(asked, max_new_tokens=self.max_completion_tokens or self.max_tokens)


class CompletionBody(Sampling):
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    echo: Literal[False] | None = False
    logprobs: None = None


class EmbeddingsBody(Body):
    input: str | Annotated[list[str], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: None = None


# --- answers --------------------------------------------------------------------------------------

Finish = Literal["stop", "length"]


class Tokens(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, read: int, wrote: int) -> "Tokens":
        return cls(read, wrote, read + wrote)


class Said(Struct):
    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class ChatChoice(Struct):
    message: Said
    finish_reason: Finish
    index: int = 0
    logprobs: None = None


class ChatAnswer(Struct):
    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Tokens
    object: Literal["chat.completion"] = "chat.completion"


class Delta(Struct):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChunkChoice(Struct):
    delta: Delta
    finish_reason: Finish | None = None
    index: int = 0
    logprobs: None = None


class ChatChunk(Struct):
    """Of a stream; the last but one has why it ended, and the last the usage, where it is asked for."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Tokens | UnsetType = UNSET
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"


class CompletionChoice(Struct):
    text: str
    finish_reason: Finish | None = None
    index: int = 0
    logprobs: None = None


class CompletionAnswer(Struct):
    """Of a stream, too."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Tokens | UnsetType = UNSET
    object: Literal["text_completion"] = "text_completion"


class Embedding(Struct):
    index: int
    embedding: list[float] | str
    """As base64, little-endian float32, where it was asked for."""
    object: Literal["embedding"] = "embedding"


class EmbeddingsUsage(Struct):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct):
    model: str
    data: list[Embedding]
    usage: EmbeddingsUsage
    object: Literal["list"] = "list"


ANSWERS: dict[str, type[Struct]] = {
    "chat": ChatAnswer,
    "completions": CompletionAnswer,
    "embeddings": EmbeddingList,
}

# --- routes ---------------------------------------------------------------------------------------


@router.post("/v1/chat/completions")
async def chat_completions(body: ChatBody, request: Request) -> Response:
    asked: Asked = request.scope["gamma"]
    served, digest, adapter = _served(asked, body.model, "text-generation")
    # That of an adapter is its base's.
    versions = served.model.versions
    folder = next(Path(v.folder) for v in versions if adapter or v.digest == digest)
    templates: chat.Templates = request.app.state.templates
    text = await templates.prompt(folder, [one.plain() for one in body.messages], served.model.characters)
    return await _write(asked, served, digest, adapter, text, body, _Chat(body.model))


@router.post("/v1/completions")
async def completions(body: CompletionBody, request: Request) -> Response:
    asked: Asked = request.scope["gamma"]
    served, digest, adapter = _served(asked, body.model, "text-generation", "summarization")
    text = body.prompt if isinstance(body.prompt, str) else body.prompt[0]
    return await _write(asked, served, digest, adapter, text, body, _Completion(body.model))


@router.post("/v1/embeddings")
async def embeddings(body: EmbeddingsBody, request: Request) -> Response:
    import base64
    import struct

    asked: Asked = request.scope["gamma"]
    served, digest, adapter = _served(asked, body.model, "embeddings")
    wanted = tasks.ReadRequest(body.input, tasks.ReadParameters(adapter))
    tasks.check(wanted, served.model)
    answer = await served.answer(wanted, digest)
    asked.digest, asked.tokens_in = answer.digest, answer.usage.input_tokens
    assert isinstance(answer, tasks.EmbeddingsAnswer)
    data = []
    for number, vector in enumerate(answer.outputs):
        found: list[float] | str = vector
        if body.encoding_format == "base64":
            found = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append(Embedding(number, found))
    usage = EmbeddingsUsage(answer.usage.input_tokens, answer.usage.input_tokens)
    return _json(EmbeddingList(body.model, data, usage))


def named(model: str) -> tuple[str, str]:
    """The model and its adapter, "" where none is meant: `writer:pirate` is the adapter pirate of writer."""
    name, _, adapter = model.partition(":")
    return (name, adapter) if adapter else (model, "")


def _served(asked: Asked, model: str, *tasks_: str) -> tuple[Served, str, str]:
    """With the digest of what answers, and the adapter. Raises Problem: the scope of the model that the body
    names is looked at here."""
    name, adapter = named(model)
    served = asked.policy.permitted(asked, name)
    if served.model.task not in tasks_:
        raise Unprocessable(f"This model is for {served.model.task}, which this route does not answer.")
    return served, served.choose(asked.principal.name, adapter, at="/model"), adapter


class _Chat:
    def __init__(self, model: str) -> None:
        self._head = (f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), model)

    def whole(self, written: tasks.Written, usage: Tokens) -> Struct:
        return ChatAnswer(*self._head, [ChatChoice(Said(written.text), _finish(written))], usage)

    def piece(self, text: str, first: bool) -> Struct:
        return ChatChunk(*self._head, [ChunkChoice(Delta("assistant" if first else UNSET, text))])

    def end(self, finish: Finish, first: bool) -> Struct:
        return ChatChunk(*self._head, [ChunkChoice(Delta("assistant" if first else UNSET), finish)])

    def usage(self, usage: Tokens) -> Struct:
        return ChatChunk(*self._head, [], usage)


class _Completion:
    def __init__(self, model: str) -> None:
        self._head = (f"cmpl-{uuid.uuid4().hex}", int(time.time()), model)

    def whole(self, written: tasks.Written, usage: Tokens) -> Struct:
        return CompletionAnswer(*self._head, [CompletionChoice(written.text, _finish(written))], usage)

    def piece(self, text: str, first: bool) -> Struct:
        return CompletionAnswer(*self._head, [CompletionChoice(text)])

    def end(self, finish: Finish, first: bool) -> Struct:
        return CompletionAnswer(*self._head, [CompletionChoice("", finish)])

    def usage(self, usage: Tokens) -> Struct:
        return CompletionAnswer(*self._head, [], usage)


async def _write(
    asked: Asked,
    served: Served,
    digest: str,
    adapter: str,
    text: str,
    body: Sampling,
    form: _Chat | _Completion,
) -> Response:
    wanted = tasks.WriteRequest(text, msgspec.structs.replace(body.parameters(), adapter=adapter))
    tasks.check(wanted, served.model)
    asked.digest = digest
    if body.stream:
        pieces = served.stream(wanted, digest)
        first = await anext(pieces)  # a queue that is full is a 503, not a stream that breaks off
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        return StreamingResponse(_events(asked, first, pieces, form, with_usage), media_type=EVENTS)
    answer = await served.answer(wanted, digest)
    assert isinstance(answer, tasks.TextAnswer)
    [written] = answer.outputs
    asked.tokens_in, asked.tokens_out = answer.usage.input_tokens, answer.usage.output_tokens
    return _json(form.whole(written, Tokens.of(asked.tokens_in, asked.tokens_out)))


async def _events(
    asked: Asked, first: Piece, rest: AsyncIterator[Piece], form: _Chat | _Completion, usage: bool
) -> AsyncIterator[bytes]:
    begun = False
    try:
        async with aclosing(counted(asked, first, rest)) as pieces:
            async for piece in pieces:
                if piece.text:
                    yield _event(form.piece(piece.text, not begun))
                    begun = True
                if piece.end is not None:
                    yield _event(form.end(_finish(piece.end), not begun))
                    if usage:
                        yield _event(form.usage(Tokens.of(asked.tokens_in, asked.tokens_out)))
                    yield _event(None)
    except Problem as problem:  # the status is sent: the error is an event, as those clients expect it
        yield _event({"error": {"message": problem.detail, "type": problem.kind, "code": problem.kind}})


async def counted(asked: Asked, first: Piece, rest: AsyncIterator[Piece]) -> AsyncGenerator[Piece, None]:
    """The pieces of a stream, which are together what a whole answer has: where the text ends in the middle
    of a character, that comes with the end.

    Who goes away before the end pays for what was written until then: each piece has at least one token.
    What was read is known at the end alone, and counts one here."""
    asked.tokens_in = asked.tokens_out = 1
    piece, said = first, ""
    while piece.end is None:
        yield piece
        said += piece.text
        piece = await anext(rest)
        asked.tokens_out += 1
    asked.tokens_in, asked.tokens_out = piece.end.read, len(piece.end.ids)
    whole = piece.end.text
    yield Piece(whole.removeprefix(said), piece.end) if whole.startswith(said) else piece


def _event(data: object) -> bytes:
    return b"data: " + (b"[DONE]" if data is None else encoded(data)) + b"\n\n"


def _finish(written: tasks.Written | Writing) -> Finish:
    """A text that is whole has ended by one of the two."""
    reason = written.finish_reason if isinstance(written, tasks.Written) else written.finish
    return reason or "stop"


def _json(body: object) -> Response:
    return Response(encoded(body), media_type="application/json")
