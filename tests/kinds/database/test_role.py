"""Role: attributes, passwords that nobody sees, and privileges as a difference."""

import json
from typing import Any

import asyncpg
import pytest
from pydantic import ValidationError

from gamma_orch.core.address import Address
from gamma_orch.core.change import Action, Reason, Verdict
from gamma_orch.core.provider import Permanent
from gamma_orch.kinds.database import scram
from gamma_orch.kinds.database.role import RoleProvider
from gamma_orch.kinds.database.role_spec import RoleSpec
from tests.kinds.database.bench import ACCOUNTS, Bench

ACL = """select coalesce(string_agg(privilege_type, ' ' order by privilege_type), '')
         from pg_class, aclexplode(relacl) where oid = '{}'::regclass and grantee = '{}'::regrole"""


async def role(bench: Bench, **spec: Any) -> Any:
    return await bench.apply("Role/api", {"name": f"{bench.name}_api", **spec})


async def accounts(bench: Bench) -> None:
    await bench.ready()
    await bench.apply("Table/accounts", ACCOUNTS)


async def held(bench: Bench, table: str = "accounts") -> str:
    return str(await bench.run(ACL.format(table, f"{bench.name}_api")))


async def log_in(bench: Bench, password: str) -> object:
    postgres = bench.targets.postgres("main")
    host, port = postgres.host_port
    connection = await asyncpg.connect(
        host=host, port=port, user=f"{bench.name}_api", password=password, database="postgres"
    )
    try:
        return await connection.fetchval("select current_user")
    finally:
        await connection.close()


async def test_a_role_is_made_changed_and_dropped(bench: Bench):
    assert (await role(bench, connectionLimit=5, attributes=["createdb"])).action is Action.CREATE
    assert (await bench.change("Role/api")).action is Action.KEEP
    await role(bench, login=False, builtinRoles=["pg_monitor"])
    async with bench.sql("postgres") as by_hand:
        row = await by_hand.fetchrow(f"select * from pg_roles where rolname = '{bench.name}_api'")
    assert (row["rolcanlogin"], row["rolconnlimit"], row["rolcreatedb"]) == (False, -1, False)
    await bench.delete("Role/api")


async def test_a_right_that_somebody_gave_it_is_drift(bench: Bench):
    await role(bench)
    await bench.run_on_maintenance(f"alter role {bench.name}_api superuser connection limit 3")
    await bench.run_on_maintenance(f"grant pg_read_all_data to {bench.name}_api")
    change = await role(bench)
    assert change.reason is Reason.DRIFTED
    assert {f.path[0]: f.live for f in change.fields} == {
        "attributes": ["superuser"],
        "connectionLimit": 3,
        "memberOf": ["pg_read_all_data"],
    }
    assert (await bench.change("Role/api")).action is Action.KEEP


async def test_membership_in_other_resources(bench: Bench):
    await bench.apply("Role/readers", {"name": f"{bench.name}_readers", "login": False})
    await role(bench, memberOf=["readers"])
    assert (await bench.seen("Role/api")).fields["memberOf"] == [f"{bench.name}_readers"]
    await role(bench)
    assert (await bench.seen("Role/api")).fields["memberOf"] == []


# Passwords


async def test_a_password_opens_and_changes_with_its_secret_only(bench: Bench):
    await role(bench, password=bench.secret("db", "first-password"))
    assert await log_in(bench, "first-password") == f"{bench.name}_api"
    assert (await bench.change("Role/api")).action is Action.KEEP
    assert "password" not in (await bench.seen("Role/api")).fields
    stored = f"select rolpassword from pg_authid where rolname = '{bench.name}_api'"
    async with bench.sql("postgres") as by_hand:
        before = await by_hand.fetchval(stored)
        await role(bench, password=bench.secret("db", "first-password"), connectionLimit=9)
        assert await by_hand.fetchval(stored) == before
        change = await role(bench, password=bench.secret("db", "second-password"), connectionLimit=9)
        assert [f.path for f in change.fields] == [("password",)]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await log_in(bench, "first-password")
    assert await log_in(bench, "second-password")
    await role(bench, connectionLimit=9)  # no password any more: nobody logs in with one
    with pytest.raises(asyncpg.InvalidPasswordError):
        await log_in(bench, "second-password")


