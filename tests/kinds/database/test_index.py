"""Index: built beside and swapped in, healed, never invalid behind anybody's back."""

import asyncio
import json

import pytest
from pydantic import ValidationError

from gamma_orch.core.change import Action, Reason
from gamma_orch.core.observation import Absent, Seen
from gamma_orch.core.provider import Permanent, Temporary
from gamma_orch.kinds.database.index import IndexProvider, IndexSpec
from tests.kinds.database.bench import ACCOUNTS, Bench

PLAIN = {"table": "accounts", "columns": ["email"]}
INVALID = "update pg_index set indisvalid = false where indexrelid = 'accounts_email'::regclass"
NAMES = """select string_agg(c.relname, ' ' order by c.relname) from pg_class c
           join pg_namespace n on n.oid = c.relnamespace where relkind = 'i' and nspname = 'public'"""


async def accounts(bench: Bench, *rows: str) -> None:
    await bench.ready()
    await bench.apply("Table/accounts", ACCOUNTS)
    for email in rows:
        await bench.run(f"insert into accounts (email) values ('{email}')")


async def definition(bench: Bench, name: str = "accounts_email") -> str:
    return str(await bench.run(f"select pg_get_indexdef('{name}'::regclass)"))


async def test_an_index_is_built_and_then_kept(bench: Bench):
    await accounts(bench)
    assert (await bench.apply("Index/accounts-email", PLAIN)).action is Action.CREATE
    assert await definition(bench) == "CREATE INDEX accounts_email ON public.accounts USING btree (email)"
    assert (await bench.change("Index/accounts-email")).action is Action.KEEP
    assert await bench.run(NAMES) == "accounts_email accounts_pkey"
    outputs = (await bench.seen("Index/accounts-email")).outputs
    assert outputs["table"] == "accounts"


WHOLE = {
    "table": "accounts",
    "columns": [
        {"expression": "lower(email)", "order": "desc", "nulls": "last"},
        "plan",
        {"column": "email", "opclass": "text_pattern_ops"},
        {"column": "id", "opclass": "int8_ops", "order": "asc", "nulls": "last"},  # what it has anyway
    ],
    "include": ["created_at"],
    "unique": True,
    "nullsNotDistinct": True,
    "where": "plan <> 'free' and length(email) > 3",
    "with": {"fillfactor": 70, "deduplicate_items": False},
}


async def test_every_part_of_a_definition_is_built_and_compared_in_the_words_of_the_spec(bench: Bench):
    await accounts(bench)
    await bench.apply("Index/accounts-email", WHOLE)
    text = await definition(bench)
    assert "UNIQUE" in text
    assert "lower(email) DESC NULLS LAST, plan, email text_pattern_ops, id" in text
    assert "INCLUDE (created_at) NULLS NOT DISTINCT WITH (fillfactor='70', deduplicate_items='false')" in text
    assert "WHERE ((plan <> 'free'::text) AND (length(email) > 3))" in text
    again = bench.again()  # which has no record, only the mark to tell it the sense of the texts
    change = await again.change("Index/accounts-email")
    assert (change.action, change.fields) == (Action.ADOPT, ())
    await again.aclose()
    await bench.run("comment on index accounts_email is null")  # and now only PostgreSQL can tell
    change = await bench.change("Index/accounts-email")
    assert [f.path for f in change.fields] == [("mark",)]


@pytest.mark.parametrize(
    "part",
    [
        {"columns": ["email", "plan"]},
        {"columns": [{"column": "email", "order": "desc"}]},
        {"columns": [{"expression": "upper(email)"}]},
        {"unique": True},
        {"where": "plan = 'pro'"},
        {"include": ["plan"]},
        {"method": "hash"},
        {"with": {"fillfactor": 50}},
    ],
)
async def test_a_changed_definition_is_swapped_in(bench: Bench, part: dict[str, object]):
    await accounts(bench, "a", "b")
    await bench.apply("Index/accounts-email", PLAIN)
    await bench.run("comment on index accounts_email is 'for the login'")
    bench.records.clear()
    await bench.apply("Index/accounts-email")  # marked anew, beneath what people wrote
    before = await definition(bench)
    change = await bench.apply("Index/accounts-email", {**PLAIN, **part})
    assert (change.action, change.reason) == (Action.REPLACE, Reason.IMMUTABLE)
    assert await definition(bench) != before
    assert await bench.run(NAMES) == "accounts_email accounts_pkey"
    comment = await bench.run("select obj_description('accounts_email'::regclass)")
    assert comment.startswith("for the login\ngamma:")
    assert (await bench.change("Index/accounts-email")).action is Action.KEEP


