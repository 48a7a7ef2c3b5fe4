"""What a spec of a Role says, and the fields that come of it. Pure; `role` has the effects."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from gamma_orch.core.address import Address
from gamma_orch.core.canonical import Json
from gamma_orch.core.kind import Fields, Of
from gamma_orch.core.leaves import LEAVES
from gamma_orch.kinds.database import grants
from gamma_orch.kinds.database.passing import Place, plain
from gamma_orch.spec.model import Names
from gamma_orch.spec.written_out import WrittenOut

Attribute = Literal["superuser", "createdb", "createrole", "replication", "bypassrls"]
PRIVILEGES = {
    "database": {"connect", "create", "temporary"},
    "schema": {"usage", "create"},
    "table": {"select", "insert", "update", "delete", "truncate", "references", "trigger", "maintain"},
    "sequence": {"usage", "select", "update"},
    "function": {"execute"},
    "type": {"usage"},
}


class Grant(WrittenOut):
    on: Literal["database", "schema", "table", "sequence"]
    """What kind of object."""
    database: Annotated[str, Names("Database")] | None = None
    """The database it is in. Needed except where `tables` says it."""
    schema_: Annotated[str, Names("Schema")] | None = Field(default=None, alias="schema")
    """The schema it is in. Default: public."""
    tables: list[Annotated[str, Names("Table")]] = Field(default_factory=list)
    """Tables that are resources."""
    names: list[str] = Field(default_factory=list)
    """Tables or sequences by their names in PostgreSQL; * is all that are there."""
    privileges: list[str] = Field(min_length=1)
    """select, insert, update, delete, usage, connect, ..."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        _check_privileges(self.on, self.privileges)
        if self.tables and self.on != "table":
            raise ValueError(f"`tables` goes with `on: table`, not with `on: {self.on}`")
        if self.names and self.on in ("database", "schema"):
            raise ValueError(f"`names` does not go with `on: {self.on}`, which is named by `{self.on}`")
        if not self.tables and not self.database:
            raise ValueError(
                "say in which `database`" + (", or which `tables`" if self.on == "table" else "")
            )
        if self.on in ("table", "sequence") and not self.tables and not self.names:
            raise ValueError(f"say which {self.on}s in `names` (or `['*']` for all that are there)")
        return self


class DefaultPrivilege(WrittenOut):
    on: Literal["table", "sequence", "function", "type"]
    """What kind of object."""
    database: Annotated[str, Names("Database")]
    """The database."""
    schema_: Annotated[str, Names("Schema")] | None = Field(default=None, alias="schema")
    """The schema in which objects will be made. Default: public."""
    by: Annotated[str, Names("Role")] | None = None
    """The role that will make them. Default: the one with which Gamma connects."""
    privileges: list[str] = Field(min_length=1)
    """What this role gets on each of them."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        _check_privileges(self.on, self.privileges)
        return self


def _check_privileges(kind: str, given: Sequence[str]) -> None:
    known = PRIVILEGES[kind]
    unknown = [one for one in given if one.lower() not in known]
    if unknown:
        raise ValueError(
            f"no privilege on a {kind}: {', '.join(unknown)}; there are {', '.join(sorted(known))}"
        )


class RoleSpec(WrittenOut):
    REFERS: ClassVar[frozenset[str]] = frozenset({"password"})

    server: str = "main"
    """The target of the environment on which the role is."""
    name: str | None = None
    """The name in PostgreSQL. Default: the resource's name, with - and . as _."""
    login: bool = True
    """Whether it can connect, or only be a group for others."""
    password: Any = None
    """Its password, as ${secret.name}. It is never read back, only replaced when the secret changes."""
    connection_limit: int | None = Field(default=None, alias="connectionLimit", ge=0)
    """How many connections it may have at once. Default: as many as the server."""
    attributes: list[Attribute] = Field(default_factory=list)
    """Rights over the whole server. Any that is not named is taken away."""
    member_of: list[Annotated[str, Names("Role")]] = Field(default_factory=list, alias="memberOf")
    """Roles whose privileges it has too."""
    builtin_roles: list[str] = Field(default_factory=list, alias="builtinRoles")
    """Roles of PostgreSQL's own: pg_monitor, pg_read_all_data."""
    grants: list[Grant] = Field(default_factory=list)
    """What it may do. On the objects named here it has these privileges and no others."""
    default_privileges: list[DefaultPrivilege] = Field(default_factory=list, alias="defaultPrivileges")
    """What it will be able to do with objects that are made later."""

    @field_validator("password")
    @classmethod
    def _secret(cls, value: Any) -> Any:
        if value is not None and not isinstance(value, LEAVES):
            raise ValueError("a password is not written into a spec; write ${secret.NAME}")
        return value

    @field_validator("builtin_roles")
    @classmethod
    def _builtin(cls, value: list[str]) -> list[str]:
        other = [one for one in value if not one.startswith("pg_")]
        if other:
            raise ValueError(
                f"{', '.join(other)} is none of PostgreSQL's own roles; use `memberOf` for resources"
            )
        return value


