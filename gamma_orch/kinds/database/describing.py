"""Existing objects as specs, for `gamma import`: planning what is written here says adopt, and no more.

The names of other resources in it are those of their marks; an object without one is named after
itself, which is the resource's name that it would have. Pure; each provider's `describe` calls it.
"""

from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields
from gamma_orch.kinds.database import grants, index_fields, marks, table_fields
from gamma_orch.kinds.database.catalog import Catalog, IndexRow, RoleRow, TableRow


def database(here: Catalog, environment: str) -> str:
    """The name of the Database resource that a database stands for, for a described spec."""
    mark = marks.shown(here.databases.get(here.database), environment) or ""
    return mark.removeprefix("Database/") if mark.startswith("Database/") else here.database


def table(row: TableRow, here: Catalog, environment: str) -> Json:
    """A table as a spec."""
    every: Fields = {
        "columns": dict.fromkeys(row.columns),
        "primaryKey": [],
        "unique": {table_fields.together(one.columns): True for one in row.constraints if one.type == "u"},
        "foreignKeys": {table_fields.together(one.columns): {} for one in row.constraints if one.type == "f"},
        "checks": {one.name: "" for one in row.constraints if one.type == "c"},
    }
    fields = table_fields.plain_read(row, [every])
    spec: dict[str, Json] = {"database": database(here, environment), "name": row.name}
    if row.schema != "public":
        spec["schema"] = resource_of(here.schemas[row.schema].comment, "Schema", row.schema, environment)
    spec["columns"] = {
        name: {key: value for key, value in column.items() if value not in (None, False)}
        for name, column in fields["columns"].items()
    }
    if fields.get("primaryKey"):
        spec["primaryKey"] = fields["primaryKey"]
    if fields["unique"]:
        spec["unique"] = [key.split(", ") for key in fields["unique"]]
    if fields["foreignKeys"]:
        spec["foreignKeys"] = [
            {
                "columns": key.split(", "),
                "references": resource_of(
                    other.comment if (other := here.tables.get((one["schema"], one["table"]))) else None,
                    "Table",
                    one["table"],
                    environment,
                ),
                "to": one["columns"],
                "onDelete": one["onDelete"],
            }
            for key, one in fields["foreignKeys"].items()
        ]
    if fields["checks"]:
        spec["checks"] = fields["checks"]
    return spec


def resource_of(comment: str | None, kind: str, name: str, environment: str) -> str:
    """The resource that an object stands for: that of its mark, else one of the same name."""
    mark = marks.shown(comment, environment) or ""
    return mark.removeprefix(f"{kind}/") if mark.startswith(f"{kind}/") else name


def index(row: IndexRow, here: Catalog, environment: str) -> Json:
    table = here.tables.get((row.schema, row.table))
    fields = index_fields.plain_read(row, [{"with": row.options}])
    usual = {
        "method": "btree",
        "unique": False,
        "nullsNotDistinct": False,
        "include": [],
        "where": None,
        "with": {},
    }
    return {
        "table": resource_of(table.comment if table else None, "Table", row.table, environment),
        "name": row.name,
        "columns": fields["columns"],
        **{name: fields[name] for name, value in usual.items() if fields[name] != value},
    }


def role(row: RoleRow, here: Catalog, server: str, environment: str) -> Json:
    resource = database(here, environment)
    groups = [group for group in row.member_of if not group.startswith("pg_")]
    spec: dict[str, Json] = {"server": server, "name": row.name, "login": row.login}
    if row.limit >= 0:
        spec["connectionLimit"] = row.limit
    if row.attributes:
        spec["attributes"] = list(row.attributes)
    if groups:
        spec["memberOf"] = groups
    if len(groups) < len(row.member_of):
        spec["builtinRoles"] = [group for group in row.member_of if group.startswith("pg_")]
    given = grants.described(here, row.name)
    if given:
        spec["grants"] = [{**one, "database": resource} for one in given]
    return spec
