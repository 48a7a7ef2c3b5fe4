"""Runs `gamma` in processes that begin warm: forked from one that has imported everything already.

A process of its own for each command is what crash tests and tests of the command line need, and
starting Python for it would take ten times as long as the command. This script is that parent; it
has one thread and never runs a command itself. `tests.cli.gamma` talks to it: a line of JSON in, the
exit status out (negative: the signal that killed it).
"""

import json
import os
import sys
import traceback
from importlib import import_module
from typing import Any

WARM = (
    "alembic.command",
    "asyncpg",
    "filelock",
    "gamma_orch.cli.app",
    "gamma_orch.cli.progress",
    "gamma_orch.cli.report",
    "gamma_orch.cli.saved",
    "gamma_orch.engine.embedded",
    "gamma_orch.engine.estimate",
    "gamma_orch.engine.execute",
    "gamma_orch.engine.journal",
    "gamma_orch.engine.doors",
    "gamma_orch.spec.schema",
    "gamma_orch.store.migrate",
    "gamma_orch.testing.thing",
    "psycopg2",
    "sqlalchemy.dialects.postgresql.psycopg2",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "tenacity",
    "yaml",
)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for name in WARM:
        import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            run(order)
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


def run(order: dict[str, Any]) -> None:
    """In the child. Does not return."""
    code = 1
    try:
        for number, path in enumerate((os.devnull, order["out"], order["err"])):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(path, flags, 0o600), number)
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["env"])
        sys.argv = ["gamma", *order["arguments"]]
        from gamma_orch.cli import main as gamma

        try:
            gamma()
            code = 0
        except SystemExit as end:
            code = _code(end)
    except BaseException:  # noqa: BLE001 - what Python itself does at the end of a process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        _keep_coverage()
        os._exit(code)


def _code(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _keep_coverage() -> None:
    """The measurement of this process, which ends without Python's own end."""
    if "coverage" in sys.modules and (measured := sys.modules["coverage"].Coverage.current()):
        measured.stop()
        measured.save()


if __name__ == "__main__":
    main()
