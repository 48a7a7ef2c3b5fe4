"""What needs no server: quoting, marks, types, units."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamma_orch.kinds.database import grants, marks, settings, sql
from gamma_orch.kinds.database.catalog import SettingRow
from gamma_orch.kinds.database.column_types import canonical, widens
from gamma_orch.kinds.database.marks import Mark
from gamma_orch.kinds.database.probe import probing
from tests.kinds.database.bench import Bench

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
WORDS = st.text(st.characters(categories=["L", "N"], include_characters="/-_."), min_size=1, max_size=20)


# Quoting


async def test_whatever_is_quoted_comes_back_as_it_was(bench: Bench):
    samples = ["", "a'b", 'a"b', "a\\b", "\\'; drop", "E'x'", "$$", "ä\n\t", "--", "/*", "a'\\''b"]
    async with bench.sql("postgres") as connection:
        for setting in ("on", "off"):
            try:
                await connection.execute(f"set standard_conforming_strings = {setting}")
            except Exception:  # noqa: BLE001, S112 - newer servers know only `on`
                continue
            for text in samples:
                assert await connection.fetchval(f"select {sql.literal(text)}") == text
                if text:
                    row = await connection.fetchrow(f"select 1 as {sql.ident(text)}")
                    assert list(row.keys()) == [text]


def test_a_nul_is_refused():
    for quote in (sql.ident, sql.literal):
        with pytest.raises(ValueError, match="NUL"):
            quote("a\0b")


@given(
    st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80), st.sampled_from(["__new", "_fkey"])
)
def test_a_name_with_a_suffix_fits_and_is_told_apart(one: str, other: str, suffix: str):
    assert len(sql.fits(one, suffix).encode(errors="replace")) <= 63
    assert sql.fits(one, suffix).endswith(suffix)
    if one != other:
        assert sql.fits(one, suffix) != sql.fits(other, suffix)


# Marks


@given(TEXTS, WORDS, WORDS, st.sampled_from(["", "0123456789abcdef"]))
def test_a_mark_is_read_back_and_keeps_what_people_wrote(
    human: str, owner: str, environment: str, sense: str
):
    first = marks.split(human)[0]  # without lines that are marks themselves, and with plain line ends
    mark = Mark(owner, environment, sense)
    assert marks.split(marks.joined(first, mark)) == (first, mark)
    again = marks.joined(*marks.split(marks.joined(first, mark)))  # type: ignore[arg-type]
    assert again == marks.joined(first, mark)


@pytest.mark.parametrize(
    "line", ["gamma:", "gamma:{}", "gamma:[1]", 'gamma:{"o":1', "gamma: see wiki", "gamma:null"]
)
def test_what_only_looks_like_a_mark_is_what_people_wrote(line: str):
    assert marks.split(line) == (line, None)


# Types

TYPES = """
    int int2 int4 int8 integer smallint bigint BIGINT bool boolean text bytea uuid json jsonb
    date interval inet
    real float float4 float8 float(3) float(40)
    double··precision numeric numeric(10)
    decimal(·8·,·2·) dec(4)
    char char(3) bpchar character·varying(7) varchar varchar(9) nchar(2) bit bit(3) varbit(5) bit·varying
    timestamp timestamptz timestamp(3) timestamptz(3) timestamp·with·time·zone
    timestamp(2)·without·time·zone
    time timetz(1) time·with·time·zone int[] text[3] varchar(4)[] timestamptz[] numeric(3,1)[][] int·array
    tsvector point interval·day oid "char"
