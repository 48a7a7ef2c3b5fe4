"""`gamma import` on a real server: the YAML of what exists, of which the next plan says `adopt`."""

from pathlib import Path

import psycopg2
import pytest

from tests.cli.gamma import Warm, write

pytestmark = pytest.mark.postgres

ENVIRONMENT = """\
apiVersion: gamma/v1
kind: Environment
metadata: {name: dev}
spec:
  secrets: {server: {env: SERVER}}
  targets:
    main: {type: postgres, url: "${secret.server}"}
"""
BY_HAND = """
CREATE SCHEMA shop;
CREATE TABLE shop.orders (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  buyer text NOT NULL,
  state text DEFAULT 'open' CHECK (state IN ('open', 'paid')),
  made timestamptz DEFAULT now()
);
CREATE INDEX orders_buyer ON shop.orders (lower(buyer)) WHERE state = 'open';
CREATE ROLE clerk LOGIN CONNECTION LIMIT 3;
GRANT USAGE ON SCHEMA shop TO clerk;
GRANT SELECT, INSERT ON shop.orders TO clerk;
"""
OBJECTS = {
    "Database/byhand": "byhand",
    "Schema/shop": "byhand/shop",
    "Table/orders": "byhand/shop.orders",
    "Index/orders-buyer": "main/byhand/shop.orders_buyer",
    "Role/clerk": "byhand/clerk",
}


@pytest.fixture
def existing(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without resources, on a server with some that somebody made by hand."""
    monkeypatch.setenv("SERVER", f"{server}postgres")
    run(f"{server}postgres", "DROP DATABASE IF EXISTS byhand", "DROP ROLE IF EXISTS clerk")
    run(f"{server}postgres", "CREATE DATABASE byhand")
    run(f"{server}byhand", BY_HAND)
    return write(tmp_path, {"environments/dev/environment.yaml": ENVIRONMENT})


def run(url: str, *statements: str) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


def test_what_exists_is_adopted(gamma: Warm, existing: Path) -> None:
    for resource, what in OBJECTS.items():
        done = gamma(existing, "import", resource, what, "--to", "specs/found.yaml", GAMMA_PLUGINS="")
        assert done.code == 0, done.err
        assert "The next plan says adopt." in done.err
    planned = gamma(existing, "plan", "-o", "json", GAMMA_PLUGINS="")
    assert planned.code == 2, planned.err + (existing / "specs/found.yaml").read_text()
    changes = {change["address"]: change for change in planned.json["changes"]}
    assert {name: change["action"] for name, change in changes.items()} == dict.fromkeys(OBJECTS, "adopt")
    for name, change in changes.items():
        differ = {field["path"] for field in change["fields"] if field["verdict"] != "keep"}
        assert differ <= {"mark"}, f"{name} would be changed: {differ}"
    applied = gamma(existing, "apply", "--yes", GAMMA_PLUGINS="")
    assert applied.code == 0, applied.err
    assert gamma(existing, "plan", GAMMA_PLUGINS="").code == 0


def test_it_prints_where_no_file_is_named(gamma: Warm, existing: Path) -> None:
    asked = ("import", "Table/orders", "byhand/shop.orders")
    done = gamma(existing, *asked, GAMMA_PLUGINS="")
    assert done.code == 0
    assert done.out.startswith("---\napiVersion: gamma/v1\nkind: Table\nmetadata:\n  name: orders\nspec:\n")
    assert gamma(existing, *asked, "-o", "json", GAMMA_PLUGINS="").json["spec"]["columns"]["buyer"] == {
        "type": "text"
    }
    assert not (existing / "specs").exists()


@pytest.mark.parametrize(
    ("resource", "what", "said"),
    [
        ("Table/x", "byhand/nothing", "There is no Table"),
        ("Table/x", "nowhere/nothing", "nowhere"),
        ("Database/x", "nowhere", "There is no Database 'nowhere'"),
        ("Table/x", "other/byhand/x", "has no PostgreSQL target 'other'"),
        ("Table/x", "a/b/c/d", "names no object"),
        ("Tabel/x", "byhand/x", "There is no kind Tabel"),
        ("Table", "byhand/x", "is not of the form Kind/name"),
    ],
)
def test_what_cannot_be_imported(gamma: Warm, existing: Path, resource: str, what: str, said: str) -> None:
    done = gamma(existing, "import", resource, what, GAMMA_PLUGINS="")
    assert done.code == 1
    assert said in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
