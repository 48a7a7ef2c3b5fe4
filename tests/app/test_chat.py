"""The text of a chat is what the model was trained with, and its template can do nothing else."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.app.chat import MESSAGES, Templates
from gamma_orch.app.errors import TooLarge, Unavailable, Unprocessable

Chat = Sequence[Mapping[str, str]]
Prompt = Callable[..., str]
HELLO: Chat = [{"role": "user", "content": "Hello <b>&amp;"}]
TALK: Chat = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": 'Ähm, \'tis "what"?'},
    {"role": "assistant", "content": " An answer. "},
    {"role": "user", "content": "\n"},
]
# As models have them: with a namespace, names that may be missing, special tokens, JSON, and training marks.
CHATML = (
    "{%- set ns = namespace(system='') %}{%- if tools %}tools{%- endif %}\n"
    "{%- for message in messages %}\n"
    "    {%- if message.role == 'system' %}{% set ns.system = message.content %}{% continue %}{% endif %}\n"
    "    {%- if message.tool_calls or message['reasoning'] is defined %}never{% endif %}\n"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + eos_token + '\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if custom is not defined %}"
    "{{ bos_token }}{{ ns.system | upper }}{{ messages | tojson }}{% endif %}\n"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BRIEF = (
    "{% for message in messages %}\n"
    "  {% if message.role == 'assistant' %}{% generation %}{{ message.content }}{% endgeneration %}\n"
    "  {% else %}[{{ loop.index }}]{{ message.content }}{% endif %}\n"
    "{% endfor %}"
)
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
DOUBLED = "{% set ns = namespace(s='x') %}{% for a in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}"


def model(folder: Path, template: object, **config: object) -> Path:
    """`template`: a text for the file of its own, or anything for the tokenizer's configuration."""
    folder.mkdir()
    if isinstance(template, str):
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    elif template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def run(do: Callable[[Templates], Coroutine[Any, Any, None]]) -> None:
    async def within() -> None:
        templates = Templates()
        try:
            await do(templates)
        finally:
            await templates.aclose()

    asyncio.run(within())


@pytest.fixture(scope="module")
def prompt() -> Iterator[Prompt]:
    """What a chat becomes, by one process for all."""
    with asyncio.Runner() as runner:
        templates = Templates()

        def ask(folder: Path, chat: Chat = HELLO, most: int = 1000) -> str:
            return runner.run(templates.prompt(folder, chat, most))

        yield ask
        runner.run(templates.aclose())


@pytest.mark.parametrize("template", [CHATML, BRIEF], ids=["chatml", "brief"])
@pytest.mark.parametrize("chat", [HELLO, TALK], ids=["hello", "talk"])
def test_the_text_is_what_transformers_makes(
    prompt: Prompt, tmp_path: Path, template: str, chat: Chat
) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    (right,), _ = render_jinja_template(
        [list(chat)], chat_template=template, add_generation_prompt=True, **tokens
    )
    folder = model(tmp_path / "m", template, bos_token="<s>", eos_token={"content": "</s>", "lstrip": False})
    assert prompt(folder, chat) == right


def test_where_a_template_is(prompt: Prompt, tmp_path: Path) -> None:
    inline = model(tmp_path / "inline", None, chat_template="in the configuration")
    named = [{"name": "tools", "template": "other"}, {"name": "default", "template": "the default"}]
    both = model(tmp_path / "both", "of its own", chat_template="in the configuration")
    assert prompt(inline) == "in the configuration"
    assert prompt(model(tmp_path / "named", named)) == "the default"
    assert prompt(both) == "of its own"


@pytest.mark.parametrize("template", [None, 5, [{"name": "tools", "template": "x"}]])
def test_a_model_without_one(prompt: Prompt, tmp_path: Path, template: object) -> None:
    with pytest.raises(Unprocessable, match="no chat template"):
        prompt(model(tmp_path / "m", template))
    with pytest.raises(Unprocessable, match="no chat template"):
        prompt(tmp_path)


@pytest.mark.parametrize(
    "template",
    [
        pytest.param("{{ ''.__class__.__mro__[1].__subclasses__() }}", id="classes"),
        pytest.param("{{ messages.__class__.__init__.__globals__ }}", id="globals"),
        pytest.param("{{ raise_exception.__globals__['__builtins__'] }}", id="builtins"),
        pytest.param("{{ ('{0.__class__.__init__.__globals__}').format(messages) }}", id="format"),
        pytest.param("{% set x = messages.append({}) %}", id="changes the messages"),
        pytest.param("{% include 'tokenizer_config.json' %}", id="include"),
        pytest.param("{% import 'os' as os %}", id="import"),
        pytest.param("{{ nothing.at.all }}", id="undefined"),
        pytest.param("{{ 1 / 0 }}", id="zero"),
        pytest.param("{{ raise_exception('CANARY') }}", id="refuses"),
        pytest.param("{% for %}", id="no template"),
        pytest.param("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", id="recursion"),
        pytest.param("{{ '\\ud800' }}", id="half of a pair"),
    ],
)
def test_what_a_template_may_not_do(prompt: Prompt, tmp_path: Path, template: str) -> None:
    with pytest.raises(Unprocessable, match="does not take these messages") as caught:
        prompt(model(tmp_path / "m", template))
    assert "CANARY" not in caught.value.detail


