"""Table: grows in place, and refuses whatever could cost a row or a value."""

import asyncio
import json
from typing import Any

import pytest
from pydantic import ValidationError

from gamma_orch.core.change import Action, Reason, Verdict
from gamma_orch.core.observation import Unreadable
from gamma_orch.core.provider import Permanent, Temporary
from gamma_orch.kinds.database.table import TableProvider, TableSpec
from tests.kinds.database.bench import ACCOUNTS, Bench

LIST = """select string_agg(attname, ' ' order by attnum) from pg_attribute
          where attrelid = 'accounts'::regclass and attnum > 0 and not attisdropped"""


def columns(**changed: Any) -> dict[str, Any]:
    """ACCOUNTS with columns changed, added, or (None) taken away."""
    merged = {**ACCOUNTS["columns"], **changed}
    return {**ACCOUNTS, "columns": {name: column for name, column in merged.items() if column is not None}}


async def accounts(bench: Bench, **spec: Any) -> None:
    await bench.ready()
    await bench.apply("Table/accounts", {**ACCOUNTS, **spec})


KEYS: dict[str, Any] = {
    "database": "main",
    "columns": {
        "id": {"type": "uuid", "default": "gen_random_uuid()"},
        "account": {"type": "int8"},
        "name": {"type": "varchar(40)", "nullable": True},
        "scopes": {"type": "text[]", "default": "'{}'"},
        "uses": {"type": "int", "default": 0},
        "active": {"type": "bool", "default": True},
        "price": {"type": "decimal(8, 2)", "default": 0.5},
        "expires": {"type": "timestamptz(3)", "default": "now() + interval '1 day'", "nullable": True},
    },
    "primaryKey": ["id"],
    "unique": [["account", "name"]],
    "foreignKeys": [{"columns": ["account"], "references": "accounts", "onDelete": "cascade"}],
    "checks": {"price_known": "price >= 0 and uses >= 0"},
}


async def test_a_table_is_made_and_kept_whatever_the_words(bench: Bench):
    await accounts(bench)
    assert (await bench.apply("Table/keys", KEYS)).action is Action.CREATE
    assert (await bench.change("Table/keys")).action is Action.KEEP
    again = bench.again()
    assert (await again.change("Table/keys")).fields == ()
    await again.aclose()
    await bench.run("comment on table keys is 'by hand'")  # the sense is forgotten: PostgreSQL is asked
    assert [f.path for f in (await bench.change("Table/keys")).fields] == [("mark",)]
    await bench.apply("Table/keys")
    assert (await bench.run("select obj_description('keys'::regclass)")).startswith("by hand\ngamma:")


async def test_columns_and_constraints_of_others_are_left_alone(bench: Bench):
    await accounts(bench)
    await bench.run(
        "alter table accounts add column theirs int, add unique (theirs)",
        "alter table accounts add constraint theirs check (theirs > 0)",
    )
    assert (await bench.change("Table/accounts")).action is Action.KEEP
    await bench.apply("Table/accounts", columns(more={"type": "text", "nullable": True}))
    assert await bench.run(LIST) == "id email plan created_at theirs more"


async def test_a_column_is_added_and_changed_in_place(bench: Bench):
    await accounts(bench)
    await bench.run("insert into accounts (email) values ('a')")
    await bench.apply("Table/accounts", columns(score={"type": "int", "default": 7}))
    assert await bench.run("select score from accounts") == 7
    await bench.apply("Table/accounts", columns(score={"type": "int", "default": "3 + 4", "nullable": True}))
    await bench.run("insert into accounts (email, score) values ('b', null)")
    await bench.apply("Table/accounts", columns(score={"type": "bigint", "nullable": True}))
    await bench.run("insert into accounts (email) values ('c')")
    assert await bench.run("select count(*) from accounts where score is null") == 2
    assert await bench.run("select pg_typeof(score)::text from accounts limit 1") == "bigint"
    with pytest.raises(Permanent, match="Column score of Table/accounts would be empty in rows"):
        await bench.apply("Table/accounts", columns(score={"type": "bigint"}))
    await bench.run("update accounts set score = 1")
    await bench.apply("Table/accounts", columns(score={"type": "bigint"}))