async def test_an_expression_in_other_words_is_no_change(bench: Bench):
    await accounts(bench)
    first = {**PLAIN, "columns": [{"expression": "lower(email)"}], "where": "plan in ('a', 'b')"}
    await bench.apply("Index/accounts-email", first)
    other = {**PLAIN, "columns": [{"expression": "LOWER( email )"}], "where": "(plan = ANY (ARRAY['a','b']))"}
    change = await bench.change("Index/accounts-email", other)
    assert (change.action, change.reason) == (Action.ADOPT, Reason.CONVERGED_OUTSIDE)  # the record only
    changed = await bench.change("Index/accounts-email", {**first, "where": "plan in ('a', 'c')"})
    [field] = changed.fields
    assert (field.was, field.live) == ("plan in ('a', 'b')", "plan in ('a', 'b')")  # no mistaken conflict


async def test_while_it_is_swapped_queries_find_an_index(bench: Bench):
    """Somebody asks all the time, and may use the index alone."""
    await accounts(bench)
    await bench.run(
        "insert into accounts (email) select 'mail' || n from generate_series(1, 20000) n", "analyze accounts"
    )
    await bench.apply("Index/accounts-email", PLAIN)
    plans: list[str] = []
    swapped = asyncio.Event()

    async def ask() -> None:
        async with bench.sql() as connection:
            while not swapped.is_set():
                rows = await connection.fetch("explain select 1 from accounts where email = 'mail77'")
                plans.append(rows[0][0])

    asking = asyncio.create_task(ask())
    await bench.apply("Index/accounts-email", {**PLAIN, "columns": ["email", "plan"]})
    swapped.set()
    await asking
    assert len(plans) > 5
    assert [plan for plan in plans if "Seq Scan" in plan] == []


async def test_duplicates_are_counted_and_nothing_is_left(bench: Bench):
    await accounts(bench, "a", "a", "a", "b", "b", "c")
    with pytest.raises(Permanent, match=r"5 rows share their key with another, in 2 groups"):
        await bench.apply("Index/accounts-email", {**PLAIN, "unique": True})
    assert await bench.run(NAMES) == "accounts_pkey"
    only = {**PLAIN, "unique": True, "columns": [{"expression": "upper(email)"}], "where": "email < 'b'"}
    with pytest.raises(Permanent, match=r"3 rows share their key with another, in 1 groups"):
        await bench.apply("Index/accounts-email", only)
    await bench.run("delete from accounts where id in (2, 3, 5)")
    await bench.apply("Index/accounts-email", {**PLAIN, "unique": True})


async def test_empty_values_are_no_duplicates_unless_said(bench: Bench):
    await bench.ready()
    columns = {**ACCOUNTS["columns"], "email": {"type": "text", "nullable": True}}
    await bench.apply("Table/accounts", {**ACCOUNTS, "columns": columns})
    await bench.run("insert into accounts (email) values (null), (null), ('a'), ('a')")
    with pytest.raises(Permanent, match="2 rows share their key with another, in 1 groups"):
        await bench.apply("Index/accounts-email", {**PLAIN, "unique": True})
    with pytest.raises(Permanent, match="4 rows share their key with another, in 2 groups"):
        await bench.apply("Index/accounts-email", {**PLAIN, "unique": True, "nullsNotDistinct": True})


async def test_a_failed_replacement_leaves_the_old_one_in_service(bench: Bench):
    await accounts(bench, "a", "a")
    await bench.apply("Index/accounts-email", PLAIN)
    with pytest.raises(Permanent, match="cannot be unique"):
        await bench.apply("Index/accounts-email", {**PLAIN, "unique": True})
    assert await bench.run(NAMES) == "accounts_email accounts_pkey"
    assert (await bench.change("Index/accounts-email", PLAIN)).action is Action.KEEP


async def test_an_invalid_index_is_seen_and_healed(bench: Bench):
    await accounts(bench)
    await bench.apply("Index/accounts-email", PLAIN)
    await bench.run(INVALID)
    change = await bench.change("Index/accounts-email")
    assert (change.action, change.reason) == (Action.UPDATE, Reason.UNHEALTHY)
    assert "invalid" in change.detail
    await bench.apply("Index/accounts-email")
    assert (await bench.change("Index/accounts-email")).action is Action.KEEP
    assert await bench.run("select indisvalid from pg_index where indexrelid = 'accounts_email'::regclass")


@pytest.mark.parametrize("valid", ["true", "false"])
async def test_what_a_cut_off_build_left_is_seen_and_removed(bench: Bench, valid: str):
    """Killed between the build and the swap, beside an index that works."""
    await accounts(bench)
    await bench.apply("Index/accounts-email", PLAIN)
    await bench.run(
        "create index accounts_email__new on accounts (plan)",
        f"update pg_index set indisvalid = {valid} where indexrelid = 'accounts_email__new'::regclass",
    )
    change = await bench.change("Index/accounts-email")
    assert change.reason is Reason.UNHEALTHY
    assert "accounts_email__new" in change.detail
    await bench.apply("Index/accounts-email")
    assert await bench.run(NAMES) == "accounts_email accounts_pkey"


