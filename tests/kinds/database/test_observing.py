"""Observing: one round trip for the whole family, fresh after each effect, and honest when it cannot see."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gamma_orch.core.address import Address
from gamma_orch.core.observation import Absent, Observation, Seen, Unreadable
from gamma_orch.kinds.database import catalog
from gamma_orch.targets import Targets
from tests.kinds.database.bench import ACCOUNTS, Bench
from tests.kinds.database.test_index import WHOLE
from tests.kinds.database.test_role import GRANTS
from tests.kinds.database.test_table import KEYS


async def family(bench: Bench) -> None:
    await bench.ready(settings={"DateStyle": "ISO, MDY"}, extensions=["pg_trgm"])
    await bench.apply("Schema/app", {"database": "main"})
    await bench.apply("Table/accounts", ACCOUNTS)
    await bench.apply("Table/keys", {**KEYS, "schema": "app"})
    await bench.apply("Index/accounts-email", WHOLE)
    await bench.apply("Role/api", {"name": f"{bench.name}_api", "grants": GRANTS})


async def observe_all(bench: Bench) -> Mapping[Address, Observation]:
    """As the engine does: every kind at once."""
    asked = [bench.asked(at) for at in bench.wanted]
    kinds = sorted({at.kind for at in bench.wanted})
    answers = await asyncio.gather(
        *(bench.providers[kind].observe([one for one in asked if one.address.kind == kind]) for kind in kinds)
    )
    return {at: found for answer in answers for at, found in answer.items()}


async def test_the_whole_family_is_read_in_one_round_trip(own_bench: Bench):
    """Counted by the server, which logs whatever it is asked."""
    await family(own_bench)
    again = own_bench.again()
    await observe_all(again)  # connects
    await own_bench.run_on_maintenance("alter system set log_statement = 'all'")
    await own_bench.run("select pg_reload_conf()")
    await asyncio.sleep(0.2)
    log = own_bench.targets.postgres("main")._server.log  # type: ignore[union-attr]
    before = log.stat().st_size
    found = await observe_all(again)
    sent = [line for line in log.read_text()[before:].splitlines() if "LOG:  " in line]
    assert len(sent) == 1, sent
    assert {type(one) for one in found.values()} == {Seen}
    again.records = {at: dict(fields) for at, fields in own_bench.records.items()}
    for at in again.wanted:
        assert not (await again.change(str(at))).fields
    await again.aclose()


async def test_a_read_after_an_effect_shows_it(bench: Bench):
    """Also while an older read is still on its way."""
    await bench.ready()
    at = bench.want("Table/accounts", ACCOUNTS)
    older = [asyncio.create_task(bench.observe(at)) for _ in range(3)]
    await asyncio.sleep(0)
    await bench.run("create table accounts (id int)")
    assert isinstance(await bench.observe(at), Seen)
    await asyncio.gather(*older)


async def test_callers_at_once_share_a_reading_and_later_ones_do_not(bench: Bench):
    await bench.ready()
    postgres = bench.targets.postgres("main")
    first, second = await asyncio.gather(*(catalog.read(postgres, bench.name) for _ in range(2)))
    assert first is second
    assert await catalog.read(postgres, bench.name) is not first


async def test_nothing_is_there_before_its_database_is(bench: Bench):
    bench.want("Database/main", {"name": bench.name})
    bench.want("Schema/app", {"database": "main"})
    bench.want("Table/accounts", ACCOUNTS)
    bench.want("Index/accounts-email", WHOLE)
    bench.want("Role/api", {"name": f"{bench.name}_api", "grants": GRANTS})
    found = await observe_all(bench)
    assert {type(one) for one in found.values()} == {Absent}


async def test_a_server_that_does_not_answer_is_unreadable_and_spoils_no_other(bench: Bench, tmp_path: Path):
    await family(bench)
    dead = {"type": "postgres", "url": "postgresql://gamma:hunter2@127.0.0.1:1/postgres"}
    declared = {"main": bench.targets._declared["main"], "dead": dead}
    half = Bench(declared, tmp_path, bench.name, bench.targets.environment)
    half.wanted = dict(bench.wanted)
    half.want("Database/far", {"server": "dead"})
    half.want("Schema/far", {"database": "far"})
    half.want("Table/far", {**ACCOUNTS, "database": "far"})
    half.want("Index/far", {**WHOLE, "table": "far"})
    half.want("Role/far", {"server": "dead"})
    half.want("Database/lost", {"server": "nowhere"})
    found = await observe_all(half)
    unreadable = {at: one.error for at, one in found.items() if isinstance(one, Unreadable)}
    assert {str(at) for at in unreadable} == {
        "Database/far",
        "Schema/far",
        "Table/far",
        "Index/far",
        "Role/far",
        "Database/lost",
    }
    assert {type(found[at]) for at in bench.wanted} == {Seen}
    for at, error in unreadable.items():
        assert "hunter2" not in error
        assert (
            "has no PostgreSQL target 'nowhere'"
            if at.name == "lost"
            else "server 'dead' (127.0.0.1:1) cannot be reached"
        ) in error
    await half.aclose()


async def test_a_name_that_only_a_step_will_know_is_no_defect(bench: Bench, tmp_path: Path):
    """`observe` raises nothing, whatever it is asked."""
    targets = Targets("dev", tmp_path, {}, lambda tree: tree)
    other = Bench({}, tmp_path, "x", "dev")
    for kind, provider in other.providers.items():
        at = Address(kind, "x")
        asked: Any = type(bench.asked(at))(at, {"server": "main", "database": "x", "name": "x"}, None)
        answers = await provider.observe([asked])
        assert isinstance(answers[at], Unreadable)
    await targets.aclose()
    await other.aclose()


def test_validating_loads_no_driver():
    """`gamma validate` imports the kinds; what talks to a server is imported when it talks."""
    code = (
        "import sys; from gamma_orch.kinds.database import database, index, role, schema, table;"
        "heavy = ('asyncio', 'asyncpg', 'psutil', 'filelock', 'subprocess');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
