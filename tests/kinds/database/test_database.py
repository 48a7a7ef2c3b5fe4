"""Database: made, adopted, configured by unit, never dropped unless it is ours."""

import json

import pytest
from pydantic import ValidationError

from gamma_orch.core.address import Address
from gamma_orch.core.change import Action, Reason, Verdict
from gamma_orch.core.kind import Fields
from gamma_orch.core.leaves import Ref, Secret, Template
from gamma_orch.core.observation import Absent, Unreadable
from gamma_orch.core.provider import Permanent
from gamma_orch.core.resource import Resource
from gamma_orch.kinds.database import database
from gamma_orch.kinds.database.database import DatabaseSpec
from tests.kinds.database.bench import Bench


async def test_a_database_is_made_and_then_kept(bench: Bench):
    change = await bench.apply("Database/main", {"name": bench.name})
    assert change.action is Action.CREATE
    assert (await bench.change("Database/main")).action is Action.KEEP
    outputs = (await bench.seen("Database/main")).outputs
    assert outputs["name"] == bench.name
    assert outputs["server"] == "main"
    assert outputs["host"] == "127.0.0.1"
    assert str(outputs["version"]).split(".")[0].isdigit()
    assert database.foresee(bench.wanted[Address("Database", "main")]).items() <= outputs.items()
    await bench.delete("Database/main")
    assert isinstance(await bench.observe("Database/main"), Absent)


def nothing(address: Address) -> Fields:
    raise KeyError(address)


def test_the_name_defaults_to_the_resources_own():
    fields = database.normalise(Address("Database", "shop-db.eu"), {}, nothing)
    assert fields["name"] == "shop_db_eu"


async def test_a_database_of_somebody_elses_is_adopted_with_its_comment(bench: Bench):
    await bench.run_on_maintenance(f"create database {bench.name}")
    await bench.run(f"comment on database {bench.name} is 'the shop, ask Ann'")
    change = await bench.apply("Database/main", {"name": bench.name})
    assert (change.action, [f.path for f in change.fields]) == (Action.ADOPT, [("mark",)])
    comment = await bench.run(
        "select shobj_description(oid, 'pg_database') from pg_database where datname = current_database()"
    )
    human, mark = comment.splitlines()
    assert human == "the shop, ask Ann"
    assert json.loads(mark.removeprefix("gamma:")) == {"o": "Database/main", "e": bench.targets.environment}


async def test_an_unmarked_database_is_never_dropped(bench: Bench):
    await bench.ready()
    await bench.run(f"comment on database {bench.name} is null")
    change = await bench.change("Database/main")
    assert [(f.path, f.verdict) for f in change.fields] == [(("mark",), Verdict.DRIFT)]
    with pytest.raises(Permanent, match="does not carry Gamma's mark of Database/main, so it is not dropped"):
        await bench.delete("Database/main")
    assert await bench.run("select 1") == 1


async def test_a_database_of_another_environment_is_not_touched(bench: Bench):
    await bench.ready()
    other = bench.again("staging")
    change = await other.change("Database/main")
    assert change.fields[0].live == f"Database/main of {bench.targets.environment}"
    with pytest.raises(Permanent, match="carries the mark of Database/main of dev_"):
        await other.apply("Database/main")
    await other.aclose()


async def test_a_renamed_resource_keeps_its_database(bench: Bench):
    await bench.ready()
    at = bench.want("Database/shop", {"name": bench.name})
    with pytest.raises(Permanent, match="carries the mark of Database/main"):
        await bench.apply("Database/shop")
    bench.records[at] = bench.records.pop(Address("Database", "main"))  # moved: {from: Database/main}
    await bench.apply("Database/shop")
    assert (await bench.change("Database/shop")).action is Action.KEEP


async def test_another_name_or_server_is_a_migration(bench: Bench):
    await bench.ready()
    for spec in ({"name": f"{bench.name}_b"}, {"name": bench.name, "server": "other"}):
        change = await bench.change("Database/main", spec)
        assert change.action is Action.REFUSE
        assert "does not rename or move what may hold data" in change.detail


async def test_a_database_renamed_by_hand_is_found_out(bench: Bench):
    await bench.ready()
    await bench.targets.aclose()
    await bench.run_on_maintenance(f"alter database {bench.name} rename to {bench.name}_b")
    found = await bench.observe("Database/main")
    assert isinstance(found, Unreadable)
    assert f"Database '{bench.name}_b' carries the mark of Database/main" in found.error


