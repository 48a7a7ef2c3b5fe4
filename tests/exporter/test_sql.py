"""Rows as metrics, on a real PostgreSQL: what a query gives and must not, a server that goes and comes."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import asyncpg
import psutil
import pytest

from gamma_orch.exporter.contract import UP, names
from gamma_orch.targets.embedded_postgres import EmbeddedPostgres, State
from tests.exporter.running import Exporter, Series, series
from tests.targets.folders import open_folder

SECRET = "hunter2hunter2"


@pytest.fixture(scope="module")
def postgres() -> Iterator[EmbeddedPostgres]:
    with open_folder() as path:
        embedded = EmbeddedPostgres(path / "dev" / "postgres-main")
        embedded.start()
        yield embedded
        embedded.destroy()


def url(postgres: EmbeddedPostgres, database: str = "") -> str:
    at = postgres.server()
    return f"postgresql://{at.user}:{quote(at.password)}@{at.host}:{at.port}/{database}"


def execute(postgres: EmbeddedPostgres, *statements: str) -> Any:
    """Gives the first value of the last."""

    async def run() -> Any:
        connection = await asyncpg.connect(url(postgres, "postgres"))
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    return asyncio.run(run())


def query(text: str, name: str = "shop", **columns: Any) -> dict[str, Any]:
    return {"name": name, "query": text, **(columns or {"gauges": ["n"]})}


def put(
    exporter: Exporter, name: str, postgres: EmbeddedPostgres, *queries: dict[str, Any], **more: Any
) -> None:
    exporter.put(name, sql={"postgres": {"home": str(postgres.home)}, "queries": queries}, **more)


def rows(found: Series) -> Series:
    return {key: value for key, value in found.items() if not key[0].startswith("gamma_collector_")}


def backend(postgres: EmbeddedPostgres) -> int:
    """The server's process behind the one connection of the exporter."""
    found = execute(
        postgres, "select array_agg(pid) from pg_stat_activity where application_name = 'gamma-exporter'"
    )
    assert len(found) == 1
    return int(found[0])


@pytest.fixture
def alone(exporter: Exporter, postgres: EmbeddedPostgres, name: str) -> Iterator[str]:
    """The name of a collector that is the only one with a connection."""
    for file in (exporter.folder / "collectors.d").glob("*.json"):
        file.unlink()
    exporter.client.get("/collectors")
    yield name
    exporter.remove(name)


def test_what_is_a_number(exporter: Exporter, postgres: EmbeddedPostgres, name: str):
    columns = {
        "an_int": "3",
        "a_big": "9007199254740993::bigint",
        "a_float": "1.5::float8",
        "a_decimal": "12.50::numeric",
        "a_truth": "true",
        "a_span": "interval '1 minute 1.5 seconds'",
        "a_moment": "timestamptz '2020-01-01 00:00:00+00'",
        "a_local": "timestamp '2020-01-01 00:00:00'",
        "a_nothing": "null::int",
    }
    text = "select " + ", ".join(f"{value} as {column}" for column, value in columns.items())
    put(exporter, name, postgres, query(text, gauges=list(columns)))
    assert rows(exporter.scrape(name)) == {
        series("shop_an_int"): 3,
        series("shop_a_big"): 9007199254740992,
        series("shop_a_float"): 1.5,
        series("shop_a_decimal"): 12.5,
        series("shop_a_truth"): 1,
        series("shop_a_span"): 61.5,
        series("shop_a_moment"): 1577836800,
        series("shop_a_local"): 1577836800,
    }
    assert exporter.told(name)["up"] is True


def test_labels_gauges_and_counters(exporter: Exporter, postgres: EmbeddedPostgres, name: str):
    text = """
        select * from (values ('a', 1, 10, 5), (null, 2, 20, null)) as t (kind, age, calls_total, sold),
            (select true as odd)
    """
    put(
        exporter,
        name,
        postgres,
        query(
            text, labels=["kind", "odd"], gauges=["age"], counters=["calls_total", "sold"], help="What it is."
        ),
        labels={"site": "one"},
    )
    a, b = {"kind": "a", "odd": "true", "site": "one"}, {"kind": "", "odd": "true", "site": "one"}
    assert rows(exporter.scrape(name)) == {
        series("shop_age", **a): 1,
        series("shop_age", **b): 2,
        series("shop_calls_total", **a): 10,
        series("shop_calls_total", **b): 20,
        series("shop_sold_total", **a): 5,
    }
    page = exporter.client.get(f"/collectors/{name}").text
    for line in ("# TYPE shop_age gauge", "# TYPE shop_calls_total counter", "# HELP shop_age What it is."):
        assert line in page.splitlines()