"""


async def test_types_are_spelt_as_postgresql_spells_them(bench: Bench):
    async with probing(bench.targets.postgres("main"), "postgres") as probe:
        for text in [one.replace("·", " ") for one in TYPES.split()]:
            printed = await probe.column(text, None)
            assert printed is not None, text
            assert canonical(text) == printed[0]
            assert canonical(printed[0]) == printed[0]


@given(st.text(max_size=30))
def test_the_spelling_of_a_type_is_settled_at_once(text: str):
    assert canonical(canonical(text)) == canonical(text)


def test_what_widens():
    assert widens("smallint", "bigint")
    assert not widens("bigint", "integer")
    assert widens("character varying(5)", "character varying")
    assert not widens("character varying", "character varying(5)")
    assert not widens("text", "character varying")
    assert not widens("numeric(8,2)", "numeric(9,3)")  # one digit less before the point
    assert not widens("timestamp without time zone", "timestamp with time zone")


async def test_an_expression_that_is_wrong_is_nothing_and_spoils_no_other(bench: Bench):
    async with probing(bench.targets.postgres("main"), "postgres") as probe:
        assert await probe.column("text", "now(") is None
        assert await probe.column("no_such_type", None) is None
        assert await probe.column("int", "1 + 1") == ("integer", "(1 + 1)")
    async with bench.sql("postgres") as connection:
        assert await connection.fetchval("select to_regclass('gamma_probe')") is None


# Settings


def row(vartype: str, unit: str | None = None, **more: Any) -> SettingRow:
    given = {"setting": None, "context": "user", "enumvals": None, "min_val": None, "max_val": None, **more}
    return SettingRow(
        vartype=vartype,
        unit=unit,
        source="default",
        pending_restart=False,
        shown=None,
        altered=False,
        **given,
    )


@pytest.mark.parametrize(
    ("value", "live", "unit", "same"),
    [
        ("16MB", "16384", "kB", True),
        ("16MB", "2048", "8kB", True),
        (2048, "2048", "8kB", True),
        ("1GB", "64", "16MB", True),
        ("1.5GB", "1572864", "kB", True),
        ("0x10", "16", None, True),
        ("5min", "300", "s", True),
        ("2h", "120", "min", True),
        ("500us", "0", "ms", True),  # PostgreSQL rounds too
        ("1d", "86400000", "ms", True),
        ("16MB", "16385", "kB", False),
        ("-1", "-1", "kB", True),
        ("5s", "5", "kB", False),
        (True, "1", None, False),
    ],
)
def test_numbers_are_compared_by_unit(value: object, live: str, unit: str | None, same: bool):
    assert settings.same(value, live, row("integer", unit), "x") is same


async def test_every_unit_is_read_as_the_server_reads_it(bench: Bench):
    """Whatever we call the same, PostgreSQL makes the same number of."""
    cases = {
        "work_mem": ["64kB", "70MB", "1GB", "100", "65.5MB", "0.5GB"],
        "temp_buffers": ["1MB", "800kB", "0.01GB", "333"],
        "lock_timeout": ["1", "1500us", "2500us", "3s", "2min", "1h", "1.5s"],
        "tcp_keepalives_idle": ["90", "2min", "1h"],
        "random_page_cost": ["1", "1.10", "2e0"],
    }
    async with bench.sql("postgres") as connection:
        rows = (await catalog_of(bench)).settings
        for name, values in cases.items():
            for value in values:
                await connection.execute(f"set {name} = '{value}'")
                live = await connection.fetchval("select setting from pg_settings where name = $1", name)
                assert settings.same(value, live, rows[name], name), (name, value, live)


async def catalog_of(bench: Bench) -> Any:
    from gamma_orch.kinds.database import catalog

    return await catalog.read(bench.targets.postgres("main"), None)


def test_other_types_of_settings():
    assert settings.same("yes", "on", row("bool"), "x")
    assert not settings.same("yes", "off", row("bool"), "x")
    assert settings.same("NOTICE", "notice", row("enum", enumvals=["notice"]), "x")
    assert settings.same("true", "on", row("enum", enumvals=["on", "off", "local"]), "x")
    assert settings.same("on", "pglz", row("enum", enumvals=["pglz", "lz4", "on", "off"]), "wal_compression")
    assert settings.same('a, "b c"', 'a,"b c"', row("string"), "shared_preload_libraries")
    assert not settings.same("a, b", "b, a", row("string"), "shared_preload_libraries")
    assert not settings.same("a, b", "a,b", row("string"), "cluster_name")
    assert settings.items('a, "b ""c",, d') == ["a", 'b "c', "d"]


# Grants


def test_the_names_of_objects_are_taken_apart_as_they_were_put_together():
    for kind, schema, name in (
        ("table", "app", "a b.c"),
        ("sequence", "s", "*"),
        ("schema", "my app", "my app"),
    ):
        assert grants.target(grants.key(kind, schema, name), "shop") == grants.Target(kind, schema, name)
    assert grants.target(grants.key("database", "", ""), "shop") == grants.Target("database", "", "shop")