async def test_a_needed_value_for_rows_that_are_there_must_come_from_somewhere(bench: Bench):
    await accounts(bench)
    await bench.run("insert into accounts (email) values ('a')")
    with pytest.raises(Permanent, match=r"Column score .* Give it a default, make it nullable"):
        await bench.apply("Table/accounts", columns(score={"type": "int"}))
    assert "score" not in await bench.run(LIST)


async def test_drift_of_a_column_is_shown_and_set_back(bench: Bench):
    await accounts(bench)
    await bench.run(
        "alter table accounts alter email drop not null, alter plan set default 'pro'",
        "alter table accounts alter created_at drop default",
    )
    change = await bench.change("Table/accounts")
    assert change.reason is Reason.DRIFTED
    assert {f.path: (f.was, f.wanted, f.live) for f in change.fields} == {
        ("columns", "email", "nullable"): (False, False, True),
        ("columns", "plan", "default"): ("'free'", "'free'", "'pro'::text"),
        ("columns", "created_at", "default"): ("now()", "now()", None),
    }
    await bench.apply("Table/accounts")
    assert (await bench.change("Table/accounts")).action is Action.KEEP


async def test_identity_comes_changes_and_goes(bench: Bench):
    await accounts(bench)
    for identity in ("byDefault", None, "always"):
        await bench.apply("Table/accounts", columns(id={"type": "bigint", "identity": identity}))
    await bench.run("insert into accounts (email) values ('a')")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("varchar(10)", "varchar(20)"),
        ("varchar(10)", "text"),
        ("smallint", "int"),
        ("int", "bigint"),
        ("numeric(8,2)", "numeric(10,2)"),
        ("numeric(8,2)", "numeric"),
        ("real", "double precision"),
    ],
)
async def test_a_type_that_holds_every_value_is_changed_in_place(bench: Bench, old: str, new: str):
    await bench.ready()
    await bench.apply("Table/accounts", columns(more={"type": old, "nullable": True}))
    await bench.run("insert into accounts (email, more) values ('a', '7')")
    await bench.apply("Table/accounts", columns(more={"type": new, "nullable": True}))
    assert str(await bench.run("select more::int from accounts")) == "7"


@pytest.mark.parametrize(
    ("old", "new"),
    [("bigint", "int"), ("varchar(20)", "varchar(10)"), ("text", "int"), ("numeric(8,2)", "numeric(9,1)")],
)
async def test_a_type_that_may_lose_values_is_refused_by_the_plan(bench: Bench, old: str, new: str):
    await bench.ready()
    await bench.apply("Table/accounts", columns(more={"type": old, "nullable": True}))
    change = await bench.change("Table/accounts", columns(more={"type": new, "nullable": True}))
    assert change.action is Action.REFUSE
    assert "write a migration" in change.detail
    assert "Column more is" in change.detail


async def test_a_column_goes_only_if_it_is_empty_and_was_ours(bench: Bench):
    await bench.ready()
    await bench.apply("Table/accounts", columns(more={"type": "text", "nullable": True}))
    await bench.run("insert into accounts (email, more) values ('a', 'precious'), ('b', null)")
    change = await bench.change("Table/accounts", ACCOUNTS)
    assert {f.verdict for f in change.fields} == {Verdict.RELEASE}
    with pytest.raises(
        Permanent, match=r"Column more is no longer in the spec .* and 1 rows have a value in it"
    ):
        await bench.apply("Table/accounts")
    assert await bench.run("select more from accounts where email = 'a'") == "precious"
    await bench.run("update accounts set more = null")
    await bench.apply("Table/accounts")
    assert await bench.run(LIST) == "id email plan created_at"


async def test_a_released_column_that_somebody_changed_is_theirs(bench: Bench):
    await bench.ready()
    await bench.apply("Table/accounts", columns(more={"type": "text", "nullable": True, "default": "'x'"}))
    await bench.run("alter table accounts alter more type varchar(5), alter more set default 'y'")
    bench.want("Table/accounts", ACCOUNTS)
    at = next(at for at in bench.wanted if at.kind == "Table")
    await bench.providers["Table"].apply(bench.task(at, bench.create, bench.wanted[at]))
    assert await bench.run(LIST) == "id email plan created_at more"


