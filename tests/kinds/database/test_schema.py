"""Schema: made, adopted, dropped only when it is ours and empty."""

import pytest

from gamma_orch.core.change import Action
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.database.schema import SchemaProvider
from tests.kinds.database.bench import ACCOUNTS, Bench

APP = {"database": "main"}


async def test_a_schema_is_made_kept_and_dropped(bench: Bench):
    await bench.ready()
    assert (await bench.apply("Schema/app-data", APP)).action is Action.CREATE
    assert await bench.run("select count(*) from pg_namespace where nspname = 'app_data'") == 1
    assert (await bench.change("Schema/app-data")).action is Action.KEEP
    await bench.delete("Schema/app-data")
    await bench.delete("Schema/app-data")


async def test_a_schema_with_something_in_it_is_not_dropped(bench: Bench):
    await bench.ready()
    await bench.apply("Schema/app", APP)
    await bench.apply("Table/accounts", {**ACCOUNTS, "schema": "app"})
    with pytest.raises(Permanent, match="still has accounts, accounts_id_seq in it"):
        await bench.delete("Schema/app")
    await bench.delete("Table/accounts")
    await bench.delete("Schema/app")


async def test_an_unmarked_schema_is_adopted_but_not_dropped(bench: Bench):
    await bench.ready()
    await bench.run("create schema app", "comment on schema app is 'Ann''s'")
    bench.want("Schema/app", APP)
    with pytest.raises(Permanent, match="does not carry Gamma's mark"):
        await bench.delete("Schema/app")
    bench.records.clear()
    bench.want("Database/main", {"name": bench.name})
    assert (await bench.apply("Schema/app")).action is Action.ADOPT
    assert (await bench.run("select obj_description('app'::regnamespace)")).startswith("Ann's\ngamma:")


async def test_public_is_marked_and_only_loses_the_mark(bench: Bench):
    await bench.ready()
    await bench.apply("Schema/public", APP)
    at = bench.want("Schema/public", APP)
    bench.records.setdefault(at, bench.wanted[at])
    await bench.providers["Schema"].delete(bench.task(at, bench.create, {}))
    assert await bench.run("select obj_description('public'::regnamespace)") == "standard public schema"


async def test_another_name_is_refused_and_told_how(bench: Bench):
    await bench.ready()
    await bench.apply("Schema/app", APP)
    change = await bench.change("Schema/app", {**APP, "name": "application"})
    assert change.action is Action.REFUSE
    assert 'Run ALTER SCHEMA "app" RENAME TO' in change.detail
    await bench.run("alter schema app rename to application")
    assert (await bench.change("Schema/app")).action is Action.ADOPT


async def test_a_schema_of_another_resource_is_left_alone(bench: Bench):
    await bench.ready()
    await bench.apply("Schema/app", APP)
    with pytest.raises(Permanent, match="carries the mark of Schema/app"):
        await bench.apply("Schema/other", {**APP, "name": "app"})


async def test_what_is_described_is_adopted_as_it_is(bench: Bench):
    await bench.ready()
    await bench.run("create schema app")
    described = await SchemaProvider(bench.targets).describe("main", bench.name, "app")
    change = await bench.change("Schema/app", described)
    assert (change.action, [f.path for f in change.fields]) == (Action.ADOPT, [("mark",)])