async def test_what_a_cut_off_first_build_left_is_no_index(bench: Bench):
    await accounts(bench)
    await bench.run(
        "create index accounts_email__new on accounts (plan)",
        "update pg_index set indisvalid = false where indexrelid = 'accounts_email__new'::regclass",
    )
    bench.want("Index/accounts-email", PLAIN)
    assert isinstance(await bench.observe("Index/accounts-email"), Absent)
    await bench.apply("Index/accounts-email")
    assert await bench.run(NAMES) == "accounts_email accounts_pkey"


async def test_killed_between_the_swap_and_the_end(bench: Bench):
    """Both carry the mark then; the one with the name is the one."""
    await accounts(bench)
    await bench.apply("Index/accounts-email", PLAIN)
    await bench.run("create index accounts_email__old on accounts (plan)")
    comment = await bench.run("select obj_description('accounts_email'::regclass)")
    await bench.run(f"comment on index accounts_email__old is '{comment}'")
    assert (await bench.change("Index/accounts-email")).reason is Reason.UNHEALTHY
    await bench.apply("Index/accounts-email")
    assert await bench.run(NAMES) == "accounts_email accounts_pkey"


async def test_what_a_failed_reindex_left_is_removed(bench: Bench):
    await accounts(bench, "a")
    await bench.apply("Index/accounts-email", {**PLAIN, "unique": True})
    await bench.run(INVALID, "drop index accounts_email", "insert into accounts (email) values ('a')")
    with pytest.raises(Permanent, match="2 rows share"):
        await bench.apply("Index/accounts-email")
    await bench.run("create index accounts_email_ccnew on accounts (plan)")
    await bench.run(
        "update pg_index set indisvalid = false where indexrelid = 'accounts_email_ccnew'::regclass"
    )
    await bench.run("create index other_ccnew on accounts (plan)")
    await bench.run("delete from accounts where id = 1")
    await bench.apply("Index/accounts-email")
    assert await bench.run(NAMES) == "accounts_email accounts_pkey other_ccnew"