async def test_extensions(bench: Bench):
    await bench.ready(extensions=["pg_trgm"])
    assert await bench.run("select count(*) from pg_extension where extname = 'pg_trgm'") == 1
    await bench.run("create extension hstore")
    assert (await bench.change("Database/main")).action is Action.KEEP  # hstore is somebody else's
    await bench.run("drop extension pg_trgm")
    assert (await bench.change("Database/main")).reason is Reason.DRIFTED
    await bench.apply("Database/main")
    await bench.apply("Database/main", {"name": bench.name})
    assert (
        await bench.run("select string_agg(extname, ' ' order by extname) from pg_extension")
        == "hstore plpgsql"
    )
    with pytest.raises(Permanent, match=r"no extension 'pg_tgrm' installed; did you mean 'pg_trgm'\?"):
        await bench.ready(extensions=["pg_tgrm"])


# Settings

SETTINGS = {
    "work_mem": "16MB",  # base unit kB
    "shared_buffers": 4096,  # 8kB pages: 32MB, and a restart
    "checkpoint_timeout": "10min",
    "autovacuum": True,
    "log_min_messages": "NOTICE",
    "log_destination": "stderr",
    "random_page_cost": 1.1,
    "DateStyle": "ISO, DMY",
    "cluster_name": "shop 'one'",
}


async def test_settings_are_compared_by_unit_and_restart_where_they_must(own_bench: Bench):
    await own_bench.ready(settings=SETTINGS)
    assert await own_bench.run("show shared_buffers") == "32MB"
    assert await own_bench.run("show cluster_name") == "shop 'one'"
    other = {
        **SETTINGS,
        "work_mem": "16384kB",
        "shared_buffers": "32MB",
        "checkpoint_timeout": 600,
        "autovacuum": "yes",
        "log_min_messages": "notice",
        "random_page_cost": "1.1",
    }
    change = await own_bench.change("Database/main", {"name": own_bench.name, "settings": other})
    assert not [f for f in change.fields if f.verdict is not Verdict.KEEP]
    await _drift(own_bench)
    await _release(own_bench)
    await _preload(own_bench)
    await _not_allowed(own_bench)


async def _drift(bench: Bench) -> None:
    await bench.run("alter system set work_mem = '1GB'", "select pg_reload_conf()")
    change = await bench.change("Database/main", {"name": bench.name, "settings": SETTINGS})
    assert [(f.path, f.was, f.wanted, f.live) for f in change.fields] == [
        (("settings", "work_mem"), "16MB", "16MB", "1GB")
    ]
    assert change.reason is Reason.DRIFTED
    started = await bench.run("select pg_postmaster_start_time()::text")
    await bench.apply("Database/main")
    assert await bench.run("show work_mem") == "16MB"
    assert await bench.run("select pg_postmaster_start_time()::text") == started  # a reload was enough


async def _release(bench: Bench) -> None:
    """What leaves the spec is set back, whether it takes a reload or a restart."""
    await bench.run("alter system set maintenance_work_mem = '77MB'", "select pg_reload_conf()")  # by hand
    left = {"random_page_cost": 1.1}
    change = await bench.apply("Database/main", {"name": bench.name, "settings": left})
    assert {f.path[-1] for f in change.fields if f.verdict is Verdict.RELEASE} >= {
        "work_mem",
        "shared_buffers",
    }
    assert await bench.run("show work_mem") == "4MB"
    assert await bench.run("show shared_buffers") == "128MB"
    assert await bench.run("show maintenance_work_mem") == "77MB"
    assert (await bench.change("Database/main")).action is Action.KEEP


async def _preload(bench: Bench) -> None:
    """A library, and a setting that nobody knows before it is loaded, in one apply."""
    wanted = {
        "shared_preload_libraries": "pg_stat_statements, auto_explain",
        "pg_stat_statements.max": 2000,
        "auto_explain.log_min_duration": "2s",
    }
    await bench.ready(settings=wanted, extensions=["pg_stat_statements"])
    assert await bench.run("show pg_stat_statements.max") == "2000"
    assert await bench.run("show auto_explain.log_min_duration") == "2s"
    assert await bench.run("select count(*) >= 0 from pg_stat_statements")


async def _not_allowed(bench: Bench) -> None:
    started = await bench.run("select pg_postmaster_start_time()::text")
    with pytest.raises(
        Permanent, match=r"max_connections.* was written, and takes effect when .* is restarted"
    ):
        await bench.ready(settings={"max_connections": 40, "work_mem": "5MB"}, allowRestart=False)
    assert await bench.run("select pg_postmaster_start_time()::text") == started
    assert await bench.run("show work_mem") == "5MB"
    await bench.ready(settings={"max_connections": 40, "work_mem": "5MB"}, allowRestart=True)
    assert await bench.run("show max_connections") == "40"
    await bench.delete("Database/main")
    async with bench.sql("postgres") as by_hand:
        assert await by_hand.fetchval("show work_mem") == "4MB"