@pytest.mark.parametrize("password", ["päßwörd ① ﬁ", "\u00adsoft", "uni\u0007bell", "שלום", "a'b\\c\"$1"])
async def test_a_password_in_any_script_is_the_one_that_clients_send(bench: Bench, password: str):
    await role(bench, password=bench.secret("db", password))
    assert await log_in(bench, password)


async def test_no_password_is_in_the_servers_log_or_statistics(own_bench: Bench):
    """The clear text never leaves us; the verifier at least is not logged."""
    await own_bench.ready(
        settings={
            "log_statement": "all",
            "log_min_duration_statement": -1,
            "shared_preload_libraries": "pg_stat_statements",
            "pg_stat_statements.track_utility": True,
        },
        extensions=["pg_stat_statements"],
    )
    await role(own_bench, password=own_bench.secret("db", "super-secret-words"))
    await role(own_bench, password=own_bench.secret("db", "other-secret-words"))
    statements = await own_bench.run("select string_agg(query, ' ') from pg_stat_statements")
    server = own_bench.targets.postgres("main")._server
    log = server.log.read_text()  # type: ignore[union-attr]
    assert "CREATE ROLE" in log
    for text in (statements, log):
        assert "secret-words" not in text
    assert "SCRAM-SHA-256" not in log


def test_the_verifier_is_that_of_the_rfc():
    """The example of RFC 7677, section 3: password `pencil`, its salt, 4096 rounds."""
    import base64
    import hashlib
    import hmac

    text = scram.verifier("pencil")
    mechanism, rounds_and_salt, keys = text.split("$")
    rounds, salt = rounds_and_salt.split(":")
    stored, server = (base64.b64decode(key) for key in keys.split(":"))
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", base64.b64decode(salt), int(rounds))
    assert (mechanism, rounds) == ("SCRAM-SHA-256", "4096")
    assert stored == hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    assert server == hmac.digest(salted, b"Server Key", "sha256")
    assert scram.verifier("pencil") != text


def test_a_password_is_never_written_into_a_spec():
    with pytest.raises(ValidationError, match=r"write \$\{secret.NAME\}"):
        RoleSpec.model_validate({"password": "hunter2"})


# Privileges

GRANTS = [
    {"on": "database", "database": "main", "privileges": ["CONNECT", "temporary"]},
    {"on": "schema", "database": "main", "privileges": ["usage"]},
    {"on": "table", "tables": ["accounts"], "privileges": ["select", "insert"]},
    {"on": "sequence", "database": "main", "names": ["accounts_id_seq"], "privileges": ["usage"]},
]


async def test_privileges_are_given_and_no_others(bench: Bench):
    await accounts(bench)
    await role(bench, grants=GRANTS)
    assert await held(bench) == "INSERT SELECT"
    assert await held(bench, "accounts_id_seq") == "USAGE"
    assert await bench.run(
        f"select has_database_privilege('{bench.name}_api', current_database(), 'temporary')"
    )
    assert (await bench.change("Role/api")).action is Action.KEEP


async def test_only_the_difference_is_sent(own_bench: Bench):
    """REVOKE ALL and GRANT would be right at the end, and wrong for every query in between."""
    await accounts(own_bench)
    await role(own_bench, grants=GRANTS)
    await own_bench.ready(settings={"log_statement": "ddl"})
    log = own_bench.targets.postgres("main")._server.log  # type: ignore[union-attr]
    before = log.stat().st_size
    grants = [
        *GRANTS[:2],
        {"on": "table", "tables": ["accounts"], "privileges": ["select", "update"]},
        GRANTS[3],
    ]
    await role(own_bench, grants=grants)
    sent = [
        line.split("statement: ")[1]
        for line in log.read_text()[before:].splitlines()
        if "statement: " in line
    ]
    name = f'"{own_bench.name}_api"'
    assert sent == [
        f'REVOKE INSERT ON TABLE "public"."accounts" FROM {name}',
        f'GRANT UPDATE ON TABLE "public"."accounts" TO {name}',
    ]


