"""What the crash tests share: one nursery of processes, and a server for ledgers."""

from collections.abc import Iterator

import pytest

from gamma_orch.targets.embedded_postgres import EmbeddedPostgres
from tests.cli.gamma import folder, gamma

__all__ = ["gamma"]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a server, to which the name of a database is to be appended."""
    with folder() as place:
        embedded = EmbeddedPostgres(place / "tests" / "postgres-main")
        at = embedded.start()
        yield f"postgresql://{at.user}:{at.password}@{at.host}:{at.port}/"
        embedded.destroy()
