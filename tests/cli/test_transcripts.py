"""Whole conversations with `gamma`, as a user sees them: `transcripts/NAME.txt`.

A file has the project's files, each below a line `-- path --`, and commands, each a line `$ gamma ...`
with what it answers: standard output, then standard error behind `2> `, then `[status]` if it is not 0.
Files may come again further down: that is an edit. `$ world update a {"value": "x"}` is what somebody
else does to the world; `$ rm path` deletes a file. What differs from run to run (times, digests, the
folder) stands as <when>, <took>, <digest>, <project>. UPDATE_GOLDEN=1 writes the answers.
"""

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from gamma_orch.testing.world import World
from tests.cli.gamma import Warm, write

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))

PATTERNS = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z?"), "<when>"),
    (re.compile(r"\b(\d+ ms|\d+(\.\d+)? s)\b"), "<took>"),
    (re.compile(r'"seconds": \d+\.\d+'), '"seconds": <took>'),
    (re.compile(r"\b([0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{12})\b"), "<digest>"),
    (re.compile(r"\bprocess \d+"), "process <pid>"),
    (re.compile(r"\d+\.\d+\.\d+ at .*python[0-9.]*"), "<python>"),
)
BLOCK = re.compile(r"^(?:-- (?P<file>\S+) --|\$ (?P<command>.+))$")


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(gamma: Warm, tmp_path: Path, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    project = tmp_path / "project"
    project.mkdir()
    got = ""
    for head, body in blocks(text):
        block = BLOCK.match(head)
        if block is None:
            got += head + body  # what the transcript is about
        elif block["file"]:
            write(project, {block["file"]: body})
            got += f"{head}\n{body}"
        else:
            got += f"{head}\n{answer(gamma, project, block['command'])}"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(got, encoding="utf-8")
    else:
        assert got == text, "UPDATE_GOLDEN=1 rewrites it"


def blocks(text: str) -> list[tuple[str, str]]:
    """Each head with the lines below it; what comes before the first is a head of its own."""
    found: list[tuple[str, str]] = [("", "")]
    for line in text.splitlines(keepends=True):
        if BLOCK.match(line.rstrip("\n")):
            found.append((line.rstrip("\n"), ""))
        else:
            head, body = found[-1]
            found[-1] = (head, body + line)
    return found


def answer(gamma: Warm, project: Path, command: str) -> str:
    program, *words = shlex.split(command)
    if program == "world":
        operation, name = words[:2]
        fields = json.loads(command.partition(f"{name} ")[2] or "{}")
        world = World(project / ".gamma" / "dev" / "world.jsonl")
        kept = dict(world.things[name]["fields"]) if operation == "update" else {}
        world.effect(operation, name, {**kept, **fields})
        return ""
    if program == "rm":
        (project / words[0]).unlink()
        return ""
    done = gamma(project, *words, THING_PASSWORD="from the environment")
    assert "Traceback" not in done.err, done.err
    said = "".join(f"2> {line}\n" for line in done.err.splitlines() if not line.endswith(" ..."))
    status = f"[{done.code}]\n" if done.code else ""
    return settled(done.out + said + status, project)


def settled(text: str, project: Path) -> str:
    text = text.replace(str(project), "<project>")
    for pattern, instead in PATTERNS:
        text = pattern.sub(instead, text)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())