async def test_a_setting_that_keeps_the_server_down_is_taken_back(own_bench: Bench):
    await own_bench.ready()
    with pytest.raises(Permanent, match=r"(?s)no_such_library.*last good start were put back"):
        await own_bench.ready(settings={"shared_preload_libraries": "no_such_library"})
    assert await own_bench.run("show shared_preload_libraries") == ""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"work_memm": "1MB"}, "work_memm does not exist on this server: did you mean 'work_mem'?"),
        ({"work_mem": "10s"}, "'10s' is not a number with one of the units B, kB, MB, GB, TB."),
        ({"work_mem": "lots"}, "'lots' is not a number with one of the units"),
        ({"work_mem": "1kB"}, "'1kB' is out of range; it goes from 64 to 2147483647 kB."),
        ({"random_page_cost": "5MB"}, "'5MB' is not a plain number."),
        ({"autovacuum": "maybe"}, "'maybe' is neither on nor off."),
        ({"wal_level": "logicle"}, "did you mean 'logical'? they are minimal, replica, logical."),
        ({"port": 5555}, "has no effect: the server was started with port="),
        ({"block_size": 8192}, "cannot be set; PostgreSQL only reports it."),
    ],
)
async def test_a_wrong_setting_is_refused_before_anything_happens(
    bench: Bench, settings: dict[str, str], said: str
):
    """Also on the first plan, when the database itself is not there yet."""
    change = await bench.change("Database/main", {"name": bench.name, "settings": settings})
    assert change.action is Action.REFUSE
    assert said in change.detail
    assert next(iter(settings)) in change.detail


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"work_mem": "16MBs"}, "did you mean 16MB?"),
        ({"work_mem": "16mb"}, "did you mean 16MB?"),
        ({"checkpoint_timeout": "5 minutes"}, "did you mean 5min?"),
        ({"work mem": "1MB"}, "no name of a PostgreSQL setting"),
        ({"data_directory": "/x"}, "fixed when the server is started"),
    ],
)
def test_a_misspelt_setting_needs_no_server(settings: dict[str, str], said: str):
    with pytest.raises(ValidationError) as error:
        DatabaseSpec.model_validate({"settings": settings})
    assert said in str(error.value)


def test_a_setting_is_no_secret_and_a_name_is_written_out():
    secret = Secret("db", "d1")
    for value in (secret, Template(("a ", secret))):
        with pytest.raises(ValidationError, match="cluster_name cannot be a secret"):
            DatabaseSpec.model_validate({"settings": {"cluster_name": value}})
    reference = Ref(Address("Table", "x"), "name")
    DatabaseSpec.model_validate({"settings": {"cluster_name": reference}})
    for field in ("name", "server", "settings", "extensions", "allowRestart"):
        with pytest.raises(ValidationError, match="must be written out here"):
            DatabaseSpec.model_validate({field: reference})


def test_good_settings_pass():
    given = {"cluster_name": "1st", "work_mem": "16MB", "x.y": "a b", "max_connections": 5, "jit": False}
    assert DatabaseSpec.model_validate({"settings": given}).settings == given


def resource(name: str, **spec: object) -> Resource:
    whole = DatabaseSpec.model_validate(spec).model_dump(by_alias=True)
    return Resource(Address("Database", name), whole)


def test_the_pools_of_a_server_must_fit_its_connections():
    api = {"pools": {"api": {"size": 10, "overflow": 5, "replicas": 4}}, "reserve": 10}
    jobs = {"pools": {"jobs": {"size": 30}}}
    assert list(database.check([resource("a", connections=api)], {})) == []
    [problem] = database.check([resource("a", connections=api), resource("b", connections=jobs)], {})
    assert (problem.code, problem.address, problem.path) == (
        "GAM601",
        Address("Database", "b"),
        ("spec", "connections"),
    )
    assert "may open 100 connections (api 60, reserve of a 10, jobs 30), and it accepts 97" in problem.message
    assert "at least 103" in problem.hint
    more = resource("a", connections=api, settings={"max_connections": 103})
    assert list(database.check([more, resource("b", connections=jobs)], {})) == []
    elsewhere = resource("b", connections=jobs, server="other")
    assert list(database.check([resource("a", connections=api), elsewhere], {})) == []


def test_two_databases_of_a_server_must_not_contradict_each_other():
    one, two = resource("a", settings={"work_mem": "1MB"}), resource("b", settings={"WORK_MEM": "2MB"})
    [problem] = database.check([one, two], {})
    assert (problem.code, problem.path) == ("GAM602", ("spec", "settings", "WORK_MEM"))
    assert list(database.check([one, resource("b", settings={"work_mem": "1MB"})], {})) == []


async def test_what_is_described_is_adopted_as_it_is(bench: Bench):
    await bench.run_on_maintenance(f"create database {bench.name}")
    await bench.run("create extension hstore")
    spec = await database.DatabaseProvider(bench.targets).describe("main", "", bench.name)
    change = await bench.change("Database/main", spec)
    assert (change.action, [f.path for f in change.fields]) == (Action.ADOPT, [("mark",)])
    assert await database.DatabaseProvider(bench.targets).describe("main", "", "nope") is None