@pytest.mark.parametrize(
    ("text", "columns", "says"),
    [
        ("select 1 as m", {}, "The query shop failed: it has no column n."),
        ("select 1 as m where false", {}, "The query shop failed: it has no column n."),
        ("select 1 as n", {"gauges": ["n"], "labels": ["l"]}, "it has no column l"),
        (f"select '{SECRET}' as n", {}, "its column n is no number, but a str"),
        (
            "select n from generate_series(1, 1001) as n",
            {"labels": ["n"], "gauges": ["m"]},
            "more than 1,000 rows",
        ),
        (
            f"select '{SECRET}' as l, n from generate_series(1, 2) as n",
            {"labels": ["l"], "gauges": ["n"]},
            "two rows have the same labels (l)",
        ),
        ("select n from generate_series(1, 2) as n", {}, "two rows have the same labels"),
        ("select 1 as n from nowhere", {}, 'relation "nowhere" does not exist (42P01)'),
        (f"select '{SECRET}'::text::int as n", {}, "InvalidTextRepresentationError (22P02)"),
        ("select pg_sleep(20)::text, 1 as n", {}, "canceling statement due to statement timeout (57014)"),
        # What would write, each way that there is.
        ("create table t ()", {}, "cannot execute CREATE TABLE in a read-only transaction (25006)"),
        ("insert into written values (1) returning n", {}, "read-only transaction (25006)"),
        ("with x as (delete from written returning n) select * from x", {}, "read-only transaction (25006)"),
        ("select writes() as n", {}, "read-only transaction (25006)"),
        (
            "select set_config('transaction_read_only', 'off', true), writes() as n",
            {},
            "before any query (25001)",
        ),
        ("select 1 as n; insert into written values (1)", {}, "cannot insert multiple commands"),
    ],
)
def test_a_query_that_fails_is_told_and_keeps_no_other_from_being_shown(
    exporter: Exporter, postgres: EmbeddedPostgres, text: str, columns: dict[str, Any], says: str
):
    execute(
        postgres,
        "create table if not exists written (n int)",
        "create or replace function writes() returns int language sql "
        "as 'insert into written values (1) returning n'",
        "select 1",
    )
    good = [query("select 1 as n", "before"), query("select 2 as n", "after")]
    put(exporter, "fails", postgres, good[0], query(text, **columns), good[1], timeout=1)
    found = exporter.scrape("fails")
    assert found.pop(series(UP, collector="fails")) == 0
    assert rows(found) == {series("before_n"): 1, series("after_n"): 2}
    told = exporter.told("fails")["error"]
    assert told.startswith("The query shop failed: ")
    assert says in told
    assert execute(postgres, "select count(*) from written") == 0
    assert SECRET not in exporter.said()


def test_nothing_makes_the_next_query_write(exporter: Exporter, postgres: EmbeddedPostgres, alone: str):
    tries = [
        "set session characteristics as transaction read write",
        "set default_transaction_read_only = off",
        "set transaction read write",
        "commit",
    ]
    write = query("insert into written values (1) returning n", "writes")
    execute(postgres, "create table if not exists written (n int)", "select 1")
    for text in tries:
        put(exporter, alone, postgres, query(text), write)
        assert "25006" in exporter.error(alone)
        assert "25006" in exporter.error(alone)
    assert execute(postgres, "select count(*) from written") == 0


def test_a_thousand_rows_are_not_too_many(exporter: Exporter, postgres: EmbeddedPostgres, name: str):
    text = "select n as l, n from generate_series(1, 1000) as n"
    put(exporter, name, postgres, query(text, labels=["l"], gauges=["n"]))
    assert len(rows(exporter.scrape(name))) == 1000


