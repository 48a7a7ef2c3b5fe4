"""Connections to a PostgreSQL server: what goes wrong is told in the right class and without a secret."""

import asyncio
import os
import signal
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gamma_orch.core.leaves import Secret
from gamma_orch.core.provider import Permanent, Temporary
from gamma_orch.targets import MissingDatabase, Targets
from gamma_orch.targets.embedded_postgres import EmbeddedPostgres
from gamma_orch.targets.postgres import Postgres

pytestmark = pytest.mark.postgres
PASSWORD = "hunter2-hunter2"


def _reveal(tree: object) -> object:
    return f"postgresql://me:{PASSWORD}@127.0.0.1:1/x" if isinstance(tree, Secret) else tree


class Opened:
    """Targets that are closed with the test."""

    def __init__(self, declared: Mapping[str, Mapping[str, Any]], state: Path = Path("/nonexistent")) -> None:
        self.targets = Targets("dev", state, declared, _reveal)

    async def aclose(self) -> None:
        await self.targets.aclose()


def url(server: EmbeddedPostgres, **changed: Any) -> str:
    at = server.server()
    given = {"user": at.user, "password": at.password, "port": at.port, "database": "postgres", **changed}
    return "postgresql://{user}:{password}@127.0.0.1:{port}/{database}".format(**given)


@pytest.fixture
def opened(running: EmbeddedPostgres) -> Opened:
    return Opened(
        {
            "main": {"type": "postgres", "url": url(running), "maxParallel": 2},
            "wrong": {"type": "postgres", "url": url(running, password=PASSWORD)},
            "refused": {"type": "postgres", "url": Secret("db", "d1")},
            "nowhere": {"type": "postgres", "url": f"postgresql://me:{PASSWORD}@host.invalid:1/x"},
            "odd": {"type": "postgres", "url": f"postgresql://me:{PASSWORD}@127.0.0.1:port/x"},
            "empty": {"type": "postgres"},
            "cache": {"type": "redis", "url": "redis://127.0.0.1"},
        }
    )


async def failure(postgres: Postgres, database: str | None = None) -> Exception:
    with pytest.raises((Temporary, Permanent)) as caught:
        async with postgres.connection(database) as connection:
            await connection.fetchval("select 1")
    assert PASSWORD not in str(caught.value)
    assert "me:" not in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in shown
    return caught.value


async def test_a_connection_answers_and_keeps_no_prepared_statements(opened: Opened):
    main = opened.targets.postgres("main")
    for _ in range(2):
        async with main.connection() as connection:
            assert await connection.fetchval("select current_database()") == "postgres"
            assert await connection.fetchval("select count(*) from pg_prepared_statements") <= 1  # itself


async def test_what_a_session_sets_ends_with_it(opened: Opened):
    main = opened.targets.postgres("main")
    async with main.session() as connection:
        await connection.execute("set lock_timeout = '3s'")
    async with main.session() as connection:
        assert await connection.fetchval("show lock_timeout") == "0"


async def test_a_transaction_left_open_is_rolled_back(opened: Opened):
    main = opened.targets.postgres("main")
    async with main.connection() as connection:
        await connection.execute("begin; create table unfinished (a int)")
    async with main.connection() as connection:
        assert await connection.fetchval("select to_regclass('unfinished')") is None


async def test_a_refused_connection_may_pass(opened: Opened):
    error = await failure(opened.targets.postgres("refused"))
    assert isinstance(error, Temporary)
    assert "PostgreSQL server 'refused' (127.0.0.1:1) cannot be reached" in str(error)


async def test_a_wrong_password_needs_a_person(opened: Opened):
    error = await failure(opened.targets.postgres("wrong"))
    assert isinstance(error, Permanent)
    assert "does not accept the password" in str(error)


@pytest.mark.parametrize("name", ["nowhere", "odd"])
async def test_an_unknown_host_and_a_broken_url(opened: Opened, name: str):
    error = await failure(opened.targets.postgres(name))
    assert repr(name) in str(error)
    assert "`url`" in str(error) or isinstance(error, Temporary)  # a name server may be away


async def test_a_missing_database_is_told_from_a_missing_server(opened: Opened):
    error = await failure(opened.targets.postgres("main"), "nope")
    assert isinstance(error, MissingDatabase)
    assert "has no database 'nope'" in str(error)


async def test_no_connection_left_may_pass(opened: Opened, running: EmbeddedPostgres):
    async with opened.targets.postgres("main").connection() as connection:
        await connection.execute(f"create role narrow login password '{PASSWORD}' connection limit 0")
    crowded = Opened({"main": {"type": "postgres", "url": url(running, user="narrow", password=PASSWORD)}})
    error = await failure(crowded.targets.postgres("main"))
    assert isinstance(error, Temporary)
    assert "no connection left" in str(error)
    await crowded.aclose()


