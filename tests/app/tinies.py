"""Tiny models for a worker, and what is asked of every answer that says no."""

import dataclasses
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from gamma_orch.app.bundle import Bundle, Model
from gamma_orch.runtimes.folder import Card
from tests.app.running import model
from tests.kinds.models.tiny import tiny

LONG = 2048  # tokens that the writer can write: some seconds of work
TEMPLATE = "{% for one in messages %}{{ one.role }}: {{ one.content }}\n{% endfor %}assistant:"
REFUSES = "{% if messages[0].role == 'assistant' %}{{ raise_exception('begin with the user') }}{% endif %}"
BROKEN = "camera"  # the word that the broken classifier has no number for

KINDS = {
    400: "malformed",
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    405: "wrong-method",
    413: "too-large",
    415: "wrong-media",
    422: "unprocessable",
    429: "too-many",
    431: "head-too-large",
    500: "internal",
    503: "unavailable",
    504: "late",
}


def three(folder: Path) -> dict[str, Model]:
    """A classifier, an embedder, and a generator that can chat."""
    tiny("bert", folder / "vectors", task="embeddings")
    return {
        "sentiment": model(folder / "sentiment", texts=4, characters=2000),
        "vectors": model(folder / "vectors"),
        "writer": model(writer(folder / "writer"), new_tokens=LONG, deadline=60.0),
    }


def changed(bundle: Bundle, **changes: Any) -> Bundle:
    """Not `model_copy`: that takes over the digest, which is kept with the fields."""
    return Bundle(**{**{name: getattr(bundle, name) for name in Bundle.model_fields}, **changes})


def writer(folder: Path) -> Path:
    """It writes as long as it is let, and has a template for chats."""
    tiny("gpt2", folder, n_positions=LONG)
    dataclasses.replace(Card.read(folder), max_length=LONG).write(folder)
    (folder / "chat_template.jinja").write_text(REFUSES + TEMPLATE)
    return folder


def broken(folder: Path) -> Path:
    """A classifier that fails on the texts that have one word."""
    import torch
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer

    tiny("bert", folder)
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    (place,) = words.encode(BROKEN, add_special_tokens=False).ids
    weights = load_file(folder / "model.safetensors")
    weights["bert.embeddings.word_embeddings.weight"][place] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def problem(answer: httpx.Response, status: int) -> Mapping[str, Any]:
    """What it says; it is a whole problem of that status, with the headers of every answer."""
    assert answer.status_code == status, answer.text
    common(answer)
    assert answer.headers["content-type"] == "application/problem+json"
    said: Mapping[str, Any] = answer.json()
    assert said["type"] == f"urn:gamma:problem:{KINDS[status]}"
    assert said["title"] == answer.reason_phrase
    assert said["status"] == status
    assert said["detail"].endswith(".")
    assert said["instance"] == f"urn:uuid:{answer.headers['x-request-id']}"
    assert said.keys() <= {"type", "title", "status", "detail", "instance", "errors", "error"}
    for fault in said.get("errors", ()):
        assert fault.keys() == {"at", "says"}
        assert fault["at"] == "" or fault["at"].startswith("/")
    if "error" in said:
        assert said["error"]["message"].startswith(said["detail"])
        assert said["error"]["type"] == said["error"]["code"] == KINDS[status]
    assert ("retry-after" in answer.headers) is (status in (429, 503))
    return said


def common(answer: httpx.Response) -> None:
    """The headers that every answer has, each once."""
    names = [name for name, _ in answer.headers.multi_items()]
    assert len(names) == len(set(names)), names
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
    uuid.UUID(answer.headers["x-request-id"])
