"""A setting that restarts the server, while others are at work on it: nobody fails for that."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gamma_orch.targets.embedded_postgres import EmbeddedPostgres
from tests.cli.gamma import Warm, folder, write

pytestmark = pytest.mark.postgres

ENVIRONMENT = """\
apiVersion: gamma/v1
kind: Environment
metadata: {name: dev}
spec:
  targets:
    main: {type: postgres, embedded: true}
"""


def specs(number: int) -> str:
    """A database that restarts its server to take the number, and roles that need no database."""
    parts = [("Database", "app", f"settings: {{max_connections: {number}}}")]
    parts += [("Role", f"r{index}", f"connectionLimit: {number}") for index in range(24)]
    return "---\n".join(
        f"apiVersion: gamma/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
        for kind, name, spec in parts
    )


@pytest.fixture
def embedded() -> Iterator[Path]:
    with folder() as project:
        yield write(project, {"environments/dev/environment.yaml": ENVIRONMENT})
        EmbeddedPostgres(project / ".gamma" / "dev" / "postgres-main").destroy()


def test_a_restart_fails_nobody(gamma: Warm, embedded: Path) -> None:
    for number in (50, 51, 52):
        write(embedded, {"specs/app.yaml": specs(number)})
        done = gamma(embedded, "apply", "--yes", GAMMA_PLUGINS="")
        assert done.code == 0, done.err
    assert gamma(embedded, "plan", GAMMA_PLUGINS="").code == 0
