"""What may pass is told from what needs a person, by the kind of the error."""

import asyncpg
import pytest

from gamma_orch.core.provider import Permanent, Temporary
from gamma_orch.targets.postgres_errors import translated


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("reset"),
        TimeoutError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("got result for unknown protocol state 3"),
        asyncpg.CannotConnectNowError("the database system is starting up"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.AdminShutdownError("terminating connection due to administrator command"),
    ],
)
def test_a_server_that_restarts_is_asked_again(error: Exception) -> None:
    found = translated(error, "PostgreSQL 'main'", "app")
    assert isinstance(found, Temporary)
    assert str(found).startswith("PostgreSQL 'main' cannot be reached: ")


@pytest.mark.parametrize(
    "error", [asyncpg.InvalidPasswordError("no"), asyncpg.UndefinedColumnError("no column x")]
)
def test_what_no_time_mends_is_said_at_once(error: Exception) -> None:
    assert isinstance(translated(error, "PostgreSQL 'main'", "app"), Permanent)


def test_a_defect_of_ours_is_none_of_the_servers() -> None:
    assert translated(KeyError("x"), "PostgreSQL 'main'", "app") is None