async def test_privileges_given_by_hand_are_drift_on_named_objects_only(bench: Bench):
    await accounts(bench)
    await role(bench, grants=GRANTS)
    name = f"{bench.name}_api"
    await bench.run(
        "create table other (a int)",
        f"grant delete on accounts to {name}",
        f"grant select on accounts to {name} with grant option",
        f"grant all on other to {name}",
        f"revoke usage on schema public from {name}",
    )
    change = await bench.change("Role/api")
    assert change.reason is Reason.DRIFTED
    assert {f.path[2]: f.live for f in change.fields if f.verdict is Verdict.DRIFT} == {
        "table public.accounts": ["delete", "insert", "select with grant option"],
        "schema public": change.fields[0].live,
    }
    await bench.apply("Role/api")
    assert await held(bench) == "INSERT SELECT"
    assert "DELETE" in await held(bench, "other")


async def test_privileges_that_leave_the_spec_are_taken_back(bench: Bench):
    await accounts(bench)
    await role(bench, grants=GRANTS)
    change = await role(bench, grants=GRANTS[:2])
    assert {f.verdict for f in change.fields} == {Verdict.RELEASE}
    assert await held(bench) == ""
    await role(bench)
    assert await bench.run(f"select has_schema_privilege('{bench.name}_api', 'public', 'create')") is False


async def test_all_tables_of_a_schema(bench: Bench):
    await accounts(bench)
    await bench.run("create table a (x int)", "create table b (x int)")
    every = {"on": "table", "database": "main", "names": ["*"], "privileges": ["select"]}
    await role(bench, grants=[every, GRANTS[2]])
    assert [await held(bench, table) for table in ("a", "b", "accounts")] == [
        "SELECT",
        "SELECT",
        "INSERT SELECT",
    ]
    await bench.run("create table c (x int)")
    change = await bench.change("Role/api")
    assert [f.path[2] for f in change.fields] == ["table public.*"]
    await bench.apply("Role/api")
    assert await held(bench, "c") == "SELECT"
    await bench.run(f"grant delete on b to {bench.name}_api")
    [field] = (await bench.change("Role/api")).fields
    assert field.live == ["delete", "select"]
    await bench.apply("Role/api")
    assert await held(bench, "b") == "SELECT"


async def test_default_privileges(bench: Bench):
    await bench.ready()
    await bench.apply("Role/owner", {"name": f"{bench.name}_owner", "attributes": ["superuser"]})
    later = [
        {"on": "table", "database": "main", "privileges": ["select"]},
        {"on": "sequence", "database": "main", "by": "owner", "privileges": ["usage", "select"]},
    ]
    await role(bench, defaultPrivileges=later)
    assert (await bench.change("Role/api")).action is Action.KEEP
    await bench.run("create table made_later (a int)")
    assert await held(bench, "made_later") == "SELECT"
    name = f"{bench.name}_api"
    await bench.run(f"alter default privileges in schema public grant delete on tables to {name}")
    assert (await bench.change("Role/api")).reason is Reason.DRIFTED
    await bench.apply("Role/api")
    await role(bench, defaultPrivileges=later[1:])
    await bench.run("create table made_last (a int)")
    assert await held(bench, "made_last") == ""


async def test_an_owner_has_what_it_has(bench: Bench):
    await accounts(bench)
    await role(bench, grants=GRANTS)
    await bench.run(f"alter table accounts owner to {bench.name}_api")
    assert (await bench.change("Role/api")).action is Action.KEEP


async def test_what_is_not_there_cannot_be_granted(bench: Bench):
    await bench.ready()
    with pytest.raises(Permanent, match=r"privileges on table public.nope, which database .* does not have"):
        await role(
            bench, grants=[{"on": "table", "database": "main", "names": ["nope"], "privileges": ["select"]}]
        )