def normalise(address: Address, spec: Json, of: Of) -> Fields:
    members = [of(Address("Role", name))["name"] for name in spec.get("memberOf") or ()]
    fields: dict[str, Json] = {
        "mark": str(address),
        "server": spec.get("server") or "main",
        "name": spec.get("name") or plain(address.name),
        "login": spec.get("login", True),
        "connectionLimit": spec["connectionLimit"] if spec.get("connectionLimit") is not None else -1,
        "attributes": sorted(spec.get("attributes") or ()),
        "memberOf": sorted({*members, *(spec.get("builtinRoles") or ())}),
        "grants": _grants(spec.get("grants") or (), of),
        "defaultPrivileges": _defaults(spec.get("defaultPrivileges") or (), of),
    }
    if spec.get("password") is not None:
        fields["password"] = spec["password"]
    return fields


def _grants(given: Sequence[Json], of: Of) -> Fields:
    found: dict[str, dict[str, set[str]]] = {}
    for one in given:
        privileges = {str(word).lower() for word in one["privileges"]}
        for database, text in _objects(one, of):
            found.setdefault(database, {}).setdefault(text, set()).update(privileges)
    return {database: {text: sorted(p) for text, p in objects.items()} for database, objects in found.items()}


def _objects(one: Json, of: Of) -> list[tuple[str, str]]:
    objects = []
    for name in one.get("tables") or ():
        table = of(Address("Table", name))
        objects.append((table["database"], grants.key("table", table["schema"], table["name"])))
    if one.get("database"):
        database = of(Address("Database", one["database"]))["name"]
        schema = of(Address("Schema", one["schema"]))["name"] if one.get("schema") else "public"
        names = one.get("names") or ([""] if one["on"] in ("database", "schema") else [])
        objects += [(database, grants.key(one["on"], schema, name)) for name in names]
    return objects


def _defaults(given: Sequence[Json], of: Of) -> Fields:
    found: dict[str, dict[str, set[str]]] = {}
    for one in given:
        database = of(Address("Database", one["database"]))["name"]
        schema = of(Address("Schema", one["schema"]))["name"] if one.get("schema") else "public"
        creator = of(Address("Role", one["by"]))["name"] if one.get("by") else None
        text = grants.default_key(one["on"], schema, creator)
        words = {str(word).lower() for word in one["privileges"]}
        found.setdefault(database, {}).setdefault(text, set()).update(words)
    return {database: {text: sorted(p) for text, p in objects.items()} for database, objects in found.items()}


def foresee(fields: Fields) -> Mapping[str, Json]:
    return {"name": fields["name"], "server": fields["server"]}


def places(fields: Fields) -> list[Place]:
    """Its databases. A role with nothing in any is read through the maintenance database."""
    named: list[Place] = [(fields["server"], name) for name in grants.databases(fields)]
    return named or [(fields["server"], None)]