@pytest.mark.parametrize(
    "template", ["{{ ''.__class__ }}", "{{ messages | attr('__class__') }}", "{{ messages['__class__'] }}"]
)
def test_what_a_template_may_not_see_is_not_there(prompt: Prompt, tmp_path: Path, template: str) -> None:
    assert prompt(model(tmp_path / "m", template)) == ""


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(LOOP, id="loop"),
        pytest.param(DOUBLED, id="memory"),
        pytest.param("{{ 'x'.center(99999999999) }}", id="width"),
        pytest.param("{{ (9 ** 9) ** (9 ** 9) }}", id="power"),
    ],
)
def test_what_never_ends_or_is_too_much_is_ended(tmp_path: Path, template: str) -> None:
    """And the next chat is answered."""
    bad, good = model(tmp_path / "bad", template), model(tmp_path / "good", "fine")

    async def do(templates: Templates) -> None:
        assert await templates.prompt(good, HELLO, 100) == "fine"
        with pytest.raises(Unprocessable, match="too much time or memory"):
            await templates.prompt(bad, HELLO, 100)
        assert await templates.prompt(good, HELLO, 100) == "fine"

    run(do)


def test_everybody_else_is_answered_while_a_template_runs(tmp_path: Path) -> None:
    bad = model(tmp_path / "bad", LOOP)

    async def do(templates: Templates) -> None:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.01)
                beats += 1

        beating = asyncio.create_task(beat())
        with pytest.raises(Unprocessable, match="too much time or memory"):
            await templates.prompt(bad, HELLO, 100)
        beating.cancel()
        assert beats > 10

    run(do)


def test_a_chat_has_a_hundred_messages(prompt: Prompt, tmp_path: Path) -> None:
    folder = model(tmp_path / "m", "{{ messages | length }}")
    assert prompt(folder, [*HELLO] * MESSAGES) == str(MESSAGES)
    with pytest.raises(TooLarge, match="100 messages or fewer"):
        prompt(folder, [*HELLO] * (MESSAGES + 1))


def test_a_text_has_the_characters_of_the_model(prompt: Prompt, tmp_path: Path) -> None:
    folder = model(tmp_path / "m", "{{ messages[0].content }}")
    assert prompt(folder, [{"role": "user", "content": "é" * 10}], most=10) == "é" * 10
    with pytest.raises(TooLarge, match="10 characters"):
        prompt(folder, [{"role": "user", "content": "é" * 11}], most=10)


def test_a_process_that_dies_is_started_anew(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", "fine")

    async def do(templates: Templates) -> None:
        assert await templates.prompt(folder, HELLO, 100) == "fine"
        assert templates._process is not None
        first = templates._process.pid
        os.kill(first, signal.SIGKILL)
        try:
            said = await templates.prompt(folder, HELLO, 100)
        except Unavailable:  # it went while it was asked
            said = await templates.prompt(folder, HELLO, 100)
        assert said == "fine"
        assert templates._process.pid != first

    run(do)


def test_who_stops_waiting_leaves_no_answer_to_the_next(tmp_path: Path) -> None:
    slow, fast = model(tmp_path / "slow", LOOP), model(tmp_path / "fast", "mine")

    async def do(templates: Templates) -> None:
        assert await templates.prompt(fast, HELLO, 100) == "mine"
        asked = asyncio.create_task(templates.prompt(slow, HELLO, 100))
        await asyncio.sleep(0.1)
        asked.cancel()
        assert await templates.prompt(fast, HELLO, 100) == "mine"
        assert asked.cancelled()

    run(do)


def test_many_at_once_get_each_their_own(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", "{{ messages[0].content }}")

    async def do(templates: Templates) -> None:
        texts = [f"text {number}" for number in range(50)]
        chats = [[{"role": "user", "content": text}] for text in texts]
        assert await asyncio.gather(*(templates.prompt(folder, chat, 100) for chat in chats)) == texts

    run(do)


def test_the_process_ends_with_its_worker(tmp_path: Path) -> None:
    """Its pipe closes; nothing else is needed, for a worker may be killed."""
    folder = model(tmp_path / "m", "fine")

    async def do(templates: Templates) -> None:
        await templates.prompt(folder, HELLO, 100)
        process = templates._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(10):
            assert await process.wait() == 0

    run(do)
