"""Names that each lead somewhere, and not to one place."""

from collections.abc import Mapping
from typing import Any

from gamma_orch.core.address import Address
from gamma_orch.core.diagnostic import written
from gamma_orch.core.resource import Resource
from gamma_orch.spec.references import plain
from tests.kinds.database.bench import ACCOUNTS, KINDS

KEY = {"columns": ["id"], "references": "accounts"}


def world(**specs: Mapping[str, Any]) -> dict[Address, Resource]:
    """Resources by `Kind__name`, beside two databases on one server and one on another."""
    every = {
        "Database__app": {},
        "Database__second": {},
        "Database__far": {"server": "other"},
        "Schema__app": {"database": "app"},
        "Table__accounts": {**ACCOUNTS, "database": "app"},
        **specs,
    }
    found = {}
    for name, spec in every.items():
        at = Address(*name.split("__"))
        found[at] = Resource(at, plain(KINDS[at.kind].spec.model_validate(spec, by_alias=True)))
    return found


def said(kind: str, **specs: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    everything = world(**specs)
    mine = [resource for at, resource in everything.items() if at.kind == kind]
    return [(one.code, written(one.path), one.message) for one in KINDS[kind].check(mine, everything)]


def test_a_table_its_schema_and_its_foreign_keys_are_in_one_database():
    near = {**ACCOUNTS, "database": "app", "schema": "app", "foreignKeys": [KEY]}
    assert said("Table", Table__keys=near) == []
    assert said("Table", Table__keys={**near, "database": "second"}) == [
        ("GAM603", "spec.schema", "Schema/app is in Database/app, and Table/keys is about Database/second"),
        (
            "GAM603",
            "spec.foreignKeys[0].references",
            "Table/accounts is in Database/app, and Table/keys is about Database/second",
        ),
    ]


def test_a_role_and_all_it_may_do_are_on_one_server():
    near = {
        "grants": [
            {"on": "table", "tables": ["accounts"], "privileges": ["select"]},
            {"on": "schema", "database": "app", "schema": "app", "privileges": ["usage"]},
        ],
        "defaultPrivileges": [{"on": "table", "database": "app", "privileges": ["select"]}],
    }
    assert said("Role", Role__api=near) == []
    assert [path for _, path, _ in said("Role", Role__api={**near, "server": "other"})] == [
        "spec.grants[0].tables[0]",
        "spec.grants[1].database",
        "spec.defaultPrivileges[0].database",
    ]
    odd = {"grants": [{"on": "schema", "database": "second", "schema": "app", "privileges": ["usage"]}]}
    [problem] = said("Role", Role__api=odd)
    assert problem[1:] == (
        "spec.grants[0].schema",
        "Schema/app is in Database/app, and Role/api is about Database/second",
    )


def test_a_role_and_its_groups_are_on_one_server():
    [problem] = said("Role", Role__group={"server": "other"}, Role__api={"memberOf": ["group"]})
    assert problem[1:] == (
        "spec.memberOf[0]",
        "Role/group is in server 'other', and Role/api is about server 'main'",
    )


def test_an_index_is_of_columns_that_its_table_declares():
    """A warning: a table may have columns that no spec names."""
    columns = sorted(ACCOUNTS["columns"])
    good = {"table": "accounts", "columns": [columns[0], {"expression": "lower(x)"}], "include": [columns[1]]}
    assert said("Index", Index__good=good) == []
    odd = {
        "table": "accounts",
        "columns": ["nothing", {"column": "emial", "order": "desc"}],
        "include": ["x"],
    }
    everything = world(Index__odd=odd)
    found = list(KINDS["Index"].check([everything[Address("Index", "odd")]], everything))
    assert [(written(one.path), one.severity.value) for one in found] == [
        ("spec.columns[0]", "warning"),
        ("spec.columns[1].column", "warning"),
        ("spec.include[0]", "warning"),
    ]
    assert found[1].hint == "did you mean 'email'?"
    assert "Table/accounts declares no column 'emial'" in found[1].message