async def test_what_the_server_says_in_the_block(opened: Opened):
    main = opened.targets.postgres("main")
    with pytest.raises(Permanent, match=r"relation \"nope\" does not exist"):
        async with main.connection() as connection:
            await connection.execute("select * from nope")
    async with main.connection() as holder, holder.transaction():
        await holder.execute("lock table pg_catalog.pg_statistic in access exclusive mode")
        with pytest.raises(Temporary, match="somebody else holds a lock"):
            await _lock_out(main)


async def _lock_out(postgres: Postgres) -> None:
    async with postgres.session() as connection:
        await connection.execute("set lock_timeout = '10ms'")
        await connection.fetchval("select count(*) from pg_catalog.pg_statistic")


async def test_a_defect_of_ours_stays_what_it_is(opened: Opened):
    with pytest.raises(ZeroDivisionError):
        async with opened.targets.postgres("main").connection():
            raise ZeroDivisionError


async def test_a_connection_lost_in_the_middle_of_its_use_may_pass(opened: Opened):
    async def with_it(use: Callable[[Any], Any]) -> None:
        async with opened.targets.postgres("main").session() as connection:
            connection.terminate()
            use(connection)

    with pytest.raises(Temporary, match="cannot be reached: the connection was lost"):
        await with_it(lambda connection: connection.get_server_pid())  # asyncpg asks nothing for it
    with pytest.raises(AttributeError):  # the same mistake of ours is none of the server's
        await with_it(lambda connection: None.get_server_pid())  # type: ignore[attr-defined]


async def test_unknown_targets_are_named_with_the_nearest(opened: Opened):
    with pytest.raises(Permanent, match=r"no PostgreSQL target 'mian': did you mean 'main'\?"):
        opened.targets.postgres("mian")
    with pytest.raises(Permanent, match="no PostgreSQL target 'cache'"):
        opened.targets.postgres("cache")
    with pytest.raises(Permanent, match="neither `url` nor `embedded: true`"):
        opened.targets.postgres("empty")


async def test_limits(opened: Opened):
    limits = [opened.targets.limit(name) for name in ("postgres/main", "postgres/wrong", "postgres/none", "")]
    assert limits == [2, 4, 4, 4]


async def test_a_server_that_is_not_ours_is_not_restarted(opened: Opened):
    main = opened.targets.postgres("main")
    assert not main.embedded
    with pytest.raises(Permanent, match="its operator must"):
        await main.restart()


async def test_the_lock_keeps_others_out_without_blocking(opened: Opened, running: EmbeddedPostgres):
    """Another process polls: were it to block, it would deadlock with an index build of the holder."""
    other, third = (Opened({"main": {"type": "postgres", "url": url(running)}}) for _ in range(2))
    ours, theirs = opened.targets.postgres("main"), other.targets.postgres("main")
    order = []

    async def wait() -> None:
        async with theirs.lock("work", "postgres", patience=20):
            order.append("theirs")

    async with ours.lock("work", "postgres"):
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0.6)
        async with ours.connection() as connection:
            blocked = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
            assert await connection.fetchval(blocked) == 0
        with pytest.raises(Temporary, match=r"Another process is doing the same .*\(work\)"):
            async with third.targets.postgres("main").lock("work", "postgres", patience=0):
                pass
        async with theirs.lock("other work", "postgres", patience=0):
            order.append("other")
        order.append("ours")
    await waiting
    assert order == ["other", "ours", "theirs"]
    await other.aclose()
    await third.aclose()


async def test_within_a_process_callers_queue_for_the_lock(opened: Opened):
    main = opened.targets.postgres("main")
    inside = 0

    async def work() -> None:
        nonlocal inside
        async with main.lock("queue", None, patience=0):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0.02)
            inside -= 1

    await asyncio.gather(*(work() for _ in range(4)))


async def test_an_embedded_server_is_started_at_first_use_and_again_after_a_kill(folder: Path):
    opened = Opened({"main": {"type": "postgres", "embedded": True}}, folder)
    server = EmbeddedPostgres(folder / "dev" / "postgres-main")
    try:
        main = opened.targets.postgres("main")
        assert main.embedded
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        async with main.connection() as connection:
            assert await connection.fetchval("select 1") == 1
        ticking.cancel()
        assert ticks > 10  # the event loop went on meanwhile
        assert main.address == f"127.0.0.1:{server.server().port}"
        os.kill(int((server.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        await asyncio.sleep(0.3)
        answers = []
        for _ in range(5):
            try:
                async with main.connection() as connection:
                    answers.append(await connection.fetchval("select 2"))
            except Temporary:
                await asyncio.sleep(0.1)
        assert answers[-1] == 2
        await main.restart()
        async with main.connection() as connection:
            assert await connection.fetchval("select 3") == 3
    finally:
        await opened.aclose()
        server.destroy()