async def test_a_lock_of_somebody_elses_may_pass(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gamma_orch.kinds.database.index_build.LOCK_TIMEOUT", "100ms")
    await accounts(bench)
    async with bench.sql() as writer:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("insert into accounts (email) values ('a')")
        with pytest.raises(Temporary, match="somebody else holds a lock"):
            await bench.apply("Index/accounts-email", PLAIN)
        await transaction.rollback()
    assert await bench.run(
        "select bool_or(not indisvalid) from pg_index where indrelid = 'accounts'::regclass"
    )
    await bench.apply("Index/accounts-email")  # the next attempt removes what the first one left
    assert await bench.run(NAMES) == "accounts_email accounts_pkey"


async def test_builds_of_one_database_take_turns(bench: Bench):
    """Side by side they would wait for each other's transactions until one gives up."""
    await accounts(bench)
    tasks = []
    for number in range(4):
        spec = {**PLAIN, "where": f"id > {number}", "name": f"i{number}"}
        at = bench.want(f"Index/i{number}", spec)
        tasks.append(bench.apply(str(at)))
    assert [change.action for change in await asyncio.gather(*tasks)] == [Action.CREATE] * 4


async def test_another_name_is_a_rename(bench: Bench):
    await accounts(bench)
    await bench.apply("Index/accounts-email", PLAIN)
    oid = await bench.run("select 'accounts_email'::regclass::oid")
    change = await bench.apply("Index/accounts-email", {**PLAIN, "name": "by_email"})
    assert change.action is Action.UPDATE
    assert await bench.run("select 'by_email'::regclass::oid") == oid
    assert (await bench.change("Index/accounts-email")).action is Action.KEEP


async def test_an_index_renamed_by_hand_is_found_by_its_mark(bench: Bench):
    await accounts(bench)
    await bench.apply("Index/accounts-email", PLAIN)
    await bench.run("alter index accounts_email rename to moved")
    change = await bench.apply("Index/accounts-email")
    assert [(f.path, f.live) for f in change.fields] == [(("name",), "moved")]
    assert await bench.run(NAMES) == "accounts_email accounts_pkey"


async def test_another_table_is_a_new_index(bench: Bench):
    await accounts(bench)
    await bench.apply("Table/others", {**ACCOUNTS, "name": "others"})
    await bench.apply("Index/accounts-email", PLAIN)
    change = await bench.apply("Index/accounts-email", {**PLAIN, "table": "others"})
    assert change.action is Action.REPLACE
    assert "ON public.others" in await definition(bench)
    assert await bench.run(NAMES) == "accounts_email accounts_pkey others_pkey"


async def test_another_database_is_a_new_index_there(bench: Bench):
    await accounts(bench)
    await bench.apply("Index/accounts-email", PLAIN)
    await bench.apply("Database/second", {"name": f"{bench.name}_2"})
    await bench.apply("Table/far", {**ACCOUNTS, "database": "second", "name": "accounts"})
    await bench.apply("Index/accounts-email", {**PLAIN, "table": "far"})
    assert await bench.run(NAMES) == "accounts_pkey"
    async with bench.sql(f"{bench.name}_2") as there:
        assert await there.fetchval(NAMES) == "accounts_email accounts_pkey"


async def test_an_unmarked_index_is_adopted_but_never_dropped(bench: Bench):
    await accounts(bench)
    await bench.run("create index accounts_email on accounts (email)")
    found = await bench.seen_of("Index/accounts-email", PLAIN)
    assert found.fields["mark"] is None
    with pytest.raises(Permanent, match="does not carry Gamma's mark of Index/accounts-email"):
        await bench.delete("Index/accounts-email")
    bench.records.clear()
    change = await bench.apply("Index/accounts-email")
    assert (change.action, [f.path for f in change.fields]) == (Action.ADOPT, [("mark",)])
    await bench.delete("Index/accounts-email")
    await bench.delete("Index/accounts-email")
    assert await bench.run(NAMES) == "accounts_pkey"


async def test_an_unmarked_index_that_differs_is_not_replaced(bench: Bench):
    await accounts(bench)
    await bench.run("create index accounts_email on accounts (plan)")
    change = await bench.change("Index/accounts-email", PLAIN)
    assert (change.action, change.reason) == (Action.REFUSE, Reason.IMMUTABLE)
    task = bench.task(change.address, bench.create, bench.wanted[change.address])
    with pytest.raises(Permanent, match="so it is not dropped"):
        await bench.providers["Index"].apply(task)
    assert "(plan)" in await definition(bench)


async def test_the_index_of_a_constraint_and_that_of_another_resource_are_left_alone(bench: Bench):
    await accounts(bench)
    with pytest.raises(Permanent, match="the means of constraint accounts_pkey"):
        await bench.apply(
            "Index/mine", {"table": "accounts", "columns": ["id"], "unique": True, "name": "accounts_pkey"}
        )
    await bench.apply("Index/accounts-email", PLAIN)
    with pytest.raises(Permanent, match="carries the mark of Index/accounts-email"):
        await bench.apply("Index/mine", {**PLAIN, "name": "accounts_email"})


async def test_a_marked_index_that_nobody_asked_for_is_an_extra(bench: Bench):
    await accounts(bench)
    await bench.apply("Index/accounts-email", PLAIN)
    await bench.run("create index by_hand on accounts (plan)")
    at = bench.want("Index/other", {**PLAIN, "name": "other"})
    found = await bench.providers["Index"].observe([bench.asked(at)])
    assert {str(address): type(answer) for address, answer in found.items()} == {
        "Index/other": Absent,
        "Index/accounts-email": Seen,
    }


async def test_a_long_name_is_told_apart_from_another(bench: Bench):
    await accounts(bench)
    long = "i" * 60
    await bench.apply(f"Index/{long}a", PLAIN)
    await bench.apply(f"Index/{long}b", {**PLAIN, "columns": ["plan"]})
    await bench.apply(f"Index/{long}a", {**PLAIN, "columns": ["plan", "email"]})
    assert (await bench.change(f"Index/{long}b")).action is Action.KEEP


@pytest.mark.parametrize("spec", [PLAIN, WHOLE, {**PLAIN, "method": "hash"}])
async def test_what_is_described_is_adopted_as_it_is(bench: Bench, spec: dict[str, object]):
    await accounts(bench)
    await bench.apply("Index/accounts-email", spec)
    await bench.run("comment on index accounts_email is null")
    described = await IndexProvider(bench.targets).describe("main", bench.name, "accounts_email")
    bench.records.clear()
    change = await bench.change("Index/accounts-email", json.loads(json.dumps(described)))
    assert (change.action, [f.path for f in change.fields]) == (Action.ADOPT, [("mark",)])


def test_a_key_has_one_source():
    with pytest.raises(ValidationError, match="either a `column` or an `expression`"):
        IndexSpec.model_validate({"table": "t", "columns": [{"order": "desc"}]})
    with pytest.raises(ValidationError, match="either a `column` or an `expression`"):
        IndexSpec.model_validate({"table": "t", "columns": [{"column": "a", "expression": "b"}]})
