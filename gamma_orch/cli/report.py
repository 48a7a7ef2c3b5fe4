"""How commands speak: results to standard output, the rest to standard error, colour on a terminal."""

import json
import os
import sys

from gamma_orch.cli.contract import Exit
from gamma_orch.core.canonical import Json
from gamma_orch.core.provider import GammaError
from gamma_orch.core.render import diagnostics_text

_TONES = {"+": "32", "~": "33", "±": "35", ">": "36", "<": "36", "-": "31", "!": "1;31", ".": "2"}


def show_json(document: Json) -> None:
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def show(text: str) -> None:
    sys.stdout.write(painted(text, sys.stdout.isatty()))


def say(text: str) -> None:
    """A line of progress or explanation."""
    sys.stderr.write(text + "\n")


def painted(text: str, colour: bool) -> str:
    """The text with each change's block in the colour of its symbol. NO_COLOR turns it off."""
    if not colour or os.environ.get("NO_COLOR"):
        return text
    lines = []
    for line in text.split("\n"):
        tone = _TONES.get(line[2:3]) if line.startswith("  ") and line[3:4] == " " else None
        lines.append(f"\x1b[{tone}m{line}\x1b[0m" if tone else line)
    return "\n".join(lines)


def failure(error: GammaError) -> Exit:
    """Say what went wrong; the exit code that tells it to scripts."""
    from gamma_orch.cli.saved import Edited, WrongEnvironment
    from gamma_orch.engine.project import SpecsBroken
    from gamma_orch.store.errors import LeaseHeld, LeaseLost

    if isinstance(error, SpecsBroken):
        sys.stderr.write(diagnostics_text(error.diagnostics))
        return Exit.ERROR
    sys.stderr.write(f"gamma: {error}\n")
    refused = isinstance(error, LeaseHeld | LeaseLost | Edited | WrongEnvironment)
    return Exit.REFUSED if refused else Exit.ERROR