async def test_constraints_come_change_and_go(bench: Bench):
    await accounts(bench)
    await bench.run("insert into accounts (email) values ('a'), ('b')")
    await bench.apply(
        "Table/accounts", {**ACCOUNTS, "unique": [["email"]], "checks": {"short": "length(email) < 9"}}
    )
    assert await bench.run(
        "select bool_and(convalidated) from pg_constraint where conrelid = 'accounts'::regclass"
    )
    await bench.apply(
        "Table/accounts",
        {**ACCOUNTS, "unique": [["email", "plan"]], "checks": {"short": "length(email) < 5"}},
    )
    names = """select string_agg(contype::text, '' order by contype) from pg_constraint
               where conrelid = 'accounts'::regclass and contype in ('c', 'u', 'f', 'p')"""
    assert await bench.run(names) == "cpu"
    change = await bench.apply("Table/accounts", ACCOUNTS)
    assert {f.verdict for f in change.fields} == {Verdict.RELEASE}
    assert await bench.run(names) == "p"


async def test_rows_that_break_a_constraint_are_told_and_nothing_changes(bench: Bench):
    await accounts(bench)
    await bench.run("insert into accounts (email) values ('same'), ('same')")
    with pytest.raises(Permanent, match=r"short.* Mend the rows first; the constraint was not kept"):
        await bench.apply("Table/accounts", {**ACCOUNTS, "checks": {"short": "length(email) < 3"}})
    with pytest.raises(Permanent, match=r"Rows of Table/accounts break what is wanted: .*\(email\)=\(same\)"):
        await bench.apply("Table/accounts", {**ACCOUNTS, "unique": [["email"]]})
    count = (
        "select count(*) from pg_constraint where conrelid = 'accounts'::regclass and contype in ('c', 'u')"
    )
    assert await bench.run(count) == 0


async def test_a_foreign_key_leads_where_it_says(bench: Bench):
    await accounts(bench)
    plain = {**KEYS, "foreignKeys": []}
    await bench.apply("Table/keys", plain)
    await bench.run("insert into keys (account) values (77)")
    with pytest.raises(Permanent, match=r"77.* Mend the rows first"):
        await bench.apply("Table/keys", KEYS)
    await bench.run("delete from keys")
    await bench.apply("Table/keys", KEYS)
    await bench.run(
        "insert into accounts (email) values ('a')", "insert into keys (account) select id from accounts"
    )
    await bench.run("delete from accounts")
    assert await bench.run("select count(*) from keys") == 0
    restrict = {**KEYS, "foreignKeys": [{**KEYS["foreignKeys"][0], "onDelete": "restrict"}]}
    change = await bench.apply("Table/keys", restrict)
    assert [f.path for f in change.fields] == [("foreignKeys", "account", "onDelete")]
    with pytest.raises(Permanent, match="other objects depend on it"):
        await bench.delete("Table/accounts")


async def test_a_constraint_that_was_never_checked_is_seen_and_checked(bench: Bench):
    """Killed between adding it and checking it."""
    wanted = {"checks": {"short": "length(email) < 9"}}
    await accounts(bench, **wanted)
    await bench.run(
        "alter table accounts drop constraint short",
        "alter table accounts add constraint short check (length(email) < 9) not valid",
    )
    change = await bench.change("Table/accounts")
    assert (change.action, change.reason) == (Action.UPDATE, Reason.UNHEALTHY)
    assert "constraint short was never checked" in change.detail
    await bench.apply("Table/accounts")
    assert (await bench.change("Table/accounts")).action is Action.KEEP


async def test_another_primary_key_is_a_migration(bench: Bench):
    await accounts(bench)
    change = await bench.change("Table/accounts", {**ACCOUNTS, "primaryKey": ["email"]})
    assert change.action is Action.REFUSE
    assert "(id) and would have to become (email)" in change.detail


async def test_another_name_schema_or_database_is_refused_and_told_how(bench: Bench):
    await accounts(bench)
    await bench.apply("Schema/app", {"database": "main"})
    await bench.apply("Database/second", {"name": f"{bench.name}_2"})
    for moved in ({"name": "users"}, {"schema": "app"}, {"database": "second"}):
        change = await bench.change("Table/accounts", {**ACCOUNTS, **moved})
        assert change.action is Action.REFUSE
        assert "does not rename or move what may hold data. Run ALTER TABLE" in change.detail
    await bench.run('alter table "accounts" rename to users')  # as it says
    change = await bench.change("Table/accounts", {**ACCOUNTS, "name": "users"})
    assert (change.action, change.reason) == (Action.ADOPT, Reason.CONVERGED_OUTSIDE)