def test_the_database_is_that_which_is_named(exporter: Exporter, postgres: EmbeddedPostgres, name: str):
    where = query("select current_database() as d, 1 as n", labels=["d"], gauges=["n"])
    execute(postgres, "select 1")
    for database, given, found in (
        ("", "", "postgres"),
        ("template1", "", "template1"),
        ("template1", "postgres", "postgres"),
    ):
        server = {"url": url(postgres, database)}
        collector = exporter.put(name, sql={"postgres": server, "database": given, "queries": [where]})
        shown = exporter.scrape(name)
        assert series("shop_n", d=found) in shown
        assert {one for one, _ in shown} <= names(collector)


def test_one_connection_is_kept_and_opened_again(exporter: Exporter, postgres: EmbeddedPostgres, alone: str):
    put(exporter, alone, postgres, query("select 1 as n"), query("select 1 / 0 as n", "wrong"))
    assert not exporter.up(alone)
    first = backend(postgres)
    assert "DivisionByZeroError" in exporter.error(alone)
    assert backend(postgres) == first
    # It does nothing, in no transaction.
    state = f"select state || xact_start::text is null from pg_stat_activity where pid = {first}"
    assert execute(postgres, state) is not False
    assert execute(postgres, f"select state from pg_stat_activity where pid = {first}") == "idle"
    put(exporter, alone, postgres, query("select 1 as n"))
    assert exporter.up(alone)
    second = backend(postgres)
    assert second != first
    assert execute(postgres, f"select pg_terminate_backend({second}, 5000)")
    assert exporter.up(alone)
    assert backend(postgres) != second


def test_a_server_that_hangs_costs_its_time_and_answers_again(
    exporter: Exporter, postgres: EmbeddedPostgres, alone: str
):
    put(exporter, alone, postgres, query("select 1 as n"), timeout=0.6)
    assert exporter.up(alone)
    processes = [psutil.Process(int((postgres.data / "postmaster.pid").read_text().split()[0]))]
    processes += processes[0].children()
    for one in processes:
        one.suspend()
    try:
        for says in ("no answer in 0.6 seconds", "takes no connection in 0.57 seconds"):
            began = time.monotonic()
            assert says in exporter.error(alone)
            assert time.monotonic() - began < 1
    finally:
        for one in processes:
            one.resume()
    assert exporter.up(alone)


def test_a_server_that_is_killed_and_back_needs_no_restart(
    exporter: Exporter, postgres: EmbeddedPostgres, alone: str
):
    put(exporter, alone, postgres, query("select 1 as n"))
    assert exporter.up(alone)
    os.kill(int((postgres.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    while postgres.state() is not State.STOPPED:
        time.sleep(0.01)
    found = exporter.scrape(alone)
    assert found[series("gamma_collector_up", collector=alone)] == 0
    assert rows(found) == {}
    assert exporter.error(alone) == f"{postgres.home} takes no connection: Connection refused."
    assert postgres.state() is State.STOPPED  # nobody has started it
    postgres.start()
    assert exporter.up(alone)
    log = exporter.said()
    assert f"{alone}: {postgres.home} takes no connection: Connection refused." in log
    assert f"{alone}: all is collected again." in log


def test_one_that_never_was_is_not_made(exporter: Exporter, name: str):
    with open_folder() as folder:
        home = folder / "dev" / "postgres-main"
        put(exporter, name, EmbeddedPostgres(home), query("select 1 as n"))
        assert "There is no PostgreSQL server in" in exporter.error(name)
        assert not home.exists()


def test_who_may_not_in_is_told_without_a_name(exporter: Exporter, postgres: EmbeddedPostgres, name: str):
    at = postgres.server()
    for wrong in (f"bob:{SECRET}", f"gamma:{SECRET}"):
        server = {"url": f"postgresql://{wrong}@{at.host}:{at.port}/postgres?application_name={SECRET}"}
        exporter.put(name, sql={"postgres": server, "queries": [query("select 1 as n")]})
        where = f"postgresql://{at.host}:{at.port}/postgres"
        assert exporter.error(name) == f"{where} does not let this user in."
    server = {"url": url(postgres, "nowhere")}
    exporter.put(name, sql={"postgres": server, "queries": [query("select 1 as n")]})
    assert exporter.error(name).endswith('takes no connection: database "nowhere" does not exist (3D000).')
    told = exporter.said()
    assert not [one for one in (SECRET, "bob", at.password) if one in told]