async def test_a_role_is_read_while_its_database_is_not_there(bench: Bench):
    await role(bench)
    bench.want("Database/main", {"name": bench.name})
    change = await bench.change("Role/api", {"name": f"{bench.name}_api", "grants": GRANTS[:1]})
    assert change.action is Action.UPDATE


@pytest.mark.parametrize(
    ("grant", "said"),
    [
        (
            {"on": "table", "database": "main", "names": ["a"], "privileges": ["usage"]},
            "no privilege on a table: usage",
        ),
        ({"on": "table", "privileges": ["select"]}, "say in which `database`, or which `tables`"),
        ({"on": "table", "database": "main", "privileges": ["select"]}, "say which tables in `names`"),
        (
            {"on": "schema", "database": "main", "names": ["a"], "privileges": ["usage"]},
            "`names` does not go with",
        ),
        ({"on": "schema", "tables": ["a"], "privileges": ["usage"]}, "`tables` goes with `on: table`"),
    ],
)
def test_a_grant_that_says_too_little_or_too_much(grant: dict[str, Any], said: str):
    with pytest.raises(ValidationError) as error:
        RoleSpec.model_validate({"grants": [grant]})
    assert said in str(error.value)


# The end


async def test_a_role_with_privileges_is_dropped_with_them(bench: Bench):
    await accounts(bench)
    later = [{"on": "table", "database": "main", "privileges": ["select"]}]
    await role(bench, grants=GRANTS, defaultPrivileges=later)
    await bench.run("create table by_hand (a int)", f"grant select on by_hand to {bench.name}_api")
    await bench.delete("Role/api")
    await bench.delete("Role/api")
    assert await bench.run("select count(*) from by_hand") == 0


async def test_a_role_that_owns_something_is_not_dropped(bench: Bench):
    await accounts(bench)
    await role(bench, grants=GRANTS)
    await bench.run(f"alter table accounts owner to {bench.name}_api")
    with pytest.raises(Permanent, match=r"owns .*table accounts.* in database .*REASSIGN OWNED BY"):
        await bench.delete("Role/api")
    assert await bench.run("select count(*) from accounts") == 0


async def test_a_role_with_privileges_elsewhere_is_not_dropped(bench: Bench):
    await bench.ready()
    await role(bench)
    await bench.run("create table by_hand (a int)", f"grant select on by_hand to {bench.name}_api")
    with pytest.raises(Permanent, match="which this resource never named, so it is not dropped"):
        await bench.delete("Role/api")


async def test_an_unmarked_role_is_adopted_but_not_dropped(bench: Bench):
    await bench.run_on_maintenance(f"create role {bench.name}_api login")
    bench.want("Role/api", {"name": f"{bench.name}_api"})
    with pytest.raises(Permanent, match="does not carry Gamma's mark of Role/api"):
        await bench.delete("Role/api")
    bench.records.clear()
    assert (await role(bench)).action is Action.ADOPT
    await bench.delete("Role/api")


async def test_another_name_is_refused_and_told_how(bench: Bench):
    await role(bench)
    change = await bench.change("Role/api", {"name": f"{bench.name}_b"})
    assert change.action is Action.REFUSE
    assert "Run ALTER ROLE ... RENAME TO" in change.detail


async def test_what_is_described_is_adopted_as_it_is(bench: Bench):
    await accounts(bench)
    await role(bench, grants=GRANTS, connectionLimit=7, attributes=["createdb"], builtinRoles=["pg_monitor"])
    async with bench.sql() as by_hand:
        await by_hand.execute(f"comment on role {bench.name}_api is null")
    described = await RoleProvider(bench.targets).describe("main", bench.name, f"{bench.name}_api")
    del bench.records[Address("Role", "api")]
    change = await bench.change("Role/api", json.loads(json.dumps(described)))
    assert (change.action, [f.path for f in change.fields]) == (Action.ADOPT, [("mark",)])