async def test_a_lock_of_somebody_elses_may_pass(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gamma_orch.kinds.database.table.LOCK_TIMEOUT", "100ms")
    await accounts(bench)
    async with bench.sql() as reader:
        transaction = reader.transaction()
        await transaction.start()
        await reader.execute("select * from accounts")
        with pytest.raises(Temporary, match="somebody else holds a lock"):
            await bench.apply("Table/accounts", columns(more={"type": "text", "nullable": True}))
        await transaction.rollback()
    await bench.apply("Table/accounts")


async def test_only_a_marked_table_is_dropped(bench: Bench):
    await accounts(bench)
    await bench.run("comment on table accounts is 'mine now'")
    with pytest.raises(Permanent, match=r"Table public.accounts .* does not carry Gamma's mark"):
        await bench.delete("Table/accounts")
    await bench.apply("Table/accounts")
    await bench.delete("Table/accounts")


async def test_what_is_described_is_adopted_as_it_is(bench: Bench):
    await accounts(bench)
    await bench.apply("Schema/app", {"database": "main"})
    await bench.apply("Table/keys", {**KEYS, "schema": "app"})
    await bench.run("comment on table app.keys is null")
    described = await TableProvider(bench.targets).describe("main", bench.name, "app.keys")
    bench.records.clear()
    change = await bench.change("Table/keys", json.loads(json.dumps(described)))
    assert (change.action, [f.path for f in change.fields]) == (Action.ADOPT, [("mark",)])
    assert await TableProvider(bench.targets).describe("main", bench.name, "nope") is None


async def test_odd_names_are_quoted(bench: Bench):
    await bench.ready()
    odd = 'a "b"; drop table x; --'
    spec = {
        "database": "main",
        "name": odd,
        "columns": {odd: {"type": "text"}, "Größe": {"type": "int"}},
        "primaryKey": [odd],
    }
    await bench.apply("Table/odd", spec)
    await bench.apply("Index/odd", {"table": "odd", "columns": [odd, "Größe"], "name": odd + "i"})
    await bench.delete("Index/odd")
    await bench.delete("Table/odd")


async def test_an_expression_that_is_wrong_changes_nothing(bench: Bench):
    await accounts(bench)
    with pytest.raises(Permanent, match="syntax error"):
        await bench.apply(
            "Table/accounts",
            columns(a={"type": "int", "nullable": True}, b={"type": "int", "default": "1 +"}),
        )
    assert await bench.run(LIST) == "id email plan created_at"


async def test_side_by_side(bench: Bench):
    await bench.ready()
    for number in range(6):
        bench.want(f"Table/t{number}", {**ACCOUNTS, "name": f"t{number}"})
    await asyncio.gather(*(bench.apply(f"Table/t{number}") for number in range(6)))


async def test_what_cannot_be_compared_is_unreadable_and_spoils_no_other(bench: Bench):
    await accounts(bench)
    at = bench.want("Table/broken", {**ACCOUNTS, "name": "accounts"})
    asked = [bench.asked(at) for at in bench.wanted if at.kind == "Table"]
    broken = type(asked[-1])(
        at, {"server": "main", "database": bench.name, "schema": "public", "name": "accounts"}, None
    )
    found = await bench.providers["Table"].observe([asked[0], broken])
    assert isinstance(found[at], Unreadable)
    assert not isinstance(found[asked[0].address], Unreadable)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"columns": {"a, b": {"type": "int"}}, "unique": [["a, b"]]}, "has a comma and a blank"),
        ({"columns": {"a": {"type": "serial"}}}, "say `type: integer` and `identity: always`"),
        (
            {"columns": {"a": {"type": "int"}}, "primaryKey": ["b"]},
            "primaryKey names b, which is none of the columns",
        ),
        ({"columns": {"a": {"type": "int"}}, "unique": [["a", "c"]]}, "unique names c"),
        ({"columns": {"a": {"type": "int", "nullable": True}}, "primaryKey": ["a"]}, "cannot be nullable"),
        (
            {"columns": {"a": {"type": "int", "identity": "always", "default": 1}}},
            "an identity or a default, not both",
        ),
        ({"columns": {"a": {"type": "int", "identity": "always", "nullable": True}}}, "never empty"),
    ],
)
def test_a_spec_that_contradicts_itself(spec: dict[str, Any], said: str):
    with pytest.raises(ValidationError) as error:
        TableSpec.model_validate({"database": "main", **spec})
    assert said in str(error.value)
