"""What a body of an OpenAI client is taken for: to JSON true is no number, and 0 is not false."""

from typing import Any

import pytest
from pydantic import ValidationError

from gamma_orch.app.openai import ChatBody

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "a"}]}


@pytest.mark.parametrize(
    "said", [{"n": True}, {"n": 2}, {"logprobs": 0}, {"logprobs": 0.0}, {"logprobs": True}]
)
def test_what_only_looks_alike_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ChatBody.model_validate({**BODY, **said})


@pytest.mark.parametrize("said", [{"n": 1}, {"n": 1.0}, {"n": None}, {"logprobs": False}, {"logprobs": None}])
def test_what_changes_nothing_is_taken(said: dict[str, Any]) -> None:
    ChatBody.model_validate({**BODY, **said})
