"""From the messages of a chat to the one text that a model goes on from, by the model's own template.

A template comes with the weights, so it is somebody else's program. It runs in jinja2's sandbox, with nothing
in its reach but the messages, and in a process of its own: a sandbox bounds neither time nor memory, and the
loop that never ends must not be the loop that answers everybody. The worker has a `Templates`, which starts
that process (`python -m gamma_orch.app.chat`) at the first chat, and anew after it has ended. Always:

- A template has `SECONDS` of CPU time and `MEMORY` for one chat; beyond them the kernel ends the process.
- What a model was trained with is what it gets: the same text as transformers' `apply_chat_template`.
- An answer of the process is a text, or one of four words. A template's own words go nowhere.
"""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gamma_orch.app.errors import Problem, TooLarge, Unavailable, Unprocessable

Message = Mapping[str, str]
Json = Any

MESSAGES = 100  # of a chat, at most: a template loops over them
SECONDS = 1.0
MEMORY = 256_000_000  # bytes of addresses, Python's own included
START = 30.0  # seconds until the process is there, on a machine that has much to do
LINE = 2**26  # bytes of what goes there and what comes back, at most
TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Templates:
    """The worker's side. One chat at a time: it takes well under a millisecond."""

    def __init__(self) -> None:
        self._one = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def prompt(self, folder: Path, messages: Sequence[Message], most: int) -> str:
        """The text, with what makes the model answer next. `most`: its characters. Raises Unprocessable where
        the model is no chat model, or its template refuses the messages, TooLarge, and Unavailable."""
        if len(messages) > MESSAGES:
            raise TooLarge(f"A chat has {MESSAGES} messages or fewer.")
        order = {"folder": str(folder), "messages": [dict(one) for one in messages], "most": most}
        async with self._one:
            told = await self._ask(json.dumps(order).encode() + b"\n")
        if "text" in told:
            return str(told["text"])
        raise _problem(str(told["why"]), most)

    async def aclose(self) -> None:
        """For who goes on without it; a worker that ends need not."""
        process = self._process
        self._end()
        if process is not None:
            await process.communicate()

    async def _ask(self, order: bytes) -> Json:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await _started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(order)
            await process.stdin.drain()
            line = await process.stdout.readline()
        except OSError:
            line = b""
        except BaseException:
            self._end()  # or its answer would be taken for that of the next chat
            raise
        if not line.endswith(b"\n"):
            self._process = None  # it has ended: to kill it would take its last word from who waits for it
            if await process.wait() == -signal.SIGPROF:
                return {"why": "long"}
            raise _gone()
        return json.loads(line)

    def _end(self) -> None:
        """It is in the middle of something that nobody waits for."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()


async def _started() -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "gamma_orch.app.chat"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the worker's log has lines of JSON, and nobody else's words
        start_new_session=True,  # a signal to the worker's group is not for it: it ends with the pipe
        limit=LINE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START):
            ready = await process.stdout.readline()
    except TimeoutError:
        ready = b""
    if ready != b"ready\n":
        if process.returncode is None:
            process.kill()
        raise _gone()
    return process


def _gone() -> Unavailable:
    return Unavailable("What puts a chat into words is not there at the moment. Ask again.", 1)


def _problem(why: str, most: int) -> Problem:
    match why:
        case "none":
            return Unprocessable("This model has no chat template. Use /v1/completions.")
        case "large":
            return TooLarge(f"The chat has more than the {most:,} characters that are taken.")
        case "long":
            return Unprocessable("The model's chat template takes too much time or memory for this chat.")
        case _:
            return Unprocessable("The model's chat template does not take these messages, or their order.")


# --- in the process -------------------------------------------------------------------------------


def main() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        order = json.loads(line)
        # Nobody handles its signal, so it ends the process, wherever that is, and whoever lives to see it.
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        told = rendered(Path(order["folder"]), order["messages"], order["most"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


def rendered(folder: Path, messages: Sequence[Message], most: int) -> dict[str, str]:
    """{"text": the prompt}, or {"why": not}."""
    try:
        found = _template(folder)
        if found is None:
            return {"why": "none"}
        template, tokens = found
        text = template.render(
            messages=messages, add_generation_prompt=True, tools=None, documents=None, **tokens
        )
        text.encode()  # half of a surrogate pair is no text
    except MemoryError:
        return {"why": "long"}
    except Exception:  # noqa: BLE001 - a template may raise whatever it can think of
        return {"why": "refused"}
    return {"text": text} if len(text) <= most else {"why": "large"}


@lru_cache(maxsize=64)
def _template(folder: Path) -> tuple[Template, dict[str, str]] | None:
    said: dict[str, Any] = {}
    config = folder / "tokenizer_config.json"
    if config.is_file():
        said = json.loads(config.read_text(encoding="utf-8"))
    path = folder / "chat_template.jinja"
    source = path.read_text(encoding="utf-8") if path.is_file() else said.get("chat_template")
    if isinstance(source, list):  # several, by name
        source = next((one["template"] for one in source if one["name"] == "default"), None)
    if not isinstance(source, str):
        return None
    tokens = {name: text for name in TOKENS if (text := _text(said.get(name)))}
    return _environment().from_string(source), tokens


def _environment() -> ImmutableSandboxedEnvironment:
    """That of transformers: an undefined name is empty, as templates have it for what a message may lack."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now(UTC).strftime(form)
    return environment


class _Generation(Extension):
    """`{% generation %}` marks what the model wrote, for training: here it is no more than what it holds."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 has it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _text(token: object) -> str:
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else ""


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


if __name__ == "__main__":
    main()
